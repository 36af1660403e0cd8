//! What a payer's own node says of what was signed, whatever sellers say.

use std::time::Duration;

use farebox_chains::{
    EvmPayment, EvmToken, Facilitator, PayerNode, PayerUsage, Permit2Allowance, SetupError,
    check_payment, find_token,
};
use farebox_devnet::Mining;
use farebox_protocol::wire::SettleRequest;
use farebox_protocol::{Amount, Network};

use crate::support::{
    CHAIN, World, at_amount, demand, demand_by_permit2, facilitator, key, now, pay, pay_by_permit2,
    payer,
};

fn token() -> EvmToken {
    EvmToken::new(CHAIN.parse().unwrap(), find_token(CHAIN, "usdc").unwrap().into()).unwrap()
}

fn node(world: &World, network: &str) -> PayerNode {
    PayerNode::new(network.parse().unwrap(), &[world.devnet.url().parse().unwrap()]).unwrap()
}

fn checked(request: &SettleRequest) -> EvmPayment {
    check_payment(&token(), request, now()).unwrap()
}

fn units(units: u128) -> Amount {
    Amount::from_units(units)
}

#[tokio::test]
async fn a27_only_the_transaction_that_used_a_signature_proves_what_was_charged() {
    let world = World::start(Mining::Instant, 1).await;
    world.approve_permit2().await;
    let node = node(&world, CHAIN);
    let ceiling = demand_by_permit2(5_000, Some(&facilitator()));
    let [upto, other] = [1, 2].map(|number| pay_by_permit2(&payer(), &ceiling, number));
    let exact = pay(&payer(), &demand(700), 3);
    for request in [&upto, &other, &exact] {
        let usage = node.usage(&checked(request)).await.unwrap();
        assert!(
            matches!(usage, PayerUsage::Unused { at } if at.since(now()) < Duration::from_mins(1))
        );
    }
    let settled = world.facilitator.settle(&at_amount(&upto, 1_234), now()).await.unwrap();
    let whole = world.facilitator.settle(&exact, now()).await.unwrap();
    assert_eq!(node.usage(&checked(&upto)).await.unwrap(), PayerUsage::Used);
    assert_eq!(node.usage(&checked(&exact)).await.unwrap(), PayerUsage::Used);
    assert!(matches!(node.usage(&checked(&other)).await.unwrap(), PayerUsage::Unused { .. }));

    let unknown = format!("0x{}", "5".repeat(64));
    for (request, charged, transaction, expected) in [
        (&upto, 1_234, settled.transaction.as_str(), true),
        (&exact, 700, whole.transaction.as_str(), true),
        // Less than was charged, another's transaction, one that there is not, none at all.
        (&upto, 1_233, settled.transaction.as_str(), false),
        (&upto, 5_000, settled.transaction.as_str(), false),
        (&other, 1_234, settled.transaction.as_str(), false),
        (&upto, 1_234, whole.transaction.as_str(), false),
        (&upto, 1_234, unknown.as_str(), false),
        (&upto, 1_234, "", false),
    ] {
        let paid = node.is_paid_by(&checked(request), units(charged), transaction).await.unwrap();
        assert_eq!(paid, expected, "{charged} by {transaction}");
    }
    world.end().await;
}

#[tokio::test]
async fn allowances_and_permit_nonces_are_read_on_the_right_chain() {
    let world = World::start(Mining::Instant, 1).await;
    let here = node(&world, CHAIN);
    let read = async || here.permit2_allowance(&token(), payer().address()).await.unwrap();
    let nothing = Permit2Allowance { amount: units(0), permit_nonce: Some(0) };
    assert_eq!(read().await, nothing);
    world.approve_permit2().await;
    // More than can be counted.
    assert_eq!(read().await, Permit2Allowance { amount: units(u128::MAX), ..nothing });
    let stranger = here.permit2_allowance(&token(), key([3; 32]).address()).await.unwrap();
    assert_eq!(stranger, nothing);

    let elsewhere = node(&world, "eip155:8453");
    let error = elsewhere.permit2_allowance(&token(), payer().address()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("for another chain"), "{error}: {cause}");

    let refused = |network: &str, url: &str| {
        PayerNode::new(network.parse::<Network>().unwrap(), &[url.parse().unwrap()]).unwrap_err()
    };
    assert!(matches!(refused(CHAIN, "ws://127.0.0.1:1"), SetupError::Scheme { .. }));
    assert!(matches!(refused("solana:x", "http://127.0.0.1:1"), SetupError::NotEvm(_)));
    let nobody = PayerNode::new(CHAIN.parse().unwrap(), &[]).unwrap_err();
    assert!(matches!(nobody, SetupError::NoEndpoint(_)));
    world.end().await;
}
