//! `response` objects, and the events that build one up. The last event is `response.completed`,
//! `response.incomplete` or `response.failed`; it holds the whole response with its usage.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::openai::WireUsage;
use super::reader::Reader;
use super::tally::{Tally, Verdict};
use super::text::{Lenient, Text};

/// How this format is read.
pub(super) const READER: Reader = Reader { event, answer };

fn event(data: &[u8], tally: &mut Tally) -> Verdict {
    let Ok(event) = serde_json::from_slice::<Event>(data) else { return Verdict::Forward };
    let kind = event.kind.0.as_deref().unwrap_or_default();
    if kind == "error" || event.error.is_some() {
        tally.fail();
    }
    if kind.rsplit('.').next() == Some("delta") {
        tally.add(event.delta.0);
    }
    if kind == "response.output_item.added" {
        // The name of a function is told here alone.
        tally.add(event.item.0);
    }
    if !matches!(kind, "response.completed" | "response.incomplete" | "response.failed") {
        return Verdict::Forward;
    }
    if kind == "response.failed" {
        tally.fail();
    }
    if let Some(response) = event.response.0 {
        response.count(tally);
    }
    Verdict::End
}

fn answer(body: &[u8], tally: &mut Tally) -> Result<(), serde_json::Error> {
    let response: Response = serde_json::from_slice(body)?;
    match response.status.0.as_deref() {
        Some("failed" | "cancelled") => tally.fail(),
        Some("queued" | "in_progress") => tally.cut(),
        Some(_) | None => {}
    }
    response.count(tally);
    Ok(())
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type", default)]
    kind: Lenient<String>,
    #[serde(default)]
    delta: Text,
    #[serde(default)]
    item: Text,
    #[serde(default)]
    response: Lenient<Response>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    status: Lenient<String>,
    #[serde(default)]
    output: Text,
    #[serde(default)]
    usage: Lenient<WireUsage>,
    error: Option<IgnoredAny>,
}

impl Response {
    fn count(&self, tally: &mut Tally) {
        if self.error.is_some() {
            tally.fail();
        }
        tally.add_whole(self.output.0);
        if let Some(usage) = self.usage.0.as_ref().and_then(WireUsage::usage) {
            tally.tell(usage);
        }
    }
}
