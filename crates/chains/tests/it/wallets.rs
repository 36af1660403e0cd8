//! Payers that are contracts, by ERC-1271 and ERC-6492: honest ones.

use std::time::Duration;

use farebox_chains::{
    EvmAddress, Facilitator, NetworkConfig, SettleError, Settlement, Verification,
};
use farebox_devnet::{DEV_ACCOUNTS, Mining, WALLET_FACTORY_ADDRESS, WalletLie};
use farebox_protocol::Reason;
use farebox_protocol::wire::{PaymentRequirements, SettleRequest};
use serde_json::json;

use crate::contract_payers::{
    FUNDS, future_wallet, owner, pay_by_contract, pay_by_future_wallet, pay_by_wallet,
    pay_with_nonsense, wrap,
};
use crate::faults::Node;
use crate::support::{
    PAY_TO, TOKEN, World, altered, at_amount, demand, demand_by_permit2, facilitator, key,
    network_config, now, pay, payer, until,
};

/// The demands of every method.
fn demands() -> [PaymentRequirements; 3] {
    [demand(1_000), demand_by_permit2(1_000, None), demand_by_permit2(1_000, Some(&facilitator()))]
}

/// A world that trusts the dev chain's factory of wallets.
pub(crate) async fn trusting_world(factory: EvmAddress) -> World {
    let signer = vec![key(DEV_ACCOUNTS[0].private_key.0)];
    let change = |config| NetworkConfig { smart_wallet_factories: vec![factory], ..config };
    World::with(Mining::Instant, signer, change).await
}

fn our_factory() -> EvmAddress {
    EvmAddress::from_bytes(WALLET_FACTORY_ADDRESS.into())
}

#[track_caller]
pub(crate) fn valid(verification: &Verification) {
    assert!(matches!(verification, Verification::Valid { .. }), "{verification:?}");
}

#[track_caller]
pub(crate) fn invalid(verification: &Verification, expected: &Reason) {
    let Verification::Invalid { reason, message, .. } = verification else {
        panic!("{expected}: {verification:?}")
    };
    assert_eq!(reason, expected, "{message}");
    assert!(message.contains("expected"), "{message}");
}

#[track_caller]
pub(crate) fn rejected(result: &Result<Settlement, SettleError>, expected: &Reason) {
    let Err(SettleError::Rejected { reason, message }) = result else {
        panic!("{expected}: {result:?}")
    };
    assert_eq!(reason, expected, "{message}");
}

/// Refused, verified or settled; and nothing is sent.
async fn refused(world: &World, request: &SettleRequest, expected: &Reason) {
    let sent = world.transactions_of(&facilitator()).await;
    invalid(&world.facilitator.verify(request, now()).await.unwrap(), expected);
    rejected(&world.facilitator.settle(request, now()).await, expected);
    assert_eq!(world.transactions_of(&facilitator()).await, sent);
}

#[tokio::test]
async fn a_deployed_wallet_pays_by_every_method() {
    let world = World::start(Mining::Instant, 1).await;
    let wallet = world.honest_wallet().await;
    world.let_permit2_spend(wallet).await;
    for (number, demand) in (1..).zip(demands()) {
        let request = pay_by_wallet(wallet, &demand, number);
        let verification = world.facilitator.verify(&request, now()).await.unwrap();
        valid(&verification);
        let settlement = world.facilitator.settle(&request, now()).await.unwrap();
        assert_eq!(settlement.payer, wallet.to_string());
        // Once, however often it is asked for, and by whomever.
        assert_eq!(world.facilitator.settle(&request, now()).await.unwrap(), settlement);
        let other = world.another(vec![key(DEV_ACCOUNTS[0].private_key.0)]);
        assert_eq!(other.settle(&request, now()).await.unwrap(), settlement);
    }
    let [_, _, upto] = demands();
    let part = at_amount(&pay_by_wallet(wallet, &upto, 4), 600);
    world.facilitator.settle(&part, now()).await.unwrap();
    let nothing = at_amount(&pay_by_wallet(wallet, &upto, 5), 0);
    world.facilitator.settle(&nothing, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 3_600);
    assert_eq!(world.balance(&wallet.to_string()).await, FUNDS - 3_600);
    assert_eq!(world.transactions_of(&facilitator()).await, 4);
    world.end().await;
}

#[tokio::test]
async fn a_wallet_answers_for_what_it_signed_alone() {
    let world = World::start(Mining::Instant, 1).await;
    let wallet = world.honest_wallet().await;
    world.let_permit2_spend(wallet).await;
    let [exact, permit2, upto] = demands();
    for (demand, member, field, reason) in [
        (exact, "authorization", "validBefore", Reason::InvalidExactEvmSignature),
        (permit2, "permit2Authorization", "deadline", Reason::InvalidPermit2Signature),
        (upto.clone(), "permit2Authorization", "deadline", Reason::InvalidPermit2Signature),
    ] {
        let later = now().seconds().saturating_add(1_000).to_string();
        let forged = altered(&pay_by_wallet(wallet, &demand, 1), |it| {
            it["paymentPayload"]["payload"][member][field] = json!(later);
        });
        refused(&world, &forged, &reason).await;
        // Another wallet's owner, and nobody.
        let theirs = |digest: alloy_primitives::B256| payer().sign_digest(&digest.0).to_vec();
        refused(&world, &pay_by_contract(wallet, &demand, 2, theirs), &reason).await;
        refused(&world, &pay_with_nonsense(wallet, &demand, 3), &reason).await;
    }
    let nothing = at_amount(&pay_with_nonsense(wallet, &upto, 4), 0);
    let result = world.facilitator.settle(&nothing, now()).await;
    rejected(&result, &Reason::InvalidPermit2Signature);
    // So the payment itself is as good as before.
    let good = at_amount(&pay_by_wallet(wallet, &upto, 4), 10);
    world.facilitator.settle(&good, now()).await.unwrap();
    world.end().await;
}

/// Anybody can claim that a wallet signed, and each look costs the chain's time.
#[tokio::test]
async fn a10_false_claims_on_a_wallet_are_looked_into_within_bounds() {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::start(&world, &[]).await;
    let slow = Duration::from_secs(10);
    let config = network_config(std::slice::from_ref(&node.url));
    let facilitator = world.with_config(NetworkConfig { block_time: slow, ..config });
    let wallet = world.honest_wallet().await;
    let forged = |number| pay_with_nonsense(wallet, &demand(1_000), number);
    let verify = async |request: SettleRequest| facilitator.verify(&request, now()).await;
    let reason = Reason::InvalidExactEvmSignature;
    invalid(&verify(forged(1)).await.unwrap(), &reason);
    let asked = || node.asked("eth_getCode") + node.asked("eth_call");
    let once = asked();
    for _ in 0..50 {
        invalid(&verify(forged(1)).await.unwrap(), &reason);
    }
    assert_eq!(asked(), once, "the same is not asked again");
    for number in 2..=16 {
        invalid(&verify(forged(number)).await.unwrap(), &reason);
    }
    let many = asked();
    for number in 17..60 {
        let error = verify(forged(number)).await.unwrap_err();
        assert!(error.to_string().contains("could not be asked"), "{error}");
    }
    // That is no verdict, and of nobody else.
    verify(pay_by_wallet(wallet, &demand(1_000), 99)).await.unwrap_err();
    assert_eq!(asked(), many, "nothing more is asked of this wallet");
    valid(&verify(pay(&payer(), &demand(1_000), 1)).await.unwrap());
    let other = world.lying_wallet(WalletLie::Always).await;
    invalid(&verify(pay_with_nonsense(other, &demand(1_000), 1)).await.unwrap(), &reason);
    // What was taken is settled all the same.
    facilitator.settle(&pay_by_wallet(wallet, &demand(1_000), 100), now()).await.unwrap();
    node.stop();
    world.end().await;
}

#[tokio::test]
async fn a11_an_account_without_code_signs_with_its_key() {
    let world = World::start(Mining::Instant, 1).await;
    let account = payer().address().as_bytes().into();
    let [exact, permit2, upto] = demands();
    for (demand, reason) in [
        (exact, Reason::InvalidExactEvmSignature),
        (permit2, Reason::InvalidPermit2Signature),
        (upto, Reason::InvalidPermit2Signature),
    ] {
        refused(&world, &pay_by_wallet(account, &demand, 1), &reason).await;
        refused(&world, &pay_with_nonsense(account, &demand, 1), &reason).await;
        let longer = |digest: alloy_primitives::B256| {
            [payer().sign_digest(&digest.0).as_slice(), &[0]].concat()
        };
        refused(&world, &pay_by_contract(account, &demand, 1, longer), &reason).await;
    }
    world.end().await;
}

/// The designator of EIP-7702: an account that runs another's code.
fn delegated_to(code: alloy_primitives::Address) -> String {
    format!("0xef0100{}", hex::encode(code))
}

#[tokio::test]
async fn a_key_whose_account_has_code_signs_as_before() {
    let world = World::start(Mining::Instant, 1).await;
    // The code takes the signatures of this very key (EIP-7702).
    let code = world.honest_wallet().await;
    let account = owner().address().to_string();
    world.rpc("anvil_setCode", json!([account, delegated_to(code)])).await;
    let request = pay(&owner(), &demand(1_000), 1);
    valid(&world.facilitator.verify(&request, now()).await.unwrap());
    world.facilitator.settle(&request, now()).await.unwrap();
    // Code that takes something else is asked by the token, whose word counts.
    let world_says_yes = world.lying_wallet(WalletLie::Nothing).await;
    world.rpc("anvil_setCode", json!([account, delegated_to(world_says_yes)])).await;
    let account = owner().address().as_bytes().into();
    let request = pay_with_nonsense(account, &demand(1_000), 2);
    valid(&world.facilitator.verify(&request, now()).await.unwrap());
    world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 2_000);
    // Code that refuses the key's own signature: the token would, too.
    let refuses = "0x60006000fd";
    world.rpc("anvil_setCode", json!([account, refuses])).await;
    let request = pay(&owner(), &demand(1_000), 3);
    refused(&world, &request, &Reason::InvalidExactEvmTransactionSimulationFailed).await;
    world.end().await;
}

#[tokio::test]
async fn a_wallet_is_deployed_once_with_its_first_payments() {
    let world = trusting_world(our_factory()).await;
    let wallet = future_wallet(1);
    world.devnet.set_token_balance(wallet.address, FUNDS);
    let requests: Vec<SettleRequest> =
        (0..16).map(|number| pay_by_future_wallet(&wallet, &demand(1_000), number)).collect();
    for request in &requests {
        valid(&world.facilitator.verify(request, now()).await.unwrap());
    }
    assert!(!world.has_code(wallet.address).await);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    let settles = requests.iter().map(|it| world.facilitator.settle(it, now()));
    for result in futures_util::future::join_all(settles).await {
        result.unwrap();
    }
    assert!(world.has_code(wallet.address).await);
    assert_eq!(world.balance(PAY_TO).await, 16_000);
    assert_eq!(world.transactions_of(&facilitator()).await, 17);
    // It is there now: wrapped or not, its signatures are good.
    for (number, pay) in (16..).zip([
        pay_by_future_wallet(&wallet, &demand(1_000), 16),
        pay_by_wallet(wallet.address, &demand(1_000), 17),
    ]) {
        valid(&world.facilitator.verify(&pay, now()).await.unwrap());
        world.facilitator.settle(&pay, now()).await.unwrap_or_else(|it| panic!("{number}: {it}"));
    }
    assert_eq!(world.transactions_of(&facilitator()).await, 19);
    world.end().await;
}

/// Polls until so many transactions of ours wait or are mined.
async fn until_sent(world: &World, count: u64) {
    until("our transaction waits", || async {
        let pending = json!([facilitator(), "pending"]);
        world.rpc("eth_getTransactionCount", pending).await == format!("{count:#x}")
    })
    .await;
}

#[tokio::test]
async fn a_deployment_that_takes_its_time_is_waited_for_and_not_repeated() {
    let change = |config| NetworkConfig {
        smart_wallet_factories: vec![our_factory()],
        settle_wait: Duration::from_millis(300),
        ..config
    };
    let signer = vec![key(DEV_ACCOUNTS[0].private_key.0)];
    let world = World::with(Mining::Manual, signer, change).await;
    world.devnet.mine();
    let wallet = future_wallet(1);
    world.devnet.set_token_balance(wallet.address, FUNDS);
    let request = pay_by_future_wallet(&wallet, &demand(1_000), 1);
    for _ in 0..3 {
        let result = world.facilitator.settle(&request, now()).await;
        let Err(SettleError::Unknown { transaction: None }) = result else { panic!("{result:?}") };
        until_sent(&world, 1).await;
    }
    // Somebody else is faster: it is the wallet that counts.
    let call = wallet.factory_calldata.to_string();
    world.send(6, &wallet.factory.to_string(), &call).await;
    world.devnet.mine();
    until_sent(&world, 2).await;
    world.devnet.mine();
    until("the payment is settled", || async {
        world.facilitator.settle(&request, now()).await.is_ok()
    })
    .await;
    assert_eq!(world.transactions_of(&facilitator()).await, 2);
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}

#[tokio::test]
async fn a07_a_wallets_payment_that_somebody_else_landed_counts_once() {
    let world = World::start(Mining::Instant, 1).await;
    let wallet = world.honest_wallet().await;
    let request = pay_by_wallet(wallet, &demand(1_000), 1);
    let payload = &request.payment_payload.value().payload;
    let text = |key: &str| payload["authorization"][key].as_str().unwrap();
    let hexadecimal = |key: &str| text(key).trim_start_matches("0x").to_lowercase();
    let number = |key: &str| format!("{:x}", text(key).parse::<u128>().unwrap());
    let words = [
        hexadecimal("from"),
        hexadecimal("to"),
        number("value"),
        number("validAfter"),
        number("validBefore"),
        hexadecimal("nonce"),
        format!("{:x}", 7 * 32),
        format!("{:x}", 65),
    ];
    let words: Vec<String> = words.iter().map(|it| format!("{it:0>64}")).collect();
    let signature = payload["signature"].as_str().unwrap().trim_start_matches("0x");
    let call = format!("0xcf092995{}{signature:0<192}", words.concat());
    let theirs = world.send(5, TOKEN, &call).await;
    let settlement = world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(settlement.transaction, theirs);
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a_wallet_that_is_to_be_deployed_pays_by_permit2() {
    let world = trusting_world(our_factory()).await;
    let [_, permit2, upto] = demands();
    for (salt, demand) in (7..).zip([permit2, upto]) {
        let wallet = future_wallet(salt);
        world.devnet.set_token_balance(wallet.address, FUNDS);
        let request = pay_by_future_wallet(&wallet, &demand, 1);
        let verification = world.facilitator.verify(&request, now()).await.unwrap();
        invalid(&verification, &Reason::Permit2AllowanceRequired);
        world.let_permit2_spend(wallet.address).await;
        valid(&world.facilitator.verify(&request, now()).await.unwrap());
        assert!(!world.has_code(wallet.address).await);
        world.facilitator.settle(&request, now()).await.unwrap();
        assert!(world.has_code(wallet.address).await);
    }
    assert_eq!(world.balance(PAY_TO).await, 2_000);
    world.end().await;
}

#[tokio::test]
async fn a10_no_factory_is_called_that_is_not_listed() {
    for factory in [None, Some(EvmAddress::from_bytes([0x64; 20]))] {
        let world = match factory {
            None => World::start(Mining::Instant, 1).await,
            Some(other) => trusting_world(other).await,
        };
        let wallet = future_wallet(1);
        world.devnet.set_token_balance(wallet.address, FUNDS);
        let request = pay_by_future_wallet(&wallet, &demand(1_000), 1);
        refused(&world, &request, &Reason::Eip6492FactoryNotAllowed).await;
        assert!(!world.has_code(wallet.address).await);
        world.end().await;
    }
}

#[tokio::test]
async fn a10_nothing_is_deployed_for_a_payment_that_would_fail() {
    let world = trusting_world(our_factory()).await;
    let wallet = future_wallet(1);
    let poor = pay_by_future_wallet(&wallet, &demand(1_000), 1);
    refused(&world, &poor, &Reason::InvalidExactEvmInsufficientBalance).await;
    world.devnet.set_token_balance(wallet.address, FUNDS);
    let bad = |digest: alloy_primitives::B256| {
        wrap(wallet.factory, &wallet.factory_calldata, &payer().sign_digest(&digest.0))
    };
    let forged = pay_by_contract(wallet.address, &demand(1_000), 2, bad);
    refused(&world, &forged, &Reason::InvalidExactEvmSignature).await;
    // Another wallet's deployment, and a call that the factory does not know.
    let other = future_wallet(2);
    for (calldata, reason) in [
        (other.factory_calldata.to_vec(), Reason::InvalidExactEvmSignature),
        (b"make it".to_vec(), Reason::SmartWalletDeploymentFailed),
    ] {
        let sign = |digest: alloy_primitives::B256| {
            wrap(wallet.factory, &calldata, &owner().sign_digest(&digest.0))
        };
        let request = pay_by_contract(wallet.address, &demand(1_000), 3, sign);
        refused(&world, &request, &reason).await;
    }
    assert!(!world.has_code(other.address).await);
    world.end().await;
}
