//! The tokio shell: sockets, tasks and the clock around the pure parts.
//!
//! Read `proxy/pay.rs` first: it is the way of one paid request, top to bottom.

mod app;
mod backing;
mod body;
mod clock;
mod config;
mod cors;
mod dispatch;
mod entropy;
mod facilitator_api;
mod intake;
mod kept;
mod own;
mod probe;
mod problem;
mod proxy;
mod readiness;
mod routes;
mod server;
mod settlement;
mod target;
mod transactions;
mod upstream;

pub use crate::app::Mount;
pub use crate::clock::{Clock, SystemClock};
pub use crate::config::{
    ApiKey, GatewayConfig, Keep, Limits, ModelPattern, Models, OfferTemplate, OfferToken,
    PathPattern, Route, Upstream, Versions,
};
pub use crate::entropy::Entropy;
pub use crate::facilitator_api::terms::{Callers, FacilitatorTerms, Seller};
pub use crate::facilitator_api::{
    FacilitatorParts, FacilitatorServer, facilitator_mount, facilitator_paths, facilitator_router,
};
pub use crate::probe::{NoProbe, Probe, Step};
pub use crate::routes::{RouteError, check_routes, own_paths};
pub use crate::server::in_process::InProcess;
pub use crate::server::{Gateway, Parts, Running, StartError};
pub use crate::settlement::{Expected, Settled, Settler};
pub use crate::transactions::KeptTransactions;
pub use crate::upstream::Dial;
