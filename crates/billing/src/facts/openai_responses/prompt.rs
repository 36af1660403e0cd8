//! What of a Responses request becomes prompt: `instructions`, the items of `input`, and tools.

use crate::facts::fields::is_misspelt;
use crate::facts::json::{for_each_item, for_each_member, kind, member, string};
use crate::facts::members::Members;
use crate::facts::prompt::{
    MESSAGE_TOKENS, MESSAGES_MAX, Prompt, REQUEST_TOKENS, TOOLS_TOKENS, TextParts, Untyped,
    refuse_unpriced_tools,
};
use crate::facts::{BadBody, Pointer};

/// Fields that become prompt, beside `input`.
const WRITTEN: &[&str] = &["instructions", "text", "tool_choice", "tools"];
/// Tools that the client runs.
const TOOLS: &[&str] = &["function", "custom"];
/// What an item may not be misread as having.
const GOVERNED_IN_ITEM: &[&str] =
    &["type", "role", "content", "output", "summary", "encrypted_content"];
/// Parts of an item that are text.
const PARTS: TextParts = TextParts {
    types: &["input_text", "output_text", "refusal", "reasoning_text", "summary_text", "text"],
    names: &["type", "text", "refusal", "annotations", "logprobs", "prompt_cache_breakpoint"],
    expected: "a part of type `input_text`, `output_text` or `refusal`",
};

const ITEM: &str = "a message, a call of a function or its output";

/// Adds up everything that becomes prompt.
pub(super) fn read(members: &Members<'_>) -> Result<Prompt, BadBody> {
    let mut prompt = Prompt::default();
    prompt.add_template(REQUEST_TOKENS);
    for name in WRITTEN {
        if let Some(text) = members.get(name) {
            prompt.add_written(text);
        }
    }
    if let Some(tools) = members.get("tools") {
        prompt.add_template(TOOLS_TOKENS);
        refuse_unpriced_tools(tools, TOOLS, Untyped::Unknown)?;
    }
    let at = Pointer::default().name("input");
    match members.get("input") {
        Some(input) if input.starts_with('"') => {
            prompt.add_template(MESSAGE_TOKENS);
            prompt.add_value(input);
        }
        Some(input) if input.starts_with('[') => for_each_item(input, |index, item| {
            if MESSAGES_MAX <= index {
                return Err(at.unexpected(format_args!("at most {MESSAGES_MAX} items"), "more"));
            }
            prompt.add_template(MESSAGE_TOKENS);
            add_item(&mut prompt, item, &|| at.index(index))
        })?,
        Some(other) => return Err(at.unexpected("a string or an array of items", kind(other))),
        None => return Err(at.unexpected("a string or an array of items", "nothing")),
    }
    Ok(prompt)
}

/// What an item is, by what has to be known of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Message,
    Call,
    Output,
    Reasoning,
}

fn add_item(prompt: &mut Prompt, item: &str, at: &dyn Fn() -> Pointer) -> Result<(), BadBody> {
    if !item.starts_with('{') {
        return Err(at().unexpected("an item object", kind(item)));
    }
    refuse_reference(item, sort(item, at)?, at)?;
    for_each_member(item, |name, value| {
        if is_misspelt(name, GOVERNED_IN_ITEM) {
            return Err(at().name(name).ambiguous());
        }
        match name {
            "content" | "output" | "summary" => {
                prompt.add_content(value, &|| at().name(name), &PARTS)
            }
            _ => {
                prompt.add_value(value);
                Ok(())
            }
        }
    })
}

fn sort(item: &str, at: &dyn Fn() -> Pointer) -> Result<Item, BadBody> {
    let Some(text) = member(item, "type")? else { return Ok(Item::Message) };
    match string(text).as_deref() {
        Some("message") => Ok(Item::Message),
        Some("function_call" | "custom_tool_call") => Ok(Item::Call),
        Some("function_call_output" | "custom_tool_call_output") => Ok(Item::Output),
        Some("reasoning") => Ok(Item::Reasoning),
        Some(_) | None => Err(at().name("type").unpriced(ITEM)),
    }
}

/// An item that brings nothing along is a reference to one that the server keeps.
fn refuse_reference(item: &str, sort: Item, at: &dyn Fn() -> Pointer) -> Result<(), BadBody> {
    let wanted: &[&str] = match sort {
        Item::Message => &["role", "content"],
        Item::Output => &["output"],
        Item::Call => return Ok(()),
        Item::Reasoning => return refuse_kept_reasoning(item, at),
    };
    for name in wanted {
        if member(item, name)?.is_none() {
            return Err(at().name(name).unpriced("the whole item, not a reference to it"));
        }
    }
    Ok(())
}

fn refuse_kept_reasoning(item: &str, at: &dyn Fn() -> Pointer) -> Result<(), BadBody> {
    let encrypted = member(item, "encrypted_content")?;
    let plain = member(item, "content")?;
    let whole = encrypted.is_some_and(|it| it.starts_with('"') && it != "\"\"")
        || plain.is_some_and(|it| it.starts_with('[') && !is_empty(it));
    if whole {
        return Ok(());
    }
    let expected = "what `\"include\": [\"reasoning.encrypted_content\"]` gives";
    Err(at().name("encrypted_content").unpriced(expected))
}

fn is_empty(array: &str) -> bool {
    array.bytes().all(|it| matches!(it, b'[' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
}
