//! How much of a request becomes prompt.
//!
//! **The prompt's bound.** Every tokenizer in use makes at most one token of one byte of UTF-8, so
//! the bytes of everything that becomes prompt bound its tokens. A server's template adds a few
//! tokens for each message, for the request and for tools; the constants below are generous. Content
//! that is not text (images, audio, files) costs tokens that its bytes say nothing about, and is
//! refused. A usage above the bound is still capped by the hold.

use super::fields::{TEXT_ALONE, is_misspelt};
use super::json::{for_each_item, for_each_member, kind, string, string_bytes};
use super::{BadBody, Pointer};

/// The most messages of one request (attack A32): far more than any model's window has room for.
pub(super) const MESSAGES_MAX: usize = 10_000;

/// Tokens that a template may add to a request: markers and a default system prompt.
pub(super) const REQUEST_TOKENS: u64 = 128;
/// Tokens that a template may add to a message: markers and its role.
pub(super) const MESSAGE_TOKENS: u64 = 16;
/// Tokens that a template may add where tools are offered.
pub(super) const TOOLS_TOKENS: u64 = 512;
/// Bytes by which a template may write a number longer than it came: `1e15` is `1000000000000000.0`
/// to most of them.
const EXPONENT_BYTES: u64 = 24;
/// Bytes of text that stand for one token in an estimate.
const BYTES_PER_TOKEN: u64 = 4;

/// The parts of a message that are text.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextParts {
    /// Their types.
    pub(super) types: &'static [&'static str],
    /// What they may have.
    pub(super) names: &'static [&'static str],
    /// The same for people.
    pub(super) expected: &'static str,
}

/// What becomes prompt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prompt {
    /// Bytes of text.
    bytes: u64,
    /// Tokens that came as such.
    tokens: u64,
    /// Tokens that the server's template may add.
    template_tokens: u64,
}

impl Prompt {
    /// A value of which nobody knows how it becomes prompt: a string as its text, all else as it
    /// is written.
    pub(super) fn add_value(&mut self, text: &str) {
        match string_bytes(text) {
            Some(bytes) => self.add_bytes(bytes),
            None => self.add_written(text),
        }
    }

    /// A value as it is written.
    pub(super) fn add_written(&mut self, text: &str) {
        self.add_bytes(text.len());
        let pairs = text.as_bytes().windows(2);
        let exponents = pairs.filter(|it| matches!(it, [b'0'..=b'9', b'e' | b'E'])).count();
        let exponents = u64::try_from(exponents).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(exponents.saturating_mul(EXPONENT_BYTES));
    }

    fn add_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// A token that came as its number.
    pub(super) fn add_token(&mut self) {
        self.tokens = self.tokens.saturating_add(1);
    }

    /// Tokens of the server's template.
    pub(super) fn add_template(&mut self, tokens: u64) {
        self.template_tokens = self.template_tokens.saturating_add(tokens);
    }

    /// What a message says: a string, or parts that are all text.
    pub(super) fn add_content(
        &mut self,
        content: &str,
        at: &dyn Fn() -> Pointer,
        parts: &TextParts,
    ) -> Result<(), BadBody> {
        match kind(content) {
            "null" => Ok(()),
            "a string" => {
                self.add_value(content);
                Ok(())
            }
            "an array" => for_each_item(content, |index, part| {
                self.add_part(part, &|| at().index(index), parts)
            }),
            other => Err(at().unexpected("a string or an array of parts", other)),
        }
    }

    fn add_part(
        &mut self,
        part: &str,
        at: &dyn Fn() -> Pointer,
        parts: &TextParts,
    ) -> Result<(), BadBody> {
        if !part.starts_with('{') {
            return Err(at().unexpected("a part object", kind(part)));
        }
        let (mut known, mut unknown) = (false, None);
        for_each_member(part, |name, value| {
            if name == "type" {
                known = string(value).is_some_and(|it| parts.types.contains(&it.as_ref()));
            }
            if !parts.names.contains(&name) && unknown.is_none() {
                unknown = Some(at().name(name).unpriced(TEXT_ALONE));
            }
            self.add_value(value);
            Ok(())
        })?;
        if !known {
            return Err(at().name("type").unpriced(parts.expected));
        }
        unknown.map_or(Ok(()), Err)
    }

    /// The most tokens that it can be.
    pub(super) fn tokens_max(&self) -> u64 {
        self.bytes.saturating_add(self.tokens).saturating_add(self.template_tokens)
    }

    /// Bytes of text to estimate it by; what came as tokens as if it had been text.
    pub(super) fn estimate_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.tokens.saturating_mul(BYTES_PER_TOKEN))
    }
}

/// Refuses tools that are not among the types of `known`, as those the server itself would use:
/// nobody knows what they bring into the prompt.
pub(super) fn refuse_unpriced_tools(
    tools: &str,
    known: &[&str],
    untyped: Untyped,
) -> Result<(), BadBody> {
    let at = Pointer::default().name("tools");
    if tools == "null" {
        return Ok(());
    }
    if !tools.starts_with('[') {
        return Err(at.unexpected("an array of tools", kind(tools)));
    }
    for_each_item(tools, |index, tool| {
        let mut good = untyped == Untyped::Known && tool.starts_with('{');
        if tool.starts_with('{') {
            for_each_member(tool, |name, value| {
                if is_misspelt(name, &["type"]) {
                    return Err(at.index(index).name(name).ambiguous());
                }
                if name == "type" && (value != "null" || untyped == Untyped::Unknown) {
                    good = string(value).is_some_and(|it| known.contains(&it.as_ref()));
                }
                Ok(())
            })?;
        }
        let unpriced = || at.index(index).name("type").unpriced("a tool that the client runs");
        if good { Ok(()) } else { Err(unpriced()) }
    })
}

/// What a tool is that names no type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untyped {
    /// One that the client runs.
    Known,
    /// Nobody knows.
    Unknown,
}
