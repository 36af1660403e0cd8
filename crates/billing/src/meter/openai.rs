//! What OpenAI's formats have in common: chunks with choices, and `usage`.
//!
//! As little as possible is read, and whatever the other fields are.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::events::is_end_marker;
use super::tally::{Tally, Verdict};
use super::text::{Lenient, Measured};
use crate::facts::UsageEvent;
use crate::usage::Usage;

/// One of several answers to a request, or what is new of it.
pub(super) trait Choice: DeserializeOwned {
    /// Bytes of text in it.
    fn text_bytes(&self) -> u64;
}

/// Reads an event of a stream of chunks, the last of which is `[DONE]`.
pub(super) fn event<C: Choice>(data: &[u8], tally: &mut Tally) -> Verdict {
    if is_end_marker(data) {
        return Verdict::End;
    }
    let Ok(chunk) = serde_json::from_slice::<Chunk<C>>(data) else { return Verdict::Forward };
    chunk.count(tally);
    let usage_alone = chunk.usage().is_some() && chunk.has_no_choices();
    if usage_alone && tally.usage_event() == UsageEvent::Hidden {
        return Verdict::Hide;
    }
    Verdict::Forward
}

/// Reads an answer in one piece.
pub(super) fn answer<C: Choice>(body: &[u8], tally: &mut Tally) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Chunk<C>>(body).map(|it| it.count(tally))
}

/// A chunk of a stream, or a whole answer.
#[derive(Deserialize)]
#[serde(bound = "C: Choice")]
struct Chunk<C> {
    choices: Option<Measured<Vec<C>>>,
    usage: Option<Lenient<WireUsage>>,
    error: Option<IgnoredAny>,
}

impl<C: Choice> Chunk<C> {
    fn count(&self, tally: &mut Tally) {
        if self.error.is_some() {
            tally.fail();
        }
        let sum = |it: &Vec<C>| it.iter().map(Choice::text_bytes).fold(0, u64::saturating_add);
        tally.add(self.choices.as_ref().map_or(0, |it| it.text_bytes(sum)));
        if let Some(usage) = self.usage() {
            tally.tell(usage);
        }
    }

    /// The usage, if it is told here.
    fn usage(&self) -> Option<Usage> {
        self.usage.as_ref()?.0.as_ref()?.usage()
    }

    /// Whether this belongs to no choice.
    fn has_no_choices(&self) -> bool {
        match &self.choices {
            None => true,
            Some(choices) => choices.foreseen().is_some_and(Vec::is_empty),
        }
    }
}

/// `usage`. The Responses API has other names for the same, and some servers tell both.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WireUsage {
    prompt_tokens: Lenient<u64>,
    input_tokens: Lenient<u64>,
    completion_tokens: Lenient<u64>,
    output_tokens: Lenient<u64>,
    total_tokens: Lenient<u64>,
    prompt_tokens_details: Lenient<InputDetails>,
    input_tokens_details: Lenient<InputDetails>,
    completion_tokens_details: Lenient<OutputDetails>,
    output_tokens_details: Lenient<OutputDetails>,
}

#[derive(Default, Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// Nothing unless both sides are told. OpenAI counts reasoning as part of the completion. Some
    /// servers count it beside it, which shows in the total.
    pub(super) fn usage(&self) -> Option<Usage> {
        let input = self.prompt_tokens.0.or(self.input_tokens.0)?;
        let output = self.completion_tokens.0.or(self.output_tokens.0)?;
        let of_input =
            self.prompt_tokens_details.0.as_ref().or(self.input_tokens_details.0.as_ref());
        let of_output =
            self.completion_tokens_details.0.as_ref().or(self.output_tokens_details.0.as_ref());
        let reasoning = of_output.and_then(|it| it.reasoning_tokens).unwrap_or(0);
        let all = output.saturating_add(reasoning);
        let beside = self.total_tokens.0 == Some(input.saturating_add(all));
        Some(Usage {
            cached_input_tokens: of_input.and_then(|it| it.cached_tokens).unwrap_or(0),
            cache_write_input_tokens: of_input.and_then(|it| it.cache_write_tokens).unwrap_or(0),
            reasoning_tokens: reasoning,
            ..Usage::reported(input, if beside { all } else { output })
        })
    }

    /// The input, where there is no output to tell of.
    pub(super) fn input_alone(&self) -> Option<Usage> {
        let input = self.prompt_tokens.0.or(self.input_tokens.0).or(self.total_tokens.0)?;
        Some(Usage::reported(input, 0))
    }
}
