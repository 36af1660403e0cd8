//! A chain that changes its mind about what it had, and a ledger that hears of it.

use std::path::Path;

use farebox_chains::{EvmKey, Finality, FinalityStep, NetworkConfig};
use farebox_protocol::Amount;
use farebox_store::Ledger as _;
use farebox_testkit::anvil::{Anvil, Blocks};
use serde_json::json;

use crate::app::PAY_TO;
use crate::chain::{FUNDS, TestChain};
use crate::till::Till;

const PRICE: u128 = 10_000;
const DEPTH: u32 = 8;

/// Every payment has to lie so deep.
fn deep(config: NetworkConfig) -> NetworkConfig {
    let steps = vec![FinalityStep { above_millionths: 0, blocks: DEPTH }];
    NetworkConfig { finality: Finality { steps }, ..config }
}

async fn open(directory: &Path, chain: &TestChain) -> Till {
    Till::open(directory, &chain.devnet.url(), deep).await
}

/// How often the journal says that it was reopened.
fn reopened(directory: &Path) -> i64 {
    let path = directory.join("ledger.db");
    let connection = rusqlite::Connection::open(path).unwrap();
    let count = "SELECT count(*) FROM journal WHERE event = 'reopened'";
    connection.query_row(count, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a9_what_a_reorg_takes_back_lands_again_and_is_final_then() {
    for restarts in [false, true] {
        let files = tempfile::tempdir().unwrap();
        let chain = TestChain::start().await;
        let before = chain.rpc.call("evm_snapshot", json!([])).await.unwrap();
        let mut till = open(files.path(), &chain).await;
        let id = till.serve(&chain.buyer, 1, PRICE).await;
        let settled = till.until_state(id, "settled").await;
        assert!(till.ledger.next_due().await.unwrap().is_some(), "it is not final yet");
        let revert = chain.rpc.call("evm_revert", json!([before]));
        if restarts {
            till.close().await;
            revert.await.unwrap();
            till = open(files.path(), &chain).await;
        } else {
            revert.await.unwrap();
        }
        till.until("it landed again", async || {
            (chain.buyer_has().await == FUNDS - PRICE).then_some(())
        })
        .await;
        for _ in 0..DEPTH {
            chain.devnet.mine();
        }
        till.until_final().await;
        // By the same transaction, whether or not anybody had noticed.
        assert_eq!(till.payment(id).await.state, settled.state);
        assert_eq!(chain.buyer_has().await, FUNDS - PRICE);
        till.assert_sound().await;
        till.close().await;
        chain.devnet.shutdown().await;
    }
}

#[tokio::test]
async fn a9_a_reorg_that_takes_the_money_away_is_booked_as_a_loss() {
    for restarts in [false, true] {
        let files = tempfile::tempdir().unwrap();
        let chain = TestChain::start().await;
        let before = chain.rpc.call("evm_snapshot", json!([])).await.unwrap();
        let had = chain.tokens_of(PAY_TO).await;
        let mut till = open(files.path(), &chain).await;
        let id = till.serve(&chain.buyer, 1, PRICE).await;
        till.until_state(id, "settled").await;
        let revert = async {
            chain.rpc.call("evm_revert", json!([before])).await.unwrap();
            // In the new history the payer was faster.
            chain.devnet.set_token_balance(chain.buyer.address().as_bytes().into(), 0);
        };
        if restarts {
            till.close().await;
            revert.await;
            till = open(files.path(), &chain).await;
        } else {
            revert.await;
        }
        till.until_state(id, "lost").await;
        assert_eq!(reopened(files.path()), 1);
        assert_eq!(chain.tokens_of(PAY_TO).await, had, "nothing came of it");
        till.assert_sound().await;
        till.close().await;
        chain.devnet.shutdown().await;
    }
}

#[tokio::test]
async fn a9_what_is_worth_little_is_final_with_its_block() {
    let files = tempfile::tempdir().unwrap();
    let chain = TestChain::start().await;
    // A dollar and less is taken at its first block, if nobody says otherwise.
    let till = Till::open(files.path(), &chain.devnet.url(), |config| config).await;
    let small = till.serve(&chain.buyer, 1, 1_000_000).await;
    till.until_state(small, "settled").await;
    assert!(till.ledger.next_due().await.unwrap().is_none());
    let large = till.serve(&chain.buyer, 2, 1_000_001).await;
    till.until_state(large, "settled").await;
    assert!(till.ledger.next_due().await.unwrap().is_some());
    for _ in 0..10 {
        chain.devnet.mine();
    }
    till.until_final().await;
    till.close().await;
    chain.devnet.shutdown().await;
}

/// A foreign chain reorganises by its own means.
#[tokio::test]
async fn a9_on_a_foreign_chain_too() {
    let files = tempfile::tempdir().unwrap();
    drop(rustls::crypto::ring::default_provider().install_default());
    let anvil = Anvil::start(Blocks::Instant).await.unwrap();
    let buyer = EvmKey::from_bytes([0x42; 32]).unwrap();
    let account = buyer.address().as_bytes().into();
    anvil.give_tokens(account, Amount::from_units(FUNDS)).await.unwrap();
    anvil.rpc().call("anvil_mine", json!([2])).await.unwrap();
    let till = Till::open(files.path(), anvil.rpc().url(), deep).await;
    let id = till.serve(&buyer, 1, PRICE).await;
    let settled = till.until_state(id, "settled").await;
    let has = async || anvil.rpc().tokens_of(account).await.unwrap().units();
    assert_eq!(has().await, FUNDS - PRICE);
    anvil.rpc().call("anvil_reorg", json!([1, []])).await.unwrap();
    till.until("it landed again", async || (has().await == FUNDS - PRICE).then_some(())).await;
    anvil.rpc().call("anvil_mine", json!([DEPTH])).await.unwrap();
    till.until_final().await;
    assert_eq!(till.payment(id).await.state, settled.state);
    assert_eq!(has().await, FUNDS - PRICE);
    till.assert_sound().await;
    till.close().await;
}
