//! `POST /v1/messages` of the Anthropic API: what bounds its cost, and the body that keeps to it.
//!
//! `max_tokens` bounds thinking and text together, and has to be there. What servers other than the
//! model's own do (web search, code, MCP, compaction) brings text into the prompt that nobody here
//! has seen, and is refused. So are images and documents. Marks for the prompt cache are let
//! through, but not those for an hour, which cost twice the input.

mod prompt;

use bytes::Bytes;

use super::edit::{set, written};
use super::fields::{self, Allowed, Unpriced};
use super::json::{kind, member, string};
use super::members::Members;
use super::{BadBody, Ceiling, Pointer, RequestFacts, UsageBounds, UsageEvent, strict};

/// Fields that may occur: those that are read here, and those that neither become prompt nor have
/// the server do more.
const KNOWN: &[&str] = &[
    "cache_control",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "service_tier",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// What has no price.
const UNPRICED: &[Unpriced] = &[
    ("compaction", "no compaction"),
    ("container", "no code execution"),
    ("context_management", "no context management"),
    ("fallbacks", "one model in `model`"),
    ("inference_geo", "the usual region"),
    ("max_tokens_to_sample", "the limit in `max_tokens`"),
    ("mcp_servers", "no MCP servers"),
    ("speed", "the usual speed"),
    ("thread", "all of the conversation in `messages`"),
];

/// What a body may have.
const ALLOWED: Allowed<'_> = Allowed { known: &[KNOWN], unpriced: &[UNPRICED] };

/// The field that the upstream obeys.
const LIMIT: &str = "max_tokens";

/// Reads the facts.
pub(super) fn read(body: &[u8], ceiling: &Ceiling) -> Result<RequestFacts, BadBody> {
    strict::check(body)?;
    let members = fields::members(body)?;
    ALLOWED.check(&members, ceiling)?;
    service_tier(&members)?;
    let Some(asked) = fields::count(&members, LIMIT, 1)? else {
        let at = Pointer::default().name(LIMIT);
        return Err(at.unexpected("a whole number of at least 1", "nothing"));
    };
    let limit = asked.min(ceiling.max_output_tokens);
    thinking(&members, limit)?;
    let prompt = prompt::read(&members)?;
    let bounds = UsageBounds {
        input_tokens: prompt.tokens_max(),
        output_tokens: limit,
        output_tokens_per_choice: limit,
    };
    Ok(RequestFacts {
        model: fields::model(&members)?,
        answer: fields::answer(&members)?,
        // It stands in events that every client needs.
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
    Ok(written(body, &members, &[limited]))
}

/// `auto` is what a request gets that names none.
fn service_tier(members: &Members<'_>) -> Result<(), BadBody> {
    let Some(text) = members.get("service_tier") else { return Ok(()) };
    match string(text).as_deref() {
        Some("auto" | "standard_only") => Ok(()),
        Some(_) | None => {
            Err(Pointer::default().name("service_tier").unpriced("`auto` or `standard_only`"))
        }
    }
}

/// The upstream refuses a budget for thinking that leaves nothing of the limit. Where it is the
/// route that lowers the limit, the client hears here why.
fn thinking(members: &Members<'_>, limit: u64) -> Result<(), BadBody> {
    let Some(thinking) = members.get("thinking") else { return Ok(()) };
    let at = Pointer::default().name("thinking");
    if !thinking.starts_with('{') {
        return Err(at.unexpected("an object", kind(thinking)));
    }
    let Some(text) = member(thinking, "budget_tokens")? else { return Ok(()) };
    let at = at.name("budget_tokens");
    let budget = fields::count_at(text, &at, 0)?;
    if limit <= budget {
        return Err(at.unexpected(format_args!("less than the limit of {limit} tokens"), budget));
    }
    Ok(())
}
