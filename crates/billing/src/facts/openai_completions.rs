//! `POST /v1/completions`: what bounds its cost, and the body that keeps to it.
//!
//! Each prompt of a list is completed by itself, `n` or `best_of` times, whichever is more. With
//! `echo` the prompt stands before each completion, and some servers count it as output.

use bytes::Bytes;

use super::edit::{ask_for_usage, set, take_out_auto_tier, written};
use super::fields::{self, Allowed, UNPRICED, Unpriced};
use super::known::{CALLER, SAMPLING};
use super::members::Members;
use super::prompt::{MESSAGE_TOKENS, Prompt, REQUEST_TOKENS};
use super::tokens;
use super::{BadBody, Ceiling, Pointer, RequestFacts, UsageBounds, logprobs, strict};

/// Fields that may occur besides [`SAMPLING`] and [`CALLER`]: those that are read here, and those that
/// do no harm.
const KNOWN: &[&str] = &[
    "model",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "n",
    "best_of",
    "echo",
    "service_tier",
    "min_tokens",
    "logprobs",
    "suffix",
];

/// What has no price beside [`UNPRICED`].
const UNPRICED_IN_COMPLETIONS: &[Unpriced] = &[
    ("max_completion_tokens", "the limit in `max_tokens`"),
    ("messages", "the prompt in `prompt`"),
    ("input", "the prompt in `prompt`"),
];

/// What a body may have.
const ALLOWED: Allowed<'_> =
    Allowed { known: &[KNOWN, SAMPLING, CALLER], unpriced: &[UNPRICED, UNPRICED_IN_COMPLETIONS] };

/// What a request gets that names no limit. Servers other than OpenAI's may think of another
/// number, so it is written down for them.
const DEFAULT_MAX_TOKENS: u64 = 16;

/// Reads the facts.
pub(super) fn read(body: &[u8], ceiling: &Ceiling) -> Result<RequestFacts, BadBody> {
    strict::check(body)?;
    let members = fields::members(body)?;
    ALLOWED.check(&members, ceiling)?;
    fields::service_tier(&members)?;
    // 0 is a request for the prompt's own probabilities.
    let asked = fields::count(&members, "max_tokens", 0)?.unwrap_or(DEFAULT_MAX_TOKENS);
    let per_choice = asked.min(ceiling.max_output_tokens);
    fields::refuse_forced_tokens(&members, per_choice)?;
    let each = ["n", "best_of"].map(|name| fields::choices(&members, name, ceiling.max_choices));
    let [n, best_of] = each;
    let each = n?.max(best_of?);
    let (prompt, prompts) = prompt(&members)?;
    let choices = each.saturating_mul(prompts);
    let echoed = if fields::flag(&members, "echo")? { prompt.tokens_max() } else { 0 };
    let echoed = each.saturating_mul(echoed);
    logprobs::refuse_long_echo(echoed)?;
    let output_tokens = choices.saturating_mul(per_choice).saturating_add(echoed);
    logprobs::refuse_too_many(&members, output_tokens)?;
    let bounds = UsageBounds {
        input_tokens: prompt.tokens_max(),
        output_tokens,
        output_tokens_per_choice: per_choice,
    };
    Ok(RequestFacts {
        model: fields::model(&members)?,
        answer: fields::answer(&members)?,
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
    let limited = set(&mut members, "max_tokens", per_choice.to_string());
    let metered = ask_for_usage(&mut members, facts.answer)?;
    let tiered = take_out_auto_tier(&mut members)?;
    Ok(written(body, &members, &[limited, metered, tiered]))
}

/// What becomes prompt, and how many prompts that is.
fn prompt(members: &Members<'_>) -> Result<(Prompt, u64), BadBody> {
    let mut prompt = Prompt::default();
    prompt.add_template(REQUEST_TOKENS);
    for (name, text) in members.iter() {
        if name != "prompt" && text.starts_with(['{', '[', '"']) {
            prompt.add_written(text);
        }
    }
    let at = Pointer::default().name("prompt");
    let prompts = match members.get("prompt") {
        Some(text) => tokens::read(text, &at, &mut prompt)?,
        // Servers start from the end-of-text token then.
        None => 1,
    };
    prompt.add_template(MESSAGE_TOKENS.saturating_mul(prompts));
    Ok((prompt, prompts))
}
