//! Logs: by address, topic, range and block; and filters that are polled.

use alloy_primitives::{Address, B256, U256};
use alloy_rpc_types_eth::Log;
use alloy_sol_types::SolEvent;
use farebox_devnet::TOKEN_ADDRESS;
use serde_json::{Value, json};

use crate::support::{Key, Net, Usdc};

/// Three transfers, of 1, 2 and 3 units to addresses 0x01…, 0x02…, 0x03…, in blocks 1, 2 and 3.
async fn three_transfers() -> (Net, Vec<B256>) {
    let net = Net::instant().await;
    let mut blocks = Vec::new();
    for n in 1_u8..=3 {
        let call = Usdc::transferCall { to: Address::repeat_byte(n), value: U256::from(n) };
        blocks.push(net.transact(Key::dev(1), call).await.block_hash.unwrap());
    }
    (net, blocks)
}

fn values(logs: &[Log]) -> Vec<u64> {
    logs.iter().map(|log| log.log_decode::<Usdc::Transfer>().unwrap().inner.value.to()).collect()
}

#[tokio::test]
async fn every_kind_of_query_finds_its_logs() {
    let (net, blocks) = three_transfers().await;
    let topic = Usdc::Transfer::SIGNATURE_HASH;
    let from = Key::dev(1).address().into_word();
    let to = |n: u8| Address::repeat_byte(n).into_word();
    let all = json!("0x0");
    let cases = [
        (json!({"fromBlock": all}), vec![1, 2, 3]),
        (json!({}), vec![3]),
        (json!({"fromBlock": "earliest", "toBlock": "0x2"}), vec![1, 2]),
        (json!({"fromBlock": "0x2", "toBlock": "latest"}), vec![2, 3]),
        (json!({"blockHash": blocks[1]}), vec![2]),
        (json!({"fromBlock": all, "address": TOKEN_ADDRESS}), vec![1, 2, 3]),
        (json!({"fromBlock": all, "address": [Address::ZERO, TOKEN_ADDRESS]}), vec![1, 2, 3]),
        (json!({"fromBlock": all, "address": Address::ZERO}), vec![]),
        (json!({"fromBlock": all, "topics": [topic]}), vec![1, 2, 3]),
        (json!({"fromBlock": all, "topics": [topic, from]}), vec![1, 2, 3]),
        (json!({"fromBlock": all, "topics": [topic, to(1)]}), vec![]),
        (json!({"fromBlock": all, "topics": [null, null, to(2)]}), vec![2]),
        (json!({"fromBlock": all, "topics": [topic, null, [to(1), to(3)]]}), vec![1, 3]),
        (json!({"fromBlock": all, "topics": [to(1)]}), vec![]),
        (json!({"fromBlock": "0x9", "toBlock": "0x20"}), vec![]),
    ];
    for (filter, expected) in cases {
        let logs: Vec<Log> = net.ok("eth_getLogs", json!([filter])).await;
        assert_eq!(values(&logs), expected, "{filter}");
    }
    for (filter, message) in [
        (json!({"fromBlock": "0x2", "toBlock": "0x1"}), "invalid block range params"),
        (json!({"blockHash": B256::ZERO}), "unknown block"),
    ] {
        assert_eq!(net.refused("eth_getLogs", json!([filter])).await.message, message);
    }
}

#[tokio::test]
async fn a_filter_tells_each_thing_once() {
    let net = Net::instant().await;
    let logs: Value = net.ok("eth_newFilter", json!([{"address": TOKEN_ADDRESS}])).await;
    let blocks: Value = net.ok("eth_newBlockFilter", json!([])).await;
    let pending: Value = net.ok("eth_newPendingTransactionFilter", json!([])).await;
    let call = Usdc::transferCall { to: Address::repeat_byte(1), value: U256::from(4) };
    let receipt = net.transact(Key::dev(1), call).await;

    let found: Vec<Log> = net.ok("eth_getFilterChanges", json!([logs])).await;
    assert_eq!(values(&found), [4]);
    let found: Vec<B256> = net.ok("eth_getFilterChanges", json!([blocks])).await;
    assert_eq!(found, [receipt.block_hash.unwrap()]);
    let found: Vec<B256> = net.ok("eth_getFilterChanges", json!([pending])).await;
    assert_eq!(found, [receipt.transaction_hash]);
    for filter in [&logs, &blocks, &pending] {
        assert_eq!(net.ok::<Value>("eth_getFilterChanges", json!([filter])).await, json!([]));
    }
    let found: Vec<Log> = net.ok("eth_getFilterLogs", json!([logs])).await;
    assert_eq!(values(&found), [4]);
    for expected in [true, false] {
        assert_eq!(net.ok::<bool>("eth_uninstallFilter", json!([logs])).await, expected);
    }
    let refusal = net.refused("eth_getFilterChanges", json!([logs])).await;
    assert_eq!((refusal.code, refusal.message.as_str()), (-32000, "filter not found"));
}
