//! What is counted of one answer, whatever its format.
//!
//! The upstream's word is the truth where it is told. Where it is not, usage is estimated by one
//! rule: **a token for every four bytes of text, rounded up**, on both sides, never more than the
//! request's bounds. Dividing the same text into more or fewer events does not change the estimate.

use super::{Content, Ending, Metered};
use crate::facts::{RequestFacts, UsageBounds, UsageEvent};
use crate::usage::{Basis, Usage};

/// Bytes of text that an estimate takes for one token.
const BYTES_PER_TOKEN: u64 = 4;

/// Counts text, and keeps what the upstream told.
#[derive(Debug)]
pub(super) struct Tally {
    bounds: Option<UsageBounds>,
    usage_event: UsageEvent,
    prompt_bytes: u64,
    text_bytes: u64,
    content: Content,
    told: Told,
    ending: Ending,
}

/// What the upstream told of the usage.
#[derive(Clone, Copy, Debug)]
enum Told {
    Nothing,
    /// The input, and what of the output was there by then.
    Begun(Usage),
    All(Usage),
}

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on to the client.
    Forward,
    /// It is for us alone.
    Hide,
    /// It is the last: it waits for the receipt.
    End,
}

impl Tally {
    /// A stream is cut until its end has come.
    pub(super) fn of_stream(facts: &RequestFacts) -> Self {
        Self {
            bounds: facts.bounds,
            usage_event: facts.usage_event,
            prompt_bytes: facts.prompt_bytes,
            text_bytes: 0,
            content: Content::None,
            told: Told::Nothing,
            ending: Ending::Cut,
        }
    }

    /// An answer in one piece is whole until something is found to be wrong.
    pub(super) fn of_answer(facts: &RequestFacts) -> Self {
        Self { ending: Ending::Complete, ..Self::of_stream(facts) }
    }

    /// What the client asked to see.
    pub(super) const fn usage_event(&self) -> UsageEvent {
        self.usage_event
    }

    /// More text.
    pub(super) fn add(&mut self, bytes: u64) {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
    }

    /// All of the text, some of which may have come before.
    pub(super) fn add_whole(&mut self, bytes: u64) {
        self.text_bytes = self.text_bytes.max(bytes);
    }

    /// Something that the client pays for and that is no text.
    pub(super) fn add_content(&mut self) {
        self.content = Content::Some;
    }

    /// All of the usage; what is told last counts.
    pub(super) fn tell(&mut self, usage: Usage) {
        self.told = Told::All(usage);
    }

    /// The usage at the beginning, where more will be told.
    pub(super) fn begin(&mut self, usage: Usage) {
        self.told = Told::Begun(usage);
    }

    /// What was told so far.
    pub(super) const fn told(&self) -> Option<Usage> {
        match self.told {
            Told::Nothing => None,
            Told::Begun(usage) | Told::All(usage) => Some(usage),
        }
    }

    /// The upstream tells of an error.
    pub(super) fn fail(&mut self) {
        self.ending = Ending::Failed;
    }

    /// A piece of it is missing.
    pub(super) fn cut(&mut self) {
        if self.ending == Ending::Complete {
            self.ending = Ending::Cut;
        }
    }

    /// The stream has come to its end.
    pub(super) fn complete(&mut self) {
        if self.ending == Ending::Cut {
            self.ending = Ending::Complete;
        }
    }

    /// What there is to say, with the bytes that were forwarded unread.
    pub(super) fn metered(&self, unread_bytes: u64) -> Metered {
        let nothing = self.is_empty() && unread_bytes == 0;
        Metered {
            usage: Some(self.usage()),
            ending: self.ending,
            content: if nothing { Content::None } else { Content::Some },
            unread_bytes,
        }
    }

    /// Nothing was delivered, and the upstream does not say otherwise.
    fn is_empty(&self) -> bool {
        let output = match self.told {
            Told::Nothing | Told::Begun(_) => 0,
            Told::All(usage) => usage.output_tokens,
        };
        self.content == Content::None && self.text_bytes == 0 && output == 0
    }

    fn usage(&self) -> Usage {
        let output = self.text_bytes.div_ceil(BYTES_PER_TOKEN);
        match self.told {
            Told::All(usage) => usage,
            Told::Nothing => {
                self.bounded(Usage::estimated(self.prompt_bytes.div_ceil(BYTES_PER_TOKEN), output))
            }
            Told::Begun(usage) => self.bounded(Usage {
                basis: Basis::Estimated,
                output_tokens: usage.output_tokens.max(output),
                ..usage
            }),
        }
    }

    fn bounded(&self, usage: Usage) -> Usage {
        let Some(most) = self.bounds else { return usage };
        let input_tokens = usage.input_tokens.min(most.input_tokens);
        Usage {
            input_tokens,
            cached_input_tokens: usage.cached_input_tokens.min(input_tokens),
            cache_write_input_tokens: usage.cache_write_input_tokens.min(input_tokens),
            output_tokens: usage.output_tokens.min(most.output_tokens),
            ..usage
        }
    }
}
