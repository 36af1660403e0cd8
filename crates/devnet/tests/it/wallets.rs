//! Payers that are contracts: not there yet, or liars; and the token that forgives used nonces.

use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_sol_types::{SolCall, sol};
use farebox_devnet::{
    MULTICALL3_ADDRESS, TOKEN_ADDRESS, WalletLie, counterfactual_wallet, forgiving_token_code,
    lying_wallet_creation, lying_wallet_switch,
};
use serde_json::{Value, json};

use crate::support::{Key, Net, tx_1559};
use crate::transfer_with_authorization::{TransferWithAuthorization, message, whole};

const TO: Address = Address::repeat_byte(0x77);
const SIGNED: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];

sol! {
    interface Factory {
        function getAddress(address owner, uint256 salt) external view returns (address);
    }
    interface Wallet {
        function isValidSignature(bytes32 hash, bytes signature) external view returns (bytes4);
    }
    interface Multicall {
        struct Call { address target; bytes callData; }
        function aggregate(Call[] calls) external payable
            returns (uint256 blockNumber, bytes[] returnData);
    }
}

#[tokio::test]
async fn a_counterfactual_wallet_is_made_and_pays_in_one_transaction() {
    let net = Net::instant().await;
    let owner = Key::fresh(7);
    let salt = U256::from(0x6492);
    let wallet = counterfactual_wallet(owner.address(), salt).unwrap();
    let told = Factory::getAddressCall { owner: owner.address(), salt };
    let told = net.call_at(Key::dev(0), wallet.factory, told).await.unwrap();
    assert_eq!(told, wallet.address);
    let code: Bytes = net.ok("eth_getCode", json!([wallet.address, "latest"])).await;
    assert!(code.is_empty());

    net.devnet.set_token_balance(wallet.address, 1_500);
    let make =
        || Multicall::Call { target: wallet.factory, callData: wallet.factory_calldata.clone() };
    let pay = |nonce| {
        let signed = TransferWithAuthorization { from: wallet.address, ..message(owner, nonce) };
        let signature = owner.sign_typed(&signed).as_bytes();
        let call = whole(&signed, signature).abi_encode();
        Multicall::Call { target: TOKEN_ADDRESS, callData: call.into() }
    };
    // Without its code the wallet is a key, and not the owner's.
    let early = Multicall::aggregateCall { calls: vec![pay(1)] };
    assert!(!net.send(Key::dev(0), MULTICALL3_ADDRESS, early.abi_encode().into()).await.status());
    let both = Multicall::aggregateCall { calls: vec![make(), pay(1)] };
    let receipt = net.send(Key::dev(0), MULTICALL3_ADDRESS, both.abi_encode().into()).await;
    assert!(receipt.status(), "{receipt:?}");
    assert_eq!(net.usdc(TO).await, U256::from(1_000));
    // Who deploys it a second time does no harm.
    let again = net.send(Key::dev(0), wallet.factory, wallet.factory_calldata.clone()).await;
    assert!(again.status());
    assert!(again.inner.logs().is_empty());
}

/// Deploys a liar and gives it tokens.
async fn liar(net: &Net, lie: WalletLie) -> Address {
    let deployer = Key::dev(3);
    let tx = alloy_consensus::TxEip1559 {
        nonce: net.nonce(deployer.address()).await,
        to: TxKind::Create,
        input: lying_wallet_creation(lie).unwrap(),
        gas_limit: 1_000_000,
        ..tx_1559()
    };
    let hash = net.send_raw(deployer.sign_tx(tx)).await.unwrap();
    let wallet = net.receipt(hash).await.contract_address.unwrap();
    net.devnet.set_token_balance(wallet, 1_000);
    wallet
}

/// What becomes of a payment by a liar.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    /// What it says when it is asked directly.
    asked: bool,
    /// Whether the payment succeeds when simulated.
    simulated: bool,
    /// Whether it does in a transaction.
    mined: bool,
}

async fn fate(net: &Net, wallet: Address, nonce: u64) -> Fate {
    let question = Wallet::isValidSignatureCall { hash: B256::ZERO, signature: vec![0; 65].into() };
    let data = Bytes::from(question.abi_encode());
    let answer = net.call_raw(Key::dev(0), wallet, data).await;
    let signed = TransferWithAuthorization { from: wallet, ..message(Key::dev(0), nonce) };
    let payment = whole(&signed, vec![0; 65]);
    Fate {
        asked: answer.is_ok_and(|answer| answer.starts_with(&SIGNED)),
        simulated: net.call(Key::dev(0), payment.clone()).await.is_ok(),
        mined: net.transact(Key::dev(0), payment).await.status(),
    }
}

#[tokio::test]
async fn a10_each_liar_lies_in_its_own_way() {
    let net = Net::instant().await;
    let cases = [
        (WalletLie::Nothing, [true, true, true]),
        (WalletLie::ToContracts, [true, false, false]),
        (WalletLie::InTransactions, [true, true, false]),
        (WalletLie::Always, [false, false, false]),
        (WalletLie::BurnsGas, [false, false, false]),
        (WalletLie::WastesGas, [true, true, true]),
        (WalletLie::Floods, [true, true, true]),
    ];
    for (lie, [asked, simulated, mined]) in cases {
        let wallet = liar(&net, lie).await;
        assert_eq!(fate(&net, wallet, 1).await, Fate { asked, simulated, mined }, "{lie:?}");
    }
    // The same wallet at another time.
    let wallet = liar(&net, WalletLie::Nothing).await;
    assert!(fate(&net, wallet, 1).await.mined);
    assert!(net.send(Key::dev(2), wallet, lying_wallet_switch(WalletLie::Always)).await.status());
    net.devnet.set_token_balance(wallet, 1_000);
    assert!(!fate(&net, wallet, 2).await.asked);
}

#[tokio::test]
async fn a10_greed_for_gas_shows_in_what_a_call_costs() {
    let net = Net::instant().await;
    let question = Wallet::isValidSignatureCall { hash: B256::ZERO, signature: vec![0; 65].into() };
    let data = Bytes::from(question.abi_encode());
    for (lie, enough_at_200_000) in [
        (WalletLie::Nothing, true),
        (WalletLie::BurnsGas, false),
        (WalletLie::WastesGas, false),
        (WalletLie::Floods, false),
    ] {
        let wallet = liar(&net, lie).await;
        let capped = json!([{ "to": wallet, "data": data, "gas": "0x30d40" }, "latest"]);
        assert_eq!(net.rpc("eth_call", capped).await.is_ok(), enough_at_200_000, "{lie:?}");
        // As a factory it deploys nothing, at the same cost.
        let posing = json!([{ "to": wallet, "data": "0x12345678", "gas": "0x30d40" }, "latest"]);
        assert_eq!(net.rpc("eth_call", posing).await.is_ok(), enough_at_200_000, "{lie:?}");
    }
}

#[tokio::test]
async fn a20_the_forgiving_token_says_nothing_of_a_used_nonce() {
    let net = Net::instant().await;
    let payer = Key::dev(1);
    let signed = message(payer, 1);
    let payment = whole(&signed, payer.sign_typed(&signed).as_bytes());
    let code = forgiving_token_code().unwrap();
    net.ok::<Value>("anvil_setCode", json!([TOKEN_ADDRESS, code])).await;
    let before = net.usdc(TO).await;
    for (paid, events) in [(1_000, 2), (1_000, 0)] {
        let receipt = net.transact(Key::dev(0), payment.clone()).await;
        assert!(receipt.status());
        assert_eq!(receipt.inner.logs().len(), events);
        assert_eq!(net.usdc(TO).await, before + U256::from(paid));
    }
    // In everything else it is the token.
    let other = whole(&message(payer, 2), Key::dev(2).sign_typed(&signed).as_bytes());
    net.reverts(Key::dev(0), other, "FiatTokenV2: invalid signature").await;
}
