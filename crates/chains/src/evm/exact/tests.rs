//! Reading, and what events prove.

use alloy_primitives::{Bytes, keccak256};
use farebox_protocol::{Amount, Timestamp};

use super::*;
use crate::evm::abi::tests::check_selector;

fn read(payload: &Value) -> Result<Signed<'_>, BadPayload> {
    Exact.read(payload, Address::repeat_byte(1))
}

fn proof_of(logs: &[Log], payment: &EvmPayment) -> Proof {
    let call = ContractCall { to: Address::ZERO, input: Bytes::new() };
    Exact.proof(payment, Seen { call: &call, logs })
}

fn good() -> Value {
    json!({
        "signature": "0x1b",
        "authorization": {
            "from": "0x49991a0b71e820267ed33F7f2a1af983b6c80DCa",
            "to": "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc",
            "value": "1000",
            "validAfter": "0",
            "validBefore": "115792089237316195423570985008687907853269984665640564039457584007913129639935",
            "nonce": "0xa7e541bf8858d7c300b9329b672558af74852899fc7d9465412a09e98739ac71",
            "later": "fields are not ours to judge"
        }
    })
}

#[test]
fn the_type_hash_is_that_of_the_type() {
    let fields = "address from,address to,uint256 value,uint256 validAfter,\
                  uint256 validBefore,bytes32 nonce";
    let hash = keccak256(format!("TransferWithAuthorization({fields})"));
    assert_eq!(hash, AUTHORIZATION_TYPE_HASH);
    check_selector(
        "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
        TRANSFER_WITH_AUTHORIZATION,
    );
    check_selector("authorizationState(address,bytes32)", AUTHORIZATION_STATE);
    assert_eq!(keccak256("AuthorizationUsed(address,bytes32)"), AUTHORIZATION_USED);
    assert_eq!(keccak256("AuthorizationCanceled(address,bytes32)"), AUTHORIZATION_CANCELED);
}

#[test]
fn a_good_payload_is_read() {
    let payload = good();
    let read = read(&payload).unwrap();
    assert_eq!(read.authorization.value, Amount::from_units(1000));
    assert_eq!(read.authorization.limit, Limit::Before(U256::MAX));
    assert_eq!(read.authorization.ends(), Timestamp::from_seconds(u64::MAX));
    assert_eq!(read.signature, "0x1b");
}

#[track_caller]
fn check(key: &str, value: Value, field: &str) {
    let mut payload = good();
    payload["authorization"][key] = value.clone();
    let error = read(&payload).err().map(|it| it.field);
    assert_eq!(error, Some(field), "{key} = {value}");
}

#[test]
fn every_field_is_strict() {
    for value in [json!(1000), json!("01"), json!("-1"), json!("1e3"), json!(null)] {
        check("value", value.clone(), "payload.authorization.value");
        check("validAfter", value.clone(), "payload.authorization.validAfter");
        check("validBefore", value, "payload.authorization.validBefore");
    }
    check(
        "value",
        json!((U256::from(u128::MAX) + U256::from(1)).to_string()),
        "payload.authorization.value",
    );
    check("validBefore", json!("9".repeat(78)), "payload.authorization.validBefore");
    for value in [json!("0x12"), json!(7), json!("0x49991A0b71e820267ed33F7f2a1af983b6c80DCa")] {
        check("from", value.clone(), "payload.authorization.from");
        check("to", value, "payload.authorization.to");
    }
    for value in [json!("0x12"), json!("a7".repeat(32)), json!(format!("0x{}", "a7".repeat(33)))] {
        check("nonce", value, "payload.authorization.nonce");
    }
    let mut payload = good();
    payload["signature"] = json!(["0x"]);
    assert_eq!(read(&payload).unwrap_err().field, "payload.signature");
    for other in [json!(null), json!([]), json!({"authorization": []})] {
        assert_eq!(read(&other).unwrap_err().field, "payload.authorization");
    }
}

#[test]
fn a20_only_the_token_s_own_events_prove_a_payment() {
    let payment = crate::evm::check::tests::payment();
    let it = &payment.authorization;
    let log = |topics: Vec<B256>, data: &[u8]| Log {
        address: payment.authorization.token,
        topics,
        data: Bytes::copy_from_slice(data),
        transaction_hash: B256::ZERO,
        index: U256::ZERO,
        removed: false,
    };
    let in_order = |logs: &[&Log]| -> Vec<Log> {
        let numbered = (7_u64..).zip(logs);
        numbered.map(|(at, log)| Log { index: U256::from(at), ..(*log).clone() }).collect()
    };
    let value = |units: u64| B256::from(U256::from(units));
    let (from, to) = (it.payer.into_word(), it.pay_to.into_word());
    let moved = log(vec![abi::TRANSFER, from, to], value(1000).as_slice());
    let used = log(vec![AUTHORIZATION_USED, from, it.nonce], &[]);
    let other = log(vec![AUTHORIZATION_USED, from, value(1)], &[]);
    let nothing = log(vec![abi::TRANSFER, from, from], value(0).as_slice());
    let foreign = |log: &Log| Log { address: Address::repeat_byte(9), ..log.clone() };
    let removed = |log: &Log| Log { removed: true, ..log.clone() };
    for (logs, expected) in [
        (vec![&used, &moved], Proof::Paid),
        (vec![&other, &moved, &used, &moved, &other], Proof::Paid),
        (vec![], Proof::Unrelated),
        (vec![&moved], Proof::Unrelated),
        (vec![&used], Proof::Spent),
        (vec![&used, &foreign(&moved)], Proof::Spent),
        (vec![&foreign(&used), &moved], Proof::Unrelated),
        (vec![&used, &removed(&moved)], Proof::Spent),
        (vec![&used, &log(vec![abi::TRANSFER, from, to], value(999).as_slice())], Proof::Spent),
        (vec![&used, &log(vec![abi::TRANSFER, to, from], value(1000).as_slice())], Proof::Spent),
        (vec![&used, &log(vec![abi::TRANSFER, from, to], &[0; 31])], Proof::Spent),
        (vec![&other, &moved], Proof::Unrelated),
        (vec![&log(vec![AUTHORIZATION_USED, to, it.nonce], &[]), &moved], Proof::Unrelated),
        (vec![&log(vec![AUTHORIZATION_CANCELED, from, it.nonce], &[]), &moved], Proof::Spent),
        // The transfer belongs to another authorisation.
        (vec![&other, &moved, &used, &nothing], Proof::Spent),
        (vec![&used, &nothing, &other, &moved], Proof::Spent),
        // No EIP-3009 token that we know does so; money may have moved.
        (vec![&moved, &used], Proof::Unclear),
        (vec![&used, &other, &moved], Proof::Unclear),
        (vec![&used, &foreign(&other), &moved], Proof::Unclear),
    ] {
        let logs = in_order(&logs);
        assert_eq!(proof_of(&logs, &payment), expected, "{logs:?}");
    }
    let last = Log { index: U256::MAX, ..used };
    assert_eq!(proof_of(&[last, moved], &payment), Proof::Unclear);
}

#[test]
fn a07_one_transfer_proves_one_payment() {
    let first = crate::evm::check::tests::payment();
    let mut second = first.clone();
    second.authorization.nonce = B256::repeat_byte(2);
    let it = &first.authorization;
    let (from, to) = (it.payer.into_word(), it.pay_to.into_word());
    let value = B256::from(U256::from(it.value.units()));
    let events = [
        (vec![AUTHORIZATION_USED, from, it.nonce], B256::ZERO),
        (vec![abi::TRANSFER, from, to], value),
        (vec![AUTHORIZATION_USED, from, second.authorization.nonce], B256::ZERO),
        (vec![abi::TRANSFER, from, from], B256::ZERO),
    ];
    let logs: Vec<Log> = (0_u64..)
        .zip(events)
        .map(|(at, (topics, data))| Log {
            address: first.authorization.token,
            topics,
            data: Bytes::copy_from_slice(data.as_slice()),
            transaction_hash: B256::ZERO,
            index: U256::from(at),
            removed: false,
        })
        .collect();
    assert_eq!(proof_of(&logs, &first), Proof::Paid);
    assert_eq!(proof_of(&logs, &second), Proof::Spent);
}
