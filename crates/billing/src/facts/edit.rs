//! Writes what the quote assumed into a body for the upstream.

use bytes::Bytes;

use super::fields::{ServiceTier, service_tier, usage_event};
use super::members::Members;
use super::{AnswerKind, BadBody, UsageEvent};

/// Whether something had to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// What came is good.
    None,
    /// It was.
    Made,
}

/// The body with its edits; the very bytes that came where there are none.
pub(super) fn written(body: &Bytes, members: &Members<'_>, edits: &[Edit]) -> Bytes {
    if edits.iter().all(|it| *it == Edit::None) {
        return body.clone();
    }
    Bytes::from(members.write())
}

/// Sets a member to a value, given as JSON.
pub(super) fn set(members: &mut Members<'_>, name: &str, json: String) -> Edit {
    if members.get(name) == Some(json.as_str()) {
        return Edit::None;
    }
    members.set(name, json);
    Edit::Made
}

/// Asks for the usage event of a stream, where the client did not.
pub(super) fn ask_for_usage(
    members: &mut Members<'_>,
    answer: AnswerKind,
) -> Result<Edit, BadBody> {
    if answer == AnswerKind::Whole || usage_event(members)? == UsageEvent::Shown {
        return Ok(Edit::None);
    }
    let text = members.get("stream_options").unwrap_or("{}");
    let mut options = Members::read(text.as_bytes()).map_err(BadBody::NotJson)?;
    options.set("include_usage", "true".to_owned());
    let options = options.write();
    members.set("stream_options", options);
    Ok(Edit::Made)
}

/// Takes out the tier that leaves the choice to the account.
pub(super) fn take_out_auto_tier(members: &mut Members<'_>) -> Result<Edit, BadBody> {
    match service_tier(members)? {
        ServiceTier::Plain => Ok(Edit::None),
        ServiceTier::Auto => {
            members.remove("service_tier");
            Ok(Edit::Made)
        }
    }
}
