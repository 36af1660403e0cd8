//! The port to whoever verifies and settles: this process, or a remote facilitator.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use farebox_protocol::wire::{SettleRequest, SupportedResponse, VerifyRequest};
use farebox_protocol::{Amount, Network, Reason, Timestamp};

/// Verifies and settles payments (x402 v2 §7).
///
/// The requests carry the client's payload byte for byte. `now` is the caller's clock.
#[async_trait]
pub trait Facilitator: Send + Sync + fmt::Debug {
    /// Whether the payment could be settled as things stand. Moves nothing.
    async fn verify(
        &self,
        request: &VerifyRequest,
        now: Timestamp,
    ) -> Result<Verification, FacilitatorError>;

    /// Makes the payment final and waits for the proof. The same request again is safe: it is
    /// reconciled with what the first one did, never sent a second time while the first may land.
    async fn settle(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError>;

    /// What became of a payment that may have been settled before. Moves nothing.
    async fn lookup(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Lookup, FacilitatorError>;

    /// How firmly a settlement of this payment is in its chain. One that asks no chain cannot tell.
    async fn permanence(
        &self,
        _request: &SettleRequest,
        _transaction: &str,
    ) -> Result<Permanence, FacilitatorError> {
        Ok(Permanence::CannotTell)
    }

    /// Schemes, networks and settling addresses.
    async fn supported(&self) -> Result<SupportedResponse, FacilitatorError>;

    /// On which networks it could settle, as of what it saw last. Asks nobody; nothing is said where
    /// nothing is known, as of remote facilitators.
    fn readiness(&self) -> Vec<NetworkReadiness> {
        Vec::new()
    }
}

/// Whether a facilitator can settle on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkReadiness {
    /// Which.
    pub network: Network,
    /// Why it can settle nothing there, with what to do about it; `None` as far as nothing is in the way.
    pub obstacle: Option<String>,
}

/// The outcome of a verification that took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// The payment is good.
    Valid {
        /// Whose money it is, as its network writes addresses.
        payer: String,
        /// The most that can be collected of this payer in ways like this one, all open payments
        /// together, where it was looked at: what the payer holds of the asset, and no more of it
        /// than the method may move.
        collectable: Option<Amount>,
    },
    /// It is not.
    Invalid {
        /// The specified code.
        reason: Reason,
        /// The same for people: what was expected, what was found.
        message: String,
        /// Whose money it would be, if that much was understood.
        payer: Option<String>,
    },
}

/// Proof that money moved: the expected transfer was seen on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The transaction's hash.
    pub transaction: String,
    /// Where.
    pub network: Network,
    /// Whose money it was.
    pub payer: String,
    /// What was moved.
    pub amount: Amount,
    /// How long it takes about until the chain will not take it back; `None`: it is final, as far as
    /// anybody here can tell.
    pub final_in: Option<Duration>,
}

/// How firmly a settlement is in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permanence {
    /// It is as deep as its value takes.
    Final,
    /// It is there, and may be taken back.
    Shallow {
        /// For about so long.
        left: Duration,
    },
    /// It is not there.
    Gone,
    /// This facilitator cannot tell.
    CannotTell,
}

/// What became of a payment, as its chain tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It was settled.
    Landed(Settlement),
    /// It was not settled, and still can be.
    Open,
    /// It was not settled and never will be: expired, or its nonce went elsewhere.
    Dead {
        /// The specified code.
        reason: Reason,
    },
    /// This facilitator cannot tell without settling.
    CannotTell,
}

/// The question could not be answered; nothing was decided and nothing moved.
#[derive(Debug, thiserror::Error)]
#[error("the facilitator or its chain could not be asked: {context}")]
pub struct FacilitatorError {
    /// What was being asked of whom.
    pub context: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Why a settlement did not end in a proof, by what the caller must do.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// It will never settle: give the hold back, or book the loss.
    #[error("settlement rejected: {reason}: {message}")]
    Rejected {
        /// The specified code.
        reason: Reason,
        /// The same for people.
        message: String,
    },
    /// Nothing left for the chain: the facilitator does not serve it now, for what it is configured with
    /// or has left to give. Whoever only asks is refused. Whoever has served for it, as it was taken
    /// earlier, may settle it once there is again what is missing (the network, the token, the key that
    /// alone may settle it, the sponsoring of its permit, gas money), as long as the authorisation is
    /// good.
    #[error("settlement not served: {reason}: {message}")]
    NotServed {
        /// The specified code.
        reason: Reason,
        /// The same for people: what is missing.
        message: String,
    },
    /// Nothing left for the chain: try again later.
    #[error("settlement not sent")]
    NotSent(#[source] FacilitatorError),
    /// It may have landed or may land yet: ask again with the same request; never release, never
    /// serve, never sign anything else meanwhile.
    #[error("settlement outcome unknown")]
    Unknown {
        /// The transaction to look for, where one is known.
        transaction: Option<String>,
    },
}
