//! What is owed, by whom, and why.
//!
//! Everything here is pure: bytes, time and ids come in as arguments; prices, usage and states come
//! out. Nothing reads a clock, a file or a socket.

pub mod audit;
pub mod ledger;
pub mod settlement;

mod facts;
mod format;
mod meter;
mod payment;
mod pricing;
mod receipt;
mod usage;

pub use crate::facts::betas::unpriced_beta;
pub use crate::facts::{
    AnswerKind, BadBody, Ceiling, OutputLimit, RequestFacts, UsageBounds, UsageEvent,
};
pub use crate::format::{Format, UnknownFormat};
pub use crate::meter::sse;
pub use crate::meter::{Content, Ended, Ending, Metered, StreamFilter, meter_answer};
pub use crate::payment::{Event, Illegal, Payment, Release};
pub use crate::pricing::{
    BadPrice, BadUsd, NoPrice, Price, Rate, UsdPrice, charge, cost_rounded_up, price_version, quote,
};
pub use crate::receipt::{Receipt, ReceiptState};
pub use crate::usage::{Basis, Usage};
