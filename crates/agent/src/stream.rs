//! Streams pass through untouched; the receipt that a Farebox gateway writes into one is picked up
//! on the way. It is an SSE comment, `: farebox-receipt {json}`, that every other reader skips.

use farebox_billing::Receipt;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use reqwest::{Body, Response};

use crate::payment::{StreamReceipt, Terms};
use crate::proof::{BadProof, check_receipt};
use crate::reshape::{apart, together};

/// How the comment begins.
const MARK: &[u8] = b": farebox-receipt ";
/// The longest receipt that is read; a longer line is passed on like any other.
const RECEIPT_BYTES_MAX: usize = 16 * 1024;

/// Finds the receipt in the bytes of an event stream, however they are cut.
#[derive(Debug, Default)]
struct Scanner {
    line: Vec<u8>,
    /// The line cannot be the receipt any more.
    skip: bool,
}

impl Scanner {
    /// Reads on; returns the JSON of a receipt that ended in these bytes.
    fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut found = None;
        for part in bytes.split_inclusive(|it| matches!(it, b'\n' | b'\r')) {
            let (text, ended) = match part.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                Some(_) | None => (part, false),
            };
            self.extend(text);
            if ended {
                found = self.take().or(found);
            }
        }
        found
    }

    fn extend(&mut self, text: &[u8]) {
        if self.skip {
            return;
        }
        self.line.extend_from_slice(text);
        let common = self.line.len().min(MARK.len());
        let matches = self.line.get(..common) == MARK.get(..common);
        if !matches || RECEIPT_BYTES_MAX < self.line.len() {
            self.skip = true;
            self.line.clear();
        }
    }

    /// The end of a line.
    fn take(&mut self) -> Option<Vec<u8>> {
        self.skip = false;
        let line = std::mem::take(&mut self.line);
        line.strip_prefix(MARK).map(<[u8]>::to_vec)
    }
}

/// Whether the answer is an event stream.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or("");
    let media = value.split(';').next().unwrap_or("").trim();
    media.eq_ignore_ascii_case("text/event-stream")
}

/// The same answer, with an eye on its stream. Frames, trailers and back-pressure stay as they are.
pub(crate) fn watch(response: Response, terms: &Terms, receipt: &StreamReceipt) -> Response {
    let (url, parts, body) = apart(response);
    let (terms, receipt, mut scanner) = (terms.clone(), receipt.clone(), Scanner::default());
    let body = body.map_frame(move |frame| {
        if let Some(json) = frame.data_ref().and_then(|data| scanner.push(data)) {
            // The first one counts; a stream has one.
            drop(receipt.0.set(read(&json, &terms)));
        }
        frame
    });
    together(url, parts, Body::wrap(body))
}

fn read(json: &[u8], terms: &Terms) -> Result<Receipt, BadProof> {
    let receipt: Receipt = serde_json::from_slice(json)
        .map_err(|error| BadProof::Unreadable { detail: error.to_string() })?;
    check_receipt(&receipt, terms)?;
    Ok(receipt)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts `stream` into pieces of `size` bytes.
    fn scan(stream: &str, size: usize) -> Option<String> {
        let mut scanner = Scanner::default();
        let found = stream.as_bytes().chunks(size).filter_map(|it| scanner.push(it)).last();
        found.map(|it| String::from_utf8(it).unwrap())
    }

    #[track_caller]
    fn check(stream: &str, expected: Option<&str>) {
        for size in 1..=stream.len() {
            assert_eq!(scan(stream, size).as_deref(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn the_receipt_is_found_however_the_stream_is_cut() {
        let with = "data: {\"a\":1}\n\n: farebox-receipt {\"b\":2}\n\ndata: [DONE]\n\n";
        check(with, Some("{\"b\":2}"));
        check(&with.replace('\n', "\r\n"), Some("{\"b\":2}"));
        check(&with.replace('\n', "\r"), Some("{\"b\":2}"));
        check(": farebox-receipt {}\n", Some("{}"));
        check(": farebox-receipt {}", None);
        check("data: : farebox-receipt {}\n", None);
        check(": farebox\n: ping\n\ndata: x\n", None);
        check(": farebox-receipt\n", None);
    }

    #[test]
    fn a16_an_endless_line_is_not_kept() {
        let mut scanner = Scanner::default();
        assert_eq!(scanner.push(MARK), None);
        for _ in 0..64 {
            assert_eq!(scanner.push(&[b'x'; 1024]), None);
        }
        assert!(scanner.line.capacity() <= 2 * RECEIPT_BYTES_MAX);
        assert_eq!(scanner.push(b"\n: farebox-receipt {}\n"), Some(b"{}".to_vec()));
    }
}
