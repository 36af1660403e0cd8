//! What server and facilitator say to each other (§7).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Object, PaymentPayload, PaymentRequirements, Raw};
use crate::amount::Amount;
use crate::network::Network;
use crate::reason::Reason;

/// The body of `POST /verify`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyRequest {
    /// 2.
    pub x402_version: u32,
    /// What the client sent.
    pub payment_payload: Raw<PaymentPayload>,
    /// What the server demands.
    pub payment_requirements: Raw<PaymentRequirements>,
}

/// The body of `POST /settle`: the same as for `/verify`.
pub type SettleRequest = VerifyRequest;

/// The answer of `POST /verify`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResponse {
    /// Whether the payment can be settled as things stand.
    pub is_valid: bool,
    /// If not, why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_reason: Option<Reason>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_message: Option<String>,
    /// Whose money it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// The answer of `POST /settle`, and what `PAYMENT-RESPONSE` carries (§5.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettlementResponse {
    /// Whether the money moved.
    pub success: bool,
    /// If not, why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<Reason>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Whose money it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// The transaction hash; empty where there is none.
    pub transaction: String,
    /// Where.
    pub network: Network,
    /// What was moved; `upto` must say it. Answers to vouchers, which move nothing by themselves,
    /// write an empty text, which reads as none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "amount_or_empty"
    )]
    pub amount: Option<Amount>,
    /// Answers of protocol extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Object>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// An amount; nothing for `null` and for an empty text.
fn amount_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Amount>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let text = text.filter(|it| !it.is_empty());
    text.map(|it| it.parse().map_err(D::Error::custom)).transpose()
}

/// The answer of `GET /supported`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SupportedResponse {
    /// Which scheme on which network in which protocol version.
    pub kinds: Vec<SupportedKind>,
    /// Names of protocol extensions.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// Addresses that settle, by CAIP-2 pattern (`eip155:*`).
    #[serde(default)]
    pub signers: Object,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}

/// One thing that a facilitator can do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SupportedKind {
    /// 2, or 1.
    pub x402_version: u32,
    /// `exact`, …
    pub scheme: String,
    /// A CAIP-2 id, or a v1 name where the version is 1.
    pub network: String,
    /// What a server must copy into the offer's `extra`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Object>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub rest: Object,
}
