//! Many settlements at once, on one account.

use std::time::Duration;

use farebox_chains::{Facilitator, SettleError};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use futures_util::future::join_all;

use crate::support::{PAY_TO, World, demand, key, now, pay, payer};

/// Settles so many different payments at once and asserts that each moved its money, once.
async fn settle_all(world: &World, count: u64) {
    let before = world.balance(PAY_TO).await;
    let requests: Vec<_> = (1..=count).map(|number| pay(&payer(), &demand(100), number)).collect();
    let settles = requests.iter().map(|it| world.facilitator.settle(it, now()));
    let results = join_all(settles).await;
    let mut transactions: Vec<String> =
        results.into_iter().map(|it| it.unwrap().transaction).collect();
    transactions.sort();
    transactions.dedup();
    assert_eq!(transactions.len(), usize::try_from(count).unwrap());
    assert_eq!(world.balance(PAY_TO).await, before + 100 * u128::from(count));
}

#[tokio::test]
async fn sixty_four_on_one_signer_none_lost_none_stuck() {
    let world = World::start(Mining::Instant, 1).await;
    settle_all(&world, 64).await;
    world.devnet.mine();
    let signer = DEV_ACCOUNTS[0].address.to_string();
    assert_eq!(world.transactions_of(&signer).await, 64);
    world.end().await;
}

#[tokio::test]
async fn sixty_four_on_one_signer_with_timed_blocks() {
    let world = World::start(Mining::Every(Duration::from_millis(200)), 1).await;
    settle_all(&world, 64).await;
    let signer = DEV_ACCOUNTS[0].address.to_string();
    assert_eq!(world.transactions_of(&signer).await, 64);
    world.end().await;
}

#[tokio::test]
async fn several_signers_share_the_work() {
    let world = World::start(Mining::Every(Duration::from_millis(200)), 4).await;
    settle_all(&world, 64).await;
    for account in DEV_ACCOUNTS.iter().take(4) {
        assert_eq!(world.transactions_of(&account.address.to_string()).await, 16);
    }
    world.end().await;
}

#[tokio::test]
async fn one_payment_asked_for_a_hundred_times_is_sent_once() {
    let world = World::start(Mining::Every(Duration::from_millis(200)), 2).await;
    let request = pay(&payer(), &demand(100), 1);
    let settles = (0..100).map(|_| world.facilitator.settle(&request, now()));
    let results: Vec<_> = join_all(settles).await.into_iter().map(Result::unwrap).collect();
    assert!(results.iter().all(|it| *it == results[0]));
    assert_eq!(world.balance(PAY_TO).await, 100);
    let mut sent = 0;
    for account in DEV_ACCOUNTS.iter().take(2) {
        sent += world.transactions_of(&account.address.to_string()).await;
    }
    assert_eq!(sent, 1);
    world.end().await;
}

#[tokio::test]
async fn a_signer_without_gas_says_so_and_blocks_nobody() {
    let poor = key([0x66; 32]);
    let address = poor.address();
    // Without a reserve it is tried, and the node says no.
    let change = |config| farebox_chains::NetworkConfig { signer_reserve_wei: 0, ..config };
    let world = World::with(Mining::Instant, vec![poor], change).await;
    let request = pay(&payer(), &demand(100), 1);
    let result = world.facilitator.settle(&request, now()).await;
    let Err(SettleError::NotSent(error)) = result else { panic!("{result:?}") };
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("nsufficient funds"), "{text}");
    // Its number is used again once it has gas; nothing was left behind.
    world.devnet.set_balance(address.as_bytes().into(), "1000000000000000000".parse().unwrap());
    settle_all(&world, 8).await;
    assert_eq!(world.transactions_of(&address.to_string()).await, 8);
    world.end().await;
}

#[tokio::test]
async fn a_stranger_with_the_same_key_is_made_way_for() {
    let world = World::start(Mining::Instant, 1).await;
    settle_all(&world, 2).await;
    let account = DEV_ACCOUNTS[0].address;
    let transfer = serde_json::json!([{"from": account, "to": account, "value": "0x0"}]);
    for _ in 0..3 {
        world.rpc("eth_sendTransaction", transfer.clone()).await;
    }
    let before = world.balance(PAY_TO).await;
    let requests: Vec<_> = (10..20).map(|number| pay(&payer(), &demand(100), number)).collect();
    let settles = requests.iter().map(|it| world.facilitator.settle(it, now()));
    assert!(join_all(settles).await.iter().all(Result::is_ok));
    assert_eq!(world.balance(PAY_TO).await, before + 1_000);
    assert_eq!(world.transactions_of(&account.to_string()).await, 2 + 3 + 10);
    world.end().await;
}

/// Two-second blocks: a settlement takes the rest of a block and no fixed time more.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the time that people wait is measured")]
async fn a_settlement_takes_a_block_and_little_more() {
    let block = Duration::from_secs(2);
    let change = |config| farebox_chains::NetworkConfig { block_time: block, ..config };
    let signer = key(DEV_ACCOUNTS[0].private_key.0);
    let world = World::with(Mining::Every(block), vec![signer], change).await;
    let mut waits = Vec::new();
    for number in 0..5 {
        let request = pay(&payer(), &demand(100), number);
        let start = std::time::Instant::now();
        world.facilitator.settle(&request, now()).await.unwrap();
        waits.push(start.elapsed());
    }
    waits.sort();
    assert!(waits[2] <= block + Duration::from_millis(300), "{waits:?}");
    world.end().await;
}
