//! What is read of a chunk or an answer: as little as possible, and whatever its other fields are.
//!
//! Upstreams differ in what they add and in the types of what they leave out, so a field of an
//! unforeseen type counts as nothing instead of making the rest unreadable. Text is counted without
//! being kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::usage::Usage;

/// A `chat.completion.chunk` or a `chat.completion`.
#[derive(Deserialize)]
pub(super) struct Chunk {
    choices: Option<Lenient<Vec<Choice>>>,
    usage: Option<Lenient<WireUsage>>,
    error: Option<IgnoredAny>,
}

impl Chunk {
    /// Bytes of text over all choices.
    pub(super) fn text_bytes(&self) -> u64 {
        let choices = self.choices.iter().flat_map(|it| &it.0).flatten();
        choices.map(Choice::text_bytes).fold(0, u64::saturating_add)
    }

    /// The usage, if it is told here.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage.as_ref()?.0.as_ref().map(WireUsage::usage)
    }

    /// Whether this belongs to no choice.
    pub(super) fn has_no_choices(&self) -> bool {
        match &self.choices {
            None => true,
            Some(Lenient(choices)) => choices.as_ref().is_some_and(Vec::is_empty),
        }
    }

    /// Whether the upstream tells of an error here.
    pub(super) const fn is_error(&self) -> bool {
        self.error.is_some()
    }
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Lenient<Message>>,
    message: Option<Lenient<Message>>,
}

impl Choice {
    fn text_bytes(&self) -> u64 {
        let message = self.delta.as_ref().or(self.message.as_ref());
        message.and_then(|it| it.0.as_ref()).map_or(0, Message::text_bytes)
    }
}

/// A message, or what is new of one. Servers call reasoning by one of two names, or by both.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Text,
    refusal: Text,
    reasoning: Text,
    reasoning_content: Text,
    tool_calls: Text,
    function_call: Text,
}

impl Message {
    fn text_bytes(&self) -> u64 {
        let reasoning = self.reasoning.0.max(self.reasoning_content.0);
        [self.content.0, self.refusal.0, reasoning, self.tool_calls.0, self.function_call.0]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    #[serde(default)]
    total_tokens: Lenient<u64>,
    #[serde(default)]
    prompt_tokens_details: Lenient<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Lenient<CompletionDetails>,
}

#[derive(Default, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// OpenAI counts reasoning as part of the completion. Some servers count it beside it, which
    /// shows in the total.
    fn usage(&self) -> Usage {
        let cached = self.prompt_tokens_details.0.as_ref().and_then(|it| it.cached_tokens);
        let reasoning =
            self.completion_tokens_details.0.as_ref().and_then(|it| it.reasoning_tokens);
        let reasoning = reasoning.unwrap_or(0);
        let all = self.completion_tokens.saturating_add(reasoning);
        let beside = self.total_tokens.0 == Some(self.prompt_tokens.saturating_add(all));
        let output_tokens = if beside { all } else { self.completion_tokens };
        Usage {
            cached_input_tokens: cached.unwrap_or(0),
            reasoning_tokens: reasoning,
            ..Usage::reported(self.prompt_tokens, output_tokens)
        }
    }
}

/// A value of the foreseen type, or nothing.
struct Lenient<T>(Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(text.get()).ok()))
    }
}

/// How many bytes of text a value holds: a string, or the strings in a list of parts or calls.
#[derive(Clone, Copy, Default)]
struct Text(u64);

/// Members of parts and calls that the model did not write.
const NOT_TEXT: &[&str] = &["type", "id", "role", "index", "signature"];

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(u64::try_from(text.len()).unwrap_or(u64::MAX)))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Text, A::Error> {
        let mut sum = 0_u64;
        while let Some(Text(bytes)) = items.next_element()? {
            sum = sum.saturating_add(bytes);
        }
        Ok(Text(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Text, A::Error> {
        let mut sum = 0_u64;
        while let Some(name) = members.next_key::<String>()? {
            let Text(bytes) = members.next_value()?;
            if !NOT_TEXT.contains(&name.as_str()) {
                sum = sum.saturating_add(bytes);
            }
        }
        Ok(Text(sum))
    }
}
