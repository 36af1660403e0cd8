//! Calls and estimates: what fails and how it is told, overrides, and gas limits that suffice.

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, TxKind, U64, U256, address, bytes};
use alloy_sol_types::SolCall;
use farebox_devnet::TOKEN_ADDRESS;
use serde_json::{Value, json};

use crate::support::{Key, Net, Usdc, tx_1559};

const CODE: Address = address!("0x00000000000000000000000000000000000000c0");

#[tokio::test]
async fn failures_are_told_as_geth_tells_them() {
    let net = Net::instant().await;
    let poor = Address::repeat_byte(0xaa);
    // (code at CODE, request, error code, message)
    let cases = [
        (bytes!("60006000fd"), json!({"to": CODE}), 3, "execution reverted"),
        (bytes!("fe"), json!({"to": CODE}), -32000, "invalid opcode"),
        (bytes!("5b600056"), json!({"to": CODE, "gas": "0x186a0"}), -32000, "out of gas"),
        (
            bytes!(""),
            json!({"to": CODE, "from": poor, "value": "0x1"}),
            -32000,
            "insufficient funds for gas * price + value: have 0 want 1",
        ),
        (
            bytes!(""),
            json!({"to": CODE, "gas": "0x5207"}),
            -32000,
            "intrinsic gas too low: have 20999, want 21000",
        ),
        (
            bytes!(""),
            json!({"to": CODE, "from": Key::dev(0).address(), "maxFeePerGas": "0x1"}),
            -32000,
            "max fee per gas less than block base fee",
        ),
    ];
    for (code, request, error, message) in cases {
        net.ok::<Value>("anvil_setCode", json!([CODE, code])).await;
        let refusal = net.refused("eth_call", json!([request, "latest"])).await;
        assert_eq!((refusal.code, refusal.message.as_str()), (error, message), "{request}");
    }
}

#[tokio::test]
async fn a_revert_carries_its_reason_and_its_data() {
    let net = Net::instant().await;
    let call = Usdc::transferCall { to: Address::repeat_byte(1), value: U256::MAX };
    for method in ["eth_call", "eth_estimateGas"] {
        let data = Bytes::from(call.abi_encode());
        let request = json!({"from": Key::dev(0).address(), "to": TOKEN_ADDRESS, "data": data});
        let refusal = net.refused(method, json!([request])).await;
        assert_eq!(refusal.code, 3);
        assert_eq!(refusal.message, "execution reverted: ERC20: transfer amount exceeds balance");
        let data = refusal.data.unwrap();
        assert!(data.as_str().unwrap().starts_with("0x08c379a0"), "Error(string): {data}");
    }
}

#[tokio::test]
async fn overrides_change_one_call_only() {
    let net = Net::instant().await;
    let read = |state: Value, block: Value| {
        let net = &net;
        async move { net.ok::<U256>("eth_call", json!([{"to": CODE}, "latest", state, block])).await }
    };
    let sload = "0x60005460005260206000f3";
    let balance_of_self = "0x304760005260206000f3";
    let timestamp = "0x4260005260206000f3";
    let word = |n: u64| U256::from(n).to_be_bytes::<32>();
    let slot = alloy_primitives::B256::ZERO;
    let stored = alloy_primitives::B256::from(word(9));
    for (code, change, block, expected) in [
        (sload, json!({"stateDiff": {slot.to_string(): stored}}), json!({}), 9),
        (sload, json!({"state": {slot.to_string(): stored}}), json!({}), 9),
        (sload, json!({"state": {}}), json!({}), 0),
        (sload, json!({}), json!({}), 4),
        (balance_of_self, json!({"balance": "0x2a"}), json!({}), 42),
        (timestamp, json!({}), json!({"time": "0x7"}), 7),
    ] {
        net.ok::<Value>(
            "anvil_setStorageAt",
            json!([CODE, "0x0", alloy_primitives::B256::from(word(4))]),
        )
        .await;
        let mut change = change;
        change["code"] = json!(code);
        let got = read(json!({CODE.to_string(): change}), block).await;
        assert_eq!(got, U256::from(expected), "{code} {change}");
    }
    assert_eq!(net.ok::<Bytes>("eth_getCode", json!([CODE])).await, Bytes::new());
}

#[tokio::test]
async fn a_call_sees_the_present_time_on_an_idle_chain() {
    let net = Net::instant().await;
    let before = net.head_time().await;
    net.devnet.increase_time(5_000);
    let time: U256 = net
        .ok(
            "eth_call",
            json!([{"to": CODE}, "latest", {CODE.to_string(): {"code": "0x4260005260206000f3"}}]),
        )
        .await;
    assert!(time >= U256::from(before + 5_000), "{time}");
    assert_eq!(net.head_time().await, before, "no block was mined");
}

#[tokio::test]
async fn an_estimate_is_enough_and_not_much_more() {
    let net = Net::instant().await;
    let from = Key::dev(1);
    // `needy` reverts with less than 50,000 gas left; CODE calls it and reverts if it fails, so that
    // 63/64 of the gas must be enough for it (EIP-150).
    let needy = address!("0x00000000000000000000000000000000000000c1");
    net.ok::<Value>("anvil_setCode", json!([needy, "0x5a61c35011600a5700005b60006000fd"])).await;
    let forward = [
        "0x60006000600060006000",
        "7300000000000000000000000000000000000000c1",
        "5af160295760006000fd5b00",
    ];
    net.ok::<Value>("anvil_setCode", json!([CODE, forward.concat()])).await;
    let transfer = Usdc::transferCall { to: Address::repeat_byte(9), value: U256::ONE };
    for (to, data, value) in [
        (Address::repeat_byte(5), Bytes::new(), 1_u64),
        (TOKEN_ADDRESS, transfer.abi_encode().into(), 0),
        (needy, Bytes::new(), 0),
        (CODE, Bytes::new(), 0),
    ] {
        let request =
            json!({"from": from.address(), "to": to, "data": data, "value": U256::from(value)});
        let gas: U64 = net.ok("eth_estimateGas", json!([request])).await;
        let gas: u64 = gas.to();
        let mut less = request.clone();
        less["gas"] = json!(U64::from(gas.saturating_sub(1)));
        assert!(
            net.rpc("eth_call", json!([less])).await.is_err(),
            "{to}: less than {gas} suffices"
        );
        let tx = TxEip1559 {
            nonce: net.nonce(from.address()).await,
            gas_limit: gas,
            to: TxKind::Call(to),
            value: U256::from(value),
            input: data,
            ..tx_1559()
        };
        let hash = net.send_raw(from.sign_tx(tx)).await.unwrap();
        assert!(net.receipt(hash).await.status(), "{to}: {gas} gas were not enough");
    }
}

#[tokio::test]
async fn an_endless_loop_cannot_be_estimated() {
    let net = Net::instant().await;
    net.ok::<Value>("anvil_setCode", json!([CODE, "0x5b600056"])).await;
    let refusal = net.refused("eth_estimateGas", json!([{"to": CODE}])).await;
    assert_eq!(refusal.message, "gas required exceeds allowance (30000000)");
}
