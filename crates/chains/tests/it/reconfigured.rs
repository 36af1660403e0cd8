//! Payments that were taken under a configuration that is not there any more.

use farebox_chains::{
    Facilitator, GasSponsoring, LocalFacilitator, Lookup, NetworkConfig, PermitSponsoring,
    SettleError,
};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use farebox_protocol::Reason;
use farebox_protocol::wire::SettleRequest;
use serde_json::json;

use crate::sponsoring::{demands, with_permit, world};
use crate::support::{
    PAY_TO, World, demand, demand_by_permit2, facilitator, key, network_config, now, pay,
    pay_by_permit2, payer,
};

/// Not refused, and what is missing is named.
async fn waits(facilitator: &LocalFacilitator, request: &SettleRequest, missing: &str) -> Reason {
    let result = facilitator.settle(request, now()).await;
    let Err(SettleError::NotServed { reason, message }) = result else {
        panic!("{missing}: {result:?}")
    };
    assert!(message.contains(missing), "{missing}: {message}");
    reason
}

#[tokio::test]
async fn a_payment_waits_for_the_token_and_the_network_that_it_was_taken_in() {
    let world = World::start(Mining::Instant, 1).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let config = || network_config(&[world.devnet.url()]);
    let no_token = world.with_config(NetworkConfig { tokens: Vec::new(), ..config() });
    let reason = waits(&no_token, &request, "the asset to be one of those taken").await;
    assert_eq!(reason, Reason::InvalidPaymentRequirements);
    assert_eq!(no_token.lookup(&request, now()).await.unwrap(), Lookup::CannotTell);
    let elsewhere = NetworkConfig { network: "eip155:1".parse().unwrap(), ..config() };
    let reason = waits(&world.with_config(elsewhere), &request, "eip155:84532").await;
    assert_eq!(reason, Reason::InvalidNetwork);
    world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}

#[tokio::test]
async fn a_payment_waits_for_its_settler_until_it_expires() {
    let world = World::start(Mining::Instant, 1).await;
    world.approve_permit2().await;
    let demand = demand_by_permit2(1_000, Some(&facilitator()));
    let [first, second] = [1, 2].map(|number| pay_by_permit2(&payer(), &demand, number));
    let other = world.another(vec![key(DEV_ACCOUNTS[3].private_key.0)]);
    let reason = waits(&other, &first, &facilitator()).await;
    assert_eq!(reason, Reason::UptoFacilitatorMismatch);
    let settled = world.facilitator.settle(&first, now()).await.unwrap();
    // Whoever settled it.
    assert_eq!(other.settle(&first, now()).await.unwrap(), settled);
    waits(&other, &second, &facilitator()).await;
    world.rpc("evm_increaseTime", json!([600])).await;
    world.rpc("evm_mine", json!([])).await;
    let result = other.settle(&second, now()).await;
    let Err(SettleError::Rejected { reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!(reason, Reason::Permit2DeadlineExpired);
    world.end().await;
}

#[tokio::test]
async fn a_payment_waits_for_its_permit_to_be_sponsored_again() {
    let world = world(GasSponsoring::default()).await;
    let [exact, _] = demands();
    let request = with_permit(&exact, 1, 0);
    let sponsoring =
        GasSponsoring { permits: PermitSponsoring::Ignored, ..GasSponsoring::default() };
    let config = NetworkConfig { sponsoring, ..network_config(&[world.devnet.url()]) };
    let reason = waits(&world.with_config(config), &request, "eip2612GasSponsoring").await;
    assert_eq!(reason, Reason::Permit2AllowanceRequired);
    world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}
