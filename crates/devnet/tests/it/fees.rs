//! What a transaction should offer: base fees by EIP-1559, suggestions, history.

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, U64, U128, U256};
use alloy_rpc_types_eth::FeeHistory;
use serde_json::{Value, json};

use crate::support::{Key, Net, tx_1559};

const GWEI: u128 = 1_000_000_000;

#[tokio::test]
async fn the_base_fee_falls_over_empty_blocks_and_rises_over_full_ones() {
    let net = Net::instant().await;
    net.ok::<Value>("anvil_mine", json!([1])).await;
    let history: FeeHistory = net.ok("eth_feeHistory", json!(["0x2", "latest", []])).await;
    assert_eq!(history.base_fee_per_gas, [GWEI, GWEI * 7 / 8, GWEI * 49 / 64]);
    assert_eq!(history.gas_used_ratio, [0.0, 0.0]);

    net.ok::<Value>("evm_setBlockGasLimit", json!([21_000])).await;
    let tx = TxEip1559 { gas_limit: 21_000, ..tx_1559() };
    net.send_raw(Key::dev(1).sign_tx(tx)).await.unwrap();
    let history: FeeHistory = net.ok("eth_feeHistory", json!([1, "latest"])).await;
    assert_eq!(history.base_fee_per_gas, [GWEI * 49 / 64, GWEI * 49 / 64 * 9 / 8]);
    assert_eq!((history.gas_used_ratio.as_slice(), history.oldest_block), ([1.0].as_slice(), 2));
    assert_eq!(history.reward, None);
}

#[tokio::test]
async fn rewards_are_the_tips_at_each_share_of_the_gas() {
    let net = Net::mining(farebox_devnet::Mining::Manual).await;
    for (index, tip) in [1_u128, 2, 4].into_iter().enumerate() {
        let tx = TxEip1559 { gas_limit: 21_000, max_priority_fee_per_gas: tip * GWEI, ..tx_1559() };
        net.send_raw(Key::dev(index).sign_tx(tx)).await.unwrap();
    }
    net.devnet.mine();
    let params = json!([1, "latest", [0, 10, 33.4, 50, 99.9, 100]]);
    let history: FeeHistory = net.ok("eth_feeHistory", params).await;
    let tips = [1, 1, 2, 2, 4, 4].map(|tip: u128| tip * GWEI);
    assert_eq!(history.reward, Some(vec![tips.to_vec()]));
    for percentiles in [json!([101]), json!([-1]), json!([50, 25])] {
        let refusal = net.refused("eth_feeHistory", json!([1, "latest", percentiles])).await;
        assert!(refusal.message.starts_with("invalid reward percentile"), "{refusal:?}");
    }
    let refusal = net.refused("eth_feeHistory", json!([1, "0x9", []])).await;
    assert!(refusal.message.starts_with("request beyond head block"), "{refusal:?}");
}

#[tokio::test]
async fn suggestions_follow_what_is_paid() {
    let net = Net::instant().await;
    let tip = || net.ok::<U128>("eth_maxPriorityFeePerGas", json!([]));
    assert_eq!(tip().await, U128::from(GWEI));
    assert_eq!(net.ok::<U128>("eth_gasPrice", json!([])).await, U128::from(GWEI * 15 / 8));
    let tx = TxEip1559 { max_priority_fee_per_gas: 3 * GWEI, ..tx_1559() };
    net.send_raw(Key::dev(1).sign_tx(tx)).await.unwrap();
    assert_eq!(tip().await, U128::from(3 * GWEI));
}

#[tokio::test]
async fn the_tip_goes_to_the_coinbase_and_the_base_fee_is_burnt() {
    let net = Net::instant().await;
    let coinbase = Address::repeat_byte(0xcb);
    net.ok::<Value>("anvil_setCoinbase", json!([coinbase])).await;
    let before = net.balance(Key::dev(1).address()).await;
    let hash = net.send_raw(Key::dev(1).sign_tx(tx_1559())).await.unwrap();
    let receipt = net.receipt(hash).await;
    assert_eq!(net.balance(coinbase).await, U256::from(u128::from(receipt.gas_used) * GWEI));
    let paid = U256::from(u128::from(receipt.gas_used) * receipt.effective_gas_price);
    assert_eq!(before - net.balance(Key::dev(1).address()).await, paid);
    let block: Value = net.ok("eth_getBlockByNumber", json!(["latest", false])).await;
    assert_eq!(block["miner"], json!(coinbase));
    assert_eq!(net.ok::<U64>("eth_blobBaseFee", json!([])).await, U64::from(1));
}
