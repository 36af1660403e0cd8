//! What of a chat request becomes prompt, and how many tokens that is at most.
//!
//! **The prompt's bound.** Every tokenizer in use for chat makes at most one token of one byte of
//! UTF-8, so the bytes of everything that becomes prompt bound its tokens. A server's chat template
//! adds a few tokens for each message, for the request and for tools; the constants below are
//! generous. Content that is not text (images, audio, files) costs tokens that its bytes say nothing
//! about, and is refused. A usage above the bound is still capped by the hold.

use serde_json::Value;

use super::{TEXT_ALONE, kind, refuse_misspelt, value};
use crate::facts::members::Members;
use crate::facts::{BadBody, Pointer};

/// Tokens that a chat template may add to a request: markers and a default system prompt.
const REQUEST_TOKENS: u64 = 128;
/// Tokens that a chat template may add to a message: markers and its role.
const MESSAGE_TOKENS: u64 = 16;
/// Tokens that a chat template may add where tools are offered.
const TOOLS_TOKENS: u64 = 512;

/// What a message may not be misread as having.
const GOVERNED_IN_MESSAGE: &[&str] = &["role", "content", "audio", "images"];
/// What a text part may have.
const TEXT_PART: &[&str] = &["type", "text", "refusal", "cache_control"];

/// What becomes prompt.
#[derive(Clone, Copy, Default)]
pub(super) struct Prompt {
    /// Bytes of text.
    pub(super) bytes: u64,
    /// Tokens that the server's chat template may add.
    pub(super) template_tokens: u64,
}

impl Prompt {
    fn add(&mut self, text: &str) {
        self.bytes = self.bytes.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
    }

    fn add_template(&mut self, tokens: u64) {
        self.template_tokens = self.template_tokens.saturating_add(tokens);
    }
}

/// Everything that is not known to stay out of the prompt counts, with the text it is written in.
pub(super) fn read(members: &Members<'_>) -> Result<Prompt, BadBody> {
    let mut prompt = Prompt::default();
    prompt.add_template(REQUEST_TOKENS);
    for (name, text) in members.iter() {
        if name != "messages" && text.starts_with(['{', '[', '"']) {
            prompt.add(text);
        }
        if name == "tools" {
            prompt.add_template(TOOLS_TOKENS);
            refuse_unpriced_tools(text)?;
        }
        if name == "functions" {
            prompt.add_template(TOOLS_TOKENS);
        }
    }
    let at = Pointer::default().name("messages");
    let messages = match value(members, "messages")? {
        Some(Value::Array(messages)) => messages,
        Some(other) => return Err(at.unexpected("an array of messages", kind(&other))),
        None => return Err(at.unexpected("an array of messages", "nothing")),
    };
    for (index, message) in messages.iter().enumerate() {
        prompt.add_template(MESSAGE_TOKENS);
        add_message(&mut prompt, message, &at.index(index))?;
    }
    Ok(prompt)
}

fn add_message(prompt: &mut Prompt, message: &Value, at: &Pointer) -> Result<(), BadBody> {
    let Some(message) = message.as_object() else {
        return Err(at.unexpected("a message object", kind(message)));
    };
    refuse_misspelt(message.keys().map(String::as_str), GOVERNED_IN_MESSAGE, at)?;
    for (name, value) in message {
        match name.as_str() {
            "content" => add_content(prompt, value, &at.name(name))?,
            "audio" | "images" if !value.is_null() => {
                return Err(at.name(name).unpriced(TEXT_ALONE));
            }
            _ => add_value(prompt, value),
        }
    }
    Ok(())
}

fn add_value(prompt: &mut Prompt, value: &Value) {
    match value.as_str() {
        Some(text) => prompt.add(text),
        None => prompt.add(&value.to_string()),
    }
}

fn add_content(prompt: &mut Prompt, content: &Value, at: &Pointer) -> Result<(), BadBody> {
    match content {
        Value::Null => Ok(()),
        Value::String(text) => {
            prompt.add(text);
            Ok(())
        }
        Value::Array(parts) => parts
            .iter()
            .enumerate()
            .try_for_each(|(index, part)| add_part(prompt, part, &at.index(index))),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(at.unexpected("a string or an array of parts", kind(content)))
        }
    }
}

fn add_part(prompt: &mut Prompt, part: &Value, at: &Pointer) -> Result<(), BadBody> {
    let Some(members) = part.as_object() else {
        return Err(at.unexpected("a part object", kind(part)));
    };
    let known = members.get("type").and_then(Value::as_str);
    if !matches!(known, Some("text" | "refusal")) {
        return Err(at.name("type").unpriced("a part of type `text` or `refusal`"));
    }
    for (name, value) in members {
        if !TEXT_PART.contains(&name.as_str()) {
            return Err(at.name(name).unpriced(TEXT_ALONE));
        }
        add_value(prompt, value);
    }
    Ok(())
}

fn refuse_unpriced_tools(text: &str) -> Result<(), BadBody> {
    let at = Pointer::default().name("tools");
    let tools: Value = serde_json::from_str(text).map_err(BadBody::NotJson)?;
    if tools.is_null() {
        return Ok(());
    }
    let Some(tools) = tools.as_array() else {
        return Err(at.unexpected("an array of tools", kind(&tools)));
    };
    for (index, tool) in tools.iter().enumerate() {
        let known = tool.get("type").and_then(Value::as_str);
        if !matches!(known, Some("function" | "custom")) {
            return Err(at.index(index).name("type").unpriced("a tool of type `function`"));
        }
    }
    Ok(())
}
