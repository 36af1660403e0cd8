//! x402 v1 structs, field for field as the specification has them.
//!
//! Source: x402 specification v1, §5 (types) and §7 (facilitator). Version 1 calls networks by names
//! (`base-sepolia`), says the amount in `maxAmountRequired`, describes the resource inside each offer
//! and echoes none of it. The demand is a 402 answer's JSON body, the payment the header `X-PAYMENT`,
//! its outcome the header `X-PAYMENT-RESPONSE`; a facilitator's verdict is
//! [`super::VerifyResponse`] in both versions.
//!
//! Nothing but the edges of the program works on these: they are turned into the v2 forms first.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Object, Raw};
use crate::amount::Amount;
use crate::reason::Reason;

/// The version of the protocol that these structs speak.
pub const X402_VERSION: u32 = 1;

/// The 402 answer (§5.1): its JSON body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// 1.
    pub x402_version: u32,
    /// Why payment is required, or why the last one was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Ways to pay, best first. Written even if empty: the npm package `x402-fetch` 1.2.0 fails
    /// without it.
    pub accepts: Vec<PaymentRequirements>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// One way to pay (§5.1.2): an entry of `accepts`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// `exact`.
    pub scheme: String,
    /// The network's name: `base`.
    pub network: String,
    /// Atomic units.
    pub max_amount_required: Amount,
    /// The address of what is for sale; stock clients refuse what is not a URL.
    pub resource: String,
    /// For people; stock clients refuse an offer without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of the answer; stock clients refuse an offer without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// What request and answer look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Who is paid.
    pub pay_to: String,
    /// How long the authorisation lives.
    pub max_timeout_seconds: u64,
    /// The token's address.
    pub asset: String,
    /// For `exact` on EVM networks the token's EIP-712 `name` and `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Object>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// The client's signed answer (§5.2): header `X-PAYMENT`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// 1.
    pub x402_version: u32,
    /// `exact`.
    pub scheme: String,
    /// The network's name.
    pub network: String,
    /// What the scheme signed: the same as in v2.
    pub payload: Value,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// The body of `POST /verify`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyRequest {
    /// 1.
    pub x402_version: u32,
    /// What the client sent.
    pub payment_payload: Raw<PaymentPayload>,
    /// What the server demands.
    pub payment_requirements: Raw<PaymentRequirements>,
}

/// The body of `POST /settle`: the same as for `/verify`.
pub type SettleRequest = VerifyRequest;

/// The answer of `POST /settle`, and what `X-PAYMENT-RESPONSE` carries (§5.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettlementResponse {
    /// Whether the money moved.
    pub success: bool,
    /// If not, why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<Reason>,
    /// The transaction hash; empty where there is none.
    pub transaction: String,
    /// The network's name.
    pub network: String,
    /// Whose money it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}
