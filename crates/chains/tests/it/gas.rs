//! Gas: its price, its cap, and the signers who pay for it.

use std::time::Duration;

use farebox_chains::{Facilitator, NetworkConfig, SettleError, SignerFunds};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use futures_util::future::join_all;
use serde_json::json;

use crate::faults::{Fault, Node};
use crate::support::{PAY_TO, World, demand, key, network_config, now, pay, payer, until};

const GWEI: u128 = 1_000_000_000;
/// Nobody has heard of it.
const STRANGER: [u8; 32] = [0x77; 32];

async fn set_base_fee(world: &World, wei: u128) {
    let wei = format!("{wei:#x}");
    world.rpc("anvil_setNextBlockBaseFeePerGas", json!([wei])).await;
    world.devnet.mine();
}

/// Why nothing was sent.
fn why(result: Result<farebox_chains::Settlement, SettleError>) -> String {
    match result {
        Err(SettleError::NotSent(error)) => error.to_string(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn gas_over_the_cap_is_not_bought_and_the_payment_is_good_later() {
    let keys = vec![key(DEV_ACCOUNTS[0].private_key.0)];
    let capped = |config| NetworkConfig { gas_price_cap_wei: 20 * GWEI, ..config };
    let world = World::with(Mining::Instant, keys, capped).await;
    set_base_fee(&world, 100 * GWEI).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let why = why(world.facilitator.settle(&request, now()).await);
    assert!(why.contains("over the cap of 20 gwei"), "{why}");
    assert_eq!(world.balance(PAY_TO).await, 0);
    set_base_fee(&world, GWEI).await;
    until("gas is cheap again", || async {
        world.facilitator.settle(&request, now()).await.is_ok()
    })
    .await;
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}

#[tokio::test]
async fn no_replacement_is_dearer_than_the_cap() {
    let world = World::start(Mining::Manual, 1).await;
    let node = Node::start(&world, &[]).await;
    let config = NetworkConfig {
        gas_price_cap_wei: 20 * GWEI,
        settle_wait: Duration::from_secs(20),
        ..network_config(std::slice::from_ref(&node.url))
    };
    let facilitator = world.with_config(config);
    let request = pay(&payer(), &demand(1_000), 1);
    let wait_it_out = async {
        until("it was sent", || async { node.sends() == 1 }).await;
        set_base_fee(&world, 100 * GWEI).await;
        let sends = node.sends();
        until("some rounds pass", || async { sends + 3 <= node.sends() }).await;
        assert_eq!(node.different(), 1);
        set_base_fee(&world, GWEI).await;
        until("it is mined", || async {
            world.devnet.mine();
            world.balance(PAY_TO).await == 1_000
        })
        .await;
    };
    let (result, ()) = tokio::join!(facilitator.settle(&request, now()), wait_it_out);
    result.unwrap();
    node.stop();
    world.end().await;
}

#[tokio::test]
async fn a_stuck_transaction_is_replaced_by_a_dearer_one() {
    let world = World::start(Mining::Every(Duration::from_millis(100)), 1).await;
    let node = Node::start(&world, &[Fault::Hoard]).await;
    let facilitator = world.with_config(NetworkConfig {
        settle_wait: Duration::from_secs(20),
        ..network_config(std::slice::from_ref(&node.url))
    });
    // The second waits behind the first and needs no raise.
    let requests: Vec<_> = (0..2).map(|number| pay(&payer(), &demand(10), number)).collect();
    let results = join_all(requests.iter().map(|it| facilitator.settle(it, now()))).await;
    let all: Result<Vec<_>, _> = results.into_iter().collect();
    assert_eq!(all.unwrap().len(), 2);
    assert_eq!((node.different(), world.balance(PAY_TO).await), (3, 20));
    assert_eq!(world.transactions_of(&DEV_ACCOUNTS[0].address.to_string()).await, 2);
    node.stop();
    world.end().await;
}

#[tokio::test]
async fn a_chain_that_stands_still_makes_nothing_dearer() {
    let world = World::start(Mining::Manual, 1).await;
    let node = Node::start(&world, &[]).await;
    let facilitator = world.with_config(NetworkConfig {
        settle_wait: Duration::from_secs(20),
        ..network_config(std::slice::from_ref(&node.url))
    });
    let request = pay(&payer(), &demand(10), 1);
    let wait = async {
        until("many rounds pass", || async { 8 <= node.sends() }).await;
        assert_eq!(node.different(), 1);
        world.devnet.mine();
    };
    let (result, ()) = tokio::join!(facilitator.settle(&request, now()), wait);
    result.unwrap();
    node.stop();
    world.end().await;
}

#[tokio::test]
async fn a_signer_without_gas_money_takes_no_payments() {
    let keys = vec![key(STRANGER), key(DEV_ACCOUNTS[0].private_key.0)];
    let stranger = key(STRANGER).address().to_string();
    let world = World::with(Mining::Instant, keys, |config| config).await;
    let funds = || world.facilitator.signer_status().into_iter().map(|it| it.funds);
    until("the balances are known", || async { funds().all(|it| it != SignerFunds::Unknown) })
        .await;
    let status = world.facilitator.signer_status();
    assert_eq!(status[0].funds, SignerFunds::Low { wei: 0 });
    assert_eq!(status[0].address.to_string(), stranger);
    assert!(matches!(status[1].funds, SignerFunds::Enough { .. }), "{status:?}");
    let [network] = &world.facilitator.readiness()[..] else { panic!("one network") };
    assert_eq!(network.obstacle, None, "another signer goes on");
    let requests: Vec<_> = (0..8).map(|number| pay(&payer(), &demand(10), number)).collect();
    let results = join_all(requests.iter().map(|it| world.facilitator.settle(it, now()))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(world.transactions_of(&stranger).await, 0);
    assert_eq!(world.balance(PAY_TO).await, 80);
    world.end().await;
}

#[tokio::test]
async fn without_any_gas_money_it_is_said_whom_to_send_some() {
    let stranger = key(STRANGER).address();
    let world = World::with(Mining::Instant, vec![key(STRANGER)], |config| config).await;
    let funds = || world.facilitator.signer_status()[0].funds;
    until("the balance is known", || async { funds() == SignerFunds::Low { wei: 0 } }).await;
    let obstacle = || world.facilitator.readiness().remove(0).obstacle;
    let told = obstacle().unwrap();
    assert!(told.contains(&stranger.to_string()) && told.contains("send some to"), "{told}");
    let request = pay(&payer(), &demand(1_000), 1);
    let why = why(world.facilitator.settle(&request, now()).await);
    assert!(why.contains(&stranger.to_string()) && why.contains("has 0 wei"), "{why}");
    world.rpc("anvil_setBalance", json!([stranger.to_string(), "0xde0b6b3a7640000"])).await;
    // Wanting a signer has the balances looked at, long before the half minute is over.
    until("it has gas money", || async { world.facilitator.settle(&request, now()).await.is_ok() })
        .await;
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    assert_eq!(obstacle(), None);
    world.end().await;
}

#[tokio::test]
async fn only_the_first_of_a_kind_is_estimated() {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::start(&world, &[]).await;
    let facilitator = world.with_config(network_config(std::slice::from_ref(&node.url)));
    for number in 0..4 {
        facilitator.settle(&pay(&payer(), &demand(10), number), now()).await.unwrap();
    }
    // The first went to somebody who had nothing, which costs more; that taught nothing false.
    assert_eq!(node.asked("eth_estimateGas"), 1);
    // Money that is not there is found out without being sent.
    let dear = pay(&payer(), &demand(u128::MAX >> 1), 9);
    let result = facilitator.settle(&dear, now()).await;
    assert!(matches!(result, Err(SettleError::Rejected { .. })), "{result:?}");
    assert_eq!((node.sends(), world.balance(PAY_TO).await), (4, 40));
    node.stop();
    world.end().await;
}

#[tokio::test]
async fn many_on_their_way_are_not_all_asked_for_at_every_look() {
    let world = World::start(Mining::Every(Duration::from_secs(2)), 1).await;
    let node = Node::start(&world, &[]).await;
    let facilitator = world.with_config(network_config(std::slice::from_ref(&node.url)));
    let requests: Vec<_> = (0..64).map(|number| pay(&payer(), &demand(10), number)).collect();
    let results = join_all(requests.iter().map(|it| facilitator.settle(it, now()))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let (looks, receipts) =
        (node.asked("eth_blockNumber"), node.asked("eth_getTransactionReceipt"));
    // Two at a look, and each once more, or twice, when it was mined.
    assert!(receipts <= 2 * looks + 2 * 64, "{receipts} receipts in {looks} looks");
    node.stop();
    world.end().await;
}
