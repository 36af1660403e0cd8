//! Payments by Permit2 on the dev chain: `exact`, and `upto` at what was used.

use std::time::Duration;

use farebox_chains::{
    Facilitator, Lookup, SettleError, Verification, settlement_response, verify_response,
};
use farebox_devnet::Mining;
use farebox_protocol::wire::SettleRequest;
use farebox_protocol::{Amount, Reason};
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    PAY_TO, World, at_amount, demand_by_permit2, facilitator, now, pay_by_permit2, payer,
};

/// An `upto` payment of at most so much to the facilitator of the world.
fn upto(ceiling: u128, number: u64) -> SettleRequest {
    pay_by_permit2(&payer(), &demand_by_permit2(ceiling, Some(&facilitator())), number)
}

#[track_caller]
fn rejected(result: Result<farebox_chains::Settlement, SettleError>, expected: &Reason) {
    let Err(SettleError::Rejected { reason, message }) = result else { panic!("{result:?}") };
    assert_eq!(reason, *expected, "{message}");
}

#[track_caller]
fn invalid(verification: &Verification, expected: &Reason) {
    let Verification::Invalid { reason, message, .. } = verification else {
        panic!("{verification:?}")
    };
    assert_eq!(reason, expected, "{message}");
}

async fn world() -> World {
    let world = World::start(Mining::Instant, 1).await;
    world.approve_permit2().await;
    world
}

#[tokio::test]
async fn upto_is_verified_at_the_ceiling_and_settled_at_what_was_used() {
    let world = world().await;
    let request = upto(5_000, 1);
    let verification = world.facilitator.verify(&request, now()).await.unwrap();
    assert!(verify_response(&verification).is_valid, "{verification:?}");
    let before = world.balance(&payer().address().to_string()).await;
    let used = at_amount(&request, 1_234);
    let settlement = world.facilitator.settle(&used, now()).await.unwrap();
    assert_eq!(settlement.amount, Amount::from_units(1_234));
    assert_eq!(world.balance(PAY_TO).await, 1_234);
    assert_eq!(world.balance(&payer().address().to_string()).await, before - 1_234);
    let response = settlement_response(&used, &Ok(settlement.clone()));
    let response = serde_json::to_value(response).unwrap();
    assert_eq!(response["amount"], json!("1234"));

    // The same again is the same; another amount, or another use, is none.
    assert_eq!(world.facilitator.settle(&used, now()).await.unwrap(), settlement);
    let landed = Lookup::Landed(settlement);
    assert_eq!(world.facilitator.lookup(&used, now()).await.unwrap(), landed);
    let more = at_amount(&request, 2_000);
    rejected(world.facilitator.settle(&more, now()).await, &Reason::Permit2InvalidNonce);
    let nothing = at_amount(&request, 0);
    rejected(world.facilitator.settle(&nothing, now()).await, &Reason::Permit2InvalidNonce);
    let verification = world.facilitator.verify(&request, now()).await.unwrap();
    invalid(&verification, &Reason::Permit2InvalidNonce);
    assert_eq!(world.balance(PAY_TO).await, 1_234);
    world.end().await;
}

#[tokio::test]
async fn exact_by_permit2_is_settled_once_and_found_by_others() {
    let world = world().await;
    let request = pay_by_permit2(&payer(), &demand_by_permit2(1_000, None), 1);
    let verification = world.facilitator.verify(&request, now()).await.unwrap();
    assert!(verify_response(&verification).is_valid, "{verification:?}");
    let settlement = world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(settlement.amount, Amount::from_units(1_000));
    let response = settlement_response(&request, &Ok(settlement.clone()));
    assert_eq!(response.amount, None);
    // Somebody who has seen nothing of it finds it among others of the same payer.
    for number in 2..5 {
        let other = pay_by_permit2(&payer(), &demand_by_permit2(1_000, None), number);
        world.facilitator.settle(&other, now()).await.unwrap();
    }
    let stranger = world.another(vec![crate::support::key([5; 32])]);
    assert_eq!(stranger.settle(&request, now()).await.unwrap(), settlement);
    assert_eq!(stranger.lookup(&request, now()).await.unwrap(), Lookup::Landed(settlement));
    assert_eq!(world.balance(PAY_TO).await, 4_000);
    world.end().await;
}

#[tokio::test]
async fn a_settlement_at_nothing_sends_nothing_and_is_remembered() {
    let world = world().await;
    let request = upto(5_000, 1);
    let nothing = at_amount(&request, 0);
    assert_eq!(world.facilitator.lookup(&nothing, now()).await.unwrap(), Lookup::Open);
    let settlement = world.facilitator.settle(&nothing, now()).await.unwrap();
    assert_eq!((settlement.transaction.as_str(), settlement.amount), ("", Amount::from_units(0)));
    assert_eq!(world.facilitator.settle(&nothing, now()).await.unwrap(), settlement);
    let landed = Lookup::Landed(settlement.clone());
    assert_eq!(world.facilitator.lookup(&nothing, now()).await.unwrap(), landed);
    let response = serde_json::to_value(settlement_response(&nothing, &Ok(settlement))).unwrap();
    assert_eq!(response["amount"], json!("0"));
    assert_eq!(response["transaction"], json!(""));

    let verification = world.facilitator.verify(&request, now()).await.unwrap();
    invalid(&verification, &Reason::Permit2InvalidNonce);
    let some = at_amount(&request, 10);
    rejected(world.facilitator.settle(&some, now()).await, &Reason::Permit2InvalidNonce);
    let dead = Lookup::Dead { reason: Reason::Permit2InvalidNonce };
    assert_eq!(world.facilitator.lookup(&some, now()).await.unwrap(), dead);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    assert_eq!(world.balance(PAY_TO).await, 0);
    world.end().await;
}

#[tokio::test]
async fn what_settles_upto_has_rules() {
    let world = world().await;
    let request = upto(5_000, 1);
    let over = at_amount(&request, 5_001);
    let exceeds = Reason::InvalidUptoEvmPayloadSettlementExceedsAmount;
    rejected(world.facilitator.settle(&over, now()).await, &exceeds);
    for amount in [4_999, 5_001] {
        let other = at_amount(&request, amount);
        let verification = world.facilitator.verify(&other, now()).await.unwrap();
        invalid(&verification, &Reason::Permit2AmountMismatch);
    }
    // For another facilitator, which the demand names, too.
    let theirs = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    let theirs = pay_by_permit2(&payer(), &demand_by_permit2(5_000, Some(theirs)), 2);
    let verification = world.facilitator.verify(&theirs, now()).await.unwrap();
    invalid(&verification, &Reason::UptoFacilitatorMismatch);
    let nothing = world.facilitator.settle(&at_amount(&theirs, 0), now()).await;
    rejected(nothing, &Reason::UptoFacilitatorMismatch);
    // They may have been one of ours when the payment was taken.
    let some = world.facilitator.settle(&at_amount(&theirs, 100), now()).await;
    let Err(SettleError::NotServed { reason, .. }) = some else { panic!("{some:?}") };
    assert_eq!(reason, Reason::UptoFacilitatorMismatch);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a_missing_allowance_has_a_reason_of_its_own() {
    let world = World::start(Mining::Instant, 1).await;
    for request in [upto(100, 1), pay_by_permit2(&payer(), &demand_by_permit2(100, None), 2)] {
        let verification = world.facilitator.verify(&request, now()).await.unwrap();
        invalid(&verification, &Reason::Permit2AllowanceRequired);
        let result = world.facilitator.settle(&request, now()).await;
        rejected(result, &Reason::Permit2AllowanceRequired);
    }
    world.approve_permit2().await;
    let poor = crate::support::key([7; 32]);
    let broke = pay_by_permit2(&poor, &demand_by_permit2(100, None), 3);
    let verification = world.facilitator.verify(&broke, now()).await.unwrap();
    invalid(&verification, &Reason::Permit2InsufficientBalance);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

#[tokio::test]
async fn sixty_four_at_once_by_the_one_signer_that_may() {
    let world = World::start(Mining::Every(Duration::from_millis(200)), 3).await;
    world.approve_permit2().await;
    crate::support::until("the allowance is there", || async {
        let verification = world.facilitator.verify(&upto(100, 99), now()).await.unwrap();
        matches!(verification, Verification::Valid { .. })
    })
    .await;
    let requests: Vec<_> =
        (1..=64).map(|number| at_amount(&upto(100, number), u128::from(number))).collect();
    let settles = requests.iter().map(|it| world.facilitator.settle(it, now()));
    let mut transactions: Vec<String> =
        join_all(settles).await.into_iter().map(|it| it.unwrap().transaction).collect();
    transactions.sort();
    transactions.dedup();
    assert_eq!(transactions.len(), 64);
    assert_eq!(world.balance(PAY_TO).await, 64 * 65 / 2);
    assert_eq!(world.transactions_of(&facilitator()).await, 64);
    world.end().await;
}

#[tokio::test]
async fn a08_an_authorisation_past_its_deadline_is_dead_by_the_chain_s_time() {
    let world = world().await;
    let used = at_amount(&upto(5_000, 1), 10);
    assert_eq!(world.facilitator.lookup(&used, now()).await.unwrap(), Lookup::Open);
    world.rpc("evm_increaseTime", json!([600])).await;
    world.rpc("evm_mine", json!([])).await;
    let dead = Lookup::Dead { reason: Reason::Permit2DeadlineExpired };
    assert_eq!(world.facilitator.lookup(&used, now()).await.unwrap(), dead);
    // Whatever the clock here says, the chain's own time decides.
    rejected(world.facilitator.settle(&used, now()).await, &Reason::Permit2DeadlineExpired);
    // Nothing can be settled at any time.
    let nothing = world.facilitator.settle(&at_amount(&used, 0), now()).await.unwrap();
    assert_eq!(nothing.transaction, "");
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a_network_without_the_contracts_serves_what_needs_none() {
    let world = world().await;
    let proxy = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002";
    world.rpc("anvil_setCode", json!([proxy, "0x"])).await;
    let supported = serde_json::to_value(world.facilitator.supported().await.unwrap()).unwrap();
    let kinds = supported["kinds"].as_array().unwrap().iter();
    let schemes: Vec<_> = kinds.map(|it| it["scheme"].as_str().unwrap()).collect();
    assert_eq!(schemes, ["exact", "exact", "exact"], "{supported}");
    let verification = world.facilitator.verify(&upto(100, 1), now()).await.unwrap();
    invalid(&verification, &Reason::Permit2ProxyNotDeployed);
    let result = world.facilitator.settle(&upto(100, 1), now()).await;
    assert!(matches!(result, Err(SettleError::NotSent(_))), "{result:?}");
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}
