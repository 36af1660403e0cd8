//! Server-sent events out of arbitrary chunks, with every byte kept as it came.
//!
//! Source: HTML standard, §9.2.5–9.2.6 (parsing and interpreting an event stream). Lines end with
//! LF, CR or CR LF; an empty line ends an event. The pieces, put together, are always exactly the
//! stream, and do not depend on how it was cut.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Events longer than this are passed on in parts and never held in memory.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole event with the empty line that ends it.
    Event(Bytes),
    /// Bytes of an event over [`EVENT_BYTES_MAX`].
    Part(Bytes),
}

/// What is left when a stream is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// A whole event.
    Event(Bytes),
    /// Something that no empty line ends. The standard says to discard it.
    Unterminated(Bytes),
}

/// Cuts a stream into events. An event that lies in one chunk is a slice of it, not a copy.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of an event whose end has not come.
    pending: BytesMut,
    place: Place,
    mode: Mode,
}

/// Where the last byte has left the reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// At the beginning of a line.
    #[default]
    LineStart,
    /// Within a line.
    Line,
    /// After a CR that ended a line with something on it; an LF would belong to it.
    LineReturn,
    /// After a CR that ended an empty line, and so an event; an LF would belong to it.
    EventReturn,
}

/// What happens to bytes of an event whose end has not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// They are kept.
    #[default]
    Collecting,
    /// There were too many: they are passed on.
    Passing,
}

impl Decoder {
    /// Takes the next bytes; gives what they complete.
    pub fn push(&mut self, mut chunk: Bytes) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(end) = self.scan(&chunk) {
            let tail = chunk.split_to(end);
            frames.push(self.complete(tail));
        }
        if !chunk.is_empty() {
            frames.extend(self.keep(chunk));
        }
        frames
    }

    /// The stream is over.
    pub fn finish(self) -> Rest {
        let rest = self.pending.freeze();
        match self.place {
            _ if rest.is_empty() => Rest::Nothing,
            Place::EventReturn => Rest::Event(rest),
            Place::LineStart | Place::Line | Place::LineReturn => Rest::Unterminated(rest),
        }
    }

    /// Where the current event ends in `bytes`; if it does not, the place after the last of them.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0_usize;
        while let Some(byte) = bytes.get(at) {
            let next = at.saturating_add(1);
            (self.place, at) = match (self.place, byte) {
                (Place::EventReturn | Place::LineStart, b'\n') => {
                    self.place = Place::LineStart;
                    return Some(next);
                }
                (Place::EventReturn, _) => {
                    self.place = Place::LineStart;
                    return Some(at);
                }
                (Place::LineReturn | Place::Line, b'\n') => (Place::LineStart, next),
                (Place::LineReturn, _) => (Place::LineStart, at),
                (Place::LineStart, b'\r') => (Place::EventReturn, next),
                (Place::Line, b'\r') => (Place::LineReturn, next),
                (Place::LineStart | Place::Line, _) => {
                    let (_, rest) = bytes.split_at(at);
                    let line = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    (Place::Line, at.saturating_add(line))
                }
            };
        }
        None
    }

    /// An event ends with these bytes.
    fn complete(&mut self, tail: Bytes) -> Frame {
        if std::mem::take(&mut self.mode) == Mode::Passing {
            return Frame::Part(tail);
        }
        let event = if self.pending.is_empty() {
            tail
        } else {
            self.pending.extend_from_slice(&tail);
            self.pending.split().freeze()
        };
        if EVENT_BYTES_MAX < event.len() { Frame::Part(event) } else { Frame::Event(event) }
    }

    /// An event goes on beyond these bytes.
    fn keep(&mut self, bytes: Bytes) -> Option<Frame> {
        if self.mode == Mode::Passing {
            return Some(Frame::Part(bytes));
        }
        self.pending.extend_from_slice(&bytes);
        if self.pending.len() <= EVENT_BYTES_MAX {
            return None;
        }
        self.mode = Mode::Passing;
        Some(Frame::Part(self.pending.split().freeze()))
    }
}

/// The data of an event: its `data` lines, joined by line feeds. Nothing if it has none.
pub fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    // The standard allows one mark at the very beginning of a stream; elsewhere nobody sends one.
    let event = event.strip_prefix(BYTE_ORDER_MARK).unwrap_or(event);
    let mut all: Option<Cow<'_, [u8]>> = None;
    for value in Lines(event).filter_map(data_of_line) {
        all = Some(match all {
            None => Cow::Borrowed(value),
            Some(first) => {
                let mut joined = first.into_owned();
                joined.push(b'\n');
                joined.extend_from_slice(value);
                Cow::Owned(joined)
            }
        });
    }
    all
}

/// A comment that clients ignore: each line of `text` as one, to stand before the lines of an event.
///
/// No empty line follows: to some decoders (the Python packages `openai` and `anthropic`) it would
/// end an event without data where any event before had an `id`.
pub fn comment(text: &str) -> Bytes {
    let mut lines = String::new();
    for line in text.split(['\n', '\r']).filter(|it| !it.is_empty()) {
        lines.push_str(": ");
        lines.push_str(line);
        lines.push('\n');
    }
    Bytes::from(lines)
}

fn data_of_line(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// The lines of a block, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr2(b'\n', b'\r', self.0).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        let rest = rest.strip_prefix(b"\r\n").or_else(|| rest.get(1..)).unwrap_or_default();
        self.0 = rest;
        Some(line)
    }
}

#[cfg(test)]
mod tests;
