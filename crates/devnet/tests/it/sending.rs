//! Sending: every kind of transaction, the refusals in geth's words, gaps and replacements, and the
//! ways of mining.

use std::time::Duration;

use alloy_consensus::{TxEip1559, TxEip2930, TxLegacy, TypedTransaction};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, bytes};
use farebox_devnet::{Mining, TOKEN_ADDRESS};
use serde_json::{Value, json};

use crate::support::{FEE, Key, Net, soon, tx_1559, tx_2930, tx_legacy};

const TO: Address = Address::repeat_byte(0x77);

#[tokio::test]
async fn every_kind_of_transaction_is_mined() {
    let net = Net::instant().await;
    let value = U256::from(3);
    let access_list =
        AccessList(vec![AccessListItem { address: TOKEN_ADDRESS, storage_keys: vec![B256::ZERO] }]);
    let cases: [(&str, TypedTransaction); 4] = [
        ("0x0", TxLegacy { value, ..tx_legacy() }.into()),
        ("0x1", TxEip2930 { nonce: 1, value, access_list, ..tx_2930() }.into()),
        ("0x2", TxEip1559 { nonce: 2, value, ..tx_1559() }.into()),
        ("0x0", TxLegacy { nonce: 3, value, chain_id: None, ..tx_legacy() }.into()),
    ];
    let count = cases.len();
    for (index, (kind, tx)) in cases.into_iter().enumerate() {
        let hash = net.send_raw(Key::dev(1).sign_tx(tx)).await.unwrap();
        assert!(net.receipt(hash).await.status());
        let shown: Value = net.ok("eth_getTransactionByHash", json!([hash])).await;
        assert_eq!((&shown["type"], &shown["from"]), (&json!(kind), &json!(Key::dev(1).address())));
        assert_eq!(net.number().await, u64::try_from(index).unwrap() + 1, "a block each");
    }
    assert_eq!(net.balance(TO).await, value * U256::from(count));
}

#[tokio::test]
async fn refusals_are_in_the_words_of_geth() {
    let net = Net::instant().await;
    net.send_raw(Key::dev(1).sign_tx(tx_1559())).await.unwrap();
    let poor = Key::fresh(1);
    let sent = |key: Key, tx: TxEip1559| key.sign_tx(tx);
    let dev = |tx: TxEip1559| sent(Key::dev(1), TxEip1559 { nonce: 1, ..tx });
    let cases = [
        (sent(Key::dev(1), tx_1559()), "nonce too low: next nonce 1, tx nonce 0"),
        (
            dev(TxEip1559 { chain_id: 1, ..tx_1559() }),
            "invalid chain id for signer: have 1 want 84532",
        ),
        (dev(TxEip1559 { gas_limit: 30_000_001, ..tx_1559() }), "exceeds block gas limit"),
        (
            dev(TxEip1559 { gas_limit: 20_999, ..tx_1559() }),
            "intrinsic gas too low: gas 20999, minimum needed 21000",
        ),
        (
            dev(TxEip1559 { max_priority_fee_per_gas: FEE + 1, ..tx_1559() }),
            "max priority fee per gas higher than max fee per gas: \
             maxPriorityFeePerGas: 20000000001, maxFeePerGas: 20000000000",
        ),
        (
            sent(poor, TxEip1559 { gas_limit: 21_000, value: U256::from(7), ..tx_1559() }),
            "insufficient funds for gas * price + value: balance 0, queued cost 0, \
             tx cost 420000000000007, overshot 420000000000007",
        ),
        (bytes!("1234"), "transaction could not be decoded: unexpected tx type"),
        (bytes!("02c0"), "transaction could not be decoded: input too short"),
    ];
    for (raw, expected) in cases {
        let refusal = net.send_raw(raw).await.unwrap_err();
        assert_eq!((refusal.code, refusal.message.as_str()), (-32000, expected));
    }
    let mut trailing = dev(tx_1559()).to_vec();
    trailing.push(0);
    let refusal = net.send_raw(trailing.into()).await.unwrap_err();
    assert_eq!(refusal.message, "transaction could not be decoded: trailing bytes");
    assert_eq!(net.number().await, 1, "nothing of this was mined");
}

#[tokio::test]
async fn a11_a_transaction_with_a_malleable_signature_is_refused() {
    let net = Net::instant().await;
    let tx = tx_1559();
    let signature = Key::dev(1).sign(alloy_consensus::SignableTransaction::signature_hash(&tx));
    let order = U256::from_be_bytes(secp256k1::constants::CURVE_ORDER);
    let twin =
        alloy_primitives::Signature::new(signature.r(), order - signature.s(), !signature.v());
    let envelope: alloy_consensus::TxEnvelope =
        alloy_consensus::SignableTransaction::into_signed(tx, twin).into();
    let raw = alloy_eips::eip2718::Encodable2718::encoded_2718(&envelope);
    let refusal = net.send_raw(raw.into()).await.unwrap_err();
    assert_eq!(refusal.message, "invalid transaction v, r, s values");
}

#[tokio::test]
async fn a_gap_waits_until_it_is_filled() {
    let net = Net::instant().await;
    let send = |nonce: u64| net.send_raw(Key::dev(1).sign_tx(TxEip1559 { nonce, ..tx_1559() }));
    let second = send(1).await.unwrap();
    let third = send(2).await.unwrap();
    assert_eq!((net.number().await, net.nonce(Key::dev(1).address()).await), (0, 0));
    let status: Value = net.ok("txpool_status", json!([])).await;
    assert_eq!(status, json!({"pending": "0x0", "queued": "0x2"}));
    let again = send(2).await.unwrap_err();
    assert_eq!((again.code, again.message.as_str()), (-32000, "already known"));

    let first = send(0).await.unwrap();
    assert_eq!((net.number().await, net.nonce(Key::dev(1).address()).await), (1, 3));
    for (index, hash) in [first, second, third].into_iter().enumerate() {
        let receipt = net.find_receipt(hash).await.unwrap();
        assert_eq!(receipt.transaction_index, Some(u64::try_from(index).unwrap()));
    }
}

#[tokio::test]
async fn what_does_not_fit_in_a_block_fills_the_next() {
    let net = Net::instant().await;
    net.ok::<Value>("evm_setBlockGasLimit", json!([250_000])).await;
    for nonce in [1, 2, 3, 4, 0] {
        net.send_raw(Key::dev(1).sign_tx(TxEip1559 { nonce, ..tx_1559() })).await.unwrap();
    }
    assert_eq!((net.number().await, net.nonce(Key::dev(1).address()).await), (2, 5));
    for (block, count) in [("0x1", "0x3"), ("0x2", "0x2")] {
        let shown: Value = net.ok("eth_getBlockTransactionCountByNumber", json!([block])).await;
        assert_eq!(shown, json!(count));
    }
    let refusal = net.refused("evm_setBlockGasLimit", json!([u64::MAX])).await;
    assert_eq!(refusal.code, -32602);
}

#[tokio::test]
async fn a_replacement_must_pay_a_tenth_more() {
    let net = Net::mining(Mining::Manual).await;
    let with_fees = |tip: u128, cap: u128, value: u64| {
        Key::dev(1).sign_tx(TxEip1559 {
            max_fee_per_gas: cap,
            max_priority_fee_per_gas: tip,
            value: U256::from(value),
            ..tx_1559()
        })
    };
    let (tip, cap) = (1_000_000_000_u128, 10_000_000_000_u128);
    let replaced = net.send_raw(with_fees(tip, cap, 1)).await.unwrap();
    for (tip, cap) in [(tip, cap), (tip * 2, cap), (tip, cap * 2), (tip * 109 / 100, cap * 2)] {
        let refusal = net.send_raw(with_fees(tip, cap, 2)).await.unwrap_err();
        assert_eq!(refusal.message, "replacement transaction underpriced", "{tip} {cap}");
    }
    let winner = net.send_raw(with_fees(tip * 11 / 10, cap * 11 / 10, 3)).await.unwrap();
    assert_eq!(net.ok::<Value>("eth_getTransactionByHash", json!([replaced])).await, Value::Null);
    net.devnet.mine();
    assert!(net.find_receipt(winner).await.unwrap().status());
    assert_eq!(net.balance(TO).await, U256::from(3));
}

#[tokio::test]
async fn the_dearest_goes_first_then_the_oldest_and_an_unaffordable_base_fee_waits() {
    let net = Net::mining(Mining::Manual).await;
    let mut hashes = Vec::new();
    for (index, tip) in [1_u128, 3, 2, 2].into_iter().enumerate() {
        let tx = TxEip1559 { max_priority_fee_per_gas: tip * 1_000_000_000, ..tx_1559() };
        hashes.push(net.send_raw(Key::dev(index).sign_tx(tx)).await.unwrap());
    }
    let stingy = TxEip1559 { max_fee_per_gas: 100, max_priority_fee_per_gas: 100, ..tx_1559() };
    let stingy = net.send_raw(Key::dev(4).sign_tx(stingy)).await.unwrap();
    net.devnet.mine();
    for (hash, place) in hashes.iter().zip([3, 0, 1, 2]) {
        let receipt = net.find_receipt(*hash).await.unwrap();
        assert_eq!((receipt.block_number, receipt.transaction_index), (Some(1), Some(place)));
    }
    assert_eq!(net.find_receipt(stingy).await, None);
    net.ok::<Value>("anvil_setNextBlockBaseFeePerGas", json!(["0x7"])).await;
    net.devnet.mine();
    assert!(net.find_receipt(stingy).await.unwrap().status());
}

#[tokio::test]
async fn one_sender_cannot_promise_the_same_money_twice() {
    let net = Net::mining(Mining::Manual).await;
    let key = Key::fresh(2);
    let gas = U256::from(21_000) * U256::from(FEE);
    net.devnet.set_balance(key.address(), gas * U256::from(2) - U256::ONE);
    let tx = |nonce| key.sign_tx(TxEip1559 { nonce, gas_limit: 21_000, ..tx_1559() });
    net.send_raw(tx(0)).await.unwrap();
    let refusal = net.send_raw(tx(1)).await.unwrap_err();
    assert!(
        refusal.message.starts_with("insufficient funds for gas * price + value"),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn blocks_come_by_the_clock() {
    let net = Net::mining(Mining::Every(Duration::from_millis(50))).await;
    let hash = net.send_raw(Key::dev(1).sign_tx(tx_1559())).await.unwrap();
    let receipt = net.receipt(hash).await;
    assert!(receipt.status());
    let mined = receipt.block_number.unwrap();
    soon(async || (net.number().await >= mined + 2).then_some(())).await;
}

#[tokio::test]
async fn the_way_of_mining_can_be_changed() {
    let net = Net::instant().await;
    net.ok::<Value>("evm_setAutomine", json!([false])).await;
    assert!(!net.ok::<bool>("anvil_getAutomine", json!([])).await);
    let first = net.send_raw(Key::dev(1).sign_tx(tx_1559())).await.unwrap();
    assert_eq!(net.find_receipt(first).await, None);
    net.ok::<Value>("evm_setAutomine", json!([true])).await;
    assert!(net.find_receipt(first).await.unwrap().status());
    net.ok::<Value>("evm_setIntervalMining", json!([0.02])).await;
    let tx = TxEip1559 { nonce: 1, ..tx_1559() };
    let second = net.send_raw(Key::dev(1).sign_tx(tx)).await.unwrap();
    assert!(net.receipt(second).await.status());
}

#[tokio::test]
async fn no_time_between_blocks_is_refused() {
    let config = farebox_devnet::DevnetConfig {
        mining: Mining::Every(Duration::ZERO),
        ..farebox_devnet::DevnetConfig::default()
    };
    let refused = farebox_devnet::Devnet::start(config).await;
    assert!(matches!(refused, Err(farebox_devnet::DevnetError::BlockTime)), "{refused:?}");
}

#[tokio::test]
async fn a_contract_is_made_and_a_failed_one_is_told() {
    let net = Net::instant().await;
    let (good, bad) = (bytes!("6001600055600160005360016000f3"), bytes!("60006000fd"));
    for (nonce, (code, status)) in [(good, true), (bad, false)].into_iter().enumerate() {
        let nonce = u64::try_from(nonce).unwrap();
        let tx = TxEip1559 { nonce, to: TxKind::Create, input: code, ..tx_1559() };
        let hash = net.send_raw(Key::dev(1).sign_tx(tx)).await.unwrap();
        let receipt = net.receipt(hash).await;
        let address = Key::dev(1).address().create(nonce);
        assert_eq!((receipt.status(), receipt.to), (status, None));
        assert_eq!(receipt.contract_address, Some(address));
        let code: Bytes = net.ok("eth_getCode", json!([address, "latest"])).await;
        let stored: U256 = net.ok("eth_getStorageAt", json!([address, "0x0", "latest"])).await;
        assert_eq!((!code.is_empty(), stored == U256::ONE), (status, status));
    }
}

#[tokio::test]
async fn known_and_impersonated_accounts_send_without_a_signature() {
    let net = Net::instant().await;
    let from = Key::dev(2).address();
    let request = json!({"from": from, "to": TO, "value": "0x5"});
    let hash: B256 = net.ok("eth_sendTransaction", json!([request])).await;
    let receipt = net.find_receipt(hash).await.unwrap();
    assert_eq!((receipt.status(), receipt.from, receipt.gas_used), (true, from, 21_000));

    // The token itself, a contract, sends ether it was given.
    net.devnet.set_balance(TOKEN_ADDRESS, U256::from(10).pow(U256::from(18)));
    let request = json!({"from": TOKEN_ADDRESS, "to": TO, "value": "0x6"});
    let refusal = net.refused("eth_sendTransaction", json!([request])).await;
    assert_eq!(refusal.message, "unknown account");
    net.ok::<Value>("anvil_impersonateAccount", json!([TOKEN_ADDRESS])).await;
    let hash: B256 = net.ok("eth_sendTransaction", json!([request])).await;
    assert!(net.find_receipt(hash).await.unwrap().status());
    assert_eq!(net.balance(TO).await, U256::from(11));
    net.ok::<Value>("anvil_stopImpersonatingAccount", json!([TOKEN_ADDRESS])).await;
    net.refused("eth_sendTransaction", json!([request])).await;
}
