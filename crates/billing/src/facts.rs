//! Reads from a request what decides its price, and holds the upstream to what was priced.
//!
//! [`RequestFacts::read`] is generous to no one: what it cannot bound it refuses, and what two JSON
//! readers could understand differently (a name twice, a name in other case) it refuses too.
//! Otherwise a client could show one limit here and another to the upstream. [`RequestFacts::enforce`]
//! then writes the priced limits into the body that the upstream gets.

mod anthropic_messages;
pub(crate) mod betas;
mod edit;
mod fields;
mod json;
mod known;
mod logprobs;
mod members;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;
mod prompt;
mod strict;
mod tokens;

use std::fmt;

use bytes::Bytes;

use crate::format::Format;

/// What a route allows a request to use. The quote is made with it, the upstream is held to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// The most completion tokens of one choice, reasoning included; also what a request gets that
    /// asks for no limit.
    pub max_output_tokens: u64,
    /// The most choices (`n`).
    pub max_choices: u64,
    /// The field that the upstream obeys.
    pub output_limit: OutputLimit,
    /// Fields of a request, by their exact names, that go to the upstream although nobody here knows
    /// them: whoever lists one vouches that it undoes no limit there. Those that are known to undo
    /// one are refused all the same.
    pub pass_fields: Vec<String>,
}

impl Default for Ceiling {
    /// 4096 tokens, 8 choices, `max_tokens`, no fields beside the known ones.
    fn default() -> Self {
        Self {
            max_output_tokens: 4096,
            max_choices: 8,
            output_limit: OutputLimit::MaxTokens,
            pass_fields: Vec::new(),
        }
    }
}

/// The one field that the upstream obeys. A limit that the client put into the other is moved, as an
/// upstream that ignores the field would otherwise run without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputLimit {
    /// `max_tokens`: understood by nearly every compatible server.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`: what OpenAI's own reasoning models insist on.
    MaxCompletionTokens,
}

impl OutputLimit {
    /// The name of the field, which is also its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }

    /// The field that must not carry a limit.
    const fn other(self) -> Self {
        match self {
            Self::MaxTokens => Self::MaxCompletionTokens,
            Self::MaxCompletionTokens => Self::MaxTokens,
        }
    }
}

/// What decides the price of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model asked for.
    pub model: Option<String>,
    /// How the answer shall come.
    pub answer: AnswerKind,
    /// What to do with the upstream's usage event.
    pub usage_event: UsageEvent,
    /// How many choices (`n`); 0 where nothing is metered.
    pub choices: u64,
    /// Bytes of text in the prompt, for an estimate where the upstream tells no usage.
    pub prompt_bytes: u64,
    /// The most that can be used; nothing where nothing is metered.
    pub bounds: Option<UsageBounds>,
}

/// How an answer shall come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerKind {
    /// In one piece.
    #[default]
    Whole,
    /// As server-sent events.
    Stream,
}

/// Whether the client gets to see the event that tells the usage of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageEvent {
    /// It asked for it.
    Shown,
    /// It did not: the event is asked for upstream, read and left out.
    #[default]
    Hidden,
}

/// The most that a request can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageBounds {
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Completion tokens over all choices.
    pub output_tokens: u64,
    /// The limit of one choice, as enforced.
    pub output_tokens_per_choice: u64,
}

/// Why a request body has no facts. The caller answers 400. Nothing of the body's text is in it,
/// except names of fields.
#[derive(Debug, thiserror::Error)]
pub enum BadBody {
    /// Not JSON, or nested too deep.
    #[error("expected JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// Not the type or value that the format has there.
    #[error("at `{pointer}`: expected {expected}, found {found}")]
    Unexpected {
        /// Where (RFC 6901).
        pointer: String,
        /// What should be there.
        expected: String,
        /// What is there, without its text.
        found: String,
    },
    /// A name that occurs twice in one object, or that another reader could take for a known one.
    #[error("at `{pointer}`: expected each name once and in its exact spelling")]
    Ambiguous {
        /// Where (RFC 6901).
        pointer: String,
    },
    /// Something whose cost no limit bounds, so that it has no price here.
    #[error("at `{pointer}`: expected {expected}; this has no price here")]
    Unpriced {
        /// Where (RFC 6901).
        pointer: String,
        /// What could be there.
        expected: &'static str,
    },
}

impl BadBody {
    /// Where the mistake is (RFC 6901); the whole document where it is not JSON.
    pub fn pointer(&self) -> &str {
        match self {
            Self::NotJson(_) => "",
            Self::Unexpected { pointer, .. }
            | Self::Ambiguous { pointer }
            | Self::Unpriced { pointer, .. } => pointer,
        }
    }

    /// What should have been there.
    pub fn expected(&self) -> &str {
        match self {
            Self::NotJson(_) => "a JSON document",
            Self::Unexpected { expected, .. } => expected,
            Self::Ambiguous { .. } => "each name once and in its exact spelling",
            Self::Unpriced { expected, .. } => expected,
        }
    }

    /// What was there, without any of the request's text.
    pub fn found(&self) -> &str {
        match self {
            Self::NotJson(_) => "something else",
            Self::Unexpected { found, .. } => found,
            Self::Ambiguous { .. } => "a name twice or in another spelling",
            Self::Unpriced { .. } => "something without a price",
        }
    }
}

impl RequestFacts {
    /// Reads the facts from a request body of at most the size that the caller allows.
    pub fn read(format: Format, body: &[u8], ceiling: &Ceiling) -> Result<Self, BadBody> {
        match format {
            Format::OpenAiChat => openai_chat::read(body, ceiling),
            Format::OpenAiCompletions => openai_completions::read(body, ceiling),
            Format::OpenAiEmbeddings => openai_embeddings::read(body, ceiling),
            Format::OpenAiResponses => openai_responses::read(body, ceiling),
            Format::AnthropicMessages => anthropic_messages::read(body, ceiling),
            Format::Opaque => Ok(Self::default()),
        }
    }

    /// The body for the upstream, with every limit that the quote assumed. Bytes that need no
    /// change are the very ones that came; otherwise all other fields keep their text and order.
    pub fn enforce(
        &self,
        format: Format,
        body: &Bytes,
        ceiling: &Ceiling,
    ) -> Result<Bytes, BadBody> {
        match format {
            Format::OpenAiChat => openai_chat::enforce(self, body, ceiling),
            Format::OpenAiCompletions => openai_completions::enforce(self, body, ceiling),
            Format::OpenAiEmbeddings => openai_embeddings::enforce(body),
            Format::OpenAiResponses => openai_responses::enforce(self, body, ceiling),
            Format::AnthropicMessages => anthropic_messages::enforce(self, body, ceiling),
            Format::Opaque => Ok(body.clone()),
        }
    }
}

/// A JSON pointer in the making (RFC 6901).
#[derive(Clone, Debug, Default)]
struct Pointer(String);

/// Names longer than this are cut in messages.
const NAME_CHARS_MAX: usize = 64;

impl Pointer {
    fn name(&self, name: &str) -> Self {
        let short: String = name.chars().take(NAME_CHARS_MAX).collect();
        Self(format!("{}/{}", self.0, short.replace('~', "~0").replace('/', "~1")))
    }

    fn index(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }

    fn unexpected(&self, expected: impl fmt::Display, found: impl fmt::Display) -> BadBody {
        BadBody::Unexpected {
            pointer: self.0.clone(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    fn ambiguous(&self) -> BadBody {
        BadBody::Ambiguous { pointer: self.0.clone() }
    }

    fn unpriced(&self, expected: &'static str) -> BadBody {
        BadBody::Unpriced { pointer: self.0.clone(), expected }
    }
}

#[cfg(test)]
mod tests;
