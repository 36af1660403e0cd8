//! `POST /v1/chat/completions`: what bounds its cost, and the body that keeps to it.

mod prompt;

use bytes::Bytes;

use super::edit::{Edit, ask_for_usage, take_out_auto_tier, written};
use super::fields::{self, Allowed, UNPRICED, Unpriced};
use super::json::{for_each_member, kind};
use super::known::{CALLER, SAMPLING};
use super::members::Members;
use super::{BadBody, Ceiling, OutputLimit, Pointer, RequestFacts, UsageBounds, logprobs, strict};

/// Fields that may occur besides [`SAMPLING`] and [`CALLER`]: those that are read here, and those that
/// do no harm.
const KNOWN: &[&str] = &[
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
    "add_generation_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "enable_thinking",
    "function_call",
    "include_reasoning",
    "logprobs",
    "parallel_tool_calls",
    "reasoning_effort",
    "reasoning_format",
    "store",
    "tool_choice",
    "top_logprobs",
    "verbosity",
];

/// What has no price beside [`UNPRICED`].
const UNPRICED_IN_CHAT: &[Unpriced] = &[("best_of", "the number of choices in `n`")];

/// What a body may have.
const ALLOWED: Allowed<'_> =
    Allowed { known: &[KNOWN, SAMPLING, CALLER], unpriced: &[UNPRICED, UNPRICED_IN_CHAT] };

/// Reads the facts.
pub(super) fn read(body: &[u8], ceiling: &Ceiling) -> Result<RequestFacts, BadBody> {
    strict::check(body)?;
    let members = fields::members(body)?;
    ALLOWED.check(&members, ceiling)?;
    refuse_templates(&members)?;
    fields::refuse_modalities(&members)?;
    fields::service_tier(&members)?;
    let choices = fields::choices(&members, "n", ceiling.max_choices)?;
    let per_choice = limit(&members, ceiling)?;
    logprobs::refuse_too_many(&members, choices.saturating_mul(per_choice))?;
    let prompt = prompt::read(&members)?;
    let answer = fields::answer(&members)?;
    let bounds = UsageBounds {
        input_tokens: prompt.tokens_max(),
        output_tokens: choices.saturating_mul(per_choice),
        output_tokens_per_choice: per_choice,
    };
    Ok(RequestFacts {
        model: fields::model(&members)?,
        answer,
        usage_event: fields::usage_event(&members)?,
        choices,
        prompt_bytes: prompt.estimate_bytes(),
        bounds: Some(bounds),
    })
}

/// Writes the limits that the facts were bounded with.
pub(super) fn enforce(
    facts: &RequestFacts,
    body: &Bytes,
    ceiling: &Ceiling,
) -> Result<Bytes, BadBody> {
    let mut members = fields::members(body)?;
    let per_choice =
        facts.bounds.map_or(ceiling.max_output_tokens, |it| it.output_tokens_per_choice);
    let limited = set_limit(&mut members, per_choice, ceiling.output_limit);
    let metered = ask_for_usage(&mut members, facts.answer)?;
    let tiered = take_out_auto_tier(&mut members)?;
    Ok(written(body, &members, &[limited, metered, tiered]))
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

/// Arguments of the server's own template. Some servers take a whole template among them, with loops
/// that no length bounds: only flags, numbers and levels of reasoning are let through.
fn refuse_templates(members: &Members<'_>) -> Result<(), BadBody> {
    let Some(arguments) = members.get("chat_template_kwargs") else { return Ok(()) };
    let at = Pointer::default().name("chat_template_kwargs");
    if !arguments.starts_with('{') {
        return Err(at.unexpected("an object", kind(arguments)));
    }
    for_each_member(arguments, |name, value| match kind(value) {
        "null" | "a boolean" | "a number" => Ok(()),
        "a string" if name == "reasoning_effort" => Ok(()),
        _ => Err(at.name(name).unpriced("true, false or a number")),
    })
}

/// The most tokens of one choice.
fn limit(members: &Members<'_>, ceiling: &Ceiling) -> Result<u64, BadBody> {
    let asked = [
        fields::count(members, OutputLimit::MaxTokens.as_str(), 1)?,
        fields::count(members, OutputLimit::MaxCompletionTokens.as_str(), 1)?,
    ];
    let least = asked.into_iter().flatten().min().unwrap_or(ceiling.max_output_tokens);
    let per_choice = least.min(ceiling.max_output_tokens);
    fields::refuse_forced_tokens(members, per_choice)?;
    Ok(per_choice)
}
