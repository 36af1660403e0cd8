//! What of a chat request becomes prompt.

use crate::facts::fields::{TEXT_ALONE, refuse_misspelt};
use crate::facts::json::{for_each_item, for_each_member, kind};
use crate::facts::members::Members;
use crate::facts::prompt::{
    MESSAGE_TOKENS, MESSAGES_MAX, Prompt, REQUEST_TOKENS, TOOLS_TOKENS, TextParts, Untyped,
    refuse_unpriced_tools,
};
use crate::facts::{BadBody, Pointer};

/// What a message may not be misread as having.
const GOVERNED_IN_MESSAGE: &[&str] = &["role", "content", "audio", "images"];
/// Parts that are text.
const PARTS: TextParts = TextParts {
    types: &["text", "refusal"],
    names: &["type", "text", "refusal", "cache_control"],
    expected: "a part of type `text` or `refusal`",
};
/// Tools that the client runs.
const TOOLS: &[&str] = &["function", "custom"];

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
            refuse_unpriced_tools(text, TOOLS, Untyped::Unknown)?;
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
            "content" => prompt.add_content(value, &|| at.name(name), &PARTS),
            "audio" | "images" if value != "null" => Err(at.name(name).unpriced(TEXT_ALONE)),
            _ => {
                prompt.add_value(value);
                Ok(())
            }
        }
    })
}
