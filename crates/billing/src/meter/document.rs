//! A document on its way: an answer in one piece that is too long to be kept until it is priced.
//!
//! All of it goes on. Its usage is found as it passes; until then, and where it is not told, every byte
//! counts as text, within the request's bounds.

use bytes::Bytes;

use super::outline::Outline;
use super::reader::Reader;
use super::tally::Tally;
use super::{Ended, Metered, Tail};
use crate::facts::RequestFacts;

/// Forwards one document, and finds its usage.
#[derive(Debug)]
pub(super) struct DocumentFilter {
    reader: Reader,
    tally: Tally,
    outline: Outline,
}

impl DocumentFilter {
    pub(super) fn new(reader: Reader, facts: &RequestFacts) -> Self {
        Self { reader, tally: Tally::of_stream(facts), outline: Outline::default() }
    }

    pub(super) fn push(&mut self, chunk: Bytes) -> Vec<Bytes> {
        self.tally.add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if let Some(document) = self.outline.push(&chunk) {
            self.tally.complete();
            // What is not understood tells no usage.
            drop((self.reader.answer)(&document, &mut self.tally));
        }
        vec![chunk]
    }

    pub(super) fn so_far(&self) -> Metered {
        self.tally.metered(0)
    }

    pub(super) fn end(self) -> Ended {
        Ended { metered: self.so_far(), tail: Tail::Opaque }
    }
}
