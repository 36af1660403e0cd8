//! The gateway over real sockets, with a facilitator and an upstream that do as they are told.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic; that is how they fail"
)]

mod app;
mod binding;
mod buying;
mod caching;
mod chain;
mod connections;
mod crash;
mod crossing;
mod facilitator_api;
mod facilitator_terms;
mod facilitator_v1;
mod failing;
mod faults;
mod formats;
mod idempotency;
mod ledger;
mod lifecycle;
mod long_answers;
mod reorgs;
mod replay;
mod review_answers;
mod review_facilitator;
mod review_money;
mod rpc_faults;
mod settling;
mod smuggling;
mod streaming;
mod till;
mod upto;
mod urls;
mod v1;
