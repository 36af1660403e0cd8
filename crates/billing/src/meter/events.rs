//! A stream of server-sent events on its way: all of it goes on, except a usage event that the
//! client did not ask for; the last event and what follows it wait for the receipt.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::outline::Outline;
use super::reader::Reader;
use super::sse::{self, Decoder, Frame, Rest};
use super::tally::{Tally, Verdict};
use super::{Ended, Metered, Tail};
use crate::facts::RequestFacts;

/// The most that is kept of what an upstream sends after its last event; no client reads it.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// Forwards the events of one answer, and has its format read them.
#[derive(Debug)]
pub(super) struct EventFilter {
    reader: Reader,
    decoder: Decoder,
    tally: Tally,
    /// Of an event that is too long to be kept.
    outline: Outline,
    unread_bytes: u64,
    held: Vec<Bytes>,
    held_bytes: usize,
}

impl EventFilter {
    pub(super) fn new(reader: Reader, facts: &RequestFacts) -> Self {
        Self {
            reader,
            decoder: Decoder::default(),
            tally: Tally::of_stream(facts),
            outline: Outline::default(),
            unread_bytes: 0,
            held: Vec::new(),
            held_bytes: 0,
        }
    }

    pub(super) fn push(&mut self, chunk: Bytes) -> Vec<Bytes> {
        let frames = self.decoder.push(chunk);
        frames.into_iter().filter_map(|frame| self.pass(frame)).collect()
    }

    pub(super) fn is_done(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn so_far(&self) -> Metered {
        self.tally.metered(self.unread_bytes)
    }

    pub(super) fn end(mut self) -> Ended {
        let decoder = std::mem::take(&mut self.decoder);
        let mut before = Vec::new();
        match decoder.finish() {
            Rest::Nothing => {}
            Rest::Event(event) => before.extend(self.pass(Frame::Event(event))),
            Rest::Unterminated(bytes) => before.extend(self.pass_unterminated(bytes)),
        }
        Ended { metered: self.so_far(), tail: Tail::Events { before, held: self.held } }
    }

    fn pass(&mut self, frame: Frame) -> Option<Bytes> {
        let (bytes, verdict) = match frame {
            Frame::Part(bytes) if self.is_done() => (bytes, Verdict::End),
            Frame::Part(bytes) => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.unread_bytes = self.unread_bytes.saturating_add(length);
                self.skim(&bytes);
                (bytes, Verdict::Forward)
            }
            Frame::Event(bytes) => {
                self.outline = Outline::default();
                let verdict = self.judge(&bytes);
                (bytes, verdict)
            }
        };
        match verdict {
            Verdict::Forward => Some(bytes),
            Verdict::Hide => None,
            Verdict::End => {
                self.hold(bytes);
                None
            }
        }
    }

    /// An upstream may leave out the last empty line. What is then a whole document all the same is
    /// passed on with the line ends that it lacks; half an event is of no use to any client.
    fn pass_unterminated(&mut self, bytes: Bytes) -> Option<Bytes> {
        let data = sse::data(&bytes)?;
        let whole = is_end_marker(&data) || serde_json::from_slice::<IgnoredAny>(&data).is_ok();
        if !whole {
            return None;
        }
        let lacking: &[u8] =
            if bytes.ends_with(b"\n") || bytes.ends_with(b"\r") { b"\n" } else { b"\n\n" };
        let mut event = Vec::from(bytes);
        event.extend_from_slice(lacking);
        self.pass(Frame::Event(Bytes::from(event)))
    }

    /// Reads what can be read of an event that has left before its end came.
    fn skim(&mut self, bytes: &[u8]) {
        let Some(document) = self.outline.push(bytes) else { return };
        if (self.reader.event)(&document, &mut self.tally) == Verdict::End {
            self.tally.complete();
        }
    }

    fn judge(&mut self, event: &[u8]) -> Verdict {
        if self.is_done() {
            return Verdict::End;
        }
        let Some(data) = sse::data(event) else { return Verdict::Forward };
        let verdict = (self.reader.event)(&data, &mut self.tally);
        if verdict == Verdict::End {
            self.tally.complete();
        }
        verdict
    }

    fn hold(&mut self, bytes: Bytes) {
        let total = self.held_bytes.saturating_add(bytes.len());
        if self.held.is_empty() || total <= HELD_BYTES_MAX {
            self.held_bytes = total;
            self.held.push(bytes);
        }
    }
}

/// `[DONE]`, by which OpenAI ends the streams of its older formats.
pub(super) fn is_end_marker(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}
