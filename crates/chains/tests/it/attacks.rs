//! Attacks on settlement that need a chain.

use farebox_chains::{Facilitator, Lookup, SettleError, Settlement};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use farebox_protocol::wire::{PaymentRequirements, SettleRequest};
use farebox_protocol::{Amount, Reason};
use serde_json::{Value, json};

use crate::support::{CHAIN, PAY_TO, TOKEN, World, demand, now, pay, payer, until};

/// The call of `transferWithAuthorization` that anybody can make of a payment that they have seen.
pub(crate) fn stolen_call(request: &SettleRequest) -> String {
    let payload = &request.payment_payload.value().payload;
    let text = |pointer: &str| payload.pointer(pointer).and_then(Value::as_str).unwrap();
    let digits = |pointer: &str| text(pointer).trim_start_matches("0x").to_lowercase();
    let number = |pointer: &str| format!("{:x}", text(pointer).parse::<u128>().unwrap());
    let signature = digits("/signature");
    let (r, rest) = signature.split_at(64);
    let (s, v) = rest.split_at(64);
    let words = [
        digits("/authorization/from"),
        digits("/authorization/to"),
        number("/authorization/value"),
        number("/authorization/validAfter"),
        number("/authorization/validBefore"),
        digits("/authorization/nonce"),
        v.to_owned(),
        r.to_owned(),
        s.to_owned(),
    ];
    let words: Vec<String> = words.iter().map(|it| format!("{it:0>64}")).collect();
    format!("0xe3ee160e{}", words.concat())
}

/// Sends it from an account that has nothing to do with us, at a price that beats ours.
pub(crate) async fn front_run(world: &World, request: &SettleRequest) -> String {
    let call = json!([{
        "from": DEV_ACCOUNTS[5].address,
        "to": TOKEN,
        "data": stolen_call(request),
        "gas": "0x30d40",
        "maxFeePerGas": "0x174876e800",
        "maxPriorityFeePerGas": "0x174876e800",
    }]);
    world.rpc("eth_sendTransaction", call).await.as_str().unwrap().to_owned()
}

pub(crate) fn settlement(transaction: String) -> Settlement {
    Settlement {
        transaction,
        network: CHAIN.parse().unwrap(),
        payer: payer().address().to_string(),
        amount: Amount::from_units(1_000),
        final_in: None,
    }
}

#[tokio::test]
async fn a07_a_payment_that_somebody_else_landed_first_counts_once() {
    let world = World::start(Mining::Instant, 1).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let theirs = front_run(&world, &request).await;
    let found = world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(found, settlement(theirs));
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    let signer = DEV_ACCOUNTS[0].address.to_string();
    assert_eq!(world.transactions_of(&signer).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a07_overtaken_in_the_same_block_the_payment_counts_once() {
    let world = World::start(Mining::Manual, 1).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let overtake = async {
        let signer = DEV_ACCOUNTS[0].address.to_string();
        until("our transaction waits to be mined", || async {
            let count = world.rpc("eth_getTransactionCount", json!([signer, "pending"])).await;
            count == "0x1"
        })
        .await;
        let theirs = front_run(&world, &request).await;
        world.devnet.mine();
        theirs
    };
    let (found, theirs) = tokio::join!(world.facilitator.settle(&request, now()), overtake);
    assert_eq!(found.unwrap(), settlement(theirs));
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}

/// Run-time code that makes these calls of the token, one after the other, whatever it is asked.
fn batch_of(calls: &[String]) -> String {
    // Each: CODECOPY(0, offset, size), CALL(GAS, TOKEN, 0, 0, size, 0, 0), POP.
    let token = TOKEN.trim_start_matches("0x");
    let one = |size: usize, offset: usize| {
        format!("61{size:04x}61{offset:04x}6000396000600061{size:04x}6000600073{token}5af150")
    };
    let calls: Vec<&str> = calls.iter().map(|it| it.trim_start_matches("0x")).collect();
    let mut offset = calls.len() * one(0, 0).len() / 2 + 1;
    let mut code = String::from("0x");
    for call in &calls {
        code += &one(call.len() / 2, offset);
        offset += call.len() / 2;
    }
    // STOP, and what the calls say.
    code + "00" + &calls.concat()
}

#[tokio::test]
async fn a07_one_transfer_settles_one_of_several_payments() {
    let world = World::start(Mining::Instant, 1).await;
    let paid = pay(&payer(), &demand(1_000), 1);
    let unpaid = pay(&payer(), &demand(1_000), 2);
    // The second nonce is used by the payer's own transfer of nothing to itself.
    let to_itself = PaymentRequirements { pay_to: payer().address().to_string(), ..demand(0) };
    let calls = [stolen_call(&paid), stolen_call(&pay(&payer(), &to_itself, 2))];
    let batch = "0x00000000000000000000000000000000000ba7c4";
    world.rpc("anvil_setCode", json!([batch, batch_of(&calls)])).await;
    let call = json!([{"from": DEV_ACCOUNTS[5].address, "to": batch, "gas": "0x7a120"}]);
    let theirs = world.rpc("eth_sendTransaction", call).await.as_str().unwrap().to_owned();
    assert_eq!(world.balance(PAY_TO).await, 1_000);

    let landed = Lookup::Landed(settlement(theirs));
    assert_eq!(world.facilitator.lookup(&paid, now()).await.unwrap(), landed);
    let dead = Lookup::Dead { reason: Reason::InvalidExactEvmNonceAlreadyUsed };
    assert_eq!(world.facilitator.lookup(&unpaid, now()).await.unwrap(), dead);
    let result = world.facilitator.settle(&unpaid, now()).await;
    let Err(SettleError::Rejected { reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!(reason, Reason::InvalidExactEvmNonceAlreadyUsed);
    world.end().await;
}

/// Run-time code that answers everything with zero and `balanceOf` with the largest number: a token
/// that takes every call and moves nothing.
const SILENT_TOKEN: &str =
    "0x60003560e01c6370a0823114601957600060005260206000f35b60001960005260206000f3";

#[tokio::test]
async fn a20_a_transaction_without_the_transfer_event_is_no_settlement() {
    let world = World::start(Mining::Instant, 1).await;
    world.rpc("anvil_setCode", json!([TOKEN, SILENT_TOKEN])).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let result = world.facilitator.settle(&request, now()).await;
    let Err(SettleError::Rejected { reason, message }) = result else { panic!("{result:?}") };
    assert_eq!(reason, Reason::InvalidExactEvmTransactionFailed);
    assert!(message.contains("expected the payment's Transfer"), "{message}");
    let signer = DEV_ACCOUNTS[0].address.to_string();
    assert_eq!(world.transactions_of(&signer).await, 1);
    world.end().await;
}

#[tokio::test]
async fn a20_a_nonce_used_for_something_else_is_no_settlement() {
    let world = World::start(Mining::Instant, 1).await;
    // The same nonce, signed over another amount, lands first.
    let other = pay(&payer(), &demand(1), 1);
    front_run(&world, &other).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let result = world.facilitator.settle(&request, now()).await;
    let Err(SettleError::Rejected { reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!(reason, Reason::InvalidExactEvmNonceAlreadyUsed);
    let dead = Lookup::Dead { reason: Reason::InvalidExactEvmNonceAlreadyUsed };
    assert_eq!(world.facilitator.lookup(&request, now()).await.unwrap(), dead);
    assert_eq!(world.balance(PAY_TO).await, 1);
    world.end().await;
}
