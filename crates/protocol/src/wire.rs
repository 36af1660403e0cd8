//! x402 v2 structs, field for field as the specification has them; those of v1 are in [`v1`].
//!
//! Source: x402 specification v2, §5 (types) and §7 (facilitator). Fields that this program does
//! not know are kept in `rest` and written back; [`Raw`] keeps a whole document byte for byte.

pub mod v1;

mod facilitator;
mod payment;
mod raw;

pub use self::facilitator::{
    SettleRequest, SettlementResponse, SupportedKind, SupportedResponse, VerifyRequest,
    VerifyResponse,
};
pub use self::payment::{PaymentPayload, PaymentRequired, PaymentRequirements, ResourceInfo};
pub use self::raw::Raw;

/// A JSON object that keeps its order.
pub type Object = serde_json::Map<String, serde_json::Value>;

/// The version of the protocol that these structs speak.
pub const X402_VERSION: u32 = 2;
