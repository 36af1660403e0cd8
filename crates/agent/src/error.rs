//! Why a request ended without an answer, by what the caller must do.

use std::error::Error;
use std::fmt;

use url::Url;

use crate::challenge::BadChallenge;
use crate::offer::Refusal;
use crate::payment::{Outcome, Payment, SignError};

/// Why [`crate::PayingClient::execute`] returned no answer. Only [`PayError::NoAnswer`] can have
/// cost anything.
#[derive(Debug, thiserror::Error)]
pub enum PayError {
    /// The request failed before anything was signed: send it again whenever you like.
    #[error("the request failed; nothing was signed")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// The body is a stream, which cannot be sent a second time with the payment: buffer it.
    #[error(
        "payment is required, and the request's body cannot be sent twice: expected a buffered body"
    )]
    NotRepeatable,
    /// The request carries a payment of its own: leave it to this client, or use another.
    #[error("the request already has a PAYMENT-SIGNATURE or X-PAYMENT header")]
    CarriesPayment,
    /// Over plain http anyone on the way could swap the recipient: use https, or allow it.
    #[error("payment refused: expected https, found http to {host:?}, which is not this machine")]
    PlainHttp {
        /// Who was asked.
        host: String,
    },
    /// The client follows redirects, and would do so with the payment: build it without.
    #[error(
        "payment refused: the client was redirected to {to}; expected one that follows no redirects"
    )]
    Redirected {
        /// Where it ended, without the query.
        to: Box<Url>,
    },
    /// The seller's demand cannot be understood: nothing to be done on this side.
    #[error("payment refused: the 402 answer is not one that can be paid")]
    Challenge(#[from] BadChallenge),
    /// No offer is within the policy: change the policy, or do without.
    #[error("payment refused: {0}")]
    Refused(Refusals),
    /// The offer was fine and could not be signed.
    #[error("payment refused: it could not be signed")]
    Sign(#[from] SignError),
    /// The payment never left this machine: nothing was charged, the budget is as before.
    #[error("the payment could not be sent; nothing was charged")]
    NotSent(#[source] Box<dyn Error + Send + Sync>),
    /// The payment was sent and no answer came back. What is known of it stands in
    /// [`Payment::outcome`]; do not pay again before that is settled.
    #[error("the payment was sent and no answer came back: {}", standing(payment))]
    NoAnswer {
        /// What was signed, and what is known of it.
        payment: Box<Payment>,
        /// How the last sending failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl PayError {
    /// The payment, where one was sent.
    pub fn payment(&self) -> Option<&Payment> {
        match self {
            Self::NoAnswer { payment, .. } => Some(payment),
            Self::Unreachable(_)
            | Self::NotRepeatable
            | Self::CarriesPayment
            | Self::PlainHttp { .. }
            | Self::Redirected { .. }
            | Self::Challenge(_)
            | Self::Refused(_)
            | Self::Sign(_)
            | Self::NotSent(_) => None,
        }
    }
}

fn standing(payment: &Payment) -> &'static str {
    match payment.outcome {
        Outcome::Paid { .. } => "the seller's receipt says that it was charged",
        Outcome::NotCharged { .. } => "the seller's receipt says that it was not charged",
        Outcome::Accepted | Outcome::Unknown { .. } => "whether it was charged is unknown",
    }
}

/// Every offer of a seller with the reason why it is not paid.
#[derive(Debug)]
pub struct Refusals(pub Vec<Refusal>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the seller makes no offer");
        }
        f.write_str("no offer is within the policy")?;
        for (place, refusal) in self.0.iter().enumerate() {
            write!(f, "; offer {}: {refusal}", place.saturating_add(1))?;
        }
        Ok(())
    }
}
