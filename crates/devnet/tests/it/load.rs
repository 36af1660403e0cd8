//! Many settlements at once, as a facilitator makes them: none lost, none stuck.

use std::time::Duration;

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_sol_types::{SolCall, sol};
use farebox_devnet::{Mining, TOKEN_ADDRESS};
use serde_json::{Value, json};

use crate::support::{Key, Net, Usdc, tx_1559};

const TO: Address = Address::repeat_byte(0x77);
const SETTLES: u64 = 64;

sol! {
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }
}

fn settle(payer: Key) -> Bytes {
    let message = TransferWithAuthorization {
        from: payer.address(),
        to: TO,
        value: U256::from(1_000),
        validAfter: U256::ZERO,
        validBefore: U256::MAX,
        nonce: B256::repeat_byte(1),
    };
    let signature = payer.sign_typed(&message);
    Usdc::transferWithAuthorization_1Call {
        from: message.from,
        to: message.to,
        value: message.value,
        validAfter: message.validAfter,
        validBefore: message.validBefore,
        nonce: message.nonce,
        signature: signature.as_bytes().into(),
    }
    .abi_encode()
    .into()
}

/// One settlement: simulate, estimate, send under the given nonce, wait.
async fn pay(net: &Net, payer: Key, nonce: u64) {
    let settler = Key::dev(0);
    let input = settle(payer);
    let request = json!({"from": settler.address(), "to": TOKEN_ADDRESS, "data": input});
    net.ok::<Bytes>("eth_call", json!([request, "latest"])).await;
    net.ok::<Value>("eth_estimateGas", json!([request, "pending"])).await;
    let tx = TxEip1559 { nonce, to: TxKind::Call(TOKEN_ADDRESS), input, ..tx_1559() };
    let hash = net.send_raw(settler.sign_tx(tx)).await.unwrap();
    assert!(net.receipt(hash).await.status());
}

async fn settle_many(mining: Mining) {
    let net = Net::mining(mining).await;
    let payers: Vec<Key> = (0..SETTLES).map(Key::fresh).collect();
    for payer in &payers {
        net.devnet.set_token_balance(payer.address(), 1_000);
    }
    // Sent in any order: the nonces arrive with gaps.
    let settles = payers.iter().zip(0..).map(|(payer, nonce)| pay(&net, *payer, nonce));
    let all = async {
        let mut set = Vec::new();
        for settle in settles {
            set.push(Box::pin(settle));
        }
        join_all(set).await;
    };
    tokio::time::timeout(Duration::from_mins(1), all).await.expect("a settlement is stuck");
    assert_eq!(net.usdc(TO).await, U256::from(1_000 * SETTLES));
    assert_eq!(net.nonce(Key::dev(0).address()).await, SETTLES);
    let status: Value = net.ok("txpool_status", json!([])).await;
    assert_eq!(status, json!({"pending": "0x0", "queued": "0x0"}));
}

/// Polls all futures until each is done.
async fn join_all<F: Future<Output = ()> + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| std::pin::Pin::new(future).poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_settle_at_once_on_instant_blocks() {
    settle_many(Mining::Instant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_settle_at_once_on_timed_blocks() {
    settle_many(Mining::Every(Duration::from_millis(200))).await;
}
