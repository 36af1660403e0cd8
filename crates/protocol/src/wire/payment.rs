//! What seller and buyer say to each other.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Object;
use crate::amount::Amount;
use crate::network::Network;

/// The 402 answer (§5.1): header `PAYMENT-REQUIRED`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// 2.
    pub x402_version: u32,
    /// Why payment is required, or why the last one was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is for sale.
    pub resource: ResourceInfo,
    /// Ways to pay, best first.
    pub accepts: Vec<PaymentRequirements>,
    /// Protocol extensions that the seller speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Object>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// What is for sale (§5.1, `resource`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceInfo {
    /// Its address.
    pub url: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// One way to pay (§5.1.2): an entry of `accepts`, echoed as `accepted`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// `exact`, `upto`, `batch-settlement`.
    pub scheme: String,
    /// Where.
    pub network: Network,
    /// Atomic units; for `upto` the ceiling.
    pub amount: Amount,
    /// The token's address.
    pub asset: String,
    /// Who is paid.
    pub pay_to: String,
    /// How long the authorisation lives; a JSON number, because the TypeScript client signs one
    /// that never ends when it meets a string.
    pub max_timeout_seconds: u64,
    /// What the scheme needs besides: for EIP-3009 the token's EIP-712 `name` and `version`.
    /// Written even if empty, as the official servers do.
    #[serde(default)]
    pub extra: Object,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// The client's signed answer (§5.2): header `PAYMENT-SIGNATURE`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// 2.
    pub x402_version: u32,
    /// What the scheme signed.
    pub payload: Value,
    /// The seller's `resource`, echoed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceInfo>,
    /// The offer that is taken, echoed.
    pub accepted: PaymentRequirements,
    /// The seller's `extensions`, echoed, with what the client adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Object>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}
