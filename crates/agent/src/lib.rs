//! Pays for things: reads the 402, keeps to a budget, signs, and asks again safely.
//!
//! [`PayingClient`] is a client that pays; [`PayingMiddleware`] makes any `reqwest-middleware`
//! client one. Both spend within a [`Policy`] and end each payment in one of four [`Outcome`]s.

mod budget;
mod challenge;
mod client;
mod clock;
mod entropy;
mod env;
mod error;
mod middleware;
mod offer;
mod payment;
mod policy;
mod proof;
mod reshape;
mod stream;
mod transport;
mod usd;
mod verdict;
mod wallet;

pub use crate::budget::{
    Budget, ExceedsReservation, Limits, OverBudget, Reservation, SharedBudget, Standing,
};
pub use crate::challenge::BadChallenge;
pub use crate::client::{
    Choice, Funding, PaidResponse, PassedOver, PayingClient, Preview, WhyNot, preview,
};
pub use crate::clock::{Clock, SystemClock};
pub use crate::entropy::NoEntropy;
pub use crate::env::{BadVariable, secret_from_env};
pub use crate::error::{PayError, Refusals};
pub use crate::middleware::PayingMiddleware;
pub use crate::offer::{BadFacilitator, BadRecipient, NoPermit, Offer, Refusal};
pub use crate::payment::{Doubt, Outcome, Payment, Proof, SignError, Terms};
pub use crate::policy::{Disclaimers, Permit2Approval, PlainHttp, Policy, Retry, known_tokens};
pub use crate::proof::BadProof;
pub use crate::usd::{BadUsd, Usd};
pub use crate::wallet::{Wallet, WalletError};
