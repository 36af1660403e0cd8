//! `match = "POST /v1/chat/completions"`: a method, and a path or everything below one.

use std::ops::Range;

use farebox_gateway::{PathPattern, own_paths};
use http::Method;

use super::super::problem::{Problem, Problems};
use super::super::section::Value;

const EXPECTED: &str = "a method and a path such as \"POST /v1/chat/completions\" or \"GET /a/*\"";
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// What a route serves.
#[derive(Clone, Debug)]
pub(super) struct Match {
    /// As it is written, with one space.
    pub(super) name: String,
    /// The one method.
    pub(super) method: Method,
    /// The paths.
    pub(super) path: PathPattern,
    pub(super) span: Range<usize>,
}

/// Reads it. The path must be in the normal form that requests are brought into, or it would never
/// match one.
pub(super) fn read(value: &Value<'_>) -> Result<Match, Problem> {
    let text = value.text(EXPECTED)?;
    let (method, path) = text.split_once(' ').ok_or_else(|| value.wrong(EXPECTED))?;
    let path = path.trim_start();
    let Some(known) = METHODS.iter().find(|it| **it == method) else {
        return Err(Problem::error(value.span(), format!("unknown method `{method}`"))
            .label(format!("expected {EXPECTED}"))
            .suggest(method, METHODS));
    };
    let method = Method::from_bytes(known.as_bytes()).map_err(|_| value.wrong(EXPECTED))?;
    let pattern = match path.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('/') => PathPattern::Prefix(prefix.to_owned()),
        Some(_) => return Err(value.wrong("`*` only after a slash, as in \"GET /premium/*\"")),
        None => PathPattern::Exact(path.to_owned()),
    };
    check_path(path.strip_suffix('*').unwrap_or(path)).map_err(|expected| value.wrong(expected))?;
    if own_paths().iter().any(|it| it.covers(&pattern)) {
        return Err(value.wrong("another path: this one is the gateway's own"));
    }
    Ok(Match { name: format!("{method} {path}"), method, path: pattern, span: value.span() })
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@/".contains(&byte);
    if !path.starts_with('/') {
        return Err("a path that begins with `/`");
    }
    if path.contains('*') {
        return Err("`*` only at the end of the path");
    }
    if path.contains('?') || path.contains('#') {
        return Err("a path without `?…` and `#…`: every query of the path is served");
    }
    if !path.bytes().all(plain) {
        return Err("a path of unreserved ASCII characters, without percent-encoding");
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let empty_inside = segment.is_empty() && segments.peek().is_some();
        if empty_inside || segment == "." || segment == ".." {
            return Err("a path without empty and dot segments");
        }
    }
    Ok(())
}

/// Reports a route within the paths of a service beside the gateway, which has them to itself.
pub(super) fn check_free(this: &Match, taken: &[PathPattern], problems: &mut Problems) {
    if taken.iter().any(|it| it.covers(&this.path)) {
        problems.push(
            Problem::error(
                this.span.clone(),
                format!("the route `{}` is never reached", this.name),
            )
            .label("the facilitator answers here")
            .help("remove `serve = true` from [facilitator], or sell at another path"),
        );
    }
}

/// Reports a route that no request can reach, because an earlier one takes them all.
pub(super) fn check_reachable(this: &Match, earlier: &[Match], problems: &mut Problems) {
    let taken = |it: &&Match| it.method == this.method && it.path.covers(&this.path);
    let Some(first) = earlier.iter().find(taken) else { return };
    let problem = if first.path == this.path {
        Problem::error(this.span.clone(), format!("the route `{}` stands twice", this.name))
            .label("the same as …")
            .related(first.span.clone(), "… this one")
    } else {
        Problem::error(this.span.clone(), format!("no request reaches the route `{}`", this.name))
            .label("its requests are all taken …")
            .related(first.span.clone(), "… by this earlier route")
            .help("the first route that matches serves: move the narrower one up")
    };
    problems.push(problem);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_in_normal_form() {
        for good in ["/", "/v1/models", "/a/", "/a.b/~c", "/a:b@c"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "//", "/a//b", "/./a", "/a/..", "/a%20", "/é", "/a?b", "/a*b", "/a b"]
        {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
