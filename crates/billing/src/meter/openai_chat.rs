//! `chat.completion` and `chat.completion.chunk`: usage, and the stream on its way.
//!
//! The upstream's `usage` is the truth where it is told. Where it is not, usage is estimated by one
//! rule: **a token for every four bytes of text, rounded up**, on both sides, never more than the
//! request's bounds. Text is what [`chunk`] counts: content, reasoning, refusals and tool calls.
//! Dividing the same text into more or fewer events does not change the estimate.

mod chunk;

use bytes::Bytes;
use serde::de::IgnoredAny;

use self::chunk::Chunk;
use super::sse::{self, Decoder, Frame, Rest};
use super::{Content, Ended, Ending, Metered, Tail};
use crate::facts::{RequestFacts, UsageBounds, UsageEvent};
use crate::usage::Usage;

/// Bytes of text that an estimate takes for one token.
const BYTES_PER_TOKEN: u64 = 4;
/// The most that is kept of what an upstream sends after the end marker; no client reads it.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// Forwards a stream of chunks: all of it, except a usage event that the client did not ask for;
/// the end marker and what follows it wait for the end.
#[derive(Debug)]
pub(super) struct ChatFilter {
    decoder: Decoder,
    usage_event: UsageEvent,
    tally: Tally,
    ending: Ending,
    unread_bytes: u64,
    held: Vec<Bytes>,
    held_bytes: usize,
}

/// Counts text, and keeps what the upstream told.
#[derive(Debug)]
struct Tally {
    bounds: Option<UsageBounds>,
    prompt_bytes: u64,
    text_bytes: u64,
    reported: Option<Usage>,
}

/// What to do with an event.
enum Verdict {
    Forward,
    Hide,
    Hold,
}

impl ChatFilter {
    pub(super) fn new(facts: &RequestFacts) -> Self {
        Self {
            decoder: Decoder::default(),
            usage_event: facts.usage_event,
            tally: Tally::new(facts),
            ending: Ending::Cut,
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
        let nothing = self.tally.is_empty() && self.unread_bytes == 0;
        Metered {
            usage: Some(self.tally.usage()),
            ending: self.ending,
            content: if nothing { Content::None } else { Content::Some },
            unread_bytes: self.unread_bytes,
        }
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
            Frame::Part(bytes) if self.is_done() => (bytes, Verdict::Hold),
            Frame::Part(bytes) => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.unread_bytes = self.unread_bytes.saturating_add(length);
                (bytes, Verdict::Forward)
            }
            Frame::Event(bytes) => {
                let verdict = self.judge(&bytes);
                (bytes, verdict)
            }
        };
        match verdict {
            Verdict::Forward => Some(bytes),
            Verdict::Hide => None,
            Verdict::Hold => {
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

    fn judge(&mut self, event: &[u8]) -> Verdict {
        if self.is_done() {
            return Verdict::Hold;
        }
        let Some(data) = sse::data(event) else { return Verdict::Forward };
        if is_end_marker(&data) {
            if self.ending == Ending::Cut {
                self.ending = Ending::Complete;
            }
            return Verdict::Hold;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk>(&data) else { return Verdict::Forward };
        if chunk.is_error() {
            self.ending = Ending::Failed;
        }
        self.tally.add(chunk.text_bytes());
        let reported = chunk.usage();
        self.tally.reported = reported.or(self.tally.reported);
        let usage_alone = reported.is_some() && chunk.has_no_choices();
        if usage_alone && self.usage_event == UsageEvent::Hidden {
            return Verdict::Hide;
        }
        Verdict::Forward
    }

    fn hold(&mut self, bytes: Bytes) {
        let total = self.held_bytes.saturating_add(bytes.len());
        if self.held.is_empty() || total <= HELD_BYTES_MAX {
            self.held_bytes = total;
            self.held.push(bytes);
        }
    }
}

impl Tally {
    fn new(facts: &RequestFacts) -> Self {
        let bounds = facts.bounds;
        Self { bounds, prompt_bytes: facts.prompt_bytes, text_bytes: 0, reported: None }
    }

    fn add(&mut self, bytes: u64) {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
    }

    /// Nothing was delivered, and the upstream does not say otherwise.
    fn is_empty(&self) -> bool {
        self.text_bytes == 0 && self.reported.is_none_or(|it| it.output_tokens == 0)
    }

    fn usage(&self) -> Usage {
        self.reported.unwrap_or_else(|| {
            let input = self.prompt_bytes.div_ceil(BYTES_PER_TOKEN);
            let output = self.text_bytes.div_ceil(BYTES_PER_TOKEN);
            match self.bounds {
                None => Usage::estimated(input, output),
                Some(most) => {
                    Usage::estimated(input.min(most.input_tokens), output.min(most.output_tokens))
                }
            }
        })
    }
}

/// Meters a `chat.completion`. A body that is no whole JSON object is taken as text that was cut.
pub(super) fn meter_answer(facts: &RequestFacts, body: &[u8]) -> Metered {
    let mut tally = Tally::new(facts);
    let mut ending = Ending::Complete;
    if let Ok(answer) = serde_json::from_slice::<Chunk>(body) {
        if answer.is_error() {
            ending = Ending::Failed;
        }
        tally.add(answer.text_bytes());
        tally.reported = answer.usage();
    } else {
        ending = Ending::Cut;
        tally.add(u64::try_from(body.len()).unwrap_or(u64::MAX));
    }
    let content = if tally.is_empty() { Content::None } else { Content::Some };
    Metered { usage: Some(tally.usage()), ending, content, unread_bytes: 0 }
}

fn is_end_marker(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}
