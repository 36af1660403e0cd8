//! The helpers for testers: mining, time, state, snapshots; by the names of anvil and of hardhat.

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use farebox_devnet::{Devnet, DevnetConfig, TOKEN_ADDRESS};
use serde_json::{Value, json};

use crate::support::{Key, Net, Usdc, tx_1559};

#[tokio::test]
async fn blocks_are_mined_on_demand() {
    let net = Net::instant().await;
    let now = net.head_time().await;
    let cases = [
        ("evm_mine", json!([]), 1),
        ("anvil_mine", json!([]), 1),
        ("hardhat_mine", json!(["0x3"]), 3),
        ("anvil_mine", json!([2, 60]), 2),
        ("evm_mine", json!([{"blocks": 4}]), 4),
        ("evm_mine", json!([{"timestamp": now + 1_000}]), 1),
        ("evm_mine", json!([now + 2_000]), 1),
    ];
    let mut number = 0;
    for (method, params, blocks) in cases {
        net.ok::<Value>(method, params.clone()).await;
        number += blocks;
        assert_eq!(net.number().await, number, "{method} {params}");
    }
    assert_eq!(net.head_time().await, now + 2_000);
    let refusal = net.refused("anvil_mine", json!([1_000_000])).await;
    assert_eq!(refusal.code, -32602);
}

#[tokio::test]
async fn time_moves_forward_only() {
    let net = Net::instant().await;
    let start = net.head_time().await;
    assert_eq!(net.ok::<u64>("evm_increaseTime", json!(["0x64"])).await, 100);
    assert_eq!(net.ok::<u64>("evm_increaseTime", json!([50])).await, 150);
    net.devnet.mine();
    let moved = net.head_time().await;
    assert!((150..200).contains(&(moved - start)), "{}", moved - start);

    net.ok::<Value>("evm_setNextBlockTimestamp", json!([moved + 500])).await;
    net.devnet.mine();
    assert_eq!(net.head_time().await, moved + 500);
    net.devnet.mine();
    let after = net.head_time().await;
    assert!((500..550).contains(&(after - moved)), "it carries on from there: {}", after - moved);
    for method in ["evm_setNextBlockTimestamp", "evm_setTime"] {
        assert_eq!(net.refused(method, json!([start])).await.code, -32602, "{method}");
    }
    net.ok::<Value>("evm_setTime", json!([after + 9_000])).await;
    net.devnet.mine();
    assert!((9_000..9_050).contains(&(net.head_time().await - after)));
}

#[tokio::test]
async fn the_chain_can_start_at_any_time() {
    let start_time = Some(1_700_000_000);
    let net = Net::start(DevnetConfig { start_time, ..DevnetConfig::default() }).await;
    assert_eq!(net.head_time().await, 1_700_000_000);
    net.devnet.mine();
    assert!((1_700_000_000..1_700_000_050).contains(&net.head_time().await));
}

#[tokio::test]
async fn state_is_set_by_both_families_of_names() {
    let net = Net::instant().await;
    let someone = Address::repeat_byte(0x55);
    for (family, n) in [("anvil", 7_u64), ("hardhat", 8)] {
        let word = B256::from(U256::from(n));
        for (method, params) in [
            ("setBalance", json!([someone, U256::from(n)])),
            ("setNonce", json!([someone, U64::from(n)])),
            ("setCode", json!([someone, word])),
            ("setStorageAt", json!([someone, "0x3", word])),
        ] {
            net.ok::<Value>(&format!("{family}_{method}"), params).await;
        }
        assert_eq!(net.balance(someone).await, U256::from(n));
        assert_eq!(net.nonce(someone).await, n);
        assert_eq!(net.ok::<Bytes>("eth_getCode", json!([someone])).await, Bytes::from(word.0));
        assert_eq!(net.ok::<B256>("eth_getStorageAt", json!([someone, "0x3"])).await, word);
    }
}

#[tokio::test]
async fn tokens_are_dealt_and_the_supply_adds_up() {
    let net = Net::instant().await;
    let someone = Address::repeat_byte(0x55);
    let supply = net.read(Usdc::totalSupplyCall {}).await;
    for units in [5_u64, 900, 3] {
        net.ok::<Value>("anvil_dealERC20", json!([someone, TOKEN_ADDRESS, U256::from(units)]))
            .await;
        assert_eq!(net.usdc(someone).await, U256::from(units));
        let now = net.read(Usdc::totalSupplyCall {}).await;
        assert_eq!(now, supply + U256::from(units));
    }
    net.devnet.set_token_balance(someone, 77);
    assert_eq!(net.usdc(someone).await, U256::from(77));
    let params = json!([someone, Address::repeat_byte(1), "0x1"]);
    assert_eq!(net.refused("anvil_dealERC20", params).await.code, -32602);
}

#[tokio::test]
async fn a_snapshot_brings_everything_back_once() {
    let net = Net::instant().await;
    let to = Address::repeat_byte(7);
    let transfer = || Usdc::transferCall { to, value: U256::from(5) };
    net.transact(Key::dev(1), transfer()).await;
    let (number, time) = (net.number().await, net.head_time().await);
    let first: Value = net.ok("evm_snapshot", json!([])).await;
    let later = net.transact(Key::dev(1), transfer()).await;
    let second: Value = net.ok("anvil_snapshot", json!([])).await;
    net.ok::<Value>("evm_increaseTime", json!([100_000])).await;
    net.ok::<Value>("anvil_mine", json!([300])).await;
    net.devnet.set_balance(to, U256::from(1));

    assert!(net.ok::<bool>("evm_revert", json!([first])).await);
    assert_eq!((net.number().await, net.head_time().await), (number, time));
    assert_eq!(net.usdc(to).await, U256::from(5));
    assert_eq!((net.balance(to).await, net.nonce(Key::dev(1).address()).await), (U256::ZERO, 1));
    assert_eq!(net.find_receipt(later.transaction_hash).await, None);
    for gone in [first, second, json!("0x63")] {
        assert!(!net.ok::<bool>("evm_revert", json!([gone])).await, "{gone} is used up");
    }
    net.transact(Key::dev(1), transfer()).await;
    assert_eq!((net.usdc(to).await, net.number().await), (U256::from(10), number + 1));
    assert!(net.head_time().await < time + 1_000, "the clock is back too");
}

#[tokio::test]
async fn a_snapshot_keeps_what_waits() {
    let net = Net::mining(farebox_devnet::Mining::Manual).await;
    let hash = net.send_raw(Key::dev(1).sign_tx(tx_1559())).await.unwrap();
    let snapshot = net.devnet.snapshot();
    net.devnet.mine();
    assert!(net.find_receipt(hash).await.is_some());
    assert!(net.devnet.revert(snapshot));
    assert_eq!(net.find_receipt(hash).await, None);
    net.devnet.mine();
    assert!(net.find_receipt(hash).await.unwrap().status());
}

#[tokio::test]
async fn a_dropped_transaction_is_gone() {
    let net = Net::mining(farebox_devnet::Mining::Manual).await;
    let hash = net.send_raw(Key::dev(1).sign_tx(tx_1559())).await.unwrap();
    assert_eq!(net.ok::<B256>("anvil_dropTransaction", json!([hash])).await, hash);
    assert_eq!(net.ok::<Value>("anvil_dropTransaction", json!([hash])).await, Value::Null);
    net.devnet.mine();
    assert_eq!(net.find_receipt(hash).await, None);
}

#[tokio::test]
async fn another_chain_id_reaches_the_token_and_the_signatures() {
    let net = Net::start(DevnetConfig { chain_id: 31_337, ..DevnetConfig::default() }).await;
    assert_eq!(net.ok::<U64>("eth_chainId", json!([])).await, U64::from(31_337));
    assert_ne!(net.read(Usdc::DOMAIN_SEPARATORCall {}).await, crate::support::domain().separator());
    let refusal = net.send_raw(Key::dev(1).sign_tx(tx_1559())).await.unwrap_err();
    assert_eq!(refusal.message, "invalid chain id for signer: have 84532 want 31337");
}

#[tokio::test]
async fn an_address_in_use_is_told() {
    let net = Net::instant().await;
    let listen = net.devnet.address();
    let refused = Devnet::start(DevnetConfig { listen, ..DevnetConfig::default() }).await;
    assert!(matches!(refused, Err(farebox_devnet::DevnetError::Listen { .. })), "{refused:?}");
}
