//! One port: its accept loop, a task for each connection, and the way out for all of them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::connection;
use super::crowd::Crowd;
use crate::config::Limits;

/// A pause before the next try where a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whoever answers the requests that come in. Whatever goes wrong is an answer too.
pub(crate) trait Answers: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// What connections may take of time and number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) header_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
}

impl From<Limits> for Bounds {
    fn from(limits: Limits) -> Self {
        Self {
            header_timeout: limits.header_timeout,
            keep_alive: limits.keep_alive,
            write_timeout: limits.write_timeout,
            connections_max: limits.connections_max,
            connections_per_address_max: limits.connections_per_address_max,
        }
    }
}

/// A port that is served. Dropped, it is closed and its connections with it.
#[derive(Debug)]
pub(crate) struct Listening {
    lives: Lives,
    _guards: [DropGuard; 2],
}

/// What keeps the connections alive.
#[derive(Clone, Debug)]
pub(super) struct Lives {
    /// Cancelled: no new connections, no new requests on old ones.
    pub(super) stop: CancellationToken,
    /// Cancelled: connections are dropped where they stand.
    pub(super) abort: CancellationToken,
    /// The accept loop and connections.
    pub(super) connections: TaskTracker,
}

impl Listening {
    /// Serves what comes to `listener`.
    pub(crate) fn start(listener: TcpListener, answers: impl Answers, bounds: Bounds) -> Self {
        let lives = Lives {
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        lives.connections.spawn(accept(listener, answers, bounds, lives.clone()));
        let guards = [&lives.stop, &lives.abort].map(|it| it.clone().drop_guard());
        Self { lives, _guards: guards }
    }

    /// Takes no new connections, and no new requests on old ones.
    pub(crate) fn stop(&self) {
        self.lives.stop.cancel();
    }

    /// Drops connections where they stand.
    pub(crate) fn abort(&self) {
        self.lives.abort.cancel();
    }

    /// Returns when the last connection has ended.
    pub(crate) async fn ended(&self) {
        self.lives.connections.close();
        self.lives.connections.wait().await;
    }
}

async fn accept(listener: TcpListener, answers: impl Answers, bounds: Bounds, lives: Lives) {
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let crowd = Crowd::new(bounds.connections_per_address_max);
    loop {
        // Above the limit new connections wait in the listen queue.
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((listener.accept().await, slot))
        };
        let accepted = tokio::select! {
            () = lives.stop.cancelled() => return,
            accepted = next => accepted,
        };
        match accepted {
            Some((Ok((stream, peer)), slot)) => {
                let Some(place) = crowd.enter(peer.ip()) else {
                    tracing::debug!("connection refused: its address has too many");
                    continue;
                };
                let connection = connection::serve(stream, answers.clone(), bounds, lives.clone());
                lives.connections.spawn(async move {
                    connection.await;
                    drop((place, slot));
                });
            }
            Some((Err(error), _)) => {
                // Out of descriptors, mostly: connections that end give some back.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => return,
        }
    }
}
