//! `POST /v1/chat/completions`: what bounds its cost, and the body that keeps to it.

mod prompt;

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::json::{for_each_item, for_each_member, kind, string};
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
    "service_tier",
    "min_tokens",
];

/// Fields that make the upstream spend what no limit of ours bounds, that override the limits that
/// are set, or that have the work done by another than was priced, each with what to use instead.
/// `null` and `false` are let through.
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
    ("min_new_tokens", "the limit in `max_tokens`"),
    ("provider", "the provider that was priced"),
    ("route", "the provider that was priced"),
    ("transforms", "no transforms"),
    ("fallbacks", "one model in `model`"),
    ("preset", "one model in `model`"),
    ("api_base", "the server that was priced"),
    ("base_url", "the server that was priced"),
    ("api_key", "the server's own key"),
    ("search_parameters", "no web search"),
    ("enable_search", "no web search"),
    ("web_search", "no web search"),
    ("data_sources", "no data sources"),
    ("speed", "the usual speed"),
];

/// Service tiers that never cost more than what a request gets that names none.
const SERVICE_TIERS: &[&str] = &["default", "flex"];
/// The tier that leaves the choice to the account: on some it is dearer. It is taken out on the way,
/// so that such a request gets what one gets that names none.
const SERVICE_TIER_AUTO: &str = "auto";

const TEXT_ALONE: &str = "text alone";

/// The longest name of ours has 21 letters, each of which has a spelling of at most three bytes.
const FOLDED_BYTES_MAX: usize = 64;

/// Reads the facts.
pub(super) fn read(body: &[u8], ceiling: &Ceiling) -> Result<RequestFacts, BadBody> {
    strict::check(body)?;
    let members = members(body)?;
    members
        .iter()
        .try_for_each(|(name, _)| refuse_misspelt(name, GOVERNED, &Pointer::default()))?;
    refuse_unpriced(&members)?;
    service_tier(&members)?;
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
    let tiered = take_out_auto_tier(&mut members)?;
    if [limited, metered, tiered].iter().all(|it| *it == Edit::None) {
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

fn take_out_auto_tier(members: &mut Members<'_>) -> Result<Edit, BadBody> {
    match service_tier(members)? {
        ServiceTier::Plain => Ok(Edit::None),
        ServiceTier::Auto => {
            members.remove("service_tier");
            Ok(Edit::Made)
        }
    }
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

fn model(members: &Members<'_>) -> Result<Option<String>, BadBody> {
    let Some(text) = members.get("model") else { return Ok(None) };
    let wrong = || Pointer::default().name("model").unexpected("a string", kind(text));
    string(text).map(|it| Some(it.into_owned())).ok_or_else(wrong)
}

fn answer(members: &Members<'_>) -> Result<AnswerKind, BadBody> {
    match members.get("stream") {
        None | Some("false") => Ok(AnswerKind::Whole),
        Some("true") => Ok(AnswerKind::Stream),
        Some(other) => {
            Err(Pointer::default().name("stream").unexpected("true or false", kind(other)))
        }
    }
}

fn usage_event(members: &Members<'_>) -> Result<UsageEvent, BadBody> {
    let at = Pointer::default().name("stream_options");
    let Some(options) = members.get("stream_options") else { return Ok(UsageEvent::Hidden) };
    if !options.starts_with('{') {
        return Err(at.unexpected("an object", kind(options)));
    }
    let mut event = UsageEvent::Hidden;
    for_each_member(options, |name, value| {
        refuse_misspelt(name, &["include_usage"], &at)?;
        match (name, value) {
            ("include_usage", "true") => event = UsageEvent::Shown,
            ("include_usage", "null" | "false") => {}
            ("include_usage", _) => {
                return Err(at.name(name).unexpected("true or false", kind(value)));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(event)
}

/// Which tier a request names.
enum ServiceTier {
    /// None, or one of [`SERVICE_TIERS`].
    Plain,
    /// [`SERVICE_TIER_AUTO`].
    Auto,
}

fn service_tier(members: &Members<'_>) -> Result<ServiceTier, BadBody> {
    let Some(text) = members.get("service_tier") else { return Ok(ServiceTier::Plain) };
    match string(text).as_deref() {
        Some(SERVICE_TIER_AUTO) => Ok(ServiceTier::Auto),
        Some(tier) if SERVICE_TIERS.contains(&tier) => Ok(ServiceTier::Plain),
        Some(_) | None => {
            Err(Pointer::default().name("service_tier").unpriced("`auto`, `default` or `flex`"))
        }
    }
}

/// The number of choices, and the most tokens of each.
fn limits(members: &Members<'_>, ceiling: &Ceiling) -> Result<(u64, u64), BadBody> {
    let choices = count(members, "n", 1)?.unwrap_or(1);
    if ceiling.max_choices < choices {
        let expected = format!("at most {} choices", ceiling.max_choices);
        return Err(Pointer::default().name("n").unexpected(expected, choices));
    }
    let asked = [
        count(members, OutputLimit::MaxTokens.as_str(), 1)?,
        count(members, OutputLimit::MaxCompletionTokens.as_str(), 1)?,
    ];
    let least = asked.into_iter().flatten().min().unwrap_or(ceiling.max_output_tokens);
    let per_choice = least.min(ceiling.max_output_tokens);
    // Some servers obey it before the limit.
    let forced = count(members, "min_tokens", 0)?.unwrap_or(0);
    if per_choice < forced {
        let expected = format!("at most {per_choice} tokens");
        return Err(Pointer::default().name("min_tokens").unexpected(expected, forced));
    }
    Ok((choices, per_choice))
}

/// A whole number of at least `least`.
fn count(members: &Members<'_>, name: &str, least: u64) -> Result<Option<u64>, BadBody> {
    let Some(text) = members.get(name) else { return Ok(None) };
    let found = match kind(text) {
        "a number" => {
            let number: Value = serde_json::from_str(text).map_err(BadBody::NotJson)?;
            match number.as_u64() {
                Some(count) if least <= count => return Ok(Some(count)),
                _ => number.to_string(),
            }
        }
        other => other.to_owned(),
    };
    let expected = format_args!("a whole number of at least {least}");
    Err(Pointer::default().name(name).unexpected(expected, found))
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
    let Some(modalities) = members.get("modalities") else { return Ok(()) };
    let unpriced = || Pointer::default().name("modalities").unpriced(TEXT_ALONE);
    if !modalities.starts_with('[') {
        return Err(unpriced());
    }
    for_each_item(modalities, |_, it| match string(it).as_deref() {
        Some("text") => Ok(()),
        Some(_) | None => Err(unpriced()),
    })
}

/// Refuses a name that a reader which ignores case would take for a governed one.
fn refuse_misspelt(name: &str, governed: &[&str], at: &Pointer) -> Result<(), BadBody> {
    if !governed.contains(&name) && governed.contains(&fold(name).as_ref()) {
        return Err(at.name(name).ambiguous());
    }
    Ok(())
}

/// Simple case folding: also the long s and the Kelvin sign, which Unicode folds to `s` and `k`.
/// What is too long for any known name is not folded, as that may be the whole body.
fn fold(name: &str) -> Cow<'_, str> {
    let plain = name.bytes().all(|it| it.is_ascii() && !it.is_ascii_uppercase());
    if FOLDED_BYTES_MAX < name.len() || plain {
        return Cow::Borrowed(name);
    }
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}
