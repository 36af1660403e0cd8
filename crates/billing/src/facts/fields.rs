//! Fields that several formats have: reading them, and refusing what has no price.
//!
//! A reader that ignores case (Go's) would take `Max_Tokens` for a field that is read here, so a
//! *governed* name may occur in its exact spelling only.

use std::borrow::Cow;

use serde_json::Value;

use super::json::{for_each_item, for_each_member, kind, string};
use super::members::Members;
use super::{AnswerKind, BadBody, Ceiling, Pointer, UsageEvent};

/// Fields of which it is known that they make a server spend what no limit of ours bounds, override
/// the limits that are set, or have the work done by another than was priced, each with what to use
/// instead. No route can pass them on; `null` and `false` are let through.
pub(super) const UNPRICED: &[Unpriced] = &[
    ("n_predict", IN_MAX_TOKENS),
    ("num_predict", IN_MAX_TOKENS),
    ("max_new_tokens", IN_MAX_TOKENS),
    ("max_output_tokens", IN_MAX_TOKENS),
    ("max_tokens_to_sample", IN_MAX_TOKENS),
    ("n_cmpl", "the number of choices in `n`"),
    ("use_beam_search", "no beam search"),
    ("prediction", "no predicted output"),
    ("audio", TEXT_ALONE),
    ("images", TEXT_ALONE),
    ("prompt_embeds", TEXT_ALONE),
    ("web_search_options", "no web search"),
    ("plugins", "no plugins"),
    ("models", ONE_MODEL),
    ("chat_template", "the server's own chat template"),
    ("min_new_tokens", IN_MAX_TOKENS),
    ("provider", "the provider that was priced"),
    ("route", "the provider that was priced"),
    ("transforms", "no transforms"),
    ("fallbacks", ONE_MODEL),
    ("preset", ONE_MODEL),
    ("api_base", "the server that was priced"),
    ("base_url", "the server that was priced"),
    ("api_key", "the server's own key"),
    ("search_parameters", "no web search"),
    ("enable_search", "no web search"),
    ("web_search", "no web search"),
    ("data_sources", "no data sources"),
    ("speed", "the usual speed"),
    ("extra_body", IN_THE_BODY),
    ("extra_headers", IN_THE_BODY),
    ("extra_query", IN_THE_BODY),
    ("prompt_logprobs", "no log probabilities of the prompt"),
];

/// What is expected where something else than text is found.
pub(super) const TEXT_ALONE: &str = "text alone";
/// `LiteLLM` lays these over what it sends, limits and all.
const IN_THE_BODY: &str = "each field in the body itself";
const IN_MAX_TOKENS: &str = "the limit in `max_tokens`";
const ONE_MODEL: &str = "one model in `model`";
const KNOWN_FIELD: &str = "a field that is known here, or that the route names in `pass_fields`";

/// Service tiers that never cost more than what a request gets that names none.
const SERVICE_TIERS: &[&str] = &["default", "flex"];
/// The tier that leaves the choice to the account: on some it is dearer. It is taken out on the way,
/// so that such a request gets what one gets that names none.
const SERVICE_TIER_AUTO: &str = "auto";

/// The longest name of ours has 21 letters, each of which has a spelling of at most three bytes.
const FOLDED_BYTES_MAX: usize = 64;

/// A field that has no price, in lower case, and what to use instead.
pub(super) type Unpriced = (&'static str, &'static str);

/// The members of a body, which must be an object.
pub(super) fn members(body: &[u8]) -> Result<Members<'_>, BadBody> {
    Members::read(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Pointer::default().unexpected("an object", "another value")
        }
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => BadBody::NotJson(error),
    })
}

/// The model asked for.
pub(super) fn model(members: &Members<'_>) -> Result<Option<String>, BadBody> {
    let Some(text) = members.get("model") else { return Ok(None) };
    let wrong = || Pointer::default().name("model").unexpected("a string", kind(text));
    string(text).map(|it| Some(it.into_owned())).ok_or_else(wrong)
}

/// How the answer shall come: `stream`.
pub(super) fn answer(members: &Members<'_>) -> Result<AnswerKind, BadBody> {
    Ok(if flag(members, "stream")? { AnswerKind::Stream } else { AnswerKind::Whole })
}

/// A boolean that is false where it is absent.
pub(super) fn flag(members: &Members<'_>, name: &str) -> Result<bool, BadBody> {
    match members.get(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Pointer::default().name(name).unexpected("true or false", kind(other))),
    }
}

/// Whether the client asked for the usage of its stream: `stream_options.include_usage`.
pub(super) fn usage_event(members: &Members<'_>) -> Result<UsageEvent, BadBody> {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceTier {
    /// None, or one of [`SERVICE_TIERS`].
    Plain,
    /// [`SERVICE_TIER_AUTO`].
    Auto,
}

/// The tier; a dearer one is refused.
pub(super) fn service_tier(members: &Members<'_>) -> Result<ServiceTier, BadBody> {
    let Some(text) = members.get("service_tier") else { return Ok(ServiceTier::Plain) };
    match string(text).as_deref() {
        Some(SERVICE_TIER_AUTO) => Ok(ServiceTier::Auto),
        Some(tier) if SERVICE_TIERS.contains(&tier) => Ok(ServiceTier::Plain),
        Some(_) | None => {
            Err(Pointer::default().name("service_tier").unpriced("`auto`, `default` or `flex`"))
        }
    }
}

/// A whole number of at least `least`.
pub(super) fn count(members: &Members<'_>, name: &str, least: u64) -> Result<Option<u64>, BadBody> {
    let Some(text) = members.get(name) else { return Ok(None) };
    count_at(text, &Pointer::default().name(name), least).map(Some)
}

/// The same for a value anywhere.
pub(super) fn count_at(text: &str, at: &Pointer, least: u64) -> Result<u64, BadBody> {
    let found = match kind(text) {
        "a number" => {
            let number: Value = serde_json::from_str(text).map_err(BadBody::NotJson)?;
            match number.as_u64() {
                Some(count) if least <= count => return Ok(count),
                _ => number.to_string(),
            }
        }
        other => other.to_owned(),
    };
    Err(at.unexpected(format_args!("a whole number of at least {least}"), found))
}

/// Choices of one prompt, within what the route allows.
pub(super) fn choices(members: &Members<'_>, name: &str, most: u64) -> Result<u64, BadBody> {
    let choices = count(members, name, 1)?.unwrap_or(1);
    if most < choices {
        let expected = format_args!("at most {most} choices");
        return Err(Pointer::default().name(name).unexpected(expected, choices));
    }
    Ok(choices)
}

/// Some servers obey `min_tokens` before the limit.
pub(super) fn refuse_forced_tokens(members: &Members<'_>, limit: u64) -> Result<(), BadBody> {
    let forced = count(members, "min_tokens", 0)?.unwrap_or(0);
    if limit < forced {
        let expected = format_args!("at most {limit} tokens");
        return Err(Pointer::default().name("min_tokens").unexpected(expected, forced));
    }
    Ok(())
}

/// Refuses every field of a list of [`Unpriced`] ones, in any spelling.
fn refuse_unpriced(members: &Members<'_>, unpriced: &[&[Unpriced]]) -> Result<(), BadBody> {
    for (name, text) in members.iter() {
        let folded = fold(name);
        let known = unpriced.iter().copied().flatten().find(|(it, _)| *it == folded);
        if let Some((_, expected)) = known
            && !matches!(text, "null" | "false")
        {
            return Err(Pointer::default().name(name).unpriced(expected));
        }
    }
    Ok(())
}

/// The fields that a format may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed<'a> {
    /// Those that are read, and those that do no harm.
    pub(super) known: &'a [&'a [&'a str]],
    /// Those that are refused whatever the route says, with what to use instead.
    pub(super) unpriced: &'a [&'a [Unpriced]],
}

impl Allowed<'_> {
    /// Refuses every other field that the route does not pass on; `null` and `false` are let
    /// through.
    pub(super) fn check(&self, members: &Members<'_>, ceiling: &Ceiling) -> Result<(), BadBody> {
        for known in self.known {
            refuse_all_misspelt(members, known)?;
        }
        refuse_unpriced(members, self.unpriced)?;
        for (name, text) in members.iter() {
            let known = self.known.iter().any(|it| it.contains(&name));
            let passed = || ceiling.pass_fields.iter().any(|it| it == name);
            if !known && !matches!(text, "null" | "false") && !passed() {
                return Err(Pointer::default().name(name).unpriced(KNOWN_FIELD));
            }
        }
        Ok(())
    }
}

/// Refuses `modalities` beside text.
pub(super) fn refuse_modalities(members: &Members<'_>) -> Result<(), BadBody> {
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

/// Refuses a body with a name that a reader which ignores case would take for a governed one.
fn refuse_all_misspelt(members: &Members<'_>, governed: &[&str]) -> Result<(), BadBody> {
    let at = Pointer::default();
    members.iter().try_for_each(|(name, _)| refuse_misspelt(name, governed, &at))
}

/// Refuses such a name.
pub(super) fn refuse_misspelt(name: &str, governed: &[&str], at: &Pointer) -> Result<(), BadBody> {
    if is_misspelt(name, governed) { Err(at.name(name).ambiguous()) } else { Ok(()) }
}

/// Whether it is such a name.
pub(super) fn is_misspelt(name: &str, governed: &[&str]) -> bool {
    !governed.contains(&name) && governed.contains(&fold(name).as_ref())
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
