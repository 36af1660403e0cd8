//! The 402 answer as far as it decides whether anything is paid at all.

use farebox_protocol::header::{self, BadHeader};
use farebox_protocol::wire::{Object, ResourceInfo, X402_VERSION};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

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

/// `PAYMENT-REQUIRED` with each offer still unread, so that a bad one does not hide a good one.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Challenge {
    x402_version: u32,
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

    /// The challenge of a 402 answer; `None` where it is not one of x402 v2.
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
        if Self::OFFERS_MAX < challenge.accepts.len() {
            return Err(BadChallenge::TooMany { found: challenge.accepts.len() });
        }
        Ok(Some(challenge))
    }
}
