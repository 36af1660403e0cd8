//! The tokio shell: sockets, tasks and the clock around the pure parts.
//!
//! Read `proxy/pay.rs` first: it is the way of one paid request, top to bottom.

mod clock;
mod config;

pub use crate::clock::{Clock, SystemClock};
pub use crate::config::{
    GatewayConfig, Limits, OfferTemplate, OfferToken, PathPattern, Route, Upstream,
};
