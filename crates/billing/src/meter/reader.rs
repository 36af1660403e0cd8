//! The table of formats that are read: how each understands an event, and an answer in one piece.

use super::tally::{Tally, Verdict};
use super::{
    anthropic_messages, openai_chat, openai_completions, openai_embeddings, openai_responses,
};
use crate::format::Format;

/// How a format is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    /// Reads the data of one event, and says what to do with the event.
    pub(super) event: fn(&[u8], &mut Tally) -> Verdict,
    /// Reads an answer in one piece.
    pub(super) answer: fn(&[u8], &mut Tally) -> Result<(), serde_json::Error>,
}

/// The reader of a format; nothing where nothing is read.
pub(super) const fn reader(format: Format) -> Option<Reader> {
    match format {
        Format::OpenAiChat => Some(openai_chat::READER),
        Format::OpenAiCompletions => Some(openai_completions::READER),
        Format::OpenAiEmbeddings => Some(openai_embeddings::READER),
        Format::OpenAiResponses => Some(openai_responses::READER),
        Format::AnthropicMessages => Some(anthropic_messages::READER),
        Format::Opaque => None,
    }
}
