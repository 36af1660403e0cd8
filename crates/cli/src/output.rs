//! The one place that writes to standard output and standard error.
//!
//! Results go to standard output, progress and complaints to standard error. Both are plain text
//! unless they are a terminal.

mod table;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use self::table::{Align, Table};

/// Where a command's words go.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: (Audience, Paint),
    stderr: (Audience, Paint),
    broken: AtomicBool,
}

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it is.
    Plain,
    /// With ANSI escapes.
    Colour,
}

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// What the command was run for.
    Result,
    /// Everything else.
    Progress,
}

/// Who reads a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Somebody at a terminal.
    Person,
    /// A file, a pipe, a log.
    Machine,
}

/// Whether the user asked for plain text everywhere (`NO_COLOR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    /// Where there is a terminal.
    OnTerminals,
    /// Nowhere.
    Never,
}

impl Output {
    /// Looks at what standard output and standard error are.
    pub(crate) fn new(colours: Colours) -> Self {
        let look = |terminal: bool| match (terminal, colours) {
            (true, Colours::OnTerminals) => (Audience::Person, Paint::Colour),
            (true, Colours::Never) => (Audience::Person, Paint::Plain),
            (false, _) => (Audience::Machine, Paint::Plain),
        };
        Self {
            stdout: look(io::stdout().is_terminal()),
            stderr: look(io::stderr().is_terminal()),
            broken: AtomicBool::new(false),
        }
    }

    /// How text on that stream may look.
    pub(crate) fn paint(&self, stream: Stream) -> Paint {
        self.look(stream).1
    }

    /// Who reads that stream.
    pub(crate) fn audience(&self, stream: Stream) -> Audience {
        self.look(stream).0
    }

    fn look(&self, stream: Stream) -> (Audience, Paint) {
        match stream {
            Stream::Result => self.stdout,
            Stream::Progress => self.stderr,
        }
    }

    /// Writes one line, or several, and an end of line.
    pub(crate) fn line(&self, stream: Stream, text: impl Display) {
        let written = match stream {
            Stream::Result => write_line(&mut io::stdout().lock(), text),
            Stream::Progress => write_line(&mut io::stderr().lock(), text),
        };
        // A reader that has gone (`farebox … | head`) is no failure of ours; a full disk is.
        if written.is_err_and(|it| it.kind() != io::ErrorKind::BrokenPipe) {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// Writes to standard output.
    pub(crate) fn result(&self, text: impl Display) {
        self.line(Stream::Result, text);
    }

    /// Writes to standard error.
    pub(crate) fn progress(&self, text: impl Display) {
        self.line(Stream::Progress, text);
    }

    /// Whether something that was to be told could not be written.
    pub(crate) fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Standard output and standard error themselves, for what is passed on byte by byte.
pub(crate) fn streams() -> (io::Stdout, io::Stderr) {
    (io::stdout(), io::stderr())
}

fn write_line(to: &mut impl Write, text: impl Display) -> io::Result<()> {
    writeln!(to, "{text}")?;
    to.flush()
}

impl Paint {
    /// Stands out.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.wrap("1", text)
    }

    /// Steps back.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.wrap("2", text)
    }

    /// Good.
    pub(crate) fn green(self, text: impl Display) -> String {
        self.wrap("32", text)
    }

    /// Bad.
    pub(crate) fn red(self, text: impl Display) -> String {
        self.wrap("1;31", text)
    }

    fn wrap(self, code: &str, text: impl Display) -> String {
        match self {
            Self::Plain => text.to_string(),
            Self::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}
