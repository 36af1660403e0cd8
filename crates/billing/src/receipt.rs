//! What a client can show for its money: one struct for `/v1/receipts/{id}` and for streams.

use farebox_protocol::{Amount, Network, PaymentId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::payment::Payment;
use crate::usage::Usage;

/// The receipt of one payment, as JSON. It carries nothing of the request's or answer's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Of which payment.
    pub payment_id: PaymentId,
    /// The name of the route that was paid for.
    pub route: String,
    /// `exact`, …
    pub scheme: String,
    /// Where it is paid.
    pub network: Network,
    /// In which token: its address as offered.
    pub asset: String,
    /// Who gave.
    pub payer: String,
    /// Who got.
    pub pay_to: String,
    /// The most that could have been charged; atomic units.
    pub quoted: Amount,
    /// What was charged; atomic units.
    pub charged: Amount,
    /// What was used, where that was metered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The price book that applied ([`crate::price_version`]).
    pub price_version: String,
    /// Where the payment stands.
    #[serde(flatten)]
    pub state: ReceiptState,
    /// When this was so; milliseconds since the epoch.
    pub at: Timestamp,
}

/// Where a payment stands, as told to the client: `"state": "settled", "transaction": "0x…"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReceiptState {
    /// Funds are reserved; nothing is owed yet.
    Held,
    /// The upstream is at work.
    Serving,
    /// Owed; its settlement is queued.
    Captured,
    /// A settlement is under way.
    Settling,
    /// A settlement was sent and is being looked for.
    Unknown {
        /// The transaction, if its name is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction: Option<String>,
    },
    /// On chain.
    Settled {
        /// By this transaction.
        transaction: String,
    },
    /// Given back without a charge.
    Released {
        /// Why ([`crate::Release::as_str`]).
        reason: String,
    },
    /// Served and not paid.
    Lost {
        /// The settlement's `errorReason`.
        reason: String,
    },
}

impl From<&Payment> for ReceiptState {
    fn from(payment: &Payment) -> Self {
        match payment {
            Payment::Held { .. } => Self::Held,
            Payment::Serving { .. } => Self::Serving,
            Payment::Captured { .. } => Self::Captured,
            Payment::Settling { .. } => Self::Settling,
            Payment::Unknown { transaction, .. } => {
                Self::Unknown { transaction: transaction.clone() }
            }
            Payment::Settled { transaction, .. } => {
                Self::Settled { transaction: transaction.clone() }
            }
            Payment::Released { why } => Self::Released { reason: why.as_str().to_owned() },
            Payment::Lost { reason, .. } => Self::Lost { reason: reason.clone() },
        }
    }
}

impl Receipt {
    /// What the payment in this state charges: nothing before the capture, nothing when released.
    pub fn charged_by(payment: &Payment) -> Amount {
        match payment {
            Payment::Held { .. } | Payment::Serving { .. } | Payment::Released { .. } => {
                Amount::ZERO
            }
            Payment::Captured { charge }
            | Payment::Settling { charge }
            | Payment::Unknown { charge, .. }
            | Payment::Settled { charge, .. }
            | Payment::Lost { charge, .. } => *charge,
        }
    }

    /// One line for an SSE comment: `farebox-receipt {…}`.
    pub fn comment(&self) -> Result<String, serde_json::Error> {
        Ok(format!("farebox-receipt {}", serde_json::to_string(self)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::Release;

    fn receipt(payment: &Payment) -> Receipt {
        Receipt {
            payment_id: PaymentId::from_bytes([7; 32]),
            route: "POST /v1/chat/completions".to_owned(),
            scheme: "exact".to_owned(),
            network: Network::eip155(84532),
            asset: "0xA".to_owned(),
            payer: "0xB".to_owned(),
            pay_to: "0xC".to_owned(),
            quoted: Amount::from_units(10),
            charged: Receipt::charged_by(payment),
            usage: Some(Usage::reported(3, 4)),
            price_version: "0a1b2c3d".to_owned(),
            state: ReceiptState::from(payment),
            at: Timestamp::from_millis(1_001),
        }
    }

    fn every_state() -> [Payment; 8] {
        let charge = Amount::from_units(4);
        [
            Payment::Held { limit: charge },
            Payment::Serving { limit: charge, delivered: charge },
            Payment::Captured { charge },
            Payment::Settling { charge },
            Payment::Unknown { charge, transaction: None },
            Payment::Settled { charge, transaction: "0x1".to_owned() },
            Payment::Released { why: Release::Crashed },
            Payment::Lost { charge, reason: "insufficient_funds".to_owned() },
        ]
    }

    #[test]
    fn every_state_reads_back_under_its_own_name() {
        for payment in every_state() {
            let receipt = receipt(&payment);
            let text = serde_json::to_string(&receipt).unwrap();
            assert_eq!(serde_json::from_str::<Receipt>(&text).unwrap(), receipt);
            assert!(text.contains(&format!("\"state\":\"{}\"", payment.name())), "{text}");
        }
    }

    #[test]
    fn the_comment_is_one_line() {
        let [.., settled, _, _] = every_state();
        insta::assert_snapshot!(receipt(&settled).comment().unwrap(), @r#"farebox-receipt {"paymentId":"pay_0707070707070707070707070707070707070707070707070707070707070707","route":"POST /v1/chat/completions","scheme":"exact","network":"eip155:84532","asset":"0xA","payer":"0xB","payTo":"0xC","quoted":"10","charged":"4","usage":{"inputTokens":3,"outputTokens":4,"basis":"reported"},"priceVersion":"0a1b2c3d","state":"settled","transaction":"0x1","at":1001}"#);
    }
}
