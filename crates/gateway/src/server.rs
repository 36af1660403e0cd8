//! The gateway's life: from its parts to a port that is served, and the way out.

mod connection;
mod crowd;
pub(crate) mod in_process;
pub(crate) mod listening;
mod pulse;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use farebox_chains::{Facilitator, FacilitatorError};
use farebox_store::{Ledger, StoreError};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::listening::{Answers, Listening};
use crate::app::{App, Mount};
use crate::clock::Clock;
use crate::config::GatewayConfig;
use crate::dispatch::dispatch;
use crate::entropy::Entropy;
use crate::probe::Probe;
use crate::routes::RouteError;
use crate::upstream::UpstreamClient;

/// How soon a drain looks whether the worker has started what is due; doubles while it has not.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// The longest such pause.
const DRAIN_POLL_MAX: Duration = Duration::from_secs(1);

/// What a gateway is built from.
#[derive(Debug)]
pub struct Parts {
    /// Where holds and receipts survive. Closed by its owner, after [`Running::shutdown`].
    pub ledger: Arc<dyn Ledger>,
    /// Who verifies and settles.
    pub facilitator: Arc<dyn Facilitator>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Salts and jitter.
    pub entropy: Arc<Entropy>,
    /// Told of every step of every payment; [`crate::NoProbe`] outside crash tests.
    pub probe: Arc<dyn Probe>,
    /// Other services on the same port, under paths that no route may shadow.
    pub mounts: Vec<Mount>,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener is broken.
    #[error("the listener has no address")]
    Listen(#[source] io::Error),
    /// The ledger could not be read or put in order.
    #[error("the ledger cannot be used")]
    Ledger(#[from] StoreError),
    /// The TLS client for upstreams could not be set up.
    #[error("TLS towards the upstreams cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The facilitator does not say what it settles, and offers depend on it.
    #[error("the facilitator cannot be asked what it settles")]
    Facilitator(#[from] FacilitatorError),
    /// A route that cannot work as it is configured.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// The gateway.
#[derive(Clone, Copy, Debug)]
pub struct Gateway;

/// A gateway that listens. Dropping it stops it without waiting; see [`Running::shutdown`].
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    app: Arc<App>,
    listening: Listening,
    /// Cancelled: the settlement worker rests for good.
    retire: CancellationToken,
    /// The settlement worker, and what forgets answers.
    workers: TaskTracker,
    _guards: [DropGuard; 2],
}

impl Answers for Arc<App> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        dispatch(Self::clone(self), request).await
    }
}

impl Gateway {
    /// Puts the ledger in order, checks the routes and serves what comes to `listener`.
    pub async fn start(
        listener: TcpListener,
        config: GatewayConfig,
        parts: Parts,
    ) -> Result<Running, StartError> {
        let address = listener.local_addr().map_err(StartError::Listen)?;
        let app = App::start(config, parts, UpstreamClient::new()?).await?;
        let retire = CancellationToken::new();
        let workers = TaskTracker::new();
        workers.spawn(Arc::clone(&app.settler).run(retire.clone()));
        workers.spawn(Arc::clone(&app.kept).sweep(Arc::clone(&app.clock), retire.clone()));
        let listening = Listening::start(listener, Arc::clone(&app), app.limits.into());
        tracing::info!(%address, routes = app.routes.len(), "gateway listens");
        let guards = [&app.draining, &retire].map(|it| it.clone().drop_guard());
        Ok(Running { address, app, listening, retire, workers, _guards: guards })
    }
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Announces a shutdown: from now on `/readyz` says 503, while everything is served as before, so
    /// that whoever spreads requests over gateways can leave this one out before it stops.
    pub fn leave(&self) {
        self.app.leaving.cancel();
    }

    /// Takes no new requests, finishes the running ones (those whose client has gone included) and
    /// what settlements are due, all within the configured time; what is left is for recovery.
    pub async fn shutdown(self) {
        let Self { app, listening, retire, workers, .. } = &self;
        app.leaving.cancel();
        app.draining.cancel();
        listening.stop();
        let drained = drain(app, listening);
        let finished = tokio::time::timeout(app.limits.drain, drained).await.is_ok();
        if !finished {
            tracing::warn!(payments = app.payments.len(), "shutdown cut off what was running");
        }
        listening.abort();
        retire.cancel();
        workers.close();
        workers.wait().await;
        listening.ended().await;
        tracing::info!(finished, "gateway stopped");
    }
}

async fn drain(app: &App, listening: &Listening) {
    listening.ended().await;
    drained(app).await;
}

/// Returns when every payment is finished and every settlement that is due has begun and ended.
async fn drained(app: &App) {
    app.payments.close();
    let mut pause = DRAIN_POLL;
    loop {
        app.payments.wait().await;
        match app.settler.is_at_rest().await {
            Ok(true) => return,
            Ok(false) => app.settler.kick(),
            Err(error) => {
                tracing::warn!(%error, "due settlements could not be read");
                return;
            }
        }
        // The worker leases on its own task; soon it has started something, unless it cannot lease.
        app.clock.sleep_until(app.clock.now().plus(pause)).await;
        let idle = app.payments.is_empty();
        pause = if idle { pause.saturating_mul(2).min(DRAIN_POLL_MAX) } else { DRAIN_POLL };
    }
}
