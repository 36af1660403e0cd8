//! The 402 answer as far as it decides whether anything is paid at all.
//!
//! A v2 seller says it in a header, a v1 seller in the body. Behind this module a v1 offer is the v2
//! offer that it could have been, so that it meets the same checks and caps.

use farebox_chains::requirements_from_v1;
use farebox_protocol::header::{self, BadHeader};
use farebox_protocol::wire::{Object, ResourceInfo, X402_VERSION, v1};
use http::{HeaderMap, StatusCode};
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::reshape::read_ahead;

/// Why a 402 answer's `PAYMENT-REQUIRED` cannot be acted on.
#[derive(Debug, thiserror::Error)]
pub enum BadChallenge {
    /// Which one counts, nobody could say.
    #[error("expected one PAYMENT-REQUIRED header, found {found}")]
    Repeated {
        /// How many.
        found: usize,
    },
    /// Too long, too deep, or not the JSON that x402 describes.
    #[error("the PAYMENT-REQUIRED header cannot be read")]
    Header(#[source] BadHeader),
    /// Another version of the protocol.
    #[error("expected x402 version {X402_VERSION}, found {found}")]
    Version {
        /// The header's.
        found: u32,
    },
    /// More offers than anyone has reason to make.
    #[error("expected at most {} offers, found {found}", Challenge::OFFERS_MAX)]
    TooMany {
        /// How many.
        found: usize,
    },
}

/// The version of the protocol that a seller speaks, and is answered in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Version {
    /// Demand in the body, `X-PAYMENT`, `X-PAYMENT-RESPONSE`.
    One,
    /// `PAYMENT-REQUIRED`, `PAYMENT-SIGNATURE`, `PAYMENT-RESPONSE`.
    #[default]
    Two,
}

/// A demand with each offer still unread, so that a bad one does not hide a good one.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Challenge {
    x402_version: u32,
    /// In which the demand was made.
    #[serde(skip)]
    pub(crate) version: Version,
    /// Why the last payment was not taken, if there was one.
    pub(crate) error: Option<String>,
    /// Echoed.
    pub(crate) resource: Option<ResourceInfo>,
    pub(crate) accepts: Vec<Value>,
    /// Echoed.
    pub(crate) extensions: Option<Object>,
}

impl Challenge {
    /// How many offers are looked at.
    const OFFERS_MAX: usize = 32;

    /// The longest body that is read for a v1 demand.
    const BODY_BYTES_MAX: usize = 64 * 1024;

    /// The challenge of an answer, which comes back as it was; `None` where it is not a 402 of x402.
    pub(crate) async fn of(answer: Response) -> (Response, Result<Option<Self>, BadChallenge>) {
        if answer.status() != StatusCode::PAYMENT_REQUIRED {
            return (answer, Ok(None));
        }
        match Self::read(answer.headers()) {
            Ok(None) => {
                let (answer, body) = read_ahead(answer, Self::BODY_BYTES_MAX).await;
                (answer, body.map_or(Ok(None), |it| Self::read_v1(&it)))
            }
            read => (answer, read),
        }
    }

    /// The challenge in a body; `None` where it is not one of x402 v1.
    fn read_v1(body: &[u8]) -> Result<Option<Self>, BadChallenge> {
        let Ok(mut challenge) = serde_json::from_slice::<Self>(body) else { return Ok(None) };
        if challenge.x402_version != v1::X402_VERSION {
            return Ok(None);
        }
        challenge.version = Version::One;
        (challenge.resource, challenge.extensions) = (None, None);
        challenge.check_length()?;
        for offer in &mut challenge.accepts {
            if let Some(in_two) = in_two(offer) {
                *offer = in_two;
            }
        }
        Ok(Some(challenge))
    }

    fn check_length(&self) -> Result<(), BadChallenge> {
        let found = self.accepts.len();
        if Self::OFFERS_MAX < found { Err(BadChallenge::TooMany { found }) } else { Ok(()) }
    }

    /// The challenge in the head of a 402 answer; `None` where it is not one of x402 v2.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, BadChallenge> {
        let mut values = headers.get_all(header::PAYMENT_REQUIRED).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let more = values.count();
        if 0 < more {
            return Err(BadChallenge::Repeated { found: more.saturating_add(1) });
        }
        let raw = header::decode::<Self>(value.as_bytes()).map_err(BadChallenge::Header)?;
        let challenge = raw.value().clone();
        if challenge.x402_version != X402_VERSION {
            return Err(BadChallenge::Version { found: challenge.x402_version });
        }
        challenge.check_length()?;
        Ok(Some(challenge))
    }
}

/// A v1 offer in v2's form. One without stays as it is, and is refused for that.
fn in_two(offer: &Value) -> Option<Value> {
    let offer: v1::PaymentRequirements = serde_json::from_value(offer.clone()).ok()?;
    serde_json::to_value(requirements_from_v1(&offer).ok()?).ok()
}
