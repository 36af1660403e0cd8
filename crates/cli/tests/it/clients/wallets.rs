//! Payers that are contracts buy from `farebox serve` through the official client, on either chain; and
//! what a contract that lies gets, which is nothing.

use std::time::Duration;

use alloy_primitives::{Address, Bytes, U256};
use farebox_devnet::{
    DEV_ACCOUNTS, WalletLie, counterfactual_wallet, lying_wallet_creation, test_wallet_creation,
};
use farebox_protocol::Amount;
use farebox_testkit::clients::{Buyer, Order};
use farebox_testkit::evm::{EvmChain, EvmKind, payer, settler};
use serde_json::{Value, json};

use super::shop::{FUNDS, PAY_TO, Shop};
use super::{WORDS, chat, paid_once, price};

/// Deploys a contract and gives it tokens.
async fn deploy(chain: &EvmChain, creation: Bytes) -> Address {
    let call = json!([{"from": DEV_ACCOUNTS[7].address, "data": creation, "gas": "0x4c4b40"}]);
    let hash = chain.rpc().call("eth_sendTransaction", call).await.unwrap();
    // A busy node has the transaction before it has the block.
    let mined = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let receipt =
                chain.rpc().call("eth_getTransactionReceipt", json!([hash])).await.unwrap();
            if receipt.is_object() {
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let receipt = mined.await.unwrap();
    let contract = serde_json::from_value(receipt["contractAddress"].clone()).unwrap();
    chain.give_tokens(contract, FUNDS).await.unwrap();
    contract
}

async fn has_code(chain: &EvmChain, account: Address) -> bool {
    chain.rpc().call("eth_getCode", json!([account, "latest"])).await.unwrap() != "0x"
}

/// How many transactions the settler has in blocks.
async fn sent(chain: &EvmChain) -> U256 {
    let count = json!([settler().address, "latest"]);
    chain.rpc().word("eth_getTransactionCount", count).await.unwrap()
}

fn by(order: Order, wallet: Address) -> Order {
    order.with(&["--wallet", &wallet.to_string()])
}

/// Buys with what a wallet has, and asserts that it, and nobody else, paid.
async fn buy(shop: &Shop, wallet: Address, order: &Order) {
    let before = shop.chain.tokens_of(wallet).await.unwrap();
    let earned = shop.chain.tokens_of(PAY_TO).await.unwrap();
    let report = shop.clients.buy(Buyer::Fetch, order).await.unwrap();
    assert!(report.served, "{report:#?}\n{}", shop.log());
    let paid = paid_once(&report.purchases[0]);
    let settled = paid.settled.as_ref().unwrap();
    assert_eq!(settled["payer"], json!(wallet.to_string()), "{settled}");
    let body: Value = serde_json::from_str(report.purchases[0].body.as_ref().unwrap()).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], json!(WORDS));
    let after = shop.chain.tokens_of(wallet).await.unwrap();
    assert_eq!(before.checked_sub(after).unwrap(), price(paid));
    let more = shop.chain.tokens_of(PAY_TO).await.unwrap();
    assert_eq!(more.checked_sub(earned).unwrap(), price(paid));
}

async fn a_deployed_wallet_buys(kind: EvmKind) {
    let shop = Shop::open(kind).await;
    let creation = test_wallet_creation(payer().address).unwrap();
    let wallet = deploy(&shop.chain, creation).await;
    let order = by(chat(&shop, Buyer::Fetch, WORDS), wallet);
    buy(&shop, wallet, &order).await;
    assert_eq!(sent(&shop.chain).await, U256::from(1));
}

async fn a_wallet_is_deployed_with_its_first_purchase(kind: EvmKind) {
    let shop = Shop::open(kind).await;
    let wallet = counterfactual_wallet(payer().address, U256::from(5)).unwrap();
    shop.chain.give_tokens(wallet.address, FUNDS).await.unwrap();
    let order = by(chat(&shop, Buyer::Fetch, WORDS), wallet.address).with(&[
        "--factory",
        &wallet.factory.to_string(),
        "--factory-call",
        &wallet.factory_calldata.to_string(),
    ]);
    assert!(!has_code(&shop.chain, wallet.address).await);
    buy(&shop, wallet.address, &order).await;
    assert!(has_code(&shop.chain, wallet.address).await);
    assert_eq!(sent(&shop.chain).await, U256::from(2));
    buy(&shop, wallet.address, &order).await;
    assert_eq!(sent(&shop.chain).await, U256::from(3));
}

/// Attack A10: whatever the lie, an answer that waits for its settlement stays where it is, and no
/// transaction is sent.
async fn a10_no_lie_buys_a_byte(kind: EvmKind) {
    let shop = Shop::open(kind).await;
    for lie in [
        WalletLie::ToContracts,
        WalletLie::InTransactions,
        WalletLie::Always,
        WalletLie::BurnsGas,
        WalletLie::WastesGas,
        WalletLie::Floods,
    ] {
        let wallet = deploy(&shop.chain, lying_wallet_creation(lie).unwrap()).await;
        let order = by(chat(&shop, Buyer::Fetch, WORDS), wallet);
        let asked = shop.asked().await.len();
        let report = shop.clients.buy(Buyer::Fetch, &order).await.unwrap();
        let purchase = &report.purchases[0];
        assert_eq!(purchase.status, Some(402), "{lie:?}: {report:#?}\n{}", shop.log());
        let body = purchase.body.as_ref().unwrap();
        assert!(!body.contains("choices") && !body.contains(WORDS), "{lie:?}: {body}");
        let served = shop.asked().await.len() > asked;
        // Only what cannot be told from an honest one without a transaction got as far as the model.
        assert_eq!(served, lie == WalletLie::InTransactions, "{lie:?}\n{}", shop.log());
        assert_eq!(shop.chain.tokens_of(wallet).await.unwrap(), FUNDS);
    }
    assert_eq!(shop.chain.tokens_of(PAY_TO).await.unwrap(), Amount::ZERO);
    assert_eq!(sent(&shop.chain).await, U256::ZERO);
}

on_each_chain!(
    a_deployed_wallet_buys,
    a_wallet_is_deployed_with_its_first_purchase,
    a10_no_lie_buys_a_byte,
);
