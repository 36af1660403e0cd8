//! Everything that lives as long as the gateway, built in one place.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use farebox_chains::{Facilitator, FacilitatorError, TransferMethod};
use farebox_protocol::{PaymentId, SealKey};
use farebox_store::Ledger;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::backing::Backing;
use crate::body::Bodies;
use crate::clock::Clock;
use crate::config::{GatewayConfig, Limits, PathPattern, Route};
use crate::entropy::Entropy;
use crate::intake;
use crate::kept::Kept;
use crate::probe::{Probe, Step};
use crate::problem::{Kind, Prepared, Problem};
use crate::proxy::claim::Claims;
use crate::routes::{RECEIPTS, Routes, own_paths};
use crate::server::{Parts, StartError};
use crate::settlement::Settler;
use crate::upstream::UpstreamClient;

/// The name of the secret that quotes are sealed with; gateways on one ledger share it.
const SEAL_SECRET: &str = "quote-seal";

/// A service beside the proxy, under paths of its own that no route may shadow.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The paths that it gets; normalised, as routes do.
    pub paths: Vec<PathPattern>,
    /// What answers there.
    pub router: Router,
}

/// Every long-lived handle.
pub(crate) struct App {
    pub(crate) public_url: Url,
    pub(crate) routes: Routes,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) limits: Limits,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) facilitator: Arc<dyn Facilitator>,
    pub(crate) settler: Arc<Settler>,
    pub(crate) upstream: UpstreamClient,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) seal_key: SealKey,
    /// The answer to whoever has not paid, but for its offers.
    pub(crate) unpaid: Prepared,
    /// The room for clients' bodies.
    pub(crate) bodies: Bodies,
    /// Answers for repeats.
    pub(crate) kept: Arc<Kept>,
    /// Payments before their hold.
    pub(crate) claims: Arc<Claims>,
    /// Payments past their hold, and settlements: a shutdown waits for them.
    pub(crate) payments: TaskTracker,
    /// Cancelled when a shutdown is announced.
    pub(crate) leaving: CancellationToken,
    /// Cancelled when a shutdown begins.
    pub(crate) draining: CancellationToken,
    probe: Arc<dyn Probe>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

impl App {
    /// Puts the ledger in order, checks the routes and builds the rest around them.
    pub(crate) async fn start(
        config: GatewayConfig,
        parts: Parts,
        upstream: UpstreamClient,
    ) -> Result<Arc<Self>, StartError> {
        let recovered = parts.ledger.recover(parts.clock.now()).await?;
        tracing::info!(?recovered, "ledger recovered");
        intake::announce(&*parts.ledger);
        let GatewayConfig { public_url, routes, limits } = config;
        let mut reserved = own_paths();
        reserved.extend(parts.mounts.iter().flat_map(|it| it.paths.iter().cloned()));
        let backing = backing(&routes, &*parts.facilitator).await?;
        let routes = Routes::build(routes, &public_url, &reserved, &backing)?;
        let seal_key = SealKey::new(parts.ledger.secret(SEAL_SECRET).await?);
        let payments = TaskTracker::new();
        let settler = Settler::new(
            Arc::clone(&parts.ledger),
            Arc::clone(&parts.facilitator),
            Arc::clone(&parts.clock),
            Arc::clone(&parts.entropy),
            payments.clone(),
        );
        let detail = "This resource is paid for. Sign one of the offers in the PAYMENT-REQUIRED \
                      header and send the request again with a PAYMENT-SIGNATURE header (x402 v2).";
        Ok(Arc::new(Self {
            public_url,
            routes,
            mounts: parts.mounts,
            limits,
            ledger: parts.ledger,
            facilitator: parts.facilitator,
            settler,
            upstream,
            clock: parts.clock,
            entropy: parts.entropy,
            seal_key,
            unpaid: Problem::new(Kind::PaymentRequired, detail).prepare(),
            bodies: Bodies::new(),
            kept: Kept::new(),
            claims: Claims::new(),
            payments,
            leaving: CancellationToken::new(),
            draining: CancellationToken::new(),
            probe: parts.probe,
        }))
    }

    /// Tells the probe how far a payment has come.
    pub(crate) fn reached(&self, step: Step, id: PaymentId) {
        self.probe.reached(step, id);
    }

    /// Where the receipt of a payment can be fetched.
    pub(crate) fn receipt_url(&self, id: PaymentId) -> String {
        format!("{}{RECEIPTS}{id}", self.public_url.as_str().trim_end_matches('/'))
    }
}

/// What the facilitator brings, where an offer depends on it.
async fn backing(
    routes: &[Arc<Route>],
    facilitator: &dyn Facilitator,
) -> Result<Backing, FacilitatorError> {
    let mut offers = routes.iter().flat_map(|it| &it.offers);
    if !offers.any(|it| it.scheme.method() == TransferMethod::Permit2) {
        return Ok(Backing::none());
    }
    Ok(Backing::read(&facilitator.supported().await?))
}
