//! The ordinary way of payments, with balances asserted on chain.

use std::time::Duration;

use farebox_chains::{
    Facilitator, LocalFacilitator, Lookup, NetworkConfig, SettleError, Verification,
    settlement_response, verify_response,
};
use farebox_devnet::Mining;
use farebox_protocol::{Amount, Reason};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{
    CHAIN, PAY_TO, TOKEN, World, altered, demand, key, memory, network_config, now, pay, payer,
    use_tls,
};

#[tokio::test]
async fn a_payment_is_verified_settled_once_and_found_again() {
    let world = World::start(Mining::Instant, 1).await;
    let facilitator = &world.facilitator;
    assert!(facilitator.check().await.is_empty());
    let request = pay(&payer(), &demand(1_000), 1);
    let before = world.balance(PAY_TO).await;

    let verification = facilitator.verify(&request, now()).await.unwrap();
    let from = payer().address().to_string();
    let Verification::Valid { payer, collectable } = &verification else {
        panic!("{verification:?}")
    };
    let balance = Amount::from_units(world.balance(&from).await);
    assert_eq!((payer, *collectable), (&from, Some(balance)));
    let body = serde_json::to_value(verify_response(&verification)).unwrap();
    assert_eq!(body, json!({"isValid": true, "payer": from}));
    assert_eq!(facilitator.lookup(&request, now()).await.unwrap(), Lookup::Open);

    let result = facilitator.settle(&request, now()).await;
    let body = serde_json::to_value(settlement_response(&request, &result)).unwrap();
    let settlement = result.unwrap();
    let expected = json!({"success": true, "payer": from, "transaction": settlement.transaction, "network": CHAIN});
    assert_eq!(body, expected);
    assert_eq!(settlement.amount, Amount::from_units(1_000));
    assert_eq!(world.balance(PAY_TO).await, before + 1_000);

    // Again, by the same process and by one that remembers nothing.
    assert_eq!(facilitator.settle(&request, now()).await.unwrap(), settlement);
    let (tasks, stop) = (world.tasks.clone(), world.stop.clone());
    let config = network_config(&[world.devnet.url()]);
    let forgetful =
        LocalFacilitator::new(vec![config], vec![key([3; 32])], memory(), tasks, stop).unwrap();
    assert_eq!(forgetful.settle(&request, now()).await.unwrap(), settlement);
    let late = now().plus(Duration::from_hours(1));
    assert_eq!(forgetful.settle(&request, late).await.unwrap(), settlement);
    let landed = forgetful.lookup(&request, now()).await.unwrap();
    assert_eq!(landed, Lookup::Landed(settlement));
    assert_eq!(world.balance(PAY_TO).await, before + 1_000);
    let again = facilitator.verify(&request, now()).await.unwrap();
    let Verification::Invalid { reason, .. } = again else { panic!("{again:?}") };
    assert_eq!(reason, Reason::InvalidExactEvmNonceAlreadyUsed);
    world.end().await;
}

#[tokio::test]
async fn refusals_of_the_chain_have_their_reasons() {
    let world = World::start(Mining::Instant, 1).await;
    let poor = key([0x77; 32]);
    let request = pay(&poor, &demand(1_000), 1);
    let verification = world.facilitator.verify(&request, now()).await.unwrap();
    let body = serde_json::to_value(verify_response(&verification)).unwrap();
    assert_eq!(
        body,
        json!({
            "isValid": false,
            "invalidReason": "invalid_exact_evm_insufficient_balance",
            "invalidMessage": "expected a balance of at least 1000, found 0",
            "payer": poor.address().to_string(),
        })
    );
    let result = world.facilitator.settle(&request, now()).await;
    let body = serde_json::to_value(settlement_response(&request, &result)).unwrap();
    assert_eq!(
        body,
        json!({
            "success": false,
            "errorReason": "invalid_exact_evm_insufficient_balance",
            "errorMessage": "expected a balance of at least 1000, found 0",
            "payer": poor.address().to_string(),
            "transaction": "",
            "network": CHAIN,
        })
    );

    // Paused by its owner (`pause()`), the token says so itself.
    let owner = world.rpc("eth_call", json!([{"to": TOKEN, "data": "0x8da5cb5b"}, "latest"])).await;
    let owner = format!("0x{}", owner.as_str().unwrap().get(26..).unwrap());
    world.rpc("anvil_impersonateAccount", json!([owner])).await;
    world.rpc("anvil_setBalance", json!([owner, "0xde0b6b3a7640000"])).await;
    let pause = json!([{"from": owner, "to": TOKEN, "data": "0x8456cb59"}]);
    world.rpc("eth_sendTransaction", pause).await;
    let request = pay(&payer(), &demand(1_000), 2);
    let verification = world.facilitator.verify(&request, now()).await.unwrap();
    let Verification::Invalid { reason, message, .. } = verification else { panic!() };
    assert_eq!(reason, Reason::InvalidExactEvmTransactionSimulationFailed);
    assert!(message.contains("Pausable: paused"), "{message}");
    let result = world.facilitator.settle(&request, now()).await;
    let Err(SettleError::Rejected { reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!(reason, Reason::InvalidExactEvmTransactionSimulationFailed);
    assert_eq!(world.balance(PAY_TO).await, 0);

    // Without a contract there, nothing can be paid.
    world.rpc("anvil_setCode", json!([TOKEN, "0x"])).await;
    let verification = world.facilitator.verify(&request, now()).await.unwrap();
    let Verification::Invalid { reason, .. } = verification else { panic!() };
    assert_eq!(reason, Reason::AssetNotDeployedContract);
    world.end().await;
}

#[tokio::test]
async fn what_is_not_served_is_refused_without_asking() {
    let world = World::start(Mining::Instant, 1).await;
    let supported = serde_json::to_value(world.facilitator.supported().await.unwrap()).unwrap();
    let signer = world.facilitator.signers()[0].to_string();
    assert_eq!(
        supported,
        json!({
            "kinds": [
                {"x402Version": 2, "scheme": "exact", "network": CHAIN},
                {
                    "x402Version": 2,
                    "scheme": "exact",
                    "network": CHAIN,
                    "extra": {"assetTransferMethod": "permit2"},
                },
                {
                    "x402Version": 2,
                    "scheme": "upto",
                    "network": CHAIN,
                    "extra": {"assetTransferMethod": "permit2", "facilitatorAddress": signer},
                },
                {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"},
            ],
            "extensions": ["eip2612GasSponsoring"],
            "signers": {"eip155:*": [signer]},
        })
    );
    for (field, value, expected) in [
        ("scheme", "batch-settlement", Reason::UnsupportedScheme),
        ("network", "eip155:1", Reason::InvalidNetwork),
        ("asset", "0x0000000000000000000000000000000000000001", Reason::InvalidPaymentRequirements),
    ] {
        let mut demand = serde_json::to_value(demand(5)).unwrap();
        let good = pay(&payer(), &crate::support::demand(5), 1);
        demand[field] = json!(value);
        let demand = serde_json::from_value(demand).unwrap();
        let payload = good.payment_payload.value().payload.clone();
        let request = crate::support::request(&demand, payload);
        let verification = world.facilitator.verify(&request, now()).await.unwrap();
        let Verification::Invalid { reason, .. } = verification else { panic!("{field}") };
        assert_eq!(reason, expected, "{field}");
        let result = world.facilitator.settle(&request, now()).await;
        // It may have been taken earlier: whoever configures it again can settle it.
        let Err(SettleError::NotServed { reason, .. }) = result else { panic!("{result:?}") };
        assert_eq!(reason, expected, "{field}");
    }
    world.end().await;
}

#[tokio::test]
async fn an_expired_payment_is_dead_by_the_chain_s_clock() {
    let world = World::start(Mining::Instant, 1).await;
    let request = pay(&payer(), &demand(1_000), 1);
    assert_eq!(world.facilitator.lookup(&request, now()).await.unwrap(), Lookup::Open);
    world.devnet.increase_time(600);
    world.devnet.mine();
    let dead = Lookup::Dead { reason: Reason::InvalidExactEvmPayloadAuthorizationValidBefore };
    assert_eq!(world.facilitator.lookup(&request, now()).await.unwrap(), dead);
    world.end().await;
}

#[tokio::test]
async fn a32_a_signature_of_no_use_to_any_contract_costs_no_question_to_the_chain() {
    use_tls();
    let config = network_config(&["http://127.0.0.1:1".to_owned()]);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let facilitator =
        LocalFacilitator::new(vec![config], vec![payer()], memory(), tasks, stop).unwrap();
    let good = pay(&payer(), &demand(1_000), 1);
    assert!(facilitator.verify(&good, now()).await.is_err());
    let forged = altered(&good, |it| {
        let signature = &mut it["paymentPayload"]["payload"]["signature"];
        let digits = signature.as_str().unwrap().get(..130).unwrap().to_owned();
        *signature = json!(format!("{digits}00"));
    });
    let verification = facilitator.verify(&forged, now()).await.unwrap();
    let Verification::Invalid { reason, .. } = verification else { panic!("{verification:?}") };
    assert_eq!(reason, Reason::InvalidExactEvmSignature);
}

#[tokio::test]
async fn a09_a_settlement_is_one_only_at_the_configured_depth() {
    let change = |config| NetworkConfig {
        confirmations: 3,
        settle_wait: Duration::from_millis(400),
        ..config
    };
    let world = World::with(Mining::Manual, vec![key([0x31; 32])], change).await;
    let signer = world.facilitator.signers()[0];
    world.devnet.set_balance(signer.as_bytes().into(), "1000000000000000000".parse().unwrap());
    let request = pay(&payer(), &demand(1_000), 1);
    for _ in 0..3 {
        let result = world.facilitator.settle(&request, now()).await;
        assert!(matches!(result, Err(SettleError::Unknown { transaction: Some(_) })), "{result:?}");
        assert_eq!(world.facilitator.lookup(&request, now()).await.unwrap(), Lookup::Open);
        world.devnet.mine();
    }
    let settlement = world.facilitator.settle(&request, now()).await.unwrap();
    let landed = world.facilitator.lookup(&request, now()).await.unwrap();
    assert_eq!(landed, Lookup::Landed(settlement));
    world.end().await;
}
