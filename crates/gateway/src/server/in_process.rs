//! A gateway without a port: whoever holds it hands requests over, and answers for its upstreams.
//!
//! For simulations. Everything but the sockets is the gateway that is served elsewhere: recovery, the
//! way of every request, the settlement worker.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Gateway, Parts, StartError, drained};
use crate::app::App;
use crate::config::GatewayConfig;
use crate::dispatch::dispatch;
use crate::upstream::{Dial, UpstreamClient};

/// A gateway that is handed its requests. Dropping it stops its worker without waiting.
#[derive(Debug)]
pub struct InProcess {
    app: Arc<App>,
    retire: CancellationToken,
    workers: TaskTracker,
    _guards: [DropGuard; 2],
}

impl Gateway {
    /// Puts the ledger in order, checks the routes and answers what is handed over, with connections
    /// to upstreams that `dial` opens.
    pub async fn in_process(
        config: GatewayConfig,
        parts: Parts,
        dial: Arc<dyn Dial>,
    ) -> Result<InProcess, StartError> {
        let app = App::start(config, parts, UpstreamClient::dialling(dial)).await?;
        let retire = CancellationToken::new();
        let workers = TaskTracker::new();
        workers.spawn(Arc::clone(&app.settler).run(retire.clone()));
        let guards = [&app.draining, &retire].map(|it| it.clone().drop_guard());
        Ok(InProcess { app, retire, workers, _guards: guards })
    }
}

impl InProcess {
    /// Answers one request. Dropping the future is the client hanging up.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        dispatch(Arc::clone(&self.app), request).await
    }

    /// Finishes what runs and what settlements are due, within the configured time.
    pub async fn shutdown(self) {
        let Self { app, retire, workers, .. } = &self;
        app.leaving.cancel();
        app.draining.cancel();
        drop(tokio::time::timeout(app.limits.drain, drained(app)).await);
        retire.cancel();
        workers.close();
        workers.wait().await;
    }
}
