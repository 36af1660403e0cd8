//! Payers without an allowance and without gas: permits and approvals that we carry out for them.

use std::time::Duration;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Signature, TxKind, U256};
use farebox_chains::{
    ApprovalGrants, EvmKey, Facilitator, GasSponsoring, LocalFacilitator, NetworkConfig,
    PermitSponsoring, SettleError, Verification, sign_eip2612_permit,
};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use farebox_protocol::wire::{PaymentRequirements, SettleRequest};
use farebox_protocol::{Reason, Timestamp};
use serde_json::{Value, json};

use crate::support::{
    PAY_TO, PERMIT2, TOKEN, World, altered, at_amount, demand_by_permit2, facilitator, key,
    network_config, now, pay_by_permit2,
};

/// Payers who have money of the token and nothing else.
fn penniless() -> EvmKey {
    key([0x77; 32])
}

pub(crate) fn demands() -> [PaymentRequirements; 2] {
    [demand_by_permit2(1_000, None), demand_by_permit2(1_000, Some(&facilitator()))]
}

/// A world with a penniless payer.
pub(crate) async fn world(sponsoring: GasSponsoring) -> World {
    let signer = vec![key(DEV_ACCOUNTS[0].private_key.0)];
    let change = |config| NetworkConfig { sponsoring, ..config };
    let world = World::with(Mining::Instant, signer, change).await;
    let payer = penniless().address().to_lower_hex();
    let payer = payer.trim_start_matches("0x");
    let data = format!("0xa9059cbb{payer:0>64}{:064x}", 10_000);
    world.send(9, TOKEN, &data).await;
    world
}

fn with_extension(request: &SettleRequest, name: &str, info: &Value) -> SettleRequest {
    altered(request, |it| {
        it["paymentPayload"]["extensions"] = json!({name: {"info": info}});
    })
}

/// A payment with a permit, which is the payer's first or a later one.
pub(crate) fn with_permit(demand: &PaymentRequirements, number: u64, nonce: u64) -> SettleRequest {
    let payment = pay_by_permit2(&penniless(), demand, number);
    let deadline = now().plus(Duration::from_mins(5));
    let permit = sign_eip2612_permit(&penniless(), demand, nonce, deadline).unwrap();
    with_extension(&payment, "eip2612GasSponsoring", &permit)
}

/// A payment with a signed approval that offers so much for its gas.
fn with_approval(demand: &PaymentRequirements, number: u64, gas_price: u128) -> SettleRequest {
    let payment = pay_by_permit2(&penniless(), demand, number);
    let spender = PERMIT2.trim_start_matches("0x").to_lowercase();
    let input = hex::decode(format!("095ea7b3{spender:0>64}{}", "f".repeat(64))).unwrap();
    let transaction = TxEip1559 {
        chain_id: 84_532,
        nonce: 0,
        gas_limit: 70_000,
        max_fee_per_gas: gas_price,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(TOKEN.parse::<Address>().unwrap()),
        value: U256::ZERO,
        access_list: alloy_eips::eip2930::AccessList::default(),
        input: input.into(),
    };
    let signature = penniless().sign_digest(&transaction.signature_hash().0);
    let signature = Signature::new(
        U256::from_be_slice(&signature[..32]),
        U256::from_be_slice(&signature[32..64]),
        signature[64] == 28,
    );
    let raw = transaction.into_signed(signature).encoded_2718();
    let info = json!({
        "from": penniless().address().to_string(),
        "asset": TOKEN,
        "spender": PERMIT2,
        "amount": U256::MAX.to_string(),
        "signedTransaction": format!("0x{}", hex::encode(raw)),
        "version": "1",
    });
    with_extension(&payment, "erc20ApprovalGasSponsoring", &info)
}

#[track_caller]
fn invalid(verification: &Verification, expected: &Reason) {
    let Verification::Invalid { reason, message, .. } = verification else {
        panic!("{verification:?}")
    };
    assert_eq!(reason, expected, "{message}");
}

#[track_caller]
fn valid(verification: &Verification) {
    assert!(matches!(verification, Verification::Valid { .. }), "{verification:?}");
}

#[tokio::test]
async fn a_permit_is_submitted_with_its_payment() {
    let world = world(GasSponsoring::default()).await;
    for (number, demand) in (0..).zip(demands()) {
        let request = with_permit(&demand, number, number);
        valid(&world.facilitator.verify(&request, now()).await.unwrap());
        world.facilitator.settle(&request, now()).await.unwrap();
    }
    assert_eq!(world.balance(PAY_TO).await, 2_000);
    // In part, too; what is left of the allowance serves the next one.
    let [_, upto] = demands();
    let part = at_amount(&with_permit(&upto, 2, 2), 400);
    world.facilitator.settle(&part, now()).await.unwrap();
    let next = at_amount(&pay_by_permit2(&penniless(), &upto, 3), 600);
    world.facilitator.settle(&next, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 3_000);
    assert_eq!(world.transactions_of(&facilitator()).await, 4);
    world.end().await;
}

#[tokio::test]
async fn a07_a_permit_that_somebody_else_submitted_first_does_no_harm() {
    let world = world(GasSponsoring::default()).await;
    let [exact, _] = demands();
    let request = with_permit(&exact, 1, 0);
    let info = request.payment_payload.value().extensions.as_ref().unwrap();
    let info = &info["eip2612GasSponsoring"]["info"];
    let text = |key: &str| info[key].as_str().unwrap();
    let address = |text: &str| format!("{:0>64}", text.trim_start_matches("0x").to_lowercase());
    let number = |key: &str| format!("{:064x}", text(key).parse::<u128>().unwrap());
    let (rs, v) = text("signature").trim_start_matches("0x").split_at(128);
    let words = [
        address(text("from")),
        address(text("spender")),
        number("amount"),
        number("deadline"),
        format!("{v:0>64}"),
        rs.to_owned(),
    ];
    world.send(5, TOKEN, &format!("0xd505accf{}", words.concat())).await;
    valid(&world.facilitator.verify(&request, now()).await.unwrap());
    world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}

#[tokio::test]
async fn a_permit_that_the_token_does_not_take_leaves_the_allowance_missing() {
    let world = world(GasSponsoring::default()).await;
    let [exact, _] = demands();
    let stale = with_permit(&exact, 1, 5);
    let verification = world.facilitator.verify(&stale, now()).await.unwrap();
    invalid(&verification, &Reason::Permit2AllowanceRequired);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

#[tokio::test]
async fn what_is_not_sponsored_is_not_looked_at() {
    let off = GasSponsoring { permits: PermitSponsoring::Ignored, approvals: None };
    let world = world(off).await;
    let [exact, _] = demands();
    for request in [with_permit(&exact, 1, 0), with_approval(&exact, 2, 3_000_000_000)] {
        let verification = world.facilitator.verify(&request, now()).await.unwrap();
        invalid(&verification, &Reason::Permit2AllowanceRequired);
    }
    let supported = serde_json::to_value(world.facilitator.supported().await.unwrap()).unwrap();
    assert_eq!(supported["extensions"], json!([]));
    world.end().await;
}

fn gifts(wei: u128) -> GasSponsoring {
    let approvals = Some(ApprovalGrants::of_payer(wei));
    GasSponsoring { permits: PermitSponsoring::Submitted, approvals }
}

/// What an approval costs at three gwei.
const APPROVAL_WEI: u128 = 70_000 * 3_000_000_000;

#[tokio::test]
async fn an_approval_is_paid_for_and_sent_before_its_payment() {
    let world = world(gifts(APPROVAL_WEI)).await;
    let supported = serde_json::to_value(world.facilitator.supported().await.unwrap()).unwrap();
    let both = json!(["eip2612GasSponsoring", "erc20ApprovalGasSponsoring"]);
    assert_eq!(supported["extensions"], both);
    let [exact, upto] = demands();
    let request = with_approval(&exact, 1, 3_000_000_000);
    valid(&world.facilitator.verify(&request, now()).await.unwrap());
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    // The same approval comes with another payment at the same time.
    let other = at_amount(&with_approval(&upto, 2, 3_000_000_000), 500);
    let settles =
        [world.facilitator.settle(&request, now()), world.facilitator.settle(&other, now())];
    for result in futures_util::future::join_all(settles).await {
        result.unwrap();
    }
    assert_eq!(world.balance(PAY_TO).await, 1_500);
    // Gas money once, and two payments.
    assert_eq!(world.transactions_of(&facilitator()).await, 3);
    let payer = penniless().address().to_string();
    assert_eq!(world.transactions_of(&payer).await, 1);
    world.end().await;
}

/// Refused at verification; what was taken all the same waits.
async fn refused_now(facilitator: &LocalFacilitator, request: &SettleRequest, reason: &Reason) {
    invalid(&facilitator.verify(request, now()).await.unwrap(), reason);
    let result = facilitator.settle(request, now()).await;
    let Err(SettleError::NotServed { reason: found, .. }) = result else { panic!("{result:?}") };
    assert_eq!(found, *reason);
}

#[tokio::test]
async fn what_an_approval_may_cost_is_capped() {
    let world = world(gifts(APPROVAL_WEI)).await;
    let [exact, _] = demands();
    let dear = with_approval(&exact, 1, 3_000_000_001);
    refused_now(&world.facilitator, &dear, &Reason::Permit2AllowanceRequired).await;
    let cheap = with_approval(&exact, 2, 2);
    refused_now(&world.facilitator, &cheap, &Reason::Erc20ApprovalTxFailed).await;
    // However much may be given, no more is paid for gas than it costs.
    let with = |approvals| {
        let sponsoring = GasSponsoring { approvals: Some(approvals), ..GasSponsoring::default() };
        world.with_config(NetworkConfig { sponsoring, ..network_config(&[world.devnet.url()]) })
    };
    let generous = with(ApprovalGrants::of_payer(1_000_000 * APPROVAL_WEI));
    let dearest = with_approval(&exact, 3, 50_000_000_000_000);
    refused_now(&generous, &dearest, &Reason::Erc20ApprovalTxFailed).await;
    // All together are given no more than this, however little each has had.
    let caps = ApprovalGrants { payer_max_wei: APPROVAL_WEI, day_max_wei: APPROVAL_WEI - 1 };
    let usual = with_approval(&exact, 4, 3_000_000_000);
    refused_now(&with(caps), &usual, &Reason::Permit2AllowanceRequired).await;
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    // Nothing of this is for ever.
    world.facilitator.settle(&usual, now()).await.unwrap();
    world.end().await;
}

/// An approval is not paid for once its payment has expired.
#[tokio::test]
async fn what_has_expired_is_given_no_gas_money() {
    let world = world(gifts(APPROVAL_WEI)).await;
    let [exact, _] = demands();
    let request = with_approval(&exact, 1, 3_000_000_000);
    world.rpc("evm_increaseTime", json!([600])).await;
    world.rpc("evm_mine", json!([])).await;
    let result = world.facilitator.settle(&request, now()).await;
    let Err(SettleError::Rejected { reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!(reason, Reason::Permit2DeadlineExpired);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

async fn collectable(world: &World, request: &SettleRequest) -> u128 {
    let verification = world.facilitator.verify(request, now()).await.unwrap();
    let Verification::Valid { collectable: Some(collectable), .. } = verification else {
        panic!("{verification:?}")
    };
    collectable.units()
}

/// Payments that lean on one permit are each good, and not together.
#[tokio::test]
async fn a05_an_allowance_bounds_what_may_be_open_as_a_balance_does() {
    let world = world(gifts(APPROVAL_WEI)).await;
    let [exact, _] = demands();
    let both = [with_permit(&exact, 1, 0), with_permit(&exact, 2, 0)];
    for it in &both {
        assert_eq!(collectable(&world, it).await, 1_000);
    }
    let mut settled = 0;
    for it in &both {
        settled += u128::from(world.facilitator.settle(it, now()).await.is_ok());
    }
    assert_eq!(settled, 1);
    // An approval without end leaves the balance as the bound, before it is sent and after.
    let approved = with_approval(&exact, 3, 3_000_000_000);
    assert_eq!(collectable(&world, &approved).await, 9_000);
    world.facilitator.settle(&approved, now()).await.unwrap();
    let plain = pay_by_permit2(&penniless(), &exact, 4);
    assert_eq!(collectable(&world, &plain).await, 8_000);
    // A permit that comes along in vain changes nothing.
    assert_eq!(collectable(&world, &with_permit(&exact, 5, 9)).await, 8_000);
    world.end().await;
}

#[tokio::test]
async fn a08_a_permit_must_last_as_long_as_its_payment() {
    let world = world(GasSponsoring::default()).await;
    for demand in demands() {
        let payment = pay_by_permit2(&penniless(), &demand, 1);
        let signed = &payment.payment_payload.value().payload["permit2Authorization"]["deadline"];
        let signed: u64 = signed.as_str().unwrap().parse().unwrap();
        for (deadline, lasts) in [
            (now().plus(Duration::from_secs(8)), false),
            (Timestamp::from_seconds(signed - 1), false),
            // Official clients sign both until the same second.
            (Timestamp::from_seconds(signed), true),
        ] {
            let permit = sign_eip2612_permit(&penniless(), &demand, 0, deadline).unwrap();
            let request = with_extension(&payment, "eip2612GasSponsoring", &permit);
            let verification = world.facilitator.verify(&request, now()).await.unwrap();
            if lasts {
                valid(&verification);
            } else {
                invalid(&verification, &Reason::Eip2612DeadlineExpired);
            }
        }
    }
    world.end().await;
}
