//! A list of embeddings. What costs is the input alone; there are no streams of them.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::events::is_end_marker;
use super::openai::WireUsage;
use super::reader::Reader;
use super::tally::{Tally, Verdict};
use super::text::Lenient;

/// How this format is read.
pub(super) const READER: Reader = Reader { event, answer };

/// A server that answers with events all the same sends the list in one of them.
fn event(data: &[u8], tally: &mut Tally) -> Verdict {
    if is_end_marker(data) {
        return Verdict::End;
    }
    // What is not understood goes on to the client.
    drop(answer(data, tally));
    Verdict::Forward
}

fn answer(body: &[u8], tally: &mut Tally) -> Result<(), serde_json::Error> {
    let list: List = serde_json::from_slice(body)?;
    if list.error.is_some() {
        tally.fail();
    }
    if list.data.0.is_some_and(|it| !it.is_empty()) {
        tally.add_content();
    }
    if let Some(usage) = list.usage.0.and_then(|it| it.input_alone()) {
        tally.tell(usage);
    }
    Ok(())
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    data: Lenient<Vec<IgnoredAny>>,
    #[serde(default)]
    usage: Lenient<WireUsage>,
    error: Option<IgnoredAny>,
}
