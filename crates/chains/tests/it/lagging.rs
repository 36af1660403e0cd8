//! Nodes behind one address that are at different heights, or still syncing: what never will be paid
//! may not rest on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use farebox_chains::{
    AuthorizationWindow, ChainReader, Facilitator, LocalFacilitator, Lookup, SettleError,
    sign_exact,
};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use farebox_protocol::Reason;
use serde_json::{Value, json};

use crate::attacks::{front_run, settlement};
use crate::support::{
    PAY_TO, World, demand, demand_by_permit2, key, memory, network_config, nonce, now, pay,
    pay_by_permit2, payer, request, until,
};

/// What a node says instead of the dev chain; `None`: what the dev chain says.
type Lie = fn(&Value) -> Option<Value>;

struct Balancer {
    upstream: String,
    http: reqwest::Client,
    lie: Mutex<Lie>,
    lies: AtomicBool,
}

impl Balancer {
    async fn start(world: &World, lie: Lie) -> (Arc<Self>, String) {
        let balancer = Arc::new(Self {
            upstream: world.devnet.url(),
            http: world.http.clone(),
            lie: Mutex::new(lie),
            lies: AtomicBool::new(false),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(Arc::clone(&balancer));
        let serving = axum::serve(listener, router);
        let stop = world.stop.clone();
        world.tasks.spawn(stop.run_until_cancelled_owned(async move { serving.await }));
        (balancer, url)
    }

    fn lie(&self, lies: bool) {
        self.lies.store(lies, Ordering::SeqCst);
    }

    async fn answer(&self, call: &Value) -> Value {
        let lie = *self.lie.lock().unwrap();
        if self.lies.load(Ordering::SeqCst)
            && let Some(mut answer) = lie(call)
        {
            answer["jsonrpc"] = json!("2.0");
            answer["id"] = call["id"].clone();
            return answer;
        }
        let response = self.http.post(&self.upstream).json(call).send().await.unwrap();
        response.json().await.unwrap()
    }
}

async fn serve(State(node): State<Arc<Balancer>>, body: axum::Json<Value>) -> axum::Json<Value> {
    let Some(calls) = body.as_array() else { return axum::Json(node.answer(&body).await) };
    let mut answers = Vec::new();
    for call in calls {
        answers.push(node.answer(call).await);
    }
    axum::Json(Value::Array(answers))
}

fn is_state(call: &Value) -> bool {
    let data = call.pointer("/params/0/data").and_then(Value::as_str);
    call["method"] == "eth_call" && data.is_some_and(|it| it.starts_with("0xe94a0102"))
}

fn word(number: u64) -> String {
    format!("0x{number:064x}")
}

/// Some blocks behind: nothing was used there, and later blocks are not known.
fn behind(call: &Value) -> Option<Value> {
    let unknown = json!({"error": {"code": -32000, "message": "header not found"}});
    let latest = json!({"result": word(0)});
    is_state(call).then(|| if call["params"][1] == "latest" { latest } else { unknown })
}

fn facilitator(world: &World, url: String) -> LocalFacilitator {
    let keys = vec![key(DEV_ACCOUNTS[0].private_key.0)];
    let config = vec![network_config(&[url])];
    LocalFacilitator::new(config, keys, memory(), world.tasks.clone(), world.stop.clone()).unwrap()
}

fn reader(world: &World, url: String) -> ChainReader {
    let config = vec![network_config(&[url])];
    ChainReader::new(config, world.tasks.clone(), world.stop.clone()).unwrap()
}

#[tokio::test]
async fn a_landed_payment_is_not_expired_for_a_node_that_is_behind() {
    let world = World::start(Mining::Instant, 1).await;
    let (node, url) = Balancer::start(&world, behind).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let truth = world.facilitator.settle(&request, now()).await.unwrap();
    world.devnet.increase_time(600);
    world.devnet.mine();
    let reader = reader(&world, url);
    node.lie(true);
    let lookup = reader.lookup(&request).await;
    assert!(lookup.is_err(), "{lookup:?}");
    node.lie(false);
    assert_eq!(reader.lookup(&request).await.unwrap(), Lookup::Landed(truth));
    world.end().await;
}

#[tokio::test]
async fn a_syncing_node_says_nothing_of_a_payment() {
    let world = World::start(Mining::Instant, 1).await;
    let lies: [Lie; 4] = [
        |call| is_state(call).then(|| json!({"result": "0x"})),
        |call| is_state(call).then(|| json!({"result": word(0).repeat(2).replacen("0x", "", 2)})),
        |call| is_state(call).then(|| json!({"result": word(2)})),
        |call| (call["method"] == "eth_getBlockByNumber").then(|| json!({"result": null})),
    ];
    let request = pay(&payer(), &demand(1_000), 1);
    world.devnet.increase_time(600);
    world.devnet.mine();
    let (node, url) = Balancer::start(&world, behind).await;
    let reader = reader(&world, url);
    node.lie(true);
    for (number, lie) in lies.into_iter().enumerate() {
        *node.lie.lock().unwrap() = lie;
        let lookup = reader.lookup(&request).await;
        assert!(lookup.is_err(), "{number}: {lookup:?}");
    }
    node.lie(false);
    let dead = Lookup::Dead { reason: Reason::InvalidExactEvmPayloadAuthorizationValidBefore };
    assert_eq!(reader.lookup(&request).await.unwrap(), dead);
    world.end().await;
}

#[tokio::test]
async fn a_syncing_node_rejects_no_payment_that_is_to_be_settled() {
    let world = World::start(Mining::Instant, 1).await;
    let empty: Lie = |call| (call["method"] == "eth_call").then(|| json!({"result": "0x"}));
    let (node, url) = Balancer::start(&world, empty).await;
    let facilitator = facilitator(&world, url);
    let request = pay(&payer(), &demand(1_000), 1);
    node.lie(true);
    let result = facilitator.settle(&request, now()).await;
    assert!(matches!(result, Err(SettleError::NotSent(_))), "{result:?}");
    // No balance is not a balance of nothing, either.
    *node.lie.lock().unwrap() = |call| {
        let data = call.pointer("/params/0/data").and_then(Value::as_str);
        let asks = data.is_some_and(|it| it.starts_with("0x70a08231"));
        asks.then(|| json!({"result": "0x"}))
    };
    let result = facilitator.settle(&request, now()).await;
    assert!(matches!(result, Err(SettleError::NotSent(_))), "{result:?}");
    node.lie(false);
    facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}

#[tokio::test]
async fn a07_overtaken_before_a_node_that_is_behind_the_payment_is_not_rejected() {
    let unused: Lie = |call| is_state(call).then(|| json!({"result": word(0)}));
    for lie in [behind, unused] {
        let world = World::start(Mining::Manual, 1).await;
        let (node, url) = Balancer::start(&world, lie).await;
        let facilitator = facilitator(&world, url);
        let request = pay(&payer(), &demand(1_000), 1);
        let overtake = async {
            let signer = DEV_ACCOUNTS[0].address.to_string();
            until("our transaction waits to be mined", || async {
                let count = world.rpc("eth_getTransactionCount", json!([signer, "pending"])).await;
                count == "0x1"
            })
            .await;
            let theirs = front_run(&world, &request).await;
            node.lie(true);
            world.devnet.mine();
            theirs
        };
        let (result, theirs) = tokio::join!(facilitator.settle(&request, now()), overtake);
        assert!(matches!(result, Err(SettleError::Unknown { transaction: Some(_) })), "{result:?}");
        node.lie(false);
        let truth = settlement(theirs);
        assert_eq!(facilitator.settle(&request, now()).await.unwrap(), truth);
        world.end().await;
    }
}

#[tokio::test]
async fn a07_a_payment_by_permit2_is_found_where_a_node_is_behind_with_its_events() {
    let no_events: Lie = |call| (call["method"] == "eth_getLogs").then(|| json!({"result": []}));
    // The state of past blocks is gone, too.
    let pruned: Lie = |call| {
        let gone = json!({"error": {"code": -32000, "message": "missing trie node"}});
        let data = call.pointer("/params/0/data").and_then(Value::as_str);
        let asks = data.is_some_and(|it| it.starts_with("0x4fe02b44"));
        let block = call.pointer("/params/1").and_then(Value::as_str);
        let block = block.and_then(|it| u64::from_str_radix(it.trim_start_matches("0x"), 16).ok());
        match call["method"].as_str() {
            Some("eth_getLogs") => Some(json!({"result": []})),
            Some("eth_call") if asks && block.is_some_and(|it| it < 100) => Some(gone),
            _ => None,
        }
    };
    for (lie, is_found) in [(no_events, true), (pruned, false)] {
        let world = World::start(Mining::Instant, 1).await;
        world.approve_permit2().await;
        let (node, url) = Balancer::start(&world, lie).await;
        let reader = reader(&world, url);
        let request = pay_by_permit2(&payer(), &demand_by_permit2(1_000, None), 1);
        let truth = world.facilitator.settle(&request, now()).await.unwrap();
        for _ in 0..150 {
            world.devnet.mine();
        }
        node.lie(true);
        let expected = if is_found { Lookup::Landed(truth) } else { Lookup::CannotTell };
        assert_eq!(reader.lookup(&request).await.unwrap(), expected);
        world.end().await;
    }
}

/// Signed to end so many seconds from now.
fn ending_in(seconds: u64, number: u64) -> farebox_protocol::wire::SettleRequest {
    let demand = demand(1_000);
    let valid_after = farebox_protocol::Timestamp::from_seconds(0);
    let valid_before = now().plus(Duration::from_secs(seconds));
    let window = AuthorizationWindow { valid_after, valid_before };
    request(&demand, sign_exact(&payer(), &demand, window, nonce(number)).unwrap())
}

#[tokio::test]
async fn only_the_chain_s_clock_ends_a_payment() {
    let world = World::start(Mining::Manual, 1).await;
    let late = now().plus(Duration::from_hours(1));
    let mine = async |number| {
        let signer = DEV_ACCOUNTS[0].address.to_string();
        until("it waits to be mined", || async {
            let count = world.rpc("eth_getTransactionCount", json!([signer, "pending"])).await;
            count == format!("{number:#x}")
        })
        .await;
        world.devnet.mine();
    };
    // Over by the clock here, and by the margin of verification.
    let request = ending_in(300, 1);
    let (result, ()) = tokio::join!(world.facilitator.settle(&request, late), mine(1));
    result.unwrap();

    let (near, over) = (ending_in(300, 2), ending_in(300, 3));
    world.devnet.increase_time(280);
    world.devnet.mine();
    let (result, ()) = tokio::join!(world.facilitator.settle(&near, now()), mine(2));
    result.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 2_000);

    // Sent in time and mined too late: nothing moved, and nothing will.
    let mine_late = async {
        let signer = DEV_ACCOUNTS[0].address.to_string();
        until("it waits to be mined", || async {
            let count = world.rpc("eth_getTransactionCount", json!([signer, "pending"])).await;
            count == "0x3"
        })
        .await;
        world.devnet.increase_time(100);
        world.devnet.mine();
    };
    let (result, ()) = tokio::join!(world.facilitator.settle(&over, now()), mine_late);
    let ended = Reason::InvalidExactEvmPayloadAuthorizationValidBefore;
    let Err(SettleError::Rejected { reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!(reason, ended);
    // And never sent, because the chain says so beforehand.
    let over = ending_in(60, 4);
    let result = world.facilitator.settle(&over, now()).await;
    let Err(SettleError::Rejected { reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!(reason, ended);
    assert_eq!(world.balance(PAY_TO).await, 2_000);
    world.end().await;
}
