//! What the gateway needs to know of a way to pay, and of a payload before anyone verifies it.

use std::fmt;

use farebox_protocol::wire::{Object, PaymentPayload, PaymentRequirements};
use farebox_protocol::{Amount, PaymentId, Reason, Timestamp};

/// A way to pay. One file and one row of the table each.
pub trait Scheme: Send + Sync + fmt::Debug {
    /// Its name on the wire: `exact`. Ways that differ in how the asset is moved share one.
    fn name(&self) -> &'static str;

    /// How the asset is moved.
    fn method(&self) -> TransferMethod;

    /// What a configuration writes in `offer = […]`: `exact-permit2`. No two ways of one namespace
    /// share one.
    fn word(&self) -> &'static str;

    /// How much of what was authorised can be charged.
    fn charging(&self) -> Charging;

    /// The namespace of the networks that it works on: `eip155`.
    fn namespace(&self) -> &'static str;

    /// Reads out of a payload who pays, with which authorisation, until when. Pure: no signature
    /// is checked and nobody is asked, so nothing of this is to be trusted before verification.
    fn identify(
        &self,
        payload: &PaymentPayload,
        requirements: &PaymentRequirements,
    ) -> Result<Identified, BadPayload>;

    /// What its offers carry in `extra` besides the token's `name` and `version`. `facilitator` is
    /// the address that will settle, where it is known; `upto` cannot be offered without one.
    fn extra(&self, facilitator: Option<&str>) -> Object;

    /// The code of its refusals of an authorisation that was used or cancelled.
    fn used(&self) -> &'static Reason;
}

impl PartialEq for dyn Scheme {
    fn eq(&self, other: &Self) -> bool {
        (self.word(), self.namespace()) == (other.word(), other.namespace())
    }
}

impl Eq for dyn Scheme {}

/// How an asset is moved: `extra.assetTransferMethod` on EVM networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferMethod {
    /// By the token itself (EIP-3009).
    Eip3009,
    /// By the contract Permit2, which the payer lets spend the token once and for all.
    Permit2,
}

/// How much of what was authorised can be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Charging {
    /// All of it, or nothing.
    Whole,
    /// Any part of it, from nothing to all.
    UpTo,
}

impl TransferMethod {
    /// The word in `extra.assetTransferMethod`; offers by EIP-3009 leave it out.
    pub fn word(self) -> &'static str {
        match self {
            Self::Eip3009 => "eip3009",
            Self::Permit2 => "permit2",
        }
    }
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
    /// It cannot be settled from here on. EIP-3009's `validBefore` is that; a Permit2 `deadline` can
    /// still be met in its own second, so that this is one second later.
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
