//! `text_completion`, whole and in chunks. With `echo` the prompt is part of the text, and an
//! estimate takes it for output.

use serde::Deserialize;

use super::openai::{self, Choice};
use super::reader::Reader;
use super::text::Text;

/// How this format is read.
pub(super) const READER: Reader =
    Reader { event: openai::event::<TextChoice>, answer: openai::answer::<TextChoice> };

#[derive(Deserialize)]
struct TextChoice {
    #[serde(default)]
    text: Text,
}

impl Choice for TextChoice {
    fn text_bytes(&self) -> u64 {
        self.text.0
    }
}
