//! `message` objects of the Anthropic API, and the events that build one up.
//!
//! A stream tells its input in `message_start` and its output in `message_delta`, cumulatively: a
//! larger number is a later one. `input_tokens` leaves out what was read from the cache and what was
//! written to it. The last event is `message_stop`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::reader::Reader;
use super::tally::{Tally, Verdict};
use super::text::{Lenient, Text};
use crate::usage::Usage;

/// How this format is read.
pub(super) const READER: Reader = Reader { event, answer };

fn event(data: &[u8], tally: &mut Tally) -> Verdict {
    let Ok(event) = serde_json::from_slice::<Event>(data) else { return Verdict::Forward };
    if event.error.is_some() {
        tally.fail();
    }
    match event.kind.0.as_deref().unwrap_or_default() {
        "error" => tally.fail(),
        "message_start" => {
            if let Some(Message { content, usage: Lenient(Some(usage)), .. }) = event.message.0 {
                tally.add(content.0);
                tally.begin(usage.after(tally.told()));
            }
        }
        "content_block_start" => tally.add(event.content_block.0),
        "content_block_delta" => tally.add(event.delta.0),
        "message_delta" => {
            if let Some(usage) = event.usage.0 {
                usage.tell(tally);
            }
        }
        "message_stop" => return Verdict::End,
        _ => {}
    }
    Verdict::Forward
}

fn answer(body: &[u8], tally: &mut Tally) -> Result<(), serde_json::Error> {
    let message: Message = serde_json::from_slice(body)?;
    if message.error.is_some() || message.kind.0.as_deref() == Some("error") {
        tally.fail();
    }
    tally.add(message.content.0);
    if let Some(usage) = message.usage.0 {
        usage.tell(tally);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type", default)]
    kind: Lenient<String>,
    #[serde(default)]
    message: Lenient<Message>,
    #[serde(default)]
    content_block: Text,
    #[serde(default)]
    delta: Text,
    #[serde(default)]
    usage: Lenient<MessageUsage>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type", default)]
    kind: Lenient<String>,
    #[serde(default)]
    content: Text,
    #[serde(default)]
    usage: Lenient<MessageUsage>,
    error: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageUsage {
    input_tokens: Lenient<u64>,
    cache_read_input_tokens: Lenient<u64>,
    cache_creation_input_tokens: Lenient<u64>,
    output_tokens: Lenient<u64>,
    output_tokens_details: Lenient<OutputDetails>,
}

#[derive(Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}

impl MessageUsage {
    /// All of the usage, if input and output are known by now.
    fn tell(&self, tally: &mut Tally) {
        let before = tally.told();
        match (self.input_tokens.0, self.output_tokens.0, before) {
            (Some(_), Some(_), _) | (None, Some(_), Some(_)) => tally.tell(self.after(before)),
            (Some(_), None, None) => tally.begin(self.after(before)),
            (_, None, _) | (None, Some(_), None) => {}
        }
    }

    /// This on top of what was told before.
    fn after(&self, before: Option<Usage>) -> Usage {
        let before = before.unwrap_or_default();
        let larger = |now: &Lenient<u64>, before: u64| now.0.unwrap_or(0).max(before);
        let read = larger(&self.cache_read_input_tokens, before.cached_input_tokens);
        let written = larger(&self.cache_creation_input_tokens, before.cache_write_input_tokens);
        let fresh_before = before
            .input_tokens
            .saturating_sub(before.cached_input_tokens)
            .saturating_sub(before.cache_write_input_tokens);
        let fresh = larger(&self.input_tokens, fresh_before);
        let thinking = self.output_tokens_details.0.as_ref().and_then(|it| it.thinking_tokens);
        Usage {
            cached_input_tokens: read,
            cache_write_input_tokens: written,
            reasoning_tokens: thinking.unwrap_or(0).max(before.reasoning_tokens),
            ..Usage::reported(
                fresh.saturating_add(read).saturating_add(written),
                larger(&self.output_tokens, before.output_tokens),
            )
        }
    }
}
