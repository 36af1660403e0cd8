//! `POST /v1/embeddings`: what bounds its cost. There is no output, and nothing to hold the server to.

use bytes::Bytes;

use super::edit::{take_out_auto_tier, written};
use super::fields::{self, Allowed, UNPRICED, Unpriced};
use super::known::CALLER;
use super::members::Members;
use super::prompt::{MESSAGE_TOKENS, Prompt, REQUEST_TOKENS};
use super::tokens;
use super::{AnswerKind, BadBody, Ceiling, Pointer, RequestFacts, UsageBounds, UsageEvent, strict};

/// Fields that may occur besides [`CALLER`]: those that are read here, and those that do no harm.
const KNOWN: &[&str] = &[
    "model",
    "input",
    "service_tier",
    "dimensions",
    "encoding_format",
    "input_type",
    "output_dimension",
    "output_dtype",
    "stream",
    "task",
    "truncate",
    "truncate_prompt_tokens",
    "truncation",
];

/// What has no price beside [`UNPRICED`].
const UNPRICED_IN_EMBEDDINGS: &[Unpriced] = &[
    ("messages", "the text in `input`"),
    ("inputs", "the text in `input`"),
    ("prompt", "the text in `input`"),
    ("content", "the text in `input`"),
];

/// What a body may have.
const ALLOWED: Allowed<'_> =
    Allowed { known: &[KNOWN, CALLER], unpriced: &[UNPRICED, UNPRICED_IN_EMBEDDINGS] };

/// Reads the facts.
pub(super) fn read(body: &[u8], ceiling: &Ceiling) -> Result<RequestFacts, BadBody> {
    strict::check(body)?;
    let members = fields::members(body)?;
    ALLOWED.check(&members, ceiling)?;
    fields::service_tier(&members)?;
    let (prompt, inputs) = input(&members)?;
    let bounds = UsageBounds {
        input_tokens: prompt.tokens_max(),
        output_tokens: 0,
        output_tokens_per_choice: 0,
    };
    Ok(RequestFacts {
        model: fields::model(&members)?,
        answer: AnswerKind::Whole,
        usage_event: UsageEvent::Shown,
        choices: inputs,
        prompt_bytes: prompt.estimate_bytes(),
        bounds: Some(bounds),
    })
}

/// Takes out the tier that leaves the choice to the account.
pub(super) fn enforce(body: &Bytes) -> Result<Bytes, BadBody> {
    let mut members = fields::members(body)?;
    let tiered = take_out_auto_tier(&mut members)?;
    Ok(written(body, &members, &[tiered]))
}

fn input(members: &Members<'_>) -> Result<(Prompt, u64), BadBody> {
    let mut prompt = Prompt::default();
    prompt.add_template(REQUEST_TOKENS);
    for (name, text) in members.iter() {
        if name != "input" && text.starts_with(['{', '[', '"']) {
            prompt.add_written(text);
        }
    }
    let at = Pointer::default().name("input");
    let Some(text) = members.get("input") else {
        return Err(at.unexpected(tokens::EXPECTED, "nothing"));
    };
    let inputs = tokens::read(text, &at, &mut prompt)?;
    prompt.add_template(MESSAGE_TOKENS.saturating_mul(inputs));
    Ok((prompt, inputs))
}
