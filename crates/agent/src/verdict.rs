//! What the answer to a paid request says of the payment. Pure.
//!
//! Nothing is inferred from a status that the seller did not mean: an answer either shows a
//! settlement, delivers, disclaims the payment in words, asks for patience, or leaves it open.

use std::time::Duration;

use farebox_chains::settlement_from_v1;
use farebox_protocol::header;
use farebox_protocol::wire::{SettlementResponse, v1};
use farebox_protocol::{Amount, Reason};
use http::{HeaderMap, StatusCode};

use crate::challenge::{Challenge, Version};
use crate::payment::Terms;
use crate::proof::{BadProof, check_settlement};

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was settled, and what shows it fits.
    Settled { charged: Amount, settlement: Box<SettlementResponse> },
    /// It claims to be settled, and what shows it does not fit.
    Misfit(BadProof),
    /// Answered without a receipt.
    Delivered,
    /// Not charged, the seller says, for this reason.
    Disclaimed { reason: String },
    /// Send the same again, after this pause if the seller named one.
    Again { after: Option<Duration> },
    /// It does not say.
    Open,
}

/// An answer as far as it speaks of the payment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    /// The fresh demand that came with it.
    pub(crate) demand: Option<&'a Challenge>,
}

/// Judges an answer to a payment in that version.
pub(crate) fn judge(heard: Heard<'_>, version: Version, terms: &Terms) -> Verdict {
    let headers = heard.headers;
    match settlement(headers, version) {
        Some(Ok(it)) if it.success => match check_settlement(&it, terms) {
            Ok(charged) if charged.is_zero() => nothing_owed(),
            Ok(charged) => Verdict::Settled { charged, settlement: Box::new(it) },
            Err(bad) => Verdict::Misfit(bad),
        },
        Some(Ok(it)) if it.error_reason == Some(Reason::SettlementPending) => again(headers),
        Some(Ok(it)) => Verdict::Disclaimed { reason: reason_of(&it) },
        Some(Err(bad)) => Verdict::Misfit(bad),
        None if headers.get(FAREBOX_CHARGED).is_some_and(|it| it == "0") => nothing_owed(),
        None => judge_status(heard),
    }
}

fn judge_status(heard: Heard<'_>) -> Verdict {
    let Heard { status, headers, demand } = heard;
    match status {
        // 400: malformed; 412: its transfer is not set up. Both come with a fresh demand.
        StatusCode::PAYMENT_REQUIRED
        | StatusCode::BAD_REQUEST
        | StatusCode::PRECONDITION_FAILED => match demand.and_then(|it| it.error.as_deref()) {
            Some(PENDING) => again(headers),
            Some(error) if !error.is_empty() => Verdict::Disclaimed { reason: error.to_owned() },
            Some(_) | None => Verdict::Open,
        },
        StatusCode::CONFLICT if headers.contains_key(http::header::RETRY_AFTER) => again(headers),
        StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS => again(headers),
        _ if status.is_success() => Verdict::Delivered,
        _ => Verdict::Open,
    }
}

/// Served and not charged: a seller's word, as any other disclaimer.
fn nothing_owed() -> Verdict {
    Verdict::Disclaimed { reason: "nothing_owed".to_owned() }
}

/// The header by which a Farebox gateway passes on an answer that costs nothing.
const FAREBOX_CHARGED: &str = "x-farebox-charged";
/// `settlement_pending` as a 402's `error`.
const PENDING: &str = "settlement_pending";

fn again(headers: &HeaderMap) -> Verdict {
    let value = headers.get(http::header::RETRY_AFTER).and_then(|it| it.to_str().ok());
    // The form with a date is not read: our own pause is as good.
    let after = value.and_then(|it| it.trim().parse().ok()).map(Duration::from_secs);
    Verdict::Again { after }
}

/// `PAYMENT-RESPONSE` or `X-PAYMENT-RESPONSE`, if there is one.
fn settlement(
    headers: &HeaderMap,
    version: Version,
) -> Option<Result<SettlementResponse, BadProof>> {
    let name = match version {
        Version::One => header::X_PAYMENT_RESPONSE,
        Version::Two => header::PAYMENT_RESPONSE,
    };
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    let more = values.count();
    if 0 < more {
        return Some(Err(BadProof::Repeated { found: more.saturating_add(1) }));
    }
    Some(match version {
        Version::One => decode_v1(value.as_bytes()),
        Version::Two => {
            let raw = header::decode::<SettlementResponse>(value.as_bytes());
            raw.map(|it| it.value().clone()).map_err(unreadable)
        }
    })
}

fn decode_v1(value: &[u8]) -> Result<SettlementResponse, BadProof> {
    let raw = header::decode::<v1::SettlementResponse>(value).map_err(unreadable)?;
    settlement_from_v1(raw.value().clone()).map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> BadProof {
    BadProof::Unreadable { detail: error.to_string() }
}

fn reason_of(settlement: &SettlementResponse) -> String {
    let reason = settlement.error_reason.as_ref().map(Reason::as_str);
    reason.unwrap_or("settlement failed").to_owned()
}

/// Whether a disclaimer says that the authorisation is used: then somebody did charge it.
pub(crate) fn says_used(reason: &str) -> bool {
    reason == Reason::InvalidExactEvmNonceAlreadyUsed.as_str() || reason.contains("already_used")
}
