//! The words of x402 on the wire, and the values everything else is made of.
//!
//! No I/O, no clock and no async live here: time and randomness are arguments. The wire structs in
//! [`wire`] mirror the specification field for field; everything else is parsed once, at the edge,
//! into types that cannot hold a bad value.

pub mod header;
pub mod wire;

mod accept;
mod amount;
mod asset;
mod digest;
mod network;
mod payment_id;
mod reason;
mod seal;
mod timestamp;

pub use crate::accept::{AcceptedField, Altered, accepted_matches};
pub use crate::amount::{Amount, BadAmount, OutOfRange};
pub use crate::asset::{Asset, BadAsset};
pub use crate::digest::{Digest, DigestBuilder};
pub use crate::network::{BadNetwork, Network};
pub use crate::payment_id::{BadPaymentId, PaymentId};
pub use crate::reason::Reason;
pub use crate::seal::{BadSeal, QuoteTerms, Seal, SealKey, bound_nonce, is_bound_nonce};
pub use crate::timestamp::Timestamp;
