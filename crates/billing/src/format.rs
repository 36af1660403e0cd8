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
    /// Any HTTP: nothing is read, nothing is metered; only a flat price fits.
    #[default]
    Opaque,
}

/// A word that names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a format: `openai-chat` or `opaque`")]
pub struct UnknownFormat;

impl Format {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::OpenAiChat, Self::Opaque];

    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::Opaque => "opaque",
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
        assert_eq!("OpenAI-Chat".parse::<Format>(), Err(UnknownFormat));
    }
}
