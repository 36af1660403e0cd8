//! Meters: bytes in, usage out, and the bytes to forward.
//!
//! Sans-io. A [`StreamFilter`] takes a stream's chunks as they come and gives back what may go on to
//! the client now; [`meter_answer`] reads an answer that came in one piece. Each format has its file
//! here; how the bytes were cut into chunks never matters.

mod anthropic_messages;
mod document;
mod events;
mod openai;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;
mod outline;
mod reader;
pub mod sse;
mod tally;
mod text;

use bytes::Bytes;

use self::document::DocumentFilter;
use self::events::EventFilter;
use self::tally::Tally;
use crate::facts::RequestFacts;
use crate::format::Format;
use crate::usage::Usage;

/// What a meter saw of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metered {
    /// What was used; nothing where the format meters nothing.
    pub usage: Option<Usage>,
    /// How the answer ended.
    pub ending: Ending,
    /// Whether the client got anything it would pay for.
    pub content: Content,
    /// Bytes of stream events over [`sse::EVENT_BYTES_MAX`], which were forwarded unread.
    pub unread_bytes: u64,
}

impl Metered {
    /// What there is to say of an answer that nobody reads.
    const fn opaque(content: Content) -> Self {
        Self { usage: None, ending: Ending::Complete, content, unread_bytes: 0 }
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As its format says it must.
    Complete,
    /// Without its end marker, or in the middle of its JSON.
    Cut,
    /// The upstream told of an error in it.
    Failed,
}

/// Whether an answer has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing that costs: no text, no tool call.
    None,
    /// Something.
    Some,
}

/// Meters a stream on its way to the client.
///
/// ```text
/// let mut filter = StreamFilter::new(format, &facts);
/// for chunk in upstream { for piece in filter.push(chunk) { forward(piece) } if filter.is_done() { break } }
/// let ended = filter.end();
/// // price ended.metered(), capture, settle, write the receipt …
/// for piece in ended.finish(Some(&comment)) { forward(piece) }
/// ```
#[derive(Debug)]
pub struct StreamFilter(Filter);

#[derive(Debug)]
enum Filter {
    Events(Box<EventFilter>),
    Document(Box<DocumentFilter>),
    Opaque { content: Content },
}

impl StreamFilter {
    /// A filter for the answer to one request.
    pub fn new(format: Format, facts: &RequestFacts) -> Self {
        Self(match reader::reader(format) {
            Some(reader) => Filter::Events(Box::new(EventFilter::new(reader, facts))),
            None => Filter::Opaque { content: Content::None },
        })
    }

    /// A filter for an answer in one piece that is too long to be kept: [`meter_answer`] of what has
    /// not been read.
    pub fn of_document(format: Format, facts: &RequestFacts) -> Self {
        Self(match reader::reader(format) {
            Some(reader) => Filter::Document(Box::new(DocumentFilter::new(reader, facts))),
            None => Filter::Opaque { content: Content::None },
        })
    }

    /// Takes the next bytes of the body; gives the pieces to forward now, in order.
    pub fn push(&mut self, chunk: Bytes) -> Vec<Bytes> {
        if chunk.is_empty() {
            return Vec::new();
        }
        match &mut self.0 {
            Filter::Events(filter) => filter.push(chunk),
            Filter::Document(filter) => filter.push(chunk),
            Filter::Opaque { content } => {
                *content = Content::Some;
                vec![chunk]
            }
        }
    }

    /// Whether the end marker came, after which nothing more is worth waiting for.
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Filter::Events(filter) => filter.is_done(),
            Filter::Document(_) | Filter::Opaque { .. } => false,
        }
    }

    /// What [`StreamFilter::end`] would make of what has come so far, for checkpoints and for a look
    /// at how a stream begins. An estimate of usage may turn out above the final report.
    pub fn so_far(&self) -> Metered {
        match &self.0 {
            Filter::Events(filter) => filter.so_far(),
            Filter::Document(filter) => filter.so_far(),
            Filter::Opaque { content } => Metered::opaque(*content),
        }
    }

    /// The upstream's stream is over, or is wanted no longer.
    pub fn end(self) -> Ended {
        match self.0 {
            Filter::Events(filter) => filter.end(),
            Filter::Document(filter) => filter.end(),
            Filter::Opaque { content } => {
                Ended { metered: Metered::opaque(content), tail: Tail::Opaque }
            }
        }
    }
}

/// A stream that is over but for its last event, which waits for the receipt.
#[derive(Debug)]
#[must_use]
pub struct Ended {
    metered: Metered,
    tail: Tail,
}

#[derive(Debug)]
enum Tail {
    /// Server-sent events: what comes before the comment, and the last event after it.
    Events { before: Vec<Bytes>, held: Vec<Bytes> },
    /// No place for a comment.
    Opaque,
}

impl Ended {
    /// What the meter saw.
    pub const fn metered(&self) -> &Metered {
        &self.metered
    }

    /// The last pieces to forward: an SSE comment (each line of `comment` as one), then the last
    /// event. Documents and opaque streams have no place for a comment and get none.
    pub fn finish(self, comment: Option<&str>) -> Vec<Bytes> {
        match self.tail {
            Tail::Opaque => Vec::new(),
            Tail::Events { mut before, held } => {
                before.extend(comment.map(sse::comment));
                // A comment that no event follows ends by itself.
                if comment.is_some() && held.is_empty() {
                    before.push(Bytes::from_static(b"\n"));
                }
                before.extend(held);
                before
            }
        }
    }
}

/// Meters an answer that came in one piece, with a status that says it is good. What is no whole
/// document of the format is taken as text that was cut.
pub fn meter_answer(format: Format, facts: &RequestFacts, body: &[u8]) -> Metered {
    let Some(reader) = reader::reader(format) else {
        return Metered::opaque(if body.is_empty() { Content::None } else { Content::Some });
    };
    let mut tally = Tally::of_answer(facts);
    if (reader.answer)(body, &mut tally).is_err() {
        tally.cut();
        tally.add(u64::try_from(body.len()).unwrap_or(u64::MAX));
    }
    tally.metered(0)
}

#[cfg(test)]
mod tests;
