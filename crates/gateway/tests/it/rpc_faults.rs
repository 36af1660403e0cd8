//! Many payments while the node fails: 5 of 100 calls are lost on the way, answered late, answered with an
//! error, or carried out without an answer. Every payment comes to a true end, and none is paid twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use farebox_chains::{Batching, NetworkConfig};
use farebox_devnet::{DEV_ACCOUNTS, DevnetConfig, Mining};
use farebox_gateway::Entropy;
use farebox_store::Ledger as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::PAY_TO;
use crate::chain::{FUNDS, TestChain};
use crate::till::Till;

/// How many payments there are, unless `FAREBOX_RPC_PAYMENTS` says otherwise.
const PAYMENTS: u64 = 300;
const PRICE: u128 = 7;
/// In a hundred calls.
const FAULTS: u64 = 5;
const DELAY: Duration = Duration::from_millis(400);

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It never arrives.
    Drop,
    /// It arrives late.
    Delay,
    /// The node says that it is broken.
    Error,
    /// It is carried out, and the answer is lost.
    ReplyLost,
}

/// A node before the dev chain.
struct Node {
    upstream: String,
    http: reqwest::Client,
    entropy: Entropy,
    calls: AtomicU64,
    faults: AtomicU64,
}

impl Node {
    fn fault(&self) -> Option<Fault> {
        const KINDS: [Fault; 4] = [Fault::Drop, Fault::Delay, Fault::Error, Fault::ReplyLost];
        self.calls.fetch_add(1, Ordering::Relaxed);
        if FAULTS <= self.entropy.below(100) {
            return None;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        KINDS.get(usize::try_from(self.entropy.below(4)).unwrap()).copied()
    }

    async fn forward(&self, body: Bytes) -> Bytes {
        let post = self.http.post(&self.upstream).header("content-type", "application/json");
        post.body(body).send().await.unwrap().bytes().await.unwrap()
    }
}

async fn serve(State(node): State<Arc<Node>>, body: Bytes) -> Response {
    let fault = node.fault();
    match fault {
        Some(Fault::Drop) => return StatusCode::BAD_GATEWAY.into_response(),
        Some(Fault::Error) => return refusal(&body),
        Some(Fault::Delay) => tokio::time::sleep(DELAY).await,
        Some(Fault::ReplyLost) | None => {}
    }
    let answer = node.forward(body).await;
    match fault {
        Some(Fault::ReplyLost) => StatusCode::GATEWAY_TIMEOUT.into_response(),
        _ => ([("content-type", "application/json")], answer).into_response(),
    }
}

fn refusal(body: &Bytes) -> Response {
    let request: Value = serde_json::from_slice(body).unwrap();
    let error = json!({"code": -32603, "message": "internal error"});
    let one = |it: &Value| json!({"jsonrpc": "2.0", "id": it["id"], "error": error});
    let answer = match request.as_array() {
        Some(all) => all.iter().map(one).collect(),
        None => one(&request),
    };
    axum::Json(answer).into_response()
}

fn count() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how much of it a run does")]
    let told = std::env::var("FAREBOX_RPC_PAYMENTS").ok();
    told.map_or(PAYMENTS, |it| it.parse().unwrap())
}

async fn until_over(till: &Till, ids: &[farebox_protocol::PaymentId]) {
    for id in ids {
        till.until("it is over", async || {
            let state = till.payment(*id).await.state.name();
            ["settled", "lost", "released"].contains(&state).then_some(())
        })
        .await;
    }
}

#[expect(clippy::print_stdout, reason = "the figures are for people to read")]
async fn run(batching: Batching) {
    let config = DevnetConfig {
        mining: Mining::Every(Duration::from_millis(100)),
        ..DevnetConfig::default()
    };
    let chain = TestChain::with(config).await;
    let node = Arc::new(Node {
        upstream: chain.devnet.url(),
        http: reqwest::Client::builder().build().unwrap(),
        entropy: Entropy::seeded(7),
        calls: AtomicU64::new(0),
        faults: AtomicU64::new(0),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let router = axum::Router::new().fallback(serve).with_state(Arc::clone(&node));
    let serving = axum::serve(listener, router);
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move { serving.await.unwrap() }));

    let files = tempfile::tempdir().unwrap();
    let had = chain.tokens_of(PAY_TO).await;
    let (total, half) = (count(), count() / 2);
    let change = |it: NetworkConfig| NetworkConfig {
        batching,
        block_time: Duration::from_millis(100),
        settle_wait: Duration::from_secs(5),
        ..it
    };
    let till = Till::open(files.path(), &url, change).await;
    let mut ids = Vec::new();
    for number in 0..half {
        ids.push(till.serve(&chain.buyer, number, PRICE).await);
    }
    // In the middle of it the process ends.
    till.close().await;
    let till = Till::open(files.path(), &url, change).await;
    for number in half..total {
        ids.push(till.serve(&chain.buyer, number, PRICE).await);
    }
    until_over(&till, &ids).await;
    let settled = till.ledger.list(None, usize::MAX).await.unwrap();
    let settled = settled.iter().filter(|it| it.state.name() == "settled").count();
    // What each side has, to the unit: nothing was paid twice, and nothing booked that was not paid.
    let paid = u128::try_from(settled).unwrap() * PRICE;
    assert_eq!(chain.tokens_of(PAY_TO).await, had + paid);
    assert_eq!(chain.buyer_has().await, FUNDS - paid);
    let untrue = ids.len() - settled;
    let params = json!([DEV_ACCOUNTS[0].address, "latest"]);
    let sent = chain.rpc.word("eth_getTransactionCount", params).await.unwrap();
    println!(
        "{total} payments by {batching:?}: {settled} settled in {sent} transactions, {untrue} not; \
         {} of {} calls failed; 0 paid twice (less than 3 in {total} at 95 %)",
        node.faults.load(Ordering::Relaxed),
        node.calls.load(Ordering::Relaxed),
    );
    assert!(untrue * 1_000 <= ids.len(), "{untrue} of {} payments were not settled", ids.len());
    till.assert_sound().await;
    till.close().await;
    stop.cancel();
    chain.devnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_come_to_a_true_end_while_the_node_fails() {
    run(Batching::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_that_go_one_by_one_do_so_too() {
    run(Batching::Off).await;
}
