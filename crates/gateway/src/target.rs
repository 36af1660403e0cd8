//! One normal form of the request target, used for matching, for sealing and for forwarding.
//!
//! A gateway that matches one spelling of a URL and forwards another can be walked around (attack
//! A14). So there is one spelling: whatever different servers are known to read differently is
//! refused instead of guessed at, and the rest (RFC 3986 §6.2.2) is put in its normal form once.

use http::uri::PathAndQuery;

/// The longest target that is read, in bytes.
pub(crate) const TARGET_BYTES_MAX: usize = 8 * 1024;

/// A normalised path with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    text: String,
    path_length: usize,
}

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTarget {
    /// More than [`TARGET_BYTES_MAX`].
    #[error("the request target is longer than 8 KiB")]
    TooLong,
    /// `*`, or a path that does not begin with a slash.
    #[error("the path must begin with `/`")]
    NotAbsolute,
    /// `//` is a slash to one server and an empty segment to the next.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`, plain or encoded.
    #[error("the path has a dot segment")]
    DotSegment,
    /// An encoded slash, backslash, semicolon or percent sign, or a plain backslash or semicolon.
    #[error("the path has a separator that servers read differently")]
    Separator,
    /// A control character, plain or encoded; in the query only NUL.
    #[error("the request target has a control character")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("the request target has an invalid percent-encoding")]
    Escape,
    /// Bytes that are not UTF-8, or not encoded although they are not ASCII.
    #[error("the request target is not percent-encoded UTF-8")]
    NotUtf8,
}

/// Which half is being read: the path has separators to protect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Path,
    Query,
}

impl Target {
    /// Normalises a path and query as they came.
    pub(crate) fn parse(raw: &str) -> Result<Self, BadTarget> {
        if TARGET_BYTES_MAX < raw.len() {
            return Err(BadTarget::TooLong);
        }
        if !raw.starts_with('/') {
            return Err(BadTarget::NotAbsolute);
        }
        let (raw_path, raw_query) = match raw.split_once('?') {
            Some((path, query)) => (path, query),
            None => (raw, ""),
        };
        let mut text = String::with_capacity(raw.len());
        normalise(raw_path, Part::Path, &mut text)?;
        check_segments(&text)?;
        let path_length = text.len();
        if !raw_query.is_empty() {
            text.push('?');
            normalise(raw_query, Part::Query, &mut text)?;
        }
        // Escaping may have lengthened it.
        if TARGET_BYTES_MAX < text.len() {
            Err(BadTarget::TooLong)
        } else {
            Ok(Self { text, path_length })
        }
    }

    /// Path and query.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The path alone: what routes are matched against and what may be logged.
    pub(crate) fn path(&self) -> &str {
        self.text.get(..self.path_length).unwrap_or(&self.text)
    }

    /// Behind a base path, for the upstream; `None` where the base is not a path.
    pub(crate) fn behind(&self, base: &str) -> Option<PathAndQuery> {
        let base = base.trim_end_matches('/');
        if base.is_empty() {
            return PathAndQuery::try_from(self.text.as_str()).ok();
        }
        PathAndQuery::try_from(format!("{base}{}", self.text)).ok()
    }
}

/// Appends the normal form of `raw` to `out`.
fn normalise(raw: &str, part: Part, out: &mut String) -> Result<(), BadTarget> {
    let bytes = raw.as_bytes();
    let mut escaped_bytes = Vec::new();
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (rest.next().copied(), rest.next().copied());
            let value = high.zip(low).and_then(|(high, low)| from_hex(high, low));
            let value = value.ok_or(BadTarget::Escape)?;
            if part == Part::Path && value == b'%' && looks_like_an_escape(rest.as_slice()) {
                return Err(BadTarget::Separator);
            }
            write_escaped(value, part, out)?;
            note_non_ascii(value, &mut escaped_bytes)?;
        } else {
            note_non_ascii(0, &mut escaped_bytes)?;
            write_plain(byte, part, out)?;
        }
    }
    note_non_ascii(0, &mut escaped_bytes)
}

/// Collects a run of escaped bytes beyond ASCII; at its end the run must be UTF-8.
fn note_non_ascii(byte: u8, run: &mut Vec<u8>) -> Result<(), BadTarget> {
    if !byte.is_ascii() {
        run.push(byte);
        return Ok(());
    }
    let good = run.is_empty() || std::str::from_utf8(run).is_ok();
    run.clear();
    if good { Ok(()) } else { Err(BadTarget::NotUtf8) }
}

fn write_escaped(value: u8, part: Part, out: &mut String) -> Result<(), BadTarget> {
    match value {
        0 => return Err(BadTarget::Control),
        _ if is_unreserved(value) => {
            out.push(char::from(value));
            return Ok(());
        }
        b'/' | b'\\' | b';' if part == Part::Path => return Err(BadTarget::Separator),
        _ if part == Part::Path && value.is_ascii_control() => return Err(BadTarget::Control),
        _ => {}
    }
    push_escape(value, out);
    Ok(())
}

fn write_plain(byte: u8, part: Part, out: &mut String) -> Result<(), BadTarget> {
    match byte {
        _ if !byte.is_ascii() => return Err(BadTarget::NotUtf8),
        _ if byte.is_ascii_control() => return Err(BadTarget::Control),
        b'\\' | b';' if part == Part::Path => return Err(BadTarget::Separator),
        b';' | b'?' | b'/' => out.push(char::from(byte)),
        _ if is_unreserved(byte) || b"!$&'()*+,=:@".contains(&byte) => out.push(char::from(byte)),
        _ => push_escape(byte, out),
    }
    Ok(())
}

fn check_segments(path: &str) -> Result<(), BadTarget> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err(BadTarget::DotSegment),
            "" if segments.peek().is_some() => return Err(BadTarget::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

/// RFC 3986 §2.3: characters that mean the same whether escaped or not.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// A percent sign that was itself escaped and is followed by two digits: a server that decodes
/// twice reads another path than one that decodes once.
fn looks_like_an_escape(rest: &[u8]) -> bool {
    matches!(rest, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

fn from_hex(high: u8, low: u8) -> Option<u8> {
    let mut value = [0_u8; 1];
    hex::decode_to_slice([high, low], &mut value).ok()?;
    let [value] = value;
    Some(value)
}

fn push_escape(byte: u8, out: &mut String) {
    out.push('%');
    for digit in hex::encode_upper([byte]).chars() {
        out.push(digit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(raw: &str, expected: &str) {
        let outcome = match Target::parse(raw) {
            Ok(target) => target.as_str().to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(outcome, expected, "{raw:?}");
    }

    #[test]
    fn a14_equal_urls_have_one_form() {
        check("/v1/chat/completions", "/v1/chat/completions");
        check("/v1/ch%61t/%63ompletions", "/v1/chat/completions");
        check("/a%2a%c3%a9", "/a%2A%C3%A9");
        check("/a{b}|\"", "/a%7Bb%7D%7C%22");
        check("/a?", "/a");
        check("/a?b=%2f&a=%7e&b=1", "/a?b=%2F&a=~&b=1");
        check("/a?x=1;y=%5c?/\\", "/a?x=1;y=%5C?/%5C");
        check("/a?line=%0A", "/a?line=%0A");
        check("/a/", "/a/");
        check("/a.", "/a.");
        check("/", "/");
        check("/100%25", "/100%25");
    }

    #[test]
    fn a14_what_servers_read_differently_is_refused() {
        for raw in ["/a%2Fb", "/a%2fb", "/a%5Cb", "/a\\b", "/a;b", "/a%3Bb", "/%252e", "/%252Fb"] {
            check(raw, "Separator");
        }
        for raw in ["/.", "/..", "/a/../b", "/%2e%2E/b", "/a/.%2e", "/a/./b"] {
            check(raw, "DotSegment");
        }
        for raw in ["//", "//a", "/a//b", "/a//"] {
            check(raw, "EmptySegment");
        }
        for raw in ["/a%00", "/a\0", "/a%0d%0ab", "/a%7F", "/a?%00", "/a?\n"] {
            check(raw, "Control");
        }
        for raw in ["/%", "/%a", "/%zz", "/a?%", "/a?b=%g0"] {
            check(raw, "Escape");
        }
        for raw in ["/é", "/%c3", "/%c3a%a9", "/%ff", "/a?é", "/a?%ff"] {
            check(raw, "NotUtf8");
        }
        for raw in ["", "*", "a", "?a", "http://a/b"] {
            check(raw, "NotAbsolute");
        }
        check(&format!("/{}", "a".repeat(TARGET_BYTES_MAX)), "TooLong");
        check(&format!("/{}", "|".repeat(TARGET_BYTES_MAX / 2)), "TooLong");
    }

    #[test]
    fn paths_are_put_behind_the_base_of_the_upstream() {
        let target = Target::parse("/v1/a?b=c").unwrap();
        assert_eq!(target.path(), "/v1/a");
        assert_eq!(target.behind("/").unwrap(), "/v1/a?b=c");
        assert_eq!(target.behind("/base/").unwrap(), "/base/v1/a?b=c");
    }

    proptest! {
        #[test]
        fn a14_the_normal_form_is_its_own_normal_form(raw in "/[ -~]{0,40}") {
            if let Ok(target) = Target::parse(&raw) {
                prop_assert_eq!(Target::parse(target.as_str()), Ok(target.clone()));
                prop_assert!(target.behind("/").is_some());
                prop_assert!(!target.path().contains("//") && !target.path().contains("/../"));
            }
        }

        #[test]
        fn a14_escaping_unreserved_characters_changes_nothing(
            head in "/[a-z]{0,9}", one in "[A-Za-z0-9_~-]", tail in "[a-z/]{0,4}[a-z]",
        ) {
            let plain = format!("{head}{one}{tail}");
            let escaped = format!("{head}%{}{tail}", hex::encode(&one));
            prop_assert_eq!(Target::parse(&escaped), Target::parse(&plain));
        }
    }
}
