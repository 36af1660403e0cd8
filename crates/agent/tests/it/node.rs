//! A JSON-RPC node that says what a test tells it to, and counts what it was asked.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use farebox_chains::PayerNode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::seller::NETWORK;
use crate::tools::use_tls;

/// What the chain is like.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) allowance: u128,
    /// `nonces(owner)` of the token; none where it has no permits.
    pub(crate) permit_nonce: Option<u64>,
    /// Whether each nonce that is asked for is used.
    pub(crate) used: bool,
    /// Of the latest block, in seconds.
    pub(crate) time: u64,
    /// Whether it answers at all.
    pub(crate) answers: bool,
    /// How often it was asked what Permit2 may spend.
    pub(crate) asked: usize,
}

/// The running node; stops when dropped.
pub(crate) struct FakeNode {
    url: String,
    chain: Arc<Mutex<Chain>>,
    _stop: DropGuard,
}

impl FakeNode {
    /// No allowance, permits taken, nothing used, and the time of [`crate::tools::TestClock`].
    pub(crate) async fn start() -> Self {
        let chain = Arc::new(Mutex::new(Chain {
            allowance: 0,
            permit_nonce: Some(7),
            used: false,
            time: 1_795_000_000,
            answers: true,
            asked: 0,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let router = axum::Router::new().route("/", post(answer)).with_state(Arc::clone(&chain));
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { url, chain, _stop: stop.drop_guard() }
    }

    pub(crate) fn as_policy(&self) -> Vec<PayerNode> {
        use_tls();
        let url = self.url.parse().unwrap();
        vec![PayerNode::new(NETWORK.parse().unwrap(), &[url]).unwrap()]
    }

    /// Changes the chain.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Chain)) {
        change(&mut self.chain.lock().unwrap());
    }

    pub(crate) fn asked(&self) -> usize {
        self.chain.lock().unwrap().asked
    }
}

async fn answer(State(chain): State<Arc<Mutex<Chain>>>, Json(batch): Json<Value>) -> Json<Value> {
    let mut chain = chain.lock().unwrap();
    if !chain.answers {
        return Json(json!("out of order"));
    }
    let calls = batch.as_array().cloned().unwrap_or_else(|| vec![batch.clone()]);
    let answers = calls.iter().map(|call| {
        let mut answer = one(&mut chain, call);
        answer["id"] = call["id"].clone();
        answer
    });
    let answers: Vec<Value> = answers.collect();
    Json(if batch.is_array() { json!(answers) } else { answers[0].clone() })
}

fn one(chain: &mut Chain, call: &Value) -> Value {
    let word = |it: u128| json!({ "result": format!("0x{it:064x}") });
    match call["method"].as_str().unwrap() {
        "eth_chainId" => json!({ "result": "0x14a34" }),
        "eth_getBlockByNumber" => {
            json!({ "result": { "number": "0x9", "timestamp": format!("{:#x}", chain.time) } })
        }
        "eth_getTransactionReceipt" | "eth_getTransactionByHash" => json!({ "result": null }),
        "eth_call" => match call["params"][0]["data"].as_str().unwrap().split_at(10).0 {
            "0xdd62ed3e" => {
                chain.asked += 1;
                word(chain.allowance)
            }
            "0x7ecebe00" => match chain.permit_nonce {
                Some(nonce) => word(nonce.into()),
                None => json!({ "error": { "code": 3, "message": "execution reverted" } }),
            },
            // Permit2's bitmap: every bit of the word alike.
            "0x4fe02b44" if chain.used => json!({ "result": format!("0x{}", "f".repeat(64)) }),
            "0xe94a0102" if chain.used => word(1),
            "0x4fe02b44" | "0xe94a0102" => word(0),
            other => panic!("called {other}"),
        },
        other => panic!("asked {other}"),
    }
}
