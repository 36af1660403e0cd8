//! Whether a client took the offer that was made, or one that it made up.
//!
//! Source: x402 v2 §5.2 (`accepted` echoes one entry of `accepts`). The seller builds its offer anew
//! and compares; the echo itself is never trusted.

use std::fmt;

use crate::wire::{Object, PaymentRequirements};

/// A field of `accepted` that is not what was offered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`accepted.{field}` is not what was offered")]
pub struct Altered {
    /// Which.
    pub field: AcceptedField,
}

/// A field of [`PaymentRequirements`]; shown by its name on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptedField {
    /// `scheme`
    Scheme,
    /// `network`
    Network,
    /// `amount`
    Amount,
    /// `asset`
    Asset,
    /// `payTo`
    PayTo,
    /// `maxTimeoutSeconds`
    MaxTimeoutSeconds,
    /// A key of `extra`.
    Extra(String),
    /// A field that this program offers without knowing it.
    Other(String),
}

impl fmt::Display for AcceptedField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("scheme"),
            Self::Network => f.write_str("network"),
            Self::Amount => f.write_str("amount"),
            Self::Asset => f.write_str("asset"),
            Self::PayTo => f.write_str("payTo"),
            Self::MaxTimeoutSeconds => f.write_str("maxTimeoutSeconds"),
            Self::Extra(key) => write!(f, "extra.{key}"),
            Self::Other(key) => f.write_str(key),
        }
    }
}

/// Compares the echo with the offer: every field equal, letter for letter. `extra` and unknown
/// fields may gain keys; those that were offered must be there as they were.
pub fn accepted_matches(
    offered: &PaymentRequirements,
    echoed: &PaymentRequirements,
) -> Result<(), Altered> {
    let fields = [
        (offered.scheme == echoed.scheme, AcceptedField::Scheme),
        (offered.network == echoed.network, AcceptedField::Network),
        (offered.amount == echoed.amount, AcceptedField::Amount),
        (offered.asset == echoed.asset, AcceptedField::Asset),
        (offered.pay_to == echoed.pay_to, AcceptedField::PayTo),
        (
            offered.max_timeout_seconds == echoed.max_timeout_seconds,
            AcceptedField::MaxTimeoutSeconds,
        ),
    ];
    if let Some((_, field)) = fields.into_iter().find(|(equal, _)| !equal) {
        return Err(Altered { field });
    }
    let extra = first_lost(&offered.extra, &echoed.extra).map(AcceptedField::Extra);
    let lost = extra.or_else(|| first_lost(&offered.rest, &echoed.rest).map(AcceptedField::Other));
    lost.map_or(Ok(()), |field| Err(Altered { field }))
}

/// The first key that is missing or has another value.
fn first_lost(offered: &Object, echoed: &Object) -> Option<String> {
    let lost = offered.iter().find(|(key, value)| echoed.get(*key) != Some(*value));
    lost.map(|(key, _)| key.clone())
}
