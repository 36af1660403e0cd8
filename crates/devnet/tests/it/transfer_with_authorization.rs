//! EIP-3009: authorisations that official clients really signed, and every way to misuse one.

use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, address, b256};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain, sol};
use farebox_devnet::{DevnetConfig, TOKEN_ADDRESS, test_wallet_creation};
use serde::Deserialize;

use crate::support::{CHAIN_ID, Key, Net, Usdc, domain, tx_1559};

const TO: Address = Address::repeat_byte(0x77);
const USED: &str = "FiatTokenV2: authorization is used or canceled";
const BAD: &str = "FiatTokenV2: invalid signature";

sol! {
    #[derive(Debug)]
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }

    struct ReceiveWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }

    struct CancelAuthorization {
        address authorizer;
        bytes32 nonce;
    }
}

/// One row of `tests/vectors/eip3009.json`: signed by an official client for this chain and token.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    recording: String,
    from: Address,
    to: Address,
    value: U256,
    valid_after: U256,
    valid_before: U256,
    nonce: B256,
    signature: Bytes,
}

impl Recorded {
    fn authorization(&self) -> TransferWithAuthorization {
        TransferWithAuthorization {
            from: self.from,
            to: self.to,
            value: self.value,
            validAfter: self.valid_after,
            validBefore: self.valid_before,
            nonce: self.nonce,
        }
    }
}

fn recorded() -> Vec<Recorded> {
    serde_json::from_str(include_str!("../vectors/eip3009.json")).unwrap()
}

/// The overload with the signature in one piece.
pub(crate) fn whole(
    message: &TransferWithAuthorization,
    signature: impl Into<Bytes>,
) -> Usdc::transferWithAuthorization_1Call {
    Usdc::transferWithAuthorization_1Call {
        from: message.from,
        to: message.to,
        value: message.value,
        validAfter: message.validAfter,
        validBefore: message.validBefore,
        nonce: message.nonce,
        signature: signature.into(),
    }
}

/// The overload with the signature in three pieces.
fn pieces(
    message: &TransferWithAuthorization,
    signature: Signature,
) -> Usdc::transferWithAuthorization_0Call {
    Usdc::transferWithAuthorization_0Call {
        from: message.from,
        to: message.to,
        value: message.value,
        validAfter: message.validAfter,
        validBefore: message.validBefore,
        nonce: message.nonce,
        v: signature.v_byte(),
        r: signature.r().into(),
        s: signature.s().into(),
    }
}

/// An authorisation by `payer` that is valid now and for long.
pub(crate) fn message(payer: Key, nonce: u64) -> TransferWithAuthorization {
    TransferWithAuthorization {
        from: payer.address(),
        to: TO,
        value: U256::from(1_000),
        validAfter: U256::ZERO,
        validBefore: U256::from(u64::MAX),
        nonce: B256::from(U256::from(nonce)),
    }
}

fn bytes_of(signature: Signature) -> Bytes {
    signature.as_bytes().into()
}

#[tokio::test]
async fn recorded_payments_of_official_clients_settle() {
    for row in recorded() {
        let start: u64 = (row.valid_before - U256::from(100)).to();
        let config = DevnetConfig { start_time: Some(start), ..DevnetConfig::default() };
        let net = Net::start(config).await;
        net.devnet.set_token_balance(row.from, row.value.to());
        let before = net.usdc(row.to).await;
        let receipt =
            net.transact(Key::dev(0), whole(&row.authorization(), row.signature.clone())).await;

        assert!(receipt.status(), "{}", row.recording);
        let [used, moved] = receipt.inner.logs() else { panic!("{:?}", receipt.inner.logs()) };
        let used = used.log_decode::<Usdc::AuthorizationUsed>().unwrap().inner;
        let moved = moved.log_decode::<Usdc::Transfer>().unwrap().inner;
        assert_eq!((used.authorizer, used.nonce), (row.from, row.nonce));
        assert_eq!((moved.from, moved.to, moved.value), (row.from, row.to, row.value));
        assert_eq!(
            (net.usdc(row.from).await, net.usdc(row.to).await),
            (U256::ZERO, before + row.value)
        );
        net.reverts(Key::dev(0), whole(&row.authorization(), row.signature), USED).await;
        net.devnet.shutdown().await;
    }
}

#[tokio::test]
async fn a15_no_signed_field_can_be_changed() {
    let row = &recorded()[0];
    let start: u64 = (row.valid_before - U256::from(100)).to();
    let net = Net::start(DevnetConfig { start_time: Some(start), ..DevnetConfig::default() }).await;
    net.devnet.set_token_balance(row.from, 1_000_000);
    net.devnet.set_token_balance(TO, 1_000_000);
    let good = || row.authorization();
    for changed in [
        TransferWithAuthorization { from: TO, ..good() },
        TransferWithAuthorization { to: TO, ..good() },
        TransferWithAuthorization { value: row.value + U256::ONE, ..good() },
        TransferWithAuthorization { validAfter: row.valid_after + U256::ONE, ..good() },
        TransferWithAuthorization { validBefore: row.valid_before + U256::ONE, ..good() },
        TransferWithAuthorization { nonce: B256::repeat_byte(1), ..good() },
    ] {
        net.reverts(Key::dev(0), whole(&changed, row.signature.clone()), BAD).await;
    }
    let receive = Usdc::receiveWithAuthorization_1Call {
        from: row.from,
        to: Key::dev(2).address(),
        value: row.value,
        validAfter: row.valid_after,
        validBefore: row.valid_before,
        nonce: row.nonce,
        signature: row.signature.clone(),
    };
    assert_eq!(row.to, Key::dev(2).address());
    net.reverts(Key::dev(2), receive, BAD).await;
}

#[tokio::test]
async fn a28_a_signature_for_another_domain_is_refused() {
    let net = Net::instant().await;
    let payer = Key::dev(1);
    let other_name = eip712_domain! {
        name: "USD Coin", version: "2", chain_id: CHAIN_ID, verifying_contract: TOKEN_ADDRESS,
    };
    let other_version = eip712_domain! {
        name: "USDC", version: "1", chain_id: CHAIN_ID, verifying_contract: TOKEN_ADDRESS,
    };
    let other_chain = eip712_domain! {
        name: "USDC", version: "2", chain_id: 8_453, verifying_contract: TOKEN_ADDRESS,
    };
    let other_contract = eip712_domain! {
        name: "USDC", version: "2", chain_id: CHAIN_ID,
        verifying_contract: address!("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"),
    };
    let in_domain = |domain: &Eip712Domain| {
        let message = message(payer, 1);
        let signature = payer.sign(message.eip712_signing_hash(domain));
        whole(&message, bytes_of(signature))
    };
    for domain in [other_name, other_version, other_chain, other_contract] {
        net.reverts(Key::dev(0), in_domain(&domain), BAD).await;
    }
    assert!(net.transact(Key::dev(0), in_domain(&domain())).await.status());
}

#[tokio::test]
async fn a11_malleable_and_malformed_signatures_are_refused() {
    let net = Net::instant().await;
    let payer = Key::dev(1);
    let message = message(payer, 1);
    let good = payer.sign_typed(&message);
    let order = U256::from_be_bytes(secp256k1::constants::CURVE_ORDER);
    let twin = Signature::new(good.r(), order - good.s(), !good.v());
    let bytes = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.as_bytes().to_vec();
        change(&mut bytes);
        Bytes::from(bytes)
    };
    let length = "ECRecover: invalid signature length";
    let v = "ECRecover: invalid signature 'v' value";
    let cases = [
        (bytes_of(twin), "ECRecover: invalid signature 's' value"),
        (bytes(|bytes| bytes[64] -= 27), v),
        (bytes(|bytes| bytes[64] = 29), v),
        (bytes(|bytes| bytes[64] ^= 7), BAD), // 27 and 28 change places
        (bytes(|bytes| bytes.truncate(64)), length),
        (bytes(|bytes| bytes.push(0)), length),
        (Bytes::from(good.as_erc2098().to_vec()), length),
        (Bytes::new(), length),
        (bytes(|bytes| bytes[..64].fill(0)), "ECRecover: invalid signature"),
        (bytes(|bytes| bytes[..32].fill(0xff)), "ECRecover: invalid signature"),
    ];
    for (signature, reason) in cases {
        net.reverts(Key::dev(0), whole(&message, signature), reason).await;
    }
    net.reverts(Key::dev(0), pieces(&message, twin), "ECRecover: invalid signature 's' value")
        .await;
    let before = net.usdc(TO).await;
    assert!(net.transact(Key::dev(0), pieces(&message, good)).await.status());
    assert_eq!(net.usdc(TO).await, before + message.value);
}

#[tokio::test]
async fn a_nonce_is_good_once_whatever_the_overload() {
    let net = Net::instant().await;
    let payer = Key::dev(1);
    let first = message(payer, 1);
    let signature = payer.sign_typed(&first);
    let state = || Usdc::authorizationStateCall { authorizer: payer.address(), nonce: first.nonce };
    assert!(!net.read(state()).await);
    assert!(net.transact(Key::dev(0), pieces(&first, signature)).await.status());
    assert!(net.read(state()).await);
    net.reverts(Key::dev(0), whole(&first, bytes_of(signature)), USED).await;
    // Another payment under the same nonce, another payer under it.
    let again = TransferWithAuthorization { value: U256::from(5), ..message(payer, 1) };
    net.reverts(Key::dev(0), whole(&again, bytes_of(payer.sign_typed(&again))), USED).await;
    let other = Key::dev(2);
    let theirs = message(other, 1);
    let theirs = whole(&theirs, bytes_of(other.sign_typed(&theirs)));
    assert!(net.transact(Key::dev(0), theirs).await.status());
}

#[tokio::test]
async fn an_authorization_is_valid_strictly_between_its_times() {
    let start = 1_700_000_000_u64;
    let config = DevnetConfig { start_time: Some(start), ..DevnetConfig::default() };
    let net = Net::start(config).await;
    let payer = Key::dev(1);
    let early = "FiatTokenV2: authorization is not yet valid";
    let late = "FiatTokenV2: authorization is expired";
    // (offset of validAfter, offset of validBefore, offset of the block, revert)
    let cases = [
        (100, 200, 100, Some(early)),
        (100, 200, 101, None),
        (100, 200, 199, None),
        (100, 200, 200, Some(late)),
        (100, 200, 201, Some(late)),
    ];
    for (index, (after, before, at, refused)) in (1_u64..).zip(cases) {
        let message = TransferWithAuthorization {
            validAfter: U256::from(start + after),
            validBefore: U256::from(start + before),
            ..message(payer, index)
        };
        let call = whole(&message, bytes_of(payer.sign_typed(&message)));
        // Another chain for each: time cannot be turned back.
        let snapshot = net.devnet.snapshot();
        let exactly = serde_json::json!([start + at]);
        net.ok::<serde_json::Value>("evm_setNextBlockTimestamp", exactly).await;
        match (net.call(Key::dev(0), call.clone()).await, refused) {
            (Ok(_), None) => {}
            (Err(refusal), Some(reason)) => {
                assert_eq!(refusal.message, format!("execution reverted: {reason}"));
            }
            (outcome, _) => panic!("at {at}: {:?}", outcome.map(|_| ())),
        }
        let receipt = net.transact(Key::dev(0), call).await;
        assert_eq!(receipt.status(), refused.is_none(), "at {at}");
        assert_eq!(net.head_time().await, start + at);
        assert!(net.devnet.revert(snapshot));
    }
}

#[tokio::test]
async fn a20_a_payer_without_funds_moves_nothing_and_keeps_the_nonce() {
    let net = Net::instant().await;
    let payer = Key::fresh(9);
    let message = message(payer, 1);
    let call = whole(&message, bytes_of(payer.sign_typed(&message)));
    net.reverts(Key::dev(0), call.clone(), "ERC20: transfer amount exceeds balance").await;
    net.devnet.set_token_balance(payer.address(), 1_000);
    assert!(net.transact(Key::dev(0), call).await.status());
}

#[tokio::test]
async fn only_the_payee_receives() {
    let net = Net::instant().await;
    let (payer, payee) = (Key::dev(1), Key::dev(2));
    let signed = ReceiveWithAuthorization {
        from: payer.address(),
        to: payee.address(),
        value: U256::from(7),
        validAfter: U256::ZERO,
        validBefore: U256::MAX,
        nonce: B256::repeat_byte(3),
    };
    let signature = payer.sign_typed(&signed);
    let call = Usdc::receiveWithAuthorization_0Call {
        from: signed.from,
        to: signed.to,
        value: signed.value,
        validAfter: signed.validAfter,
        validBefore: signed.validBefore,
        nonce: signed.nonce,
        v: signature.v_byte(),
        r: signature.r().into(),
        s: signature.s().into(),
    };
    net.reverts(Key::dev(0), call.clone(), "FiatTokenV2: caller must be the payee").await;
    let before = net.usdc(payee.address()).await;
    assert!(net.transact(payee, call).await.status());
    assert_eq!(net.usdc(payee.address()).await, before + signed.value);
}

#[tokio::test]
async fn a_cancelled_authorization_is_dead() {
    let net = Net::instant().await;
    let payer = Key::dev(1);
    for (index, nonce) in [1_u64, 2].into_iter().enumerate() {
        let message = message(payer, nonce);
        let cancel = CancelAuthorization { authorizer: payer.address(), nonce: message.nonce };
        let foreign = bytes_of(Key::dev(2).sign_typed(&cancel));
        let (authorizer, nonce) = (payer.address(), message.nonce);
        let signature = payer.sign_typed(&cancel);
        let by = |signature| Usdc::cancelAuthorization_1Call { authorizer, nonce, signature };
        net.reverts(Key::dev(0), by(foreign), BAD).await;
        let receipt = if index == 0 {
            net.transact(Key::dev(0), by(bytes_of(signature))).await
        } else {
            let (v, r, s) = (signature.v_byte(), signature.r().into(), signature.s().into());
            let call = Usdc::cancelAuthorization_0Call { authorizer, nonce, v, r, s };
            net.transact(Key::dev(0), call).await
        };
        let [log] = receipt.inner.logs() else { panic!("{:?}", receipt.inner.logs()) };
        let event = log.log_decode::<Usdc::AuthorizationCanceled>().unwrap().inner;
        assert_eq!((event.authorizer, event.nonce), (authorizer, nonce));
        net.reverts(Key::dev(0), by(bytes_of(signature)), USED).await;
        let transfer = whole(&message, bytes_of(payer.sign_typed(&message)));
        net.reverts(Key::dev(0), transfer, USED).await;
    }
}

/// Deploys an ERC-1271 wallet that signs with `owner`'s key, with 1,000 units in it.
async fn wallet(net: &Net, owner: Key) -> Address {
    let tx = alloy_consensus::TxEip1559 {
        gas_limit: 2_000_000,
        to: TxKind::Create,
        input: test_wallet_creation(owner.address()).unwrap(),
        ..tx_1559()
    };
    let hash = net.send_raw(Key::dev(3).sign_tx(tx)).await.unwrap();
    let receipt = net.receipt(hash).await;
    assert!(receipt.status());
    let wallet = receipt.contract_address.unwrap();
    net.devnet.set_token_balance(wallet, 1_000);
    wallet
}

#[tokio::test]
async fn a_contract_pays_with_the_signature_of_its_owner() {
    let net = Net::instant().await;
    let owner = Key::fresh(4);
    let wallet = wallet(&net, owner).await;
    let message = TransferWithAuthorization { from: wallet, ..message(owner, 1) };
    let foreign = Key::fresh(5).sign_typed(&message);
    net.reverts(Key::dev(0), whole(&message, bytes_of(foreign)), BAD).await;
    net.reverts(Key::dev(0), pieces(&message, foreign), BAD).await;
    net.reverts(Key::dev(0), whole(&message, Bytes::new()), BAD).await;
    let good = owner.sign_typed(&message);
    assert!(net.transact(Key::dev(0), whole(&message, bytes_of(good))).await.status());
    assert_eq!((net.usdc(wallet).await, net.usdc(TO).await), (U256::ZERO, U256::from(1_000)));
}

#[tokio::test]
async fn a10_a_contract_that_answers_nonsense_has_not_signed() {
    let net = Net::instant().await;
    let payer = Address::repeat_byte(0x1c);
    net.devnet.set_token_balance(payer, 1_000);
    let message = TransferWithAuthorization { from: payer, ..message(Key::dev(1), 1) };
    // Code that returns: nothing; true; 4 bytes of the magic value; the magic value on the wrong side;
    // that reverts.
    for code in [
        "0x00",
        "0x600160005260206000f3",
        "0x631626ba7e60e01b60005260046000f3",
        "0x631626ba7e60005260206000f3",
        "0x60006000fd",
    ] {
        net.ok::<serde_json::Value>("anvil_setCode", serde_json::json!([payer, code])).await;
        net.reverts(Key::dev(0), whole(&message, vec![0; 65]), BAD).await;
    }
    let yes = "0x631626ba7e60e01b60005260206000f3";
    net.ok::<serde_json::Value>("anvil_setCode", serde_json::json!([payer, yes])).await;
    assert!(net.transact(Key::dev(0), whole(&message, vec![0; 65])).await.status());
}

#[test]
fn the_recorded_nonces_differ() {
    let rows = recorded();
    let nonces: std::collections::HashSet<B256> = rows.iter().map(|row| row.nonce).collect();
    assert_eq!((rows.len(), nonces.len()), (13, 13));
    assert!(
        !nonces
            .contains(&b256!("0x0000000000000000000000000000000000000000000000000000000000000000"))
    );
}
