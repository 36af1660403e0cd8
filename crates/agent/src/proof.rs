//! Whether what a seller shows for a payment is for the payment that was signed (attack A27).

use farebox_billing::{Receipt, ReceiptState};
use farebox_chains::Charging;
use farebox_protocol::wire::SettlementResponse;
use farebox_protocol::{Amount, PaymentId};

use crate::payment::{Outcome, Proof, Terms};

/// Why a settlement answer or a receipt proves nothing: what was signed, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// There are several.
    #[error("expected one settlement header, found {found}")]
    Repeated {
        /// How many.
        found: usize,
    },
    /// It cannot be read.
    #[error("not a settlement that x402 describes: {detail}")]
    Unreadable {
        /// In what way.
        detail: String,
    },
    /// It is of another payment.
    #[error("payment: expected {expected}, found {found}")]
    Payment {
        /// What was signed.
        expected: PaymentId,
        /// What it says.
        found: PaymentId,
    },
    /// Another network than was signed for.
    #[error("network: expected {expected:?}, found {found:?}")]
    Network {
        /// What was signed.
        expected: String,
        /// What it says.
        found: String,
    },
    /// Somebody else's money.
    #[error("payer: expected {expected:?}, found {found:?}")]
    Payer {
        /// What was signed.
        expected: String,
        /// What it says.
        found: String,
    },
    /// Another amount than was signed: `exact` moves the whole or nothing.
    #[error("amount: expected {expected}, found {found}")]
    Amount {
        /// What was signed, in atomic units.
        expected: Amount,
        /// What it says.
        found: Amount,
    },
    /// More than the ceiling that was signed: no such settlement exists.
    #[error("amount: expected at most {ceiling}, found {found}")]
    Ceiling {
        /// What was signed, in atomic units.
        ceiling: Amount,
        /// What it says.
        found: Amount,
    },
    /// Not the hash of a transaction.
    #[error("transaction: expected `0x` and 64 hexadecimal digits, found {found:?}")]
    Transaction {
        /// What it says.
        found: String,
    },
}

/// Checks a settlement that claims success; returns what was charged. Nothing at all, which `upto`
/// allows, takes no transaction.
pub(crate) fn check_settlement(
    settlement: &SettlementResponse,
    terms: &Terms,
) -> Result<Amount, BadProof> {
    check_network(settlement.network.as_str(), terms)?;
    if let Some(payer) = &settlement.payer {
        check_payer(payer, terms)?;
    }
    let charged = settlement.amount.unwrap_or(terms.amount);
    check_charged(charged, terms)?;
    if !charged.is_zero() {
        check_transaction(&settlement.transaction)?;
    }
    Ok(charged)
}

/// What a receipt says became of the payment; `None` while it does not say.
pub(crate) fn check_receipt(receipt: &Receipt, terms: &Terms) -> Result<Option<Outcome>, BadProof> {
    if receipt.payment_id != terms.id {
        return Err(BadProof::Payment { expected: terms.id, found: receipt.payment_id });
    }
    check_network(receipt.network.as_str(), terms)?;
    check_payer(&receipt.payer, terms)?;
    match &receipt.state {
        ReceiptState::Captured | ReceiptState::Settling => {}
        ReceiptState::Settled { transaction } => check_transaction(transaction)?,
        ReceiptState::Released { reason } | ReceiptState::Lost { reason } => {
            return Ok(Some(Outcome::NotCharged { reason: reason.clone() }));
        }
        ReceiptState::Held | ReceiptState::Serving | ReceiptState::Unknown { .. } => {
            return Ok(None);
        }
    }
    let charged = receipt.charged;
    check_charged(charged, terms)?;
    Ok(Some(Outcome::Paid { charged, proof: Proof::Receipt(Box::new(receipt.clone())) }))
}

/// `exact` moves the whole or nothing, `upto` the whole or less.
fn check_charged(found: Amount, terms: &Terms) -> Result<(), BadProof> {
    let signed = terms.amount;
    match terms.scheme.charging() {
        Charging::Whole if found != signed => Err(BadProof::Amount { expected: signed, found }),
        Charging::UpTo if signed < found => Err(BadProof::Ceiling { ceiling: signed, found }),
        Charging::Whole | Charging::UpTo => Ok(()),
    }
}

fn check_network(found: &str, terms: &Terms) -> Result<(), BadProof> {
    let expected = terms.network.as_str();
    if found == expected {
        return Ok(());
    }
    Err(BadProof::Network { expected: expected.to_owned(), found: found.to_owned() })
}

fn check_payer(found: &str, terms: &Terms) -> Result<(), BadProof> {
    let expected = terms.payer.to_lower_hex();
    if found.eq_ignore_ascii_case(&expected) {
        return Ok(());
    }
    Err(BadProof::Payer { expected, found: found.to_owned() })
}

fn check_transaction(found: &str) -> Result<(), BadProof> {
    let digits = found.strip_prefix("0x").unwrap_or("");
    if digits.len() == 64 && digits.bytes().all(|it| it.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(BadProof::Transaction { found: found.to_owned() })
}
