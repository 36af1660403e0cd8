//! The upstream formats: who can read a request's bounds and an answer's usage.
//!
//! To add one is to add a variant here, a file under `facts/` and one under `meter/`.

use std::fmt;
use std::str::FromStr;

/// How requests and answers of a route are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `POST /v1/chat/completions` of the OpenAI API, answered as JSON or as server-sent events.
    OpenAiChat,
    /// `POST /v1/completions` of the OpenAI API, likewise.
    OpenAiCompletions,
    /// `POST /v1/embeddings` of the OpenAI API, answered as JSON.
    OpenAiEmbeddings,
    /// `POST /v1/responses` of the OpenAI API, answered as JSON or as server-sent events.
    OpenAiResponses,
    /// `POST /v1/messages` of the Anthropic API, likewise.
    AnthropicMessages,
    /// Any HTTP: nothing is read, nothing is metered; only a flat price fits.
    #[default]
    Opaque,
}

/// A word that names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a format such as `openai-chat`, or `opaque`")]
pub struct UnknownFormat;

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [
        Self::OpenAiChat,
        Self::OpenAiCompletions,
        Self::OpenAiEmbeddings,
        Self::OpenAiResponses,
        Self::AnthropicMessages,
        Self::Opaque,
    ];

    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::OpenAiCompletions => "openai-completions",
            Self::OpenAiEmbeddings => "openai-embeddings",
            Self::OpenAiResponses => "openai-responses",
            Self::AnthropicMessages => "anthropic-messages",
            Self::Opaque => "opaque",
        }
    }

    /// Where an API of this format has it.
    pub const fn path(self) -> Option<&'static str> {
        match self {
            Self::OpenAiChat => Some("/v1/chat/completions"),
            Self::OpenAiCompletions => Some("/v1/completions"),
            Self::OpenAiEmbeddings => Some("/v1/embeddings"),
            Self::OpenAiResponses => Some("/v1/responses"),
            Self::AnthropicMessages => Some("/v1/messages"),
            Self::Opaque => None,
        }
    }

    /// Whether tokens are counted, so that a price can go by them.
    pub const fn is_metered(self) -> bool {
        match self {
            Self::OpenAiChat
            | Self::OpenAiCompletions
            | Self::OpenAiEmbeddings
            | Self::OpenAiResponses
            | Self::AnthropicMessages => true,
            Self::Opaque => false,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|it| it.as_str() == word).ok_or(UnknownFormat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_word() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let paths = Format::ALL.iter().filter_map(|it| it.path());
        assert_eq!(paths.collect::<std::collections::BTreeSet<_>>().len(), 5);
        assert_eq!("OpenAI-Chat".parse::<Format>(), Err(UnknownFormat));
    }
}
