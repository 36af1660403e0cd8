//! One mistake in a configuration file, where it is, and how all of them are shown.
//!
//! A reader collects [`Problem`]s and goes on, so that one look at the report is enough to repair
//! the file.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Level, Renderer, Snippet};

/// The text that problems point into.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// How the file is called in a report.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, and is probably not what is wanted.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    severity: Severity,
    title: String,
    span: Range<usize>,
    label: String,
    related: Vec<(Range<usize>, String)>,
    help: Vec<String>,
    shown: Shown,
}

/// Whether a report may show what stands at the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// It may.
    Plainly,
    /// It is a secret: reports end up in logs.
    Masked,
}

impl Problem {
    /// A mistake at `span`: what is wrong, in a few words.
    pub(crate) fn error(span: Range<usize>, title: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, title.into())
    }

    /// Something doubtful at `span`.
    pub(crate) fn warning(span: Range<usize>, title: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, title.into())
    }

    fn new(severity: Severity, span: Range<usize>, title: String) -> Self {
        let (label, related, help) = (String::new(), Vec::new(), Vec::new());
        Self { severity, title, span, label, related, help, shown: Shown::Plainly }
    }

    /// Hides what stands there from the report.
    pub(crate) fn masked(mut self) -> Self {
        self.shown = Shown::Masked;
        self
    }

    /// What was expected there, written beside the caret.
    pub(crate) fn label(mut self, text: impl Into<String>) -> Self {
        self.label = text.into();
        self
    }

    /// Another place that has to do with it.
    pub(crate) fn related(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.related.push((span, text.into()));
        self
    }

    /// What to do.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Adds "did you mean" if one of `known` resembles `written`, else the whole list.
    pub(crate) fn suggest<'k>(
        self,
        written: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        match closest(written, &known) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self.known(known),
        }
    }

    /// Adds the list of what could stand there.
    pub(crate) fn known<'k>(self, known: impl IntoIterator<Item = &'k str>) -> Self {
        let list: Vec<String> = known.into_iter().map(|it| format!("`{it}`")).collect();
        if list.is_empty() { self } else { self.help(format!("known are {}", list.join(", "))) }
    }

    fn group<'s>(&'s self, source: &'s Source) -> annotate_snippets::Group<'s> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let annotations = std::iter::once(self.annotation(AnnotationKind::Primary, source)).chain(
            self.related.iter().map(|(span, text)| {
                let span = within(span, &source.text);
                AnnotationKind::Context.span(span).label(text.as_str())
            }),
        );
        let snippet = Snippet::source(&source.text).path(&source.path).annotations(annotations);
        level
            .primary_title(self.title.as_str())
            .element(snippet)
            .elements(self.help.iter().map(|it| Level::HELP.message(it.as_str())))
    }

    fn annotation<'s>(&'s self, kind: AnnotationKind, source: &Source) -> Annotation<'s> {
        let annotation = kind.span(within(&self.span, &source.text));
        if self.label.is_empty() { annotation } else { annotation.label(self.label.as_str()) }
    }
}

/// Keeps a span inside the text and on character boundaries, so that showing it cannot fail.
fn within(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.min(text.len()));
    start..end.max(start)
}

/// The known name that `written` most likely stands for.
fn closest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = written.to_lowercase();
    let (name, distance) = known
        .iter()
        .map(|it| (*it, strsim::damerau_levenshtein(&lower, &it.to_lowercase())))
        .min_by_key(|(_, distance)| *distance)?;
    // A third of the letters may be wrong; more than that is another word.
    let limit = name.chars().count().max(3) / 3;
    (distance <= limit).then_some(name)
}

/// What a reader found wrong so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// One more.
    pub(crate) fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// Some more.
    pub(crate) fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.list.extend(problems);
    }

    /// The value, or `None` and one more problem.
    pub(crate) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.push(problem)).ok()
    }

    /// Whether the file can be used.
    pub(crate) fn fatal(&self) -> bool {
        self.list.iter().any(|it| it.severity == Severity::Error)
    }

    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them in the order of the file, and how many there are.
    pub(crate) fn render(&self, source: &Source, renderer: &Renderer) -> String {
        let mut sorted: Vec<&Problem> = self.list.iter().collect();
        sorted.sort_by_key(|it| (it.span.start, it.severity, it.span.end));
        let source = &self.masked(source);
        let mut text = String::new();
        for problem in &sorted {
            text.push_str(&renderer.render(&[problem.group(source)]));
            text.push_str("\n\n");
        }
        text.push_str(&self.summary(&source.path));
        text
    }

    /// The text with stars for secrets, each byte for byte, so that every place stays where it is.
    fn masked(&self, source: &Source) -> Source {
        let mut text = source.text.clone();
        for problem in self.list.iter().filter(|it| it.shown == Shown::Masked) {
            let span = within(&problem.span, &text);
            let stars = text.get(span.clone()).unwrap_or_default();
            let stars =
                stars.bytes().map(|it| if it == b'\n' { '\n' } else { '*' }).collect::<String>();
            text.replace_range(span, &stars);
        }
        Source { path: source.path.clone(), text }
    }

    fn summary(&self, path: &str) -> String {
        let errors = self.list.iter().filter(|it| it.severity == Severity::Error).count();
        let warnings = self.list.len().saturating_sub(errors);
        let mut text = format!("{path}: {}", counted(errors, "error"));
        if 0 < warnings {
            // Writing to a string cannot fail.
            write!(text, ", {}", counted(warnings, "warning")).unwrap_or_default();
        }
        text
    }
}

fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expected: Option<&str>) {
        let known = ["listen", "public_url", "exact", "usdc", "limits"];
        assert_eq!(closest(written, &known), expected, "{written}");
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        check("lisen", Some("listen"));
        check("LISTEN", Some("listen"));
        check("publik_url", Some("public_url"));
        check("exakt", Some("exact"));
        check("usd", Some("usdc"));
        check("port", None);
        check("", None);
    }

    #[test]
    fn a_span_outside_the_text_is_shown_all_the_same() {
        let source = Source { path: "a.toml".to_owned(), text: "é = 1".to_owned() };
        let mut problems = Problems::default();
        problems.push(Problem::error(1..1, "inside a letter"));
        problems.push(Problem::error(90..99, "past the end"));
        let text = problems.render(&source, &Renderer::plain());
        assert!(text.contains("inside a letter") && text.contains("past the end"), "{text}");
        assert!(text.ends_with("a.toml: 2 errors"), "{text}");
    }
}
