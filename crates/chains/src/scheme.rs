//! What the gateway needs to know of a payload before anyone verifies it.

use std::fmt;

use farebox_protocol::wire::{PaymentPayload, PaymentRequirements};
use farebox_protocol::{Amount, PaymentId, Timestamp};

/// A way to pay. One file and one row of the table each.
pub trait Scheme: Send + Sync + fmt::Debug {
    /// Its name on the wire: `exact`.
    fn name(&self) -> &'static str;

    /// The namespace of the networks that it works on: `eip155`.
    fn namespace(&self) -> &'static str;

    /// Reads out of a payload who pays, with which authorisation, until when. Pure: no signature
    /// is checked and nobody is asked, so nothing of this is to be trusted before verification.
    fn identify(
        &self,
        payload: &PaymentPayload,
        requirements: &PaymentRequirements,
    ) -> Result<Identified, BadPayload>;
}

/// What an authorisation says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The payment that it is, for ever.
    pub id: PaymentId,
    /// The claimed payer, in its network's one canonical spelling: EIP-55 mixed case on EVM networks.
    pub payer: String,
    /// Single-use number of the authorisation.
    pub nonce: [u8; 32],
    /// The most that it allows.
    pub amount: Amount,
    /// It cannot be settled from here on.
    pub valid_before: Timestamp,
}

/// The payload is not of the form that its scheme has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` of the payment payload: expected {expected}")]
pub struct BadPayload {
    /// The path of the field: `payload.authorization.nonce`.
    pub field: &'static str,
    /// What should stand there.
    pub expected: &'static str,
}
