//! `POST /v1/chat/completions`: what bounds its cost, and the body that keeps to it.

mod prompt;

use bytes::Bytes;
use serde_json::Value;

use super::members::Members;
use super::{
    AnswerKind, BadBody, Ceiling, OutputLimit, Pointer, RequestFacts, UsageBounds, UsageEvent,
    strict,
};

/// Fields that are read here. A reader that ignores case (Go's) would take `Max_Tokens` for one of
/// them, so they may occur in their exact spelling only.
const GOVERNED: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "tools",
    "functions",
    "modalities",
];

/// Fields that make the upstream spend what no limit of ours bounds, or that override the limits
/// that are set, each with what to use instead. `null` and `false` are let through.
const UNPRICED: &[(&str, &str)] = &[
    ("n_predict", "the limit in `max_tokens`"),
    ("num_predict", "the limit in `max_tokens`"),
    ("max_new_tokens", "the limit in `max_tokens`"),
    ("max_output_tokens", "the limit in `max_tokens`"),
    ("max_tokens_to_sample", "the limit in `max_tokens`"),
    ("n_cmpl", "the number of choices in `n`"),
    ("best_of", "the number of choices in `n`"),
    ("use_beam_search", "no beam search"),
    ("prediction", "no predicted output"),
    ("audio", "text alone"),
    ("images", "text alone"),
    ("prompt_embeds", "text alone"),
    ("web_search_options", "no web search"),
    ("plugins", "no plugins"),
    ("models", "one model in `model`"),
    ("chat_template", "the server's own chat template"),
];

const TEXT_ALONE: &str = "text alone";

/// Reads the facts.
pub(super) fn read(body: &[u8], ceiling: &Ceiling) -> Result<RequestFacts, BadBody> {
    strict::check(body)?;
    let members = members(body)?;
    refuse_misspelt(members.iter().map(|(name, _)| name), GOVERNED, &Pointer::default())?;
    refuse_unpriced(&members)?;
    let (choices, per_choice) = limits(&members, ceiling)?;
    let prompt = prompt::read(&members)?;
    let answer = answer(&members)?;
    let bounds = UsageBounds {
        input_tokens: prompt.bytes.saturating_add(prompt.template_tokens),
        output_tokens: choices.saturating_mul(per_choice),
        output_tokens_per_choice: per_choice,
    };
    Ok(RequestFacts {
        model: model(&members)?,
        answer,
        usage_event: usage_event(&members)?,
        choices,
        prompt_bytes: prompt.bytes,
        bounds: Some(bounds),
    })
}

/// Writes the limits that the facts were bounded with.
pub(super) fn enforce(
    facts: &RequestFacts,
    body: &Bytes,
    ceiling: &Ceiling,
) -> Result<Bytes, BadBody> {
    let mut members = members(body)?;
    let per_choice =
        facts.bounds.map_or(ceiling.max_output_tokens, |it| it.output_tokens_per_choice);
    let limited = set_limit(&mut members, per_choice, ceiling.output_limit);
    let metered = ask_for_usage(&mut members, facts.answer)?;
    if limited == Edit::None && metered == Edit::None {
        return Ok(body.clone());
    }
    Ok(Bytes::from(members.write()))
}

/// Whether something had to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    None,
    Made,
}

fn set_limit(members: &mut Members<'_>, limit: u64, field: OutputLimit) -> Edit {
    let limit = limit.to_string();
    let other = field.other().as_str();
    let alone = members.get(other).is_none();
    if alone && members.get(field.as_str()) == Some(limit.as_str()) {
        return Edit::None;
    }
    if !alone {
        members.remove(other);
    }
    members.set(field.as_str(), limit);
    Edit::Made
}

fn ask_for_usage(members: &mut Members<'_>, answer: AnswerKind) -> Result<Edit, BadBody> {
    if answer == AnswerKind::Whole || usage_event(members)? == UsageEvent::Shown {
        return Ok(Edit::None);
    }
    let text = members.get("stream_options").unwrap_or("{}");
    let mut options = Members::read(text.as_bytes()).map_err(BadBody::NotJson)?;
    options.set("include_usage", "true".to_owned());
    let options = options.write();
    members.set("stream_options", options);
    Ok(Edit::Made)
}

fn members(body: &[u8]) -> Result<Members<'_>, BadBody> {
    Members::read(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Pointer::default().unexpected("an object", "another value")
        }
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => BadBody::NotJson(error),
    })
}

fn value(members: &Members<'_>, name: &str) -> Result<Option<Value>, BadBody> {
    members.get(name).map(serde_json::from_str).transpose().map_err(BadBody::NotJson)
}

fn model(members: &Members<'_>) -> Result<Option<String>, BadBody> {
    match value(members, "model")? {
        None => Ok(None),
        Some(Value::String(model)) => Ok(Some(model)),
        Some(other) => Err(Pointer::default().name("model").unexpected("a string", kind(&other))),
    }
}

fn answer(members: &Members<'_>) -> Result<AnswerKind, BadBody> {
    match value(members, "stream")? {
        None | Some(Value::Bool(false)) => Ok(AnswerKind::Whole),
        Some(Value::Bool(true)) => Ok(AnswerKind::Stream),
        Some(other) => {
            Err(Pointer::default().name("stream").unexpected("true or false", kind(&other)))
        }
    }
}

fn usage_event(members: &Members<'_>) -> Result<UsageEvent, BadBody> {
    let at = Pointer::default().name("stream_options");
    let options = match value(members, "stream_options")? {
        None => return Ok(UsageEvent::Hidden),
        Some(Value::Object(options)) => options,
        Some(other) => return Err(at.unexpected("an object", kind(&other))),
    };
    refuse_misspelt(options.keys().map(String::as_str), &["include_usage"], &at)?;
    match options.get("include_usage") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(UsageEvent::Hidden),
        Some(Value::Bool(true)) => Ok(UsageEvent::Shown),
        Some(other) => Err(at.name("include_usage").unexpected("true or false", kind(other))),
    }
}

/// The number of choices, and the most tokens of each.
fn limits(members: &Members<'_>, ceiling: &Ceiling) -> Result<(u64, u64), BadBody> {
    let choices = count(members, "n")?.unwrap_or(1);
    if ceiling.max_choices < choices {
        let expected = format!("at most {} choices", ceiling.max_choices);
        return Err(Pointer::default().name("n").unexpected(expected, choices));
    }
    let asked = [
        count(members, OutputLimit::MaxTokens.as_str())?,
        count(members, OutputLimit::MaxCompletionTokens.as_str())?,
    ];
    let least = asked.into_iter().flatten().min().unwrap_or(ceiling.max_output_tokens);
    Ok((choices, least.min(ceiling.max_output_tokens)))
}

/// A whole number of at least one.
fn count(members: &Members<'_>, name: &str) -> Result<Option<u64>, BadBody> {
    let Some(value) = value(members, name)? else { return Ok(None) };
    match value.as_u64() {
        Some(count) if 1 <= count => Ok(Some(count)),
        _ => {
            let found = if value.is_number() { value.to_string() } else { kind(&value).to_owned() };
            Err(Pointer::default().name(name).unexpected("a whole number of at least 1", found))
        }
    }
}

fn refuse_unpriced(members: &Members<'_>) -> Result<(), BadBody> {
    for (name, text) in members.iter() {
        let folded = fold(name);
        let known = UNPRICED.iter().find(|(it, _)| *it == folded);
        if let Some((_, expected)) = known
            && !matches!(text, "null" | "false")
        {
            return Err(Pointer::default().name(name).unpriced(expected));
        }
    }
    let modalities = value(members, "modalities")?;
    let text_alone = modalities.is_none_or(|it| {
        it.as_array().is_some_and(|all| all.iter().all(|it| it.as_str() == Some("text")))
    });
    if text_alone {
        Ok(())
    } else {
        Err(Pointer::default().name("modalities").unpriced(TEXT_ALONE))
    }
}

/// Refuses a name that a reader which ignores case would take for a governed one.
fn refuse_misspelt<'a>(
    names: impl Iterator<Item = &'a str>,
    governed: &[&str],
    at: &Pointer,
) -> Result<(), BadBody> {
    for name in names {
        if !governed.contains(&name) && governed.contains(&fold(name).as_str()) {
            return Err(at.name(name).ambiguous());
        }
    }
    Ok(())
}

/// Simple case folding: also the long s and the Kelvin sign, which Unicode folds to `s` and `k`.
fn fold(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// What a value is, without saying what it says.
const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
