//! `chat.completion` and `chat.completion.chunk`. Text is content, reasoning, refusals and calls.

use serde::Deserialize;

use super::openai::{self, Choice};
use super::reader::Reader;
use super::text::{Measured, Text};

/// How this format is read.
pub(super) const READER: Reader =
    Reader { event: openai::event::<ChatChoice>, answer: openai::answer::<ChatChoice> };

#[derive(Deserialize)]
struct ChatChoice {
    delta: Option<Measured<Message>>,
    message: Option<Measured<Message>>,
}

impl Choice for ChatChoice {
    fn text_bytes(&self) -> u64 {
        let message = self.delta.as_ref().or(self.message.as_ref());
        message.map_or(0, |it| it.text_bytes(Message::text_bytes))
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
