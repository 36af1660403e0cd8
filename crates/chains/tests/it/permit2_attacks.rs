//! Attacks on payments by Permit2, whose used nonces leave no events.

use alloy_primitives::{Address, B256, U256, keccak256};
use farebox_chains::{Facilitator, Lookup, SettleError, Settlement};
use farebox_devnet::Mining;
use farebox_protocol::Reason;
use farebox_protocol::wire::SettleRequest;
use serde_json::{Value, json};

use crate::attacks::settlement;
use crate::support::{
    PAY_TO, PERMIT2, TOKEN, World, at_amount, demand_by_permit2, facilitator, nonce, now,
    pay_by_permit2, payer, until,
};

const EXACT_PROXY: &str = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001";

fn exact(number: u64) -> SettleRequest {
    pay_by_permit2(&payer(), &demand_by_permit2(1_000, None), number)
}

fn upto(number: u64) -> SettleRequest {
    let demand = demand_by_permit2(1_000, Some(&facilitator()));
    pay_by_permit2(&payer(), &demand, number)
}

fn word(number: impl Into<U256>) -> String {
    hex::encode(B256::from(number.into()))
}

/// The call of `settle` that anybody can make of a payment that they have seen.
fn stolen_call(request: &SettleRequest) -> String {
    let payload = &request.payment_payload.value().payload;
    let text = |key: &str| {
        let pointer = format!("/permit2Authorization/{key}");
        payload.pointer(&pointer).and_then(Value::as_str).unwrap()
    };
    let address = |key: &str| format!("{:0>64}", text(key).trim_start_matches("0x").to_lowercase());
    let number = |key: &str| word(text(key).parse::<U256>().unwrap());
    let signature = payload["signature"].as_str().unwrap().trim_start_matches("0x");
    let words = [
        address("permitted/token"),
        number("permitted/amount"),
        number("nonce"),
        number("deadline"),
        address("from"),
        address("witness/to"),
        number("witness/validAfter"),
        word(U256::from(8 * 32)),
        word(U256::from(65)),
        format!("{signature:0<192}"),
    ];
    format!("0x13cd3b53{}", words.concat())
}

#[track_caller]
fn rejected(result: Result<Settlement, SettleError>, expected: &Reason) {
    let Err(SettleError::Rejected { reason, message }) = result else { panic!("{result:?}") };
    assert_eq!(reason, *expected, "{message}");
}

async fn world(mining: Mining) -> World {
    let world = World::start(mining, 1).await;
    world.approve_permit2().await;
    world
}

#[tokio::test]
async fn a07_a_payment_that_somebody_else_landed_first_counts_once() {
    let world = world(Mining::Instant).await;
    let request = exact(1);
    let theirs = world.send(5, EXACT_PROXY, &stolen_call(&request)).await;
    // The same payer pays the same again.
    world.send(5, EXACT_PROXY, &stolen_call(&exact(2))).await;
    let found = world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(found, settlement(theirs));
    assert_eq!(world.balance(PAY_TO).await, 2_000);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a07_overtaken_in_the_same_block_the_payment_counts_once() {
    let world = world(Mining::Manual).await;
    world.devnet.mine();
    let request = exact(1);
    let overtake = async {
        until("our transaction waits to be mined", || async {
            let count = json!([facilitator(), "pending"]);
            world.rpc("eth_getTransactionCount", count).await == "0x1"
        })
        .await;
        let theirs = world.send(5, EXACT_PROXY, &stolen_call(&request)).await;
        world.devnet.mine();
        theirs
    };
    let (found, theirs) = tokio::join!(world.facilitator.settle(&request, now()), overtake);
    assert_eq!(found.unwrap(), settlement(theirs));
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}

const MULTICALL3: &str = "0xcA11bde05977b3631167028862bE2a173976CA11";

/// Settles it through a contract: `aggregate3([(proxy, false, call)])`.
async fn settle_through(world: &World, contract: &str, request: &SettleRequest) -> String {
    let call = stolen_call(request);
    let call = call.trim_start_matches("0x");
    let proxy = EXACT_PROXY.trim_start_matches("0x").to_lowercase();
    let words = [
        word(U256::from(32)),
        word(U256::from(1)),
        word(U256::from(32)),
        format!("{proxy:0>64}"),
        word(U256::ZERO),
        word(U256::from(96)),
        word(U256::from(call.len() / 2)),
    ];
    let padding = "0".repeat(call.len().wrapping_neg() % 64);
    let data = format!("0x82ad56cb{}{call}{padding}", words.concat());
    world.send(5, contract, &data).await
}

#[tokio::test]
async fn a07_what_a_payer_s_own_contract_settled_is_credited_to_nobody_by_guess() {
    let world = world(Mining::Instant).await;
    let request = exact(1);
    // It may do what Multicall3 does, but need not.
    let own = "0x00000000000000000000000000000000000ba7c4";
    let code = world.rpc("eth_getCode", json!([MULTICALL3, "latest"])).await;
    world.rpc("anvil_setCode", json!([own, code])).await;
    settle_through(&world, own, &request).await;
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    let result = world.facilitator.settle(&request, now()).await;
    assert!(matches!(result, Err(SettleError::Unknown { transaction: None })), "{result:?}");
    assert_eq!(world.facilitator.lookup(&request, now()).await.unwrap(), Lookup::CannotTell);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a07_what_somebody_settled_through_multicall3_counts_once() {
    let world = world(Mining::Instant).await;
    let request = exact(1);
    let theirs = settle_through(&world, MULTICALL3, &request).await;
    let found = world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(found, settlement(theirs));
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a07_nobody_else_can_settle_upto() {
    let world = world(Mining::Instant).await;
    let request = upto(1);
    let payload = &request.payment_payload.value().payload;
    let fields = payload["permit2Authorization"].as_object().unwrap();
    let number = |text: &Value| word(text.as_str().unwrap().parse::<U256>().unwrap());
    let address = |text: &str| format!("{:0>64}", text.trim_start_matches("0x").to_lowercase());
    let words = [
        address(TOKEN),
        word(U256::from(1_000)),
        number(&fields["nonce"]),
        number(&fields["deadline"]),
        word(U256::from(1_000)),
        address(&payer().address().to_string()),
        address(PAY_TO),
        address(&facilitator()),
        word(U256::ZERO),
        word(U256::from(10 * 32)),
        word(U256::from(65)),
        format!("{:0<192}", payload["signature"].as_str().unwrap().trim_start_matches("0x")),
    ];
    let data = format!("0xff11e7b4{}", words.concat());
    let proxy = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002";
    let hash = world.send(5, proxy, &data).await;
    let receipt = world.rpc("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(receipt["status"], "0x0");
    let settlement = world.facilitator.settle(&at_amount(&request, 7), now()).await.unwrap();
    assert_ne!(settlement.transaction, hash);
    assert_eq!(world.balance(PAY_TO).await, 7);
    world.end().await;
}

#[tokio::test]
async fn a20_a_nonce_that_its_payer_invalidated_is_dead() {
    let world = world(Mining::Instant).await;
    for (number, request) in [(1, exact(1)), (2, at_amount(&upto(2), 10))] {
        let nonce = nonce(number);
        let mut position = [0; 32];
        position[1..].copy_from_slice(&nonce[..31]);
        let mask = U256::from(1).wrapping_shl(usize::from(nonce[31]));
        let data = format!("0x3ff9dcb1{}{}", hex::encode(position), word(mask));
        let theirs = world.send(9, PERMIT2, &data).await;
        let result = world.facilitator.settle(&request, now()).await;
        let Err(SettleError::Rejected { reason, message }) = result else { panic!("{result:?}") };
        assert_eq!(reason, Reason::Permit2InvalidNonce);
        assert!(message.contains(&theirs), "{message}");
        let dead = Lookup::Dead { reason: Reason::Permit2InvalidNonce };
        assert_eq!(world.facilitator.lookup(&request, now()).await.unwrap(), dead);
    }
    assert_eq!(world.balance(PAY_TO).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a20_a_nonce_that_was_used_without_a_trace_is_dead() {
    let world = world(Mining::Instant).await;
    // Another payment of the same payer to the same seller must not be taken for it.
    world.facilitator.settle(&exact(2), now()).await.unwrap();
    // Used by another spender: only the bit tells.
    let nonce = nonce(1);
    let mut position = [0; 32];
    position[1..].copy_from_slice(&nonce[..31]);
    let owner: Address = payer().address().to_string().parse().unwrap();
    let outer = keccak256([owner.into_word().0, [0; 32]].concat());
    let slot = keccak256([position, outer.0].concat());
    let used = format!("0x{}", word(U256::from(1).wrapping_shl(usize::from(nonce[31]))));
    world.rpc("anvil_setStorageAt", json!([PERMIT2, slot, used])).await;
    world.devnet.mine();
    let request = exact(1);
    let dead = Lookup::Dead { reason: Reason::Permit2InvalidNonce };
    assert_eq!(world.facilitator.lookup(&request, now()).await.unwrap(), dead);
    rejected(world.facilitator.settle(&request, now()).await, &Reason::Permit2InvalidNonce);
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}

/// Run-time code that answers everything with one and `balanceOf` with the largest number: a token
/// that takes every call and moves nothing.
const SILENT_TOKEN: &str =
    "0x60003560e01c6370a0823114601957600160005260206000f35b60001960005260206000f3";

#[tokio::test]
async fn a20_a_transaction_without_the_transfer_event_is_no_settlement() {
    let world = world(Mining::Instant).await;
    world.rpc("anvil_setCode", json!([TOKEN, SILENT_TOKEN])).await;
    for (request, reason) in [
        (exact(1), Reason::InvalidExactEvmTransactionFailed),
        (at_amount(&upto(2), 10), Reason::InvalidUptoEvmTransactionFailed),
    ] {
        rejected(world.facilitator.settle(&request, now()).await, &reason);
        let dead = Lookup::Dead { reason: Reason::Permit2InvalidNonce };
        assert_eq!(world.facilitator.lookup(&request, now()).await.unwrap(), dead);
    }
    assert_eq!(world.transactions_of(&facilitator()).await, 2);
    world.end().await;
}
