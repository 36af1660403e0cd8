//! Many settlements in one transaction: what goes together, what goes by itself, and who fails alone.

use std::collections::HashSet;
use std::time::Duration;

use farebox_chains::{
    AuthorizationWindow, Batching, EvmKey, Facilitator, LocalFacilitator, Lookup, NetworkConfig,
    Problem, SettleError, Settlement, sign_exact, sign_permit2_exact,
};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use farebox_protocol::wire::SettleRequest;
use farebox_protocol::{Reason, Timestamp};
use futures_util::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attacks::front_run;
use crate::faults::{Fault, Node};
use crate::support::{
    PAY_TO, TOKEN, World, at_amount, demand, demand_by_permit2, facilitator, key, memory,
    network_config, nonce, now, pay, pay_by_permit2, payer, request, until,
};

const MULTICALL3: &str = "0xcA11bde05977b3631167028862bE2a173976CA11";

fn batching(config: NetworkConfig) -> NetworkConfig {
    NetworkConfig { batching: Batching::default(), ..config }
}

fn signer() -> EvmKey {
    key(DEV_ACCOUNTS[0].private_key.0)
}

async fn world(mining: Mining) -> World {
    World::with(mining, vec![signer()], batching).await
}

async fn settle_all(
    world: &World,
    requests: &[SettleRequest],
) -> Vec<Result<Settlement, SettleError>> {
    join_all(requests.iter().map(|it| world.facilitator.settle(it, now()))).await
}

/// The different transactions of settlements that all worked.
fn transactions(results: Vec<Result<Settlement, SettleError>>) -> HashSet<String> {
    results.into_iter().map(|it| it.unwrap().transaction).collect()
}

fn reason(result: &Result<Settlement, SettleError>) -> Reason {
    match result {
        Err(SettleError::Rejected { reason, .. }) => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// How many transactions the signer has sent.
async fn sent(world: &World) -> usize {
    let sent = world.transactions_of(&facilitator()).await;
    usize::try_from(sent).unwrap()
}

/// Waits until the signer has so many transactions, mined or not.
async fn until_sent(world: &World, count: u64) {
    until("they were sent", || async {
        let signer = facilitator();
        let found = world.rpc("eth_getTransactionCount", json!([signer, "pending"])).await;
        found == format!("{count:#x}")
    })
    .await;
}

#[tokio::test]
async fn two_hundred_and_fifty_six_at_once_are_a_few_transactions() {
    let change = |config| NetworkConfig { block_time: Duration::from_secs(1), ..batching(config) };
    let world = World::with(Mining::Every(Duration::from_secs(1)), vec![signer()], change).await;
    let before = world.balance(&payer().address().to_string()).await;
    let requests: Vec<_> = (0..256).map(|number| pay(&payer(), &demand(100), number)).collect();
    let different = transactions(settle_all(&world, &requests).await);
    assert!(different.len() <= 24, "{} transactions", different.len());
    assert_eq!(sent(&world).await, different.len());
    assert_eq!(world.balance(PAY_TO).await, 25_600);
    assert_eq!(world.balance(&payer().address().to_string()).await, before - 25_600);
    // Whoever asks again learns the same, and nothing is sent.
    let again = transactions(settle_all(&world, &requests).await);
    assert_eq!((again, sent(&world).await), (different.clone(), different.len()));
    world.end().await;
}

#[tokio::test]
async fn a_lone_settlement_is_a_plain_transaction_at_once() {
    let world = world(Mining::Instant).await;
    for number in 0..3 {
        let settled = world.facilitator.settle(&pay(&payer(), &demand(10), number), now()).await;
        assert_eq!(to_of(&world, &settled.unwrap().transaction).await, TOKEN.to_lowercase());
    }
    assert_eq!(sent(&world).await, 3);
    world.end().await;
}

async fn to_of(world: &World, transaction: &str) -> String {
    let transaction = world.rpc("eth_getTransactionByHash", json!([transaction])).await;
    transaction["to"].as_str().unwrap().to_lowercase()
}

/// What waits at the chain in transactions of several payments.
async fn waiting_batches(world: &World) -> Vec<String> {
    let block = world.rpc("eth_getBlockByNumber", json!(["pending", true])).await;
    let transactions = block["transactions"].as_array().cloned().unwrap_or_default();
    let batches = transactions
        .iter()
        .filter(|it| it["to"].as_str().unwrap_or("").to_lowercase() == multicall3());
    batches.map(|it| it["input"].as_str().unwrap().to_owned()).collect()
}

fn multicall3() -> String {
    MULTICALL3.to_lowercase()
}

/// Waits until all of these wait at the chain, each in a transaction of several.
async fn until_together(world: &World, numbers: &[u64]) {
    until("they wait together", || async {
        let batches = waiting_batches(world).await;
        numbers
            .iter()
            .all(|it| batches.iter().any(|batch| batch.contains(&hex::encode(nonce(*it)))))
    })
    .await;
}

/// A payment that ends so long from now, in the chain's seconds.
fn pay_until(key: &EvmKey, units: u128, number: u64, seconds: u64) -> SettleRequest {
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: now().plus(Duration::from_secs(seconds)),
    };
    let demand = demand(units);
    request(&demand, sign_exact(key, &demand, window, nonce(number)).unwrap())
}

/// A manual chain on which the kind of payment is known, and its signer busy with a lone transaction: what
/// comes now goes together.
async fn busy_world() -> World {
    let change = |config| NetworkConfig {
        settle_wait: Duration::from_secs(20),
        // Long enough for everybody to come.
        block_time: Duration::from_secs(1),
        ..batching(config)
    };
    let world = World::with(Mining::Manual, vec![signer()], change).await;
    world.devnet.mine();
    let warm = pay(&payer(), &demand(1), 1_000_000);
    let mine = async {
        until_sent(&world, 1).await;
        world.devnet.mine();
    };
    let (settled, ()) = tokio::join!(world.facilitator.settle(&warm, now()), mine);
    settled.unwrap();
    world
}

/// Settles all of these; meanwhile, once those with these numbers wait together, does this, and mines
/// until all is over.
async fn settle_meanwhile(
    world: &World,
    requests: &[SettleRequest],
    numbers: &[u64],
    meanwhile: impl Future<Output = ()>,
) -> Vec<Result<Settlement, SettleError>> {
    let over = std::cell::Cell::new(false);
    let settling = async {
        let results = settle_all(world, requests).await;
        over.set(true);
        results
    };
    let mining = async {
        until_together(world, numbers).await;
        meanwhile.await;
        until("all is over", || async {
            world.devnet.mine();
            over.get()
        })
        .await;
    };
    tokio::join!(settling, mining).0
}

#[tokio::test]
async fn a07_of_a_batch_who_was_overtaken_expired_or_became_poor_fails_alone() {
    let world = busy_world().await;
    let poor = key(DEV_ACCOUNTS[8].private_key.0);
    world.devnet.set_token_balance(DEV_ACCOUNTS[8].address, 150);
    let mut requests: Vec<_> =
        (0..12).map(|number| pay(&payer(), &demand(1_000), number)).collect();
    requests.push(pay_until(&payer(), 1_000, 12, 60));
    requests.push(pay(&poor, &demand(100), 13));
    requests.push(pay(&poor, &demand(100), 14));
    let numbers: Vec<u64> = (4..=12).collect();
    let overtaken = &requests[7];
    let theirs = std::cell::RefCell::new(String::new());
    let meanwhile = async {
        *theirs.borrow_mut() = front_run(&world, overtaken).await;
        world.devnet.increase_time(120);
    };
    let results = settle_meanwhile(&world, &requests, &numbers, meanwhile).await;
    for (number, result) in results.iter().enumerate().take(12) {
        assert!(result.is_ok(), "{number}: {result:?}");
    }
    assert_eq!(results[7].as_ref().unwrap().transaction, *theirs.borrow());
    assert_eq!(reason(&results[12]), Reason::InvalidExactEvmPayloadAuthorizationValidBefore);
    let (paid, refused): (Vec<_>, Vec<_>) = results[13..].iter().partition(|it| it.is_ok());
    assert_eq!((paid.len(), refused.len()), (1, 1), "{results:?}");
    assert_eq!(reason(refused[0]), Reason::InvalidExactEvmInsufficientBalance);
    assert_eq!(world.balance(PAY_TO).await, 1 + 12_000 + 100);
    // Nobody is asked for anything twice.
    let count = sent(&world).await;
    let again = settle_all(&world, &requests[..12]).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    assert_eq!(sent(&world).await, count);
    world.end().await;
}

#[tokio::test]
async fn both_kinds_of_exact_go_together_and_upto_by_itself() {
    let world = busy_world().await;
    world.approve_permit2().await;
    world.devnet.mine();
    let exact = demand_by_permit2(100, None);
    let upto = demand_by_permit2(100, Some(&facilitator()));
    let warm = pay_by_permit2(&payer(), &exact, 2_000_000);
    let (settled, ()) = tokio::join!(world.facilitator.settle(&warm, now()), async {
        until_sent(&world, 2).await;
        world.devnet.mine();
    });
    settled.unwrap();
    let by_eip3009 = (0..8).map(|number| pay(&payer(), &demand(100), number));
    let by_permit2 = (8..16).map(|number| pay_by_permit2(&payer(), &exact, number));
    let by_upto = (16..18).map(|number| at_amount(&pay_by_permit2(&payer(), &upto, number), 60));
    let requests: Vec<_> = by_eip3009.chain(by_permit2).chain(by_upto).collect();
    let numbers: Vec<u64> = (8..16).collect();
    let results = settle_meanwhile(&world, &requests, &numbers, async {}).await;
    let together: Vec<String> =
        results.iter().map(|it| it.as_ref().unwrap().transaction.clone()).collect();
    for transaction in &together[16..] {
        let proxy = "0x4020a4f3b7b90cca423b9fabcc0ce57c6c240002";
        assert_eq!(to_of(&world, transaction).await, proxy);
    }
    let different: HashSet<&String> = together.iter().collect();
    assert!(different.len() <= 8, "{together:?}");
    assert_eq!(world.balance(PAY_TO).await, 1 + 100 + 16 * 100 + 2 * 60);
    // Somebody who has seen nothing finds each of them.
    let other = world.another(vec![signer()]);
    for (request, transaction) in requests.iter().zip(&together) {
        let Lookup::Landed(found) = other.lookup(request, now()).await.unwrap() else { panic!() };
        assert_eq!(found.transaction, *transaction);
    }
    world.end().await;
}

/// Eight payments by Permit2 that leave the same events; one of them is settled by somebody else in the
/// same block, and one comes too late.
#[tokio::test]
async fn a07_of_payments_by_permit2_that_look_alike_each_is_told_from_the_others() {
    let world = busy_world().await;
    world.approve_permit2().await;
    world.devnet.mine();
    let exact = demand_by_permit2(100, None);
    let warm = pay_by_permit2(&payer(), &exact, 2_000_000);
    let (settled, ()) = tokio::join!(world.facilitator.settle(&warm, now()), async {
        until_sent(&world, 2).await;
        world.devnet.mine();
    });
    settled.unwrap();
    let short = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: now().plus(Duration::from_mins(1)),
    };
    let late = sign_permit2_exact(&payer(), &exact, short, nonce(8)).unwrap();
    let mut requests: Vec<_> =
        (0..8).map(|number| pay_by_permit2(&payer(), &exact, number)).collect();
    requests.push(request(&exact, late));
    let theirs = std::cell::RefCell::new(String::new());
    let meanwhile = async {
        *theirs.borrow_mut() = settle_by_stranger(&world, 5).await;
        world.devnet.increase_time(120);
    };
    let numbers: Vec<u64> = (4..=8).collect();
    let results = settle_meanwhile(&world, &requests, &numbers, meanwhile).await;
    for (number, result) in results.iter().enumerate().take(8) {
        assert!(result.is_ok(), "{number}: {result:?}");
    }
    assert_eq!(results[5].as_ref().unwrap().transaction, *theirs.borrow());
    assert_eq!(reason(&results[8]), Reason::Permit2DeadlineExpired);
    assert_eq!(world.balance(PAY_TO).await, 1 + 100 + 8 * 100);
    let other = world.another(vec![signer()]);
    for (request, result) in requests.iter().zip(&results).take(8) {
        let found = other.lookup(request, now()).await.unwrap();
        assert_eq!(found, Lookup::Landed(result.as_ref().unwrap().clone()));
    }
    let dead = Lookup::Dead { reason: Reason::Permit2DeadlineExpired };
    assert_eq!(other.lookup(&requests[8], now()).await.unwrap(), dead);
    world.end().await;
}

/// Takes the proxy's call for the payment of this number out of what waits, and sends it at a better price.
async fn settle_by_stranger(world: &World, number: u64) -> String {
    let nonce = hex::encode(nonce(number));
    let batches = waiting_batches(world).await;
    let batch = batches.iter().find(|it| it.contains(&nonce)).unwrap();
    let place = batch.find(&nonce).unwrap();
    // Selector, token and amount come before the nonce; deadline, owner, payee, start, offset, length
    // and a signature of 65 bytes in 96 from there on.
    let call = batch.get(place - 8 - 2 * 64..place + 7 * 64 + 2 * 96).unwrap();
    assert!(call.starts_with("13cd3b53"), "{call}");
    let call = json!([{
        "from": DEV_ACCOUNTS[5].address,
        "to": "0x402085c248EeA27D92E8b30b2C58ed07f9E20001",
        "data": format!("0x{call}"),
        "gas": "0x30d40",
        "maxFeePerGas": "0x174876e800",
        "maxPriorityFeePerGas": "0x174876e800",
    }]);
    world.rpc("eth_sendTransaction", call).await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stuck_batch_is_replaced_by_a_dearer_one_of_the_same_members() {
    let world =
        World::with(Mining::Every(Duration::from_millis(100)), vec![signer()], batching).await;
    // The third transaction is kept back: those that come together.
    let node = Node::start(&world, &[]).await;
    let facilitator = world.with_config(NetworkConfig {
        settle_wait: Duration::from_secs(20),
        ..batching(network_config(std::slice::from_ref(&node.url)))
    });
    facilitator.settle(&pay(&payer(), &demand(10), 1_000), now()).await.unwrap();
    node.plan(&[Fault::Hoard, Fault::Hoard]);
    let requests: Vec<_> = (0..16).map(|number| pay(&payer(), &demand(10), number)).collect();
    let results = join_all(requests.iter().map(|it| facilitator.settle(it, now()))).await;
    let different = transactions(results);
    assert!(different.len() < 8, "{different:?}");
    let replaced = node.different() - 1 - different.len();
    assert!((1..=2).contains(&replaced), "{replaced} replaced");
    assert_eq!(world.balance(PAY_TO).await, 170);
    node.stop();
    world.end().await;
}

#[tokio::test]
async fn what_a_batch_became_is_found_by_who_comes_after_a_crash() {
    let world = busy_world().await;
    let requests: Vec<_> = (0..8).map(|number| pay(&payer(), &demand(100), number)).collect();
    let crash = async {
        until_together(&world, &[4, 5, 6, 7]).await;
        world.stop.cancel();
    };
    let (results, ()) = tokio::join!(settle_all(&world, &requests), crash);
    let unknown = |it: &Result<_, SettleError>| {
        matches!(it, Err(SettleError::Unknown { transaction: Some(_) }))
    };
    assert!(results[4..].iter().all(unknown), "{results:?}");
    let sent = results.iter().filter(|it| unknown(it)).count();
    world.devnet.mine();
    assert_eq!(world.balance(PAY_TO).await, 1 + 100 * u128::try_from(sent).unwrap());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let config = batching(network_config(&[world.devnet.url()]));
    let after =
        LocalFacilitator::new(vec![config], vec![signer()], memory(), tasks, stop.clone()).unwrap();
    for (request, result) in requests.iter().zip(&results) {
        let Err(SettleError::Unknown { transaction: Some(transaction) }) = result else { continue };
        let Lookup::Landed(found) = after.lookup(request, now()).await.unwrap() else { panic!() };
        assert_eq!(found.transaction, *transaction);
        assert_eq!(after.settle(request, now()).await.unwrap(), found);
    }
    assert_eq!(world.balance(PAY_TO).await, 1 + 100 * u128::try_from(sent).unwrap());
    stop.cancel();
    world.end().await;
}

/// Run-time code that says yes to every question of ERC-1271.
const YES: &str = "0x631626ba7e60e01b60005260206000f3";

#[tokio::test]
async fn a10_a_payer_with_code_burns_nobody_else_s_gas() {
    let world = busy_world().await;
    let coded = key(DEV_ACCOUNTS[8].private_key.0);
    world.devnet.set_token_balance(DEV_ACCOUNTS[8].address, 1_000);
    world.rpc("anvil_setCode", json!([DEV_ACCOUNTS[8].address, YES])).await;
    let mut requests: Vec<_> = (0..8).map(|number| pay(&payer(), &demand(100), number)).collect();
    requests.insert(5, pay(&coded, &demand(100), 99));
    let results = settle_meanwhile(&world, &requests, &[6, 7], async {}).await;
    let by_itself = results[5].as_ref().unwrap().transaction.clone();
    assert_eq!(to_of(&world, &by_itself).await, TOKEN.to_lowercase());
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(world.balance(PAY_TO).await, 1 + 900);
    world.end().await;
}

#[tokio::test]
async fn without_multicall3_they_go_one_by_one_and_it_is_a_problem_only_if_demanded() {
    let world = world(Mining::Instant).await;
    world.rpc("anvil_setCode", json!([MULTICALL3, "0x"])).await;
    let problems = world.facilitator.check().await;
    assert!(problems.is_empty(), "{problems:?}");
    let requests: Vec<_> = (0..16).map(|number| pay(&payer(), &demand(10), number)).collect();
    assert_eq!(transactions(settle_all(&world, &requests).await).len(), 16);
    let demanded = world.with_config(NetworkConfig {
        batching: Batching::Required { max: 8 },
        ..network_config(&[world.devnet.url()])
    });
    let problems = demanded.check().await;
    assert!(matches!(problems.as_slice(), [Problem::NoMulticall3 { .. }]), "{problems:?}");
    let text = problems[0].to_string();
    assert!(text.contains(MULTICALL3) && text.contains("batch_max"), "{text}");
    world.end().await;
}
