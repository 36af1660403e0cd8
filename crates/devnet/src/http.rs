//! JSON-RPC over HTTP: one address, POST, open to pages of any origin as dev chains are.

use std::sync::{Arc, RwLock};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};

use crate::{chain::Chain, clock, config::Mining, rpc};
use tokio::sync::watch;

/// Largest request body in bytes (go-ethereum's limit).
const BODY_LIMIT: usize = 5 * 1024 * 1024;

/// What the handler works on.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The chain.
    pub(crate) chain: Arc<RwLock<Chain>>,
    /// Tells the miner when blocks are due.
    pub(crate) mining: watch::Sender<Mining>,
}

/// The service.
pub(crate) fn router(node: Node) -> Router {
    Router::new()
        .route("/", post(answer).options(preflight))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(node)
}

/// Runs on the task of the connection: what a dev chain is asked takes well under a millisecond, and a
/// thread hop would cost as much.
async fn answer(State(node): State<Node>, body: Bytes) -> Response {
    let answer = rpc::answer(&node.chain, &body, clock::unix_now());
    node.announce_mining();
    let mut response = match answer {
        Some(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    };
    response
        .headers_mut()
        .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

async fn preflight() -> impl IntoResponse {
    [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ]
}

impl Node {
    /// Passes a change of the mining mode on to the miner.
    fn announce_mining(&self) {
        let mode = self.chain.read().unwrap_or_else(std::sync::PoisonError::into_inner).mining;
        self.mining.send_if_modified(|known| std::mem::replace(known, mode) != mode);
    }
}
