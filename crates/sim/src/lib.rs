//! The whole gateway on virtual time, in a world that fails by a seed.
//!
//! The gateway is the real one: its pay flow, its meter, its settlement worker, its recovery, the rules
//! of the ledger and of billing. Around it are a ledger engine in memory that answers late, not at all
//! or `Unknown`; a chain that delays, drops, reverts, reorganises and lags; an upstream that stalls and
//! cuts; clients that repeat, race and hang up; and crashes of the process at any place where it meets
//! one of them. Everything follows from the seed, so that a run that fails can be looked at again.
//!
//! Afterwards what happened, the ledger and the chain are held against the invariants. That these
//! checks can fail is shown by [`Bug`]s: each of them is found.

mod bug;
mod chain;
mod check;
mod client;
mod event;
mod ledger;
mod plan;
mod random;
mod run;
mod shop;
mod tags;
mod upstream;
mod weather;
mod wire;
mod world;

pub use crate::bug::{Bug, NoSuchBug};
pub use crate::check::Breach;
pub use crate::run::{Outcome, Tally, Unbuilt, run};
