//! What of a Messages request becomes prompt: the system prompt, the messages, and tools.

use std::borrow::Cow;

use crate::facts::fields::{TEXT_ALONE, is_misspelt};
use crate::facts::json::{for_each_item, for_each_member, kind, member, string};
use crate::facts::members::Members;
use crate::facts::prompt::{
    MESSAGE_TOKENS, MESSAGES_MAX, Prompt, REQUEST_TOKENS, TOOLS_TOKENS, Untyped,
    refuse_unpriced_tools,
};
use crate::facts::{BadBody, Pointer};

/// Fields that become prompt, beside `system` and `messages`.
const WRITTEN: &[&str] = &["output_config", "output_format", "tool_choice", "tools"];
/// What a message may have.
const MESSAGE: &[&str] = &["role", "content"];
/// Blocks that are text, calls of the client's tools, and what the model thought before.
const IN_MESSAGE: &[Block] = &[
    TEXT,
    Block { word: "tool_use", names: &["type", "id", "name", "input", "cache_control", "caller"] },
    Block {
        word: "tool_result",
        names: &["type", "tool_use_id", "content", "is_error", "cache_control"],
    },
    Block { word: "thinking", names: &["type", "thinking", "signature"] },
    Block { word: "redacted_thinking", names: &["type", "data"] },
];
/// Blocks of a system prompt or of a tool's result.
const TEXT_ONLY: &[Block] = &[TEXT];
const TEXT: Block = Block { word: "text", names: &["type", "text", "cache_control", "citations"] };

/// A type of content blocks.
#[derive(Clone, Copy)]
struct Block {
    word: &'static str,
    /// What it may have.
    names: &'static [&'static str],
}

/// Adds up everything that becomes prompt.
pub(super) fn read(members: &Members<'_>) -> Result<Prompt, BadBody> {
    let mut prompt = Prompt::default();
    prompt.add_template(REQUEST_TOKENS);
    for name in WRITTEN {
        if let Some(text) = members.get(name) {
            // The server explains tools and schemas in words of its own.
            prompt.add_template(TOOLS_TOKENS);
            prompt.add_written(text);
        }
    }
    let root = Pointer::default;
    if let Some(marks) = members.get("cache_control") {
        check_cache_control(marks, &|| root().name("cache_control"))?;
    }
    if let Some(tools) = members.get("tools") {
        refuse_unpriced_tools(tools, &["custom"], Untyped::Known)?;
        check_cache_of_tools(tools)?;
    }
    if let Some(system) = members.get("system") {
        add_content(&mut prompt, system, &|| root().name("system"), TEXT_ONLY)?;
    }
    let at = root().name("messages");
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
    for_each_member(message, |name, value| match name {
        "content" => add_content(prompt, value, &|| at.name(name), IN_MESSAGE),
        _ if MESSAGE.contains(&name) => {
            prompt.add_value(value);
            Ok(())
        }
        _ if is_misspelt(name, MESSAGE) => Err(at.name(name).ambiguous()),
        _ => Err(at.name(name).unpriced("`role` and `content`")),
    })
}

/// A string, or blocks of the types that may occur there.
fn add_content(
    prompt: &mut Prompt,
    content: &str,
    at: &dyn Fn() -> Pointer,
    blocks: &[Block],
) -> Result<(), BadBody> {
    match kind(content) {
        "a string" => {
            prompt.add_value(content);
            Ok(())
        }
        "an array" => for_each_item(content, |index, block| {
            add_block(prompt, block, &|| at().index(index), blocks)
        }),
        other => Err(at().unexpected("a string or an array of content blocks", other)),
    }
}

fn add_block(
    prompt: &mut Prompt,
    block: &str,
    at: &dyn Fn() -> Pointer,
    blocks: &[Block],
) -> Result<(), BadBody> {
    if !block.starts_with('{') {
        return Err(at().unexpected("a content block object", kind(block)));
    }
    let word = member(block, "type")?.and_then(string).unwrap_or(Cow::Borrowed(""));
    let Some(known) = blocks.iter().find(|it| it.word == word) else {
        return Err(at().name("type").unpriced(TEXT_ALONE));
    };
    if known.word != TEXT.word {
        prompt.add_template(MESSAGE_TOKENS);
    }
    for_each_member(block, |name, value| match name {
        _ if !known.names.contains(&name) => Err(at().name(name).unpriced(TEXT_ALONE)),
        "content" => add_content(prompt, value, &|| at().name(name), TEXT_ONLY),
        "cache_control" => check_cache_control(value, &|| at().name(name)),
        _ => {
            prompt.add_value(value);
            Ok(())
        }
    })
}

fn check_cache_of_tools(tools: &str) -> Result<(), BadBody> {
    let at = |index| Pointer::default().name("tools").index(index).name("cache_control");
    for_each_item(tools, |index, tool| match member(tool, "cache_control")? {
        Some(marks) => check_cache_control(marks, &|| at(index)),
        None => Ok(()),
    })
}

/// A cache for five minutes is what a mark without a time gets.
fn check_cache_control(marks: &str, at: &dyn Fn() -> Pointer) -> Result<(), BadBody> {
    if marks == "null" {
        return Ok(());
    }
    if !marks.starts_with('{') {
        return Err(at().unexpected("an object", kind(marks)));
    }
    for_each_member(marks, |name, value| match (name, string(value).as_deref()) {
        ("type", Some("ephemeral")) | ("ttl", Some("5m")) => Ok(()),
        ("ttl", None) if value == "null" => Ok(()),
        _ => Err(at().name(name).unpriced("`ephemeral` for `5m`")),
    })
}
