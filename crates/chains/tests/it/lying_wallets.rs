//! Attack A10: contract payers that say one thing and do another. Nothing is settled, and what that
//! costs in gas is bounded.

use alloy_primitives::{Address, U256};
use farebox_chains::{EvmAddress, Facilitator, SettleError, Settlement};
use farebox_devnet::{Mining, WalletLie, lying_wallet_switch};
use farebox_protocol::Reason;
use serde_json::json;

use crate::contract_payers::{
    FUNDS, owner, pay_by_contract, pay_by_wallet, pay_with_nonsense, wrap,
};
use crate::support::{PAY_TO, World, demand, facilitator, now, until};
use crate::wallets::{invalid, rejected, trusting_world, valid};

/// What is found out only by trying.
const SIMULATION: Reason = Reason::InvalidExactEvmTransactionSimulationFailed;
/// What the wallet says itself, or does not.
const SIGNATURE: Reason = Reason::InvalidExactEvmSignature;

/// Each lie, why it is refused at verification, and why at settlement.
const LIES: [(WalletLie, Option<Reason>, Reason); 6] = [
    (WalletLie::ToContracts, Some(SIMULATION), SIMULATION),
    // It cannot be told from an honest one without gas to pay.
    (WalletLie::InTransactions, None, SIMULATION),
    (WalletLie::Always, Some(SIGNATURE), SIGNATURE),
    (WalletLie::BurnsGas, Some(SIGNATURE), SIGNATURE),
    (WalletLie::WastesGas, Some(SIGNATURE), SIGNATURE),
    (WalletLie::Floods, Some(SIGNATURE), SIGNATURE),
];

#[tokio::test]
async fn a10_what_lies_at_verification_is_refused() {
    let world = World::start(Mining::Instant, 1).await;
    for (number, (lie, verified, settled)) in (1..).zip(LIES) {
        let wallet = world.lying_wallet(lie).await;
        let request = pay_with_nonsense(wallet, &demand(1_000), number);
        let verification = world.facilitator.verify(&request, now()).await.unwrap();
        match verified {
            Some(reason) => invalid(&verification, &reason),
            None => valid(&verification),
        }
        rejected(&world.facilitator.settle(&request, now()).await, &settled);
    }
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    assert_eq!(world.balance(PAY_TO).await, 0);
    world.end().await;
}

#[tokio::test]
async fn a10_what_changes_its_mind_before_settlement_costs_no_gas() {
    let world = World::start(Mining::Instant, 1).await;
    for (number, (lie, _, settled)) in (1..).zip(LIES) {
        let wallet = world.lying_wallet(WalletLie::Nothing).await;
        let request = pay_with_nonsense(wallet, &demand(1_000), number);
        valid(&world.facilitator.verify(&request, now()).await.unwrap());
        world.switch(wallet, lie).await;
        rejected(&world.facilitator.settle(&request, now()).await, &settled);
        // When it keeps its word again, the payment is as good as it was.
        world.switch(wallet, WalletLie::Nothing).await;
        valid(&world.facilitator.verify(&request, now()).await.unwrap());
    }
    assert_eq!(world.transactions_of(&facilitator()).await, 0);
    assert_eq!(world.balance(PAY_TO).await, 0);
    world.end().await;
}

/// Settles, and lets the wallet change its mind after our transaction was sent and before it is mined.
async fn overtaken(
    world: &World,
    wallet: Address,
    lie: WalletLie,
    number: u64,
) -> Result<Settlement, SettleError> {
    let request = pay_with_nonsense(wallet, &demand(1_000), number);
    let sent = world.transactions_of(&facilitator()).await;
    let overtake = async {
        until("our transaction waits to be mined", || async {
            let pending = json!([facilitator(), "pending"]);
            let count = world.rpc("eth_getTransactionCount", pending).await;
            count == format!("{:#x}", sent.saturating_add(1))
        })
        .await;
        world.send(6, &wallet.to_string(), &lying_wallet_switch(lie).to_string()).await;
        world.devnet.mine();
    };
    tokio::join!(world.facilitator.settle(&request, now()), overtake).0
}

#[tokio::test]
async fn a10_what_changes_its_mind_in_the_block_burns_little_and_twice_at_most() {
    let world = World::start(Mining::Manual, 1).await;
    for (round, lie) in (0..).zip([WalletLie::Always, WalletLie::BurnsGas, WalletLie::WastesGas]) {
        let wallet = world.lying_wallet(WalletLie::Nothing).await;
        let before = world.transactions_of(&facilitator()).await;
        let number = round * 10;
        for strike in 0..2 {
            let result = overtaken(&world, wallet, lie, number + strike).await;
            let Err(SettleError::Unknown { transaction: Some(hash) }) = result else {
                panic!("{lie:?}: {result:?}")
            };
            let receipt = world.rpc("eth_getTransactionReceipt", json!([hash])).await;
            assert_eq!(receipt["status"], "0x0");
            let burnt: U256 = receipt["gasUsed"].as_str().unwrap().parse().unwrap();
            assert!(burnt < U256::from(150_000), "{lie:?}: {burnt}");
            world.switch(wallet, WalletLie::Nothing).await;
        }
        // Enough: it is neither verified nor tried again, whatever it says now.
        let request = pay_with_nonsense(wallet, &demand(1_000), number + 2);
        invalid(&world.facilitator.verify(&request, now()).await.unwrap(), &SIMULATION);
        rejected(&world.facilitator.settle(&request, now()).await, &SIMULATION);
        let after = world.transactions_of(&facilitator()).await;
        assert_eq!(after, before + 2, "{lie:?}");
    }
    assert_eq!(world.balance(PAY_TO).await, 0);
    // Others are not held to account.
    let wallet = world.honest_wallet().await;
    let request = pay_by_wallet(wallet, &demand(1_000), 77);
    valid(&world.facilitator.verify(&request, now()).await.unwrap());
    world.end().await;
}

#[tokio::test]
async fn a10_what_lies_as_a_factory_deploys_nothing_and_costs_nothing() {
    for (lie, reason) in [
        (WalletLie::Nothing, SIGNATURE),
        (WalletLie::BurnsGas, Reason::SmartWalletDeploymentFailed),
        (WalletLie::WastesGas, Reason::SmartWalletDeploymentFailed),
        (WalletLie::Floods, Reason::SmartWalletDeploymentFailed),
    ] {
        // Where the first contract of this account will lie on every such chain.
        let first = farebox_devnet::DEV_ACCOUNTS[7].address.create(0);
        let world = trusting_world(EvmAddress::from_bytes(first.into())).await;
        assert_eq!(world.lying_wallet(lie).await, first);
        let nobody = Address::repeat_byte(0x77);
        world.devnet.set_token_balance(nobody, FUNDS);
        let request = pay_by_contract(nobody, &demand(1_000), 1, |digest| {
            wrap(first, b"make it", &owner().sign_digest(&digest.0))
        });
        invalid(&world.facilitator.verify(&request, now()).await.unwrap(), &reason);
        rejected(&world.facilitator.settle(&request, now()).await, &reason);
        assert_eq!(world.transactions_of(&facilitator()).await, 0, "{lie:?}");
        world.end().await;
    }
}

#[tokio::test]
async fn a10_a_bad_signature_does_not_stand_for_the_good_one() {
    let world = World::start(Mining::Manual, 1).await;
    world.devnet.mine();
    let wallet = world.honest_wallet().await;
    let good = pay_by_wallet(wallet, &demand(1_000), 1);
    let bad = crate::support::altered(&good, |it| {
        it["paymentPayload"]["payload"]["signature"] = json!("0x1234");
    });
    // It waits for the bad one at most; nobody says that it is not good itself.
    let settle = async {
        loop {
            match world.facilitator.settle(&good, now()).await {
                Err(SettleError::NotSent(_)) => tokio::task::yield_now().await,
                result => return result,
            }
        }
    };
    let mine = async {
        until("the transaction waits", || async {
            let pending = json!([facilitator(), "pending"]);
            world.rpc("eth_getTransactionCount", pending).await == "0x1"
        })
        .await;
        world.devnet.mine();
    };
    let (bad, good, ()) = tokio::join!(world.facilitator.settle(&bad, now()), settle, mine);
    rejected(&bad, &SIGNATURE);
    good.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 1_000);
    world.end().await;
}
