//! The process is killed in the middle of many purchases, wherever each of them happens to be.

use std::sync::Arc;
use std::time::Duration;

use farebox_store::{Ledger as _, SettleMode, SqliteLedger, SqliteOptions};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::watch;

use super::process::{Process, ledger_path};
use super::purchase::{Goods, Got, Purchase, until_receipt};
use super::world::World;

/// How many buy at once.
const CROWD: u8 = 24;
/// The kill comes when so many have a byte of their answers.
const SERVED: usize = 5;

/// Whether nothing more happens to a payment by itself, but for what only the chain's time decides.
fn is_at_rest(receipt: &Value) -> bool {
    let state = receipt["state"].as_str().unwrap_or("none");
    ["none", "released", "settled", "unknown"].contains(&state)
}

/// Whether the client has a byte of the answer.
fn is_served(got: &watch::Receiver<Got>) -> bool {
    let got = got.borrow();
    got.status == 200 && !got.body.is_empty()
}

async fn until_served(crowd: &[watch::Receiver<Got>]) {
    let served = async {
        loop {
            if SERVED <= crowd.iter().filter(|it| is_served(it)).count() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), served).await.unwrap();
}

#[tokio::test]
async fn killed_in_the_middle_of_a_crowd() {
    let mut world = World::start(SettleMode::After, Goods::Json).await;
    let orders = world.orders(None);
    let process = Process::start(&orders).await;
    let sign = |number: u8| {
        let goods = if number.is_multiple_of(2) { Goods::Json } else { Goods::Stream };
        Purchase::sign(&process.address, goods, &world.chain.buyer, [number; 32])
    };
    let purchases: Vec<Arc<Purchase>> =
        join_all((1..=CROWD).map(sign)).await.into_iter().map(Arc::new).collect();
    let mut crowd: Vec<_> = purchases.iter().map(|it| it.send_beside(&process.address)).collect();
    until_served(&crowd).await;
    process.kill().await;
    for got in &mut crowd {
        while got.changed().await.is_ok() {}
    }

    let process = Process::start(&orders).await;
    let address = process.address.as_str();
    let mut granted = Vec::new();
    for (purchase, got) in purchases.iter().zip(&crowd) {
        let is_served = is_served(got);
        let receipt = until_receipt(purchase, address, |it| {
            if is_served { it["state"] == "settled" } else { is_at_rest(it) }
        });
        let receipt = receipt.await;
        let again = purchase.send(address).await;
        match receipt["state"].as_str() {
            None | Some("released") => assert!(again.is_whole(purchase.goods), "{again:?}"),
            Some(_) => assert_eq!(again.status, 409, "{again:?}"),
        }
        if again.status == 200 {
            until_receipt(purchase, address, |it| it["state"] == "settled").await;
        }
        granted.push(is_served || again.status == 200);
    }
    // What was leased and not sent can be given back when it has expired on chain.
    world.chain.devnet.increase_time(1_000);
    world.chain.devnet.mine();
    for (purchase, granted) in purchases.iter().zip(granted) {
        let ends = |it: &Value| it["state"] == "settled" || it["state"] == "released";
        let receipt = until_receipt(purchase, address, ends).await;
        let is_owed = receipt["refundOwed"].is_string();
        match (receipt["state"] == "settled", purchase.goods) {
            // A withheld answer that nobody got is owed back.
            (true, Goods::Json) => assert!(granted || is_owed, "{receipt}"),
            // A stream is owed for from its checkpoint on.
            (true, Goods::Stream) => assert!(!is_owed, "{receipt}"),
            (false, _) => assert!(!granted && !is_owed, "{receipt}"),
        }
    }
    process.stop().await;
    let ledger =
        SqliteLedger::open(ledger_path(&orders.directory), SqliteOptions::default()).unwrap();
    assert!(ledger.check().await.unwrap().is_sound());
    ledger.close().await.unwrap();
    world.balances_agree().await;
    world.end().await;
}
