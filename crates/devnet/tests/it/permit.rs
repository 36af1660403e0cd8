//! EIP-2612: allowances by signature.

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::sol;
use farebox_devnet::DevnetConfig;

use crate::support::{Key, Net, Usdc};

const SPENDER: Address = Address::repeat_byte(0x66);
const BAD: &str = "EIP2612: invalid signature";

sol! {
    struct Permit {
        address owner;
        address spender;
        uint256 value;
        uint256 nonce;
        uint256 deadline;
    }
}

fn permit(owner: Key, nonce: u64, deadline: U256) -> Permit {
    Permit {
        owner: owner.address(),
        spender: SPENDER,
        value: U256::from(500),
        nonce: U256::from(nonce),
        deadline,
    }
}

fn call(signer: Key, signed: &Permit) -> Usdc::permit_1Call {
    Usdc::permit_1Call {
        owner: signed.owner,
        spender: signed.spender,
        value: signed.value,
        deadline: signed.deadline,
        signature: Bytes::from(signer.sign_typed(signed).as_bytes()),
    }
}

async fn allowance(net: &Net, owner: Key) -> U256 {
    net.read(Usdc::allowanceCall { owner: owner.address(), spender: SPENDER }).await
}

#[tokio::test]
async fn a_permit_works_once_in_both_overloads() {
    let net = Net::instant().await;
    let owner = Key::dev(1);
    let first = permit(owner, 0, U256::MAX);
    let receipt = net.transact(Key::dev(0), call(owner, &first)).await;
    let [log] = receipt.inner.logs() else { panic!("{:?}", receipt.inner.logs()) };
    let event = log.log_decode::<Usdc::Approval>().unwrap().inner;
    assert_eq!((event.owner, event.spender, event.value), (owner.address(), SPENDER, first.value));
    assert_eq!(allowance(&net, owner).await, first.value);
    net.reverts(Key::dev(0), call(owner, &first), BAD).await;

    let second = Permit { value: U256::from(1), ..permit(owner, 1, U256::MAX) };
    let signature = owner.sign_typed(&second);
    let pieces = Usdc::permit_0Call {
        owner: second.owner,
        spender: second.spender,
        value: second.value,
        deadline: second.deadline,
        v: signature.v_byte(),
        r: signature.r().into(),
        s: signature.s().into(),
    };
    assert!(net.transact(Key::dev(0), pieces).await.status());
    assert_eq!(allowance(&net, owner).await, second.value);
    let nonces = Usdc::noncesCall { owner: owner.address() };
    assert_eq!(net.read(nonces).await, U256::from(2));
}

#[tokio::test]
async fn a_permit_of_someone_else_or_of_another_nonce_is_refused() {
    let net = Net::instant().await;
    let owner = Key::dev(1);
    net.reverts(Key::dev(0), call(Key::dev(2), &permit(owner, 0, U256::MAX)), BAD).await;
    net.reverts(Key::dev(0), call(owner, &permit(owner, 1, U256::MAX)), BAD).await;
    let signed = call(owner, &permit(owner, 0, U256::MAX));
    let more = Usdc::permit_1Call { value: U256::from(501), ..signed };
    net.reverts(Key::dev(0), more, BAD).await;
    assert_eq!(allowance(&net, owner).await, U256::ZERO);
}

#[tokio::test]
async fn a_permit_is_good_up_to_its_deadline() {
    let start = 1_700_000_000_u64;
    let net = Net::start(DevnetConfig { start_time: Some(start), ..DevnetConfig::default() }).await;
    let owner = Key::dev(1);
    let signed = call(owner, &permit(owner, 0, U256::from(start + 100)));
    for (at, good) in [(100, true), (101, false)] {
        let snapshot = net.devnet.snapshot();
        let exactly = serde_json::json!([start + at]);
        net.ok::<serde_json::Value>("evm_setNextBlockTimestamp", exactly).await;
        assert_eq!(net.transact(Key::dev(0), signed.clone()).await.status(), good, "at {at}");
        assert!(net.devnet.revert(snapshot));
    }
    net.ok::<serde_json::Value>("evm_setTime", serde_json::json!([start + 101])).await;
    net.reverts(Key::dev(0), signed, "FiatTokenV2: permit is expired").await;
}
