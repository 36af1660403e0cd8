//! Text that may come as a string, as tokens, or as a list of either: `prompt` and `input` of the
//! older OpenAI endpoints.
//!
//! A token that came as its number is one token; so is no more than that, as a server that takes
//! numbers takes those of its own tokenizer.

use super::fields::count_at;
use super::json::{for_each_item, kind};
use super::prompt::Prompt;
use super::{BadBody, Pointer};

/// What such a field can be.
pub(super) const EXPECTED: &str = "a string, an array of strings, or arrays of tokens";

/// Adds it to what becomes prompt, and counts how many texts it is. An empty list is one, as nobody
/// knows what a server makes of it.
pub(super) fn read(text: &str, at: &Pointer, prompt: &mut Prompt) -> Result<u64, BadBody> {
    match kind(text) {
        "a string" => {
            prompt.add_value(text);
            Ok(1)
        }
        "an array" => list(text, at, prompt),
        other => Err(at.unexpected(EXPECTED, other)),
    }
}

/// Strings or arrays of tokens are a text each, tokens are one text together.
fn list(text: &str, at: &Pointer, prompt: &mut Prompt) -> Result<u64, BadBody> {
    let (mut texts, mut tokens) = (0_u64, 0_u64);
    for_each_item(text, |index, item| {
        match kind(item) {
            "a string" => {
                prompt.add_value(item);
                texts = texts.saturating_add(1);
            }
            "a number" => {
                add_token(item, &|| at.index(index), prompt)?;
                tokens = tokens.saturating_add(1);
            }
            "an array" => {
                for_each_item(item, |inner, token| match kind(token) {
                    "a number" => add_token(token, &|| at.index(index).index(inner), prompt),
                    other => Err(at.index(index).index(inner).unexpected("a token", other)),
                })?;
                texts = texts.saturating_add(1);
            }
            other => return Err(at.index(index).unexpected("a string or tokens", other)),
        }
        if 0 < texts && 0 < tokens {
            return Err(at.index(index).unexpected("only strings, or only tokens", "both"));
        }
        Ok(())
    })?;
    Ok(texts.max(1))
}

fn add_token(text: &str, at: &dyn Fn() -> Pointer, prompt: &mut Prompt) -> Result<(), BadBody> {
    let plain = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !plain {
        count_at(text, &at(), 0)?;
    }
    prompt.add_token();
    Ok(())
}
