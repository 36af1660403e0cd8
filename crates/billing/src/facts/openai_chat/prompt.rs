//! What of a chat request becomes prompt, and how many tokens that is at most.
//!
//! **The prompt's bound.** Every tokenizer in use for chat makes at most one token of one byte of
//! UTF-8, so the bytes of everything that becomes prompt bound its tokens. A server's chat template
//! adds a few tokens for each message, for the request and for tools; the constants below are
//! generous. Content that is not text (images, audio, files) costs tokens that its bytes say nothing
//! about, and is refused. A usage above the bound is still capped by the hold.

use super::{TEXT_ALONE, refuse_misspelt};
use crate::facts::json::{for_each_item, for_each_member, kind, string, string_bytes};
use crate::facts::members::Members;
use crate::facts::{BadBody, Pointer};

/// The most messages of one request (attack A32): far more than any model's window has room for.
const MESSAGES_MAX: usize = 10_000;

/// Tokens that a chat template may add to a request: markers and a default system prompt.
const REQUEST_TOKENS: u64 = 128;
/// Tokens that a chat template may add to a message: markers and its role.
const MESSAGE_TOKENS: u64 = 16;
/// Tokens that a chat template may add where tools are offered.
const TOOLS_TOKENS: u64 = 512;
/// Bytes by which a template may write a number longer than it came: `1e15` is `1000000000000000.0`
/// to most of them.
const EXPONENT_BYTES: u64 = 24;

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
    /// A value of which nobody knows how it becomes prompt: a string as its text, all else as it
    /// is written.
    fn add_value(&mut self, text: &str) {
        match string_bytes(text) {
            Some(bytes) => self.add_bytes(bytes),
            None => self.add_written(text),
        }
    }

    /// A value as it is written.
    fn add_written(&mut self, text: &str) {
        self.add_bytes(text.len());
        let pairs = text.as_bytes().windows(2);
        let exponents = pairs.filter(|it| matches!(it, [b'0'..=b'9', b'e' | b'E'])).count();
        let exponents = u64::try_from(exponents).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(exponents.saturating_mul(EXPONENT_BYTES));
    }

    fn add_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
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
            prompt.add_written(text);
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
    let messages = match members.get("messages") {
        Some(messages) if messages.starts_with('[') => messages,
        Some(other) => return Err(at.unexpected("an array of messages", kind(other))),
        None => return Err(at.unexpected("an array of messages", "nothing")),
    };
    for_each_item(messages, |index, message| {
        if MESSAGES_MAX <= index {
            return Err(at.unexpected(format_args!("at most {MESSAGES_MAX} messages"), "more"));
        }
        prompt.add_template(MESSAGE_TOKENS);
        add_message(&mut prompt, message, &at.index(index))
    })?;
    Ok(prompt)
}

fn add_message(prompt: &mut Prompt, message: &str, at: &Pointer) -> Result<(), BadBody> {
    if !message.starts_with('{') {
        return Err(at.unexpected("a message object", kind(message)));
    }
    for_each_member(message, |name, value| {
        refuse_misspelt(name, GOVERNED_IN_MESSAGE, at)?;
        match name {
            "content" => add_content(prompt, value, &at.name(name)),
            "audio" | "images" if value != "null" => Err(at.name(name).unpriced(TEXT_ALONE)),
            _ => {
                prompt.add_value(value);
                Ok(())
            }
        }
    })
}

fn add_content(prompt: &mut Prompt, content: &str, at: &Pointer) -> Result<(), BadBody> {
    match content.as_bytes().first() {
        Some(b'n') => Ok(()),
        Some(b'"') => {
            prompt.add_value(content);
            Ok(())
        }
        Some(b'[') => {
            for_each_item(content, |index, part| add_part(prompt, part, &|| at.index(index)))
        }
        _ => Err(at.unexpected("a string or an array of parts", kind(content))),
    }
}

fn add_part(prompt: &mut Prompt, part: &str, at: &dyn Fn() -> Pointer) -> Result<(), BadBody> {
    if !part.starts_with('{') {
        return Err(at().unexpected("a part object", kind(part)));
    }
    let (mut known, mut unknown) = (false, None);
    for_each_member(part, |name, value| {
        if name == "type" {
            known = matches!(string(value).as_deref(), Some("text" | "refusal"));
        }
        if !TEXT_PART.contains(&name) && unknown.is_none() {
            unknown = Some(at().name(name).unpriced(TEXT_ALONE));
        }
        prompt.add_value(value);
        Ok(())
    })?;
    if !known {
        return Err(at().name("type").unpriced("a part of type `text` or `refusal`"));
    }
    unknown.map_or(Ok(()), Err)
}

fn refuse_unpriced_tools(tools: &str) -> Result<(), BadBody> {
    let at = Pointer::default().name("tools");
    if tools == "null" {
        return Ok(());
    }
    if !tools.starts_with('[') {
        return Err(at.unexpected("an array of tools", kind(tools)));
    }
    for_each_item(tools, |index, tool| {
        let mut known = false;
        if tool.starts_with('{') {
            for_each_member(tool, |name, value| {
                known |= name == "type"
                    && matches!(string(value).as_deref(), Some("function" | "custom"));
                Ok(())
            })?;
        }
        let unpriced = || at.index(index).name("type").unpriced("a tool of type `function`");
        if known { Ok(()) } else { Err(unpriced()) }
    })
}
