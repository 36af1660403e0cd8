//! `POST /v1/responses`: what bounds its cost, and the body that keeps to it.
//!
//! A request may build on what the server keeps of earlier ones, and may have the server use tools;
//! nobody here knows how much that brings into the prompt, so both are refused. As nothing can be
//! built on, nothing is kept either: `store` is written as `false`.

mod prompt;

use bytes::Bytes;

use super::edit::{set, take_out_auto_tier, written};
use super::fields::{self, Allowed, Unpriced};
use super::json::{for_each_member, kind, string};
use super::members::Members;
use super::{BadBody, Ceiling, Pointer, RequestFacts, UsageBounds, UsageEvent, logprobs, strict};

/// Fields that may occur: those that are read here, and those that neither become prompt nor have
/// the server do more.
const KNOWN: &[&str] = &[
    "frequency_penalty",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

const WHOLE_INPUT: &str = "all of the conversation in `input`";

/// What has no price; `store` only where it is asked for.
const UNPRICED: &[Unpriced] = &[
    ("background", "an answer to this very request"),
    ("context_management", WHOLE_INPUT),
    ("conversation", WHOLE_INPUT),
    ("max_tokens", "the limit in `max_output_tokens`"),
    ("max_completion_tokens", "the limit in `max_output_tokens`"),
    ("messages", WHOLE_INPUT),
    ("previous_response_id", WHOLE_INPUT),
    ("prompt", "the whole text in `instructions` and `input`"),
    ("store", "no storing: later requests cannot refer to it here"),
];

/// What a body may have.
const ALLOWED: Allowed<'_> = Allowed { known: &[KNOWN], unpriced: &[UNPRICED] };

/// The field that the upstream obeys.
const LIMIT: &str = "max_output_tokens";

/// Reads the facts.
pub(super) fn read(body: &[u8], ceiling: &Ceiling) -> Result<RequestFacts, BadBody> {
    strict::check(body)?;
    let members = fields::members(body)?;
    ALLOWED.check(&members, ceiling)?;
    fields::service_tier(&members)?;
    refuse_reasoning_modes(&members)?;
    // Reasoning is within it.
    let asked = fields::count(&members, LIMIT, 1)?;
    let limit = asked.map_or(ceiling.max_output_tokens, |it| it.min(ceiling.max_output_tokens));
    logprobs::refuse_too_many(&members, limit)?;
    let prompt = prompt::read(&members)?;
    let bounds = UsageBounds {
        input_tokens: prompt.tokens_max(),
        output_tokens: limit,
        output_tokens_per_choice: limit,
    };
    Ok(RequestFacts {
        model: fields::model(&members)?,
        answer: fields::answer(&members)?,
        // It stands in the last event, which every client needs.
        usage_event: UsageEvent::Shown,
        choices: 1,
        prompt_bytes: prompt.estimate_bytes(),
        bounds: Some(bounds),
    })
}

/// Writes the limit that the facts were bounded with.
pub(super) fn enforce(
    facts: &RequestFacts,
    body: &Bytes,
    ceiling: &Ceiling,
) -> Result<Bytes, BadBody> {
    let mut members = fields::members(body)?;
    let limit = facts.bounds.map_or(ceiling.max_output_tokens, |it| it.output_tokens_per_choice);
    let limited = set(&mut members, LIMIT, limit.to_string());
    let stored = set(&mut members, "store", "false".to_owned());
    let tiered = take_out_auto_tier(&mut members)?;
    Ok(written(body, &members, &[limited, stored, tiered]))
}

/// Modes of reasoning beside the standard one spend more than the answer shows.
fn refuse_reasoning_modes(members: &Members<'_>) -> Result<(), BadBody> {
    let Some(reasoning) = members.get("reasoning") else { return Ok(()) };
    let at = Pointer::default().name("reasoning");
    if !reasoning.starts_with('{') {
        return Err(at.unexpected("an object", kind(reasoning)));
    }
    for_each_member(reasoning, |name, value| {
        fields::refuse_misspelt(name, &["mode"], &at)?;
        let standard = value == "null" || string(value).as_deref() == Some("standard");
        if name == "mode" && !standard {
            return Err(at.name(name).unpriced("`standard`"));
        }
        Ok(())
    })
}
