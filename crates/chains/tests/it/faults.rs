//! Nodes that fail at bad moments: nothing is lost, nothing is sent twice with other bytes.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use farebox_chains::{Facilitator, LocalFacilitator, NetworkConfig, SettleError, Verification};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{
    PAY_TO, World, demand, http, key, memory, network_config, now, pay, payer, until,
};

/// What a node does with a transaction that is sent to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Takes it, and never says so.
    TakeSilently,
    /// Loses it, and says nothing.
    Lose,
    /// Refuses it.
    Refuse,
    /// Does not take it, in words that nobody knows.
    Puzzle,
    /// Says that it took it and keeps it to itself, however often it is sent.
    Hoard,
}

/// A node before the dev chain that fails as told.
pub(crate) struct Node {
    pub(crate) url: String,
    faults: Arc<Faults>,
    stop: CancellationToken,
}

struct Faults {
    refuses_batches: bool,
    upstream: String,
    http: reqwest::Client,
    plan: Mutex<VecDeque<Fault>>,
    sent: Mutex<Vec<String>>,
    hoard: Mutex<HashSet<String>>,
    asked: Mutex<Vec<String>>,
}

impl Node {
    /// Does so with the first transactions, and behaves from then on.
    pub(crate) async fn start(world: &World, plan: &[Fault]) -> Self {
        Self::with(world, plan, false).await
    }

    async fn with(world: &World, plan: &[Fault], refuses_batches: bool) -> Self {
        let faults = Arc::new(Faults {
            refuses_batches,
            upstream: world.devnet.url(),
            http: http(),
            plan: Mutex::new(plan.iter().copied().collect()),
            sent: Mutex::default(),
            hoard: Mutex::default(),
            asked: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(Arc::clone(&faults));
        let stop = CancellationToken::new();
        let serving =
            axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        world.tasks.spawn(async move { serving.await.unwrap() });
        Self { url, faults, stop }
    }

    /// Does so with the next ones.
    pub(crate) fn plan(&self, plan: &[Fault]) {
        self.faults.plan.lock().unwrap().extend(plan);
    }

    /// Every different transaction that was sent.
    pub(crate) fn different(&self) -> usize {
        self.faults.sent.lock().unwrap().iter().collect::<HashSet<_>>().len()
    }

    pub(crate) fn sends(&self) -> usize {
        self.faults.sent.lock().unwrap().len()
    }

    /// How often it was asked so.
    pub(crate) fn asked(&self, method: &str) -> usize {
        self.faults.asked.lock().unwrap().iter().filter(|it| *it == method).count()
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

async fn serve(State(faults): State<Arc<Faults>>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    if faults.refuses_batches && request.is_array() {
        let error = json!({"code": -32600, "message": "batch requests are not supported"});
        return axum::Json(json!({"jsonrpc": "2.0", "id": null, "error": error})).into_response();
    }
    let calls = request.as_array().map_or(std::slice::from_ref(&request), Vec::as_slice);
    let methods = calls.iter().filter_map(|it| it["method"].as_str()).map(str::to_owned);
    faults.asked.lock().unwrap().extend(methods);
    let mut fault = None;
    if request["method"] == "eth_sendRawTransaction" {
        let raw = request["params"][0].to_string();
        faults.sent.lock().unwrap().push(raw.clone());
        fault = faults.plan.lock().unwrap().pop_front();
        let mut hoard = faults.hoard.lock().unwrap();
        if matches!(fault, Some(Fault::Hoard)) {
            hoard.insert(raw.clone());
        }
        if hoard.contains(&raw) {
            fault = Some(Fault::Hoard);
        }
    }
    match fault {
        Some(Fault::Lose) => StatusCode::BAD_GATEWAY.into_response(),
        Some(Fault::Refuse) => refusal(&request, "txpool is full"),
        Some(Fault::Puzzle) => refusal(&request, "cosmic rays"),
        Some(Fault::Hoard) => {
            let taken = json!({"jsonrpc": "2.0", "id": request["id"], "result": "0x01"});
            axum::Json(taken).into_response()
        }
        Some(Fault::TakeSilently) | None => {
            let forwarded = faults.http.post(&faults.upstream).body(body);
            let answer = forwarded.header("content-type", "application/json").send().await.unwrap();
            let answer = answer.bytes().await.unwrap();
            if fault.is_some() {
                return StatusCode::GATEWAY_TIMEOUT.into_response();
            }
            answer.into_response()
        }
    }
}

fn refusal(request: &Value, message: &str) -> Response {
    let error = json!({"code": -32000, "message": message});
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "error": error})).into_response()
}

/// A facilitator that reaches the dev chain through these nodes.
fn through(world: &World, urls: &[String], wait: Duration) -> LocalFacilitator {
    let config = NetworkConfig { settle_wait: wait, ..network_config(urls) };
    let keys = vec![key(DEV_ACCOUNTS[0].private_key.0)];
    LocalFacilitator::new(vec![config], keys, memory(), world.tasks.clone(), world.stop.clone())
        .unwrap()
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn finish(world: World, nodes: &[Node]) {
    for node in nodes {
        node.stop.cancel();
    }
    world.end().await;
}

async fn check_fault(plan: &[Fault]) {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::start(&world, plan).await;
    let facilitator = through(&world, std::slice::from_ref(&node.url), PATIENCE);
    let request = pay(&payer(), &demand(1_000), 1);
    facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    assert_eq!(node.different(), 1, "after {plan:?}");
    finish(world, &[node]).await;
}

#[tokio::test]
async fn an_answer_that_never_came_is_found_in_the_receipts() {
    check_fault(&[Fault::TakeSilently]).await;
}

#[tokio::test]
async fn a_lost_transaction_is_sent_again_with_the_same_bytes() {
    check_fault(&[Fault::Lose]).await;
    check_fault(&[Fault::Lose, Fault::Lose]).await;
}

#[tokio::test]
async fn an_unknown_outcome_is_reconciled_by_asking_again() {
    let world = World::start(Mining::Manual, 1).await;
    let node = Node::start(&world, &[]).await;
    let facilitator = through(&world, std::slice::from_ref(&node.url), Duration::from_millis(300));
    let request = pay(&payer(), &demand(1_000), 1);
    let result = facilitator.settle(&request, now()).await;
    let Err(SettleError::Unknown { transaction: Some(first) }) = result else {
        panic!("{result:?}")
    };
    let result = facilitator.settle(&request, now()).await;
    let Err(SettleError::Unknown { transaction: Some(second) }) = result else {
        panic!("{result:?}")
    };
    assert_eq!(first, second);
    world.devnet.mine();
    until("the receipt is seen", || async {
        facilitator.settle(&request, now()).await.is_ok_and(|it| it.transaction == first)
    })
    .await;
    assert_eq!((node.different(), world.balance(PAY_TO).await), (1, 1_000));
    finish(world, &[node]).await;
}

#[tokio::test]
async fn a_node_that_refuses_leaves_no_gap() {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::start(&world, &[Fault::Refuse]).await;
    let facilitator = through(&world, std::slice::from_ref(&node.url), PATIENCE);
    let requests: Vec<_> = (0..16).map(|number| pay(&payer(), &demand(10), number)).collect();
    let results = join_all(requests.iter().map(|it| facilitator.settle(it, now()))).await;
    let refused: Vec<_> = (results.iter().zip(&requests)).filter(|it| it.0.is_err()).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(matches!(refused[0].0, Err(SettleError::NotSent(_))), "{refused:?}");
    assert_eq!(world.balance(PAY_TO).await, 150);
    facilitator.settle(refused[0].1, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 160);
    finish(world, &[node]).await;
}

#[tokio::test]
async fn another_endpoint_takes_over() {
    let world = World::start(Mining::Instant, 1).await;
    let dead = "http://127.0.0.1:1".to_owned();
    let facilitator = through(&world, &[dead.clone(), world.devnet.url()], PATIENCE);
    let request = pay(&payer(), &demand(1_000), 1);
    let verification = facilitator.verify(&request, now()).await.unwrap();
    assert!(matches!(verification, Verification::Valid { .. }), "{verification:?}");
    facilitator.settle(&request, now()).await.unwrap();

    let alone = through(&world, &[dead], PATIENCE);
    let error = alone.verify(&request, now()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the facilitator or its chain could not be asked: eip155:84532 by JSON-RPC"
    );
    let request = pay(&payer(), &demand(1_000), 2);
    let result = alone.settle(&request, now()).await;
    assert!(matches!(result, Err(SettleError::NotSent(_))), "{result:?}");
    world.end().await;
}

#[tokio::test]
async fn a_transaction_that_the_pool_dropped_is_sent_again() {
    let world = World::start(Mining::Manual, 1).await;
    let node = Node::start(&world, &[]).await;
    let facilitator = through(&world, std::slice::from_ref(&node.url), PATIENCE);
    let request = pay(&payer(), &demand(1_000), 1);
    let drop_and_mine = async {
        until("it was sent", || async { node.sends() == 1 }).await;
        let raw = node.faults.sent.lock().unwrap()[0].clone();
        assert!(raw.len() > 100);
        let signer = DEV_ACCOUNTS[0].address.to_string();
        let pending = || world.rpc("eth_getTransactionCount", json!([signer, "pending"]));
        until("it waits", || async { pending().await == "0x1" }).await;
        let block = world.rpc("eth_getBlockByNumber", json!(["pending", false])).await;
        for hash in block["transactions"].as_array().unwrap() {
            world.rpc("anvil_dropTransaction", json!([hash])).await;
        }
        assert_eq!(pending().await, "0x0");
        until("it was sent again", || async { pending().await == "0x1" }).await;
        world.devnet.mine();
    };
    let (result, ()) = tokio::join!(facilitator.settle(&request, now()), drop_and_mine);
    result.unwrap();
    assert_eq!((node.different(), world.balance(PAY_TO).await), (1, 1_000));
    finish(world, &[node]).await;
}

#[tokio::test]
async fn what_is_mined_and_not_deep_yet_is_not_sent_again() {
    let world = World::start(Mining::Manual, 1).await;
    let node = Node::start(&world, &[]).await;
    let config = NetworkConfig {
        settle_wait: PATIENCE,
        confirmations: 30,
        ..network_config(std::slice::from_ref(&node.url))
    };
    let keys = vec![key(DEV_ACCOUNTS[0].private_key.0)];
    let (tasks, stop) = (world.tasks.clone(), world.stop.clone());
    let facilitator = LocalFacilitator::new(vec![config], keys, memory(), tasks, stop).unwrap();
    let requests: Vec<_> = (0..2).map(|number| pay(&payer(), &demand(10), number)).collect();
    let sends_of = |first: &String| {
        let sent = node.faults.sent.lock().unwrap();
        sent.iter().filter(|it| *it == first).count()
    };
    let mine = async {
        until("the first was sent", || async { node.sends() == 1 }).await;
        let first = node.faults.sent.lock().unwrap()[0].clone();
        let signer = DEV_ACCOUNTS[0].address.to_string();
        let pending = || world.rpc("eth_getTransactionCount", json!([signer, "pending"]));
        until("it waits", || async { pending().await == "0x1" }).await;
        world.devnet.mine();
        // The second is sent again in every round, while the first lies in its block.
        let second = facilitator.settle(&requests[1], now());
        let watch = async {
            until("the second was sent", || async { node.different() == 2 }).await;
            let (before, others) = (sends_of(&first), node.sends());
            until("some rounds pass", || async { others + 6 <= node.sends() }).await;
            assert_eq!(sends_of(&first), before);
            for _ in 0..40 {
                world.devnet.mine();
            }
        };
        tokio::join!(second, watch).0.unwrap();
    };
    let (result, ()) = tokio::join!(facilitator.settle(&requests[0], now()), mine);
    result.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 20);
    finish(world, &[node]).await;
}

#[tokio::test]
async fn a_price_of_gas_that_runs_away_is_followed() {
    let world = World::start(Mining::Manual, 1).await;
    let node = Node::start(&world, &[]).await;
    let facilitator = through(&world, std::slice::from_ref(&node.url), PATIENCE);
    let request = pay(&payer(), &demand(1_000), 1);
    let raise = async {
        until("it was sent", || async { node.sends() == 1 }).await;
        // A hundred gwei, which is more than it offers.
        world.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x174876e800"])).await;
        world.devnet.mine();
        until("a dearer version was sent", || async { node.different() == 2 }).await;
        until("it is mined", || async {
            world.devnet.mine();
            world.balance(PAY_TO).await == 1_000
        })
        .await;
    };
    let (result, ()) = tokio::join!(facilitator.settle(&request, now()), raise);
    result.unwrap();
    finish(world, &[node]).await;
}

#[tokio::test]
async fn a_node_that_never_takes_a_transaction_blocks_no_later_one() {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::start(&world, &[Fault::Puzzle; 4]).await;
    let facilitator = through(&world, std::slice::from_ref(&node.url), PATIENCE);
    let first = pay(&payer(), &demand(10), 1);
    let result = facilitator.settle(&first, now()).await;
    // Its place was taken for good, but a node that had it may have shown it to others.
    assert!(matches!(result, Err(SettleError::Unknown { transaction: Some(_) })), "{result:?}");
    let second = pay(&payer(), &demand(10), 2);
    facilitator.settle(&second, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 10);
    facilitator.settle(&first, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 20);
    finish(world, &[node]).await;
}

/// A node that answers everything with this status and body.
async fn nonsense(world: &World, status: u16, body: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = world.devnet.url();
    let answer = move || async move {
        (StatusCode::from_u16(status).unwrap(), [("location", to)], body).into_response()
    };
    let serving = axum::serve(listener, Router::new().fallback(answer));
    let stop = world.stop.clone();
    world.tasks.spawn(stop.run_until_cancelled_owned(async move { serving.await }));
    url
}

#[tokio::test]
async fn a_node_that_answers_nonsense_gives_no_verdict() {
    let world = World::start(Mining::Instant, 1).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let zero = json!({"jsonrpc": "2.0", "id": 0, "result": "0x"});
    let bad_id = json!({"jsonrpc": "2.0", "id": 7, "result": format!("0x{}", "0".repeat(64))});
    for (status, body) in [
        (200, "<html>".to_owned()),
        (200, "null".to_owned()),
        (200, json!([zero]).to_string()),
        (200, json!([zero, bad_id, bad_id]).to_string()),
        (200, json!({"error": {"code": -32000, "message": "busy"}}).to_string()),
        (200, " ".repeat(9 << 20)),
        (307, String::new()),
        (429, "slow down".to_owned()),
        (500, json!({"oops": true}).to_string()),
    ] {
        let url = nonsense(&world, status, body).await;
        let facilitator = through(&world, std::slice::from_ref(&url), PATIENCE);
        let verification = facilitator.verify(&request, now()).await;
        assert!(verification.is_err(), "{status}: {verification:?}");
        let result = facilitator.settle(&request, now()).await;
        assert!(matches!(result, Err(SettleError::NotSent(_))), "{status}: {result:?}");
        // With a good node behind it, nobody notices.
        let both = through(&world, &[url, world.devnet.url()], PATIENCE);
        let verification = both.verify(&request, now()).await.unwrap();
        assert!(matches!(verification, Verification::Valid { .. }), "{status}: {verification:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_node_without_batches_is_asked_one_by_one() {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::with(&world, &[], true).await;
    let facilitator = through(&world, std::slice::from_ref(&node.url), PATIENCE);
    assert!(facilitator.check().await.is_empty());
    facilitator.settle(&pay(&payer(), &demand(1_000), 1), now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    finish(world, &[node]).await;
}
