//! The harness proves itself without us: stock buyers, stock server, stock facilitator, anvil.

use alloy_primitives::{Address, address};
use farebox_protocol::Amount;
use serde_json::json;

use super::*;
use crate::anvil::{Anvil, Blocks};

// The first two accounts that anvil prints at its start.
const SETTLER_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const PAYER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const PAYER: Address = address!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8");
const PAY_TO: Address = address!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
const PRICE: u128 = 1_000;

struct Market {
    anvil: Anvil,
    clients: Clients,
    seller: Server,
    _facilitator: Server,
}

async fn market() -> Market {
    let clients = Clients::installed().unwrap();
    let anvil = Anvil::start(Blocks::Instant).await.unwrap();
    anvil.give_tokens(PAYER, Amount::from_units(PRICE * 10)).await.unwrap();
    let facilitator = clients.facilitator(anvil.url(), SETTLER_KEY).await.unwrap();
    let seller = clients.seller(facilitator.url(), &PAY_TO.to_string()).await.unwrap();
    Market { anvil, clients, seller, _facilitator: facilitator }
}

#[tokio::test]
async fn stock_buyers_buy_from_the_stock_server() {
    let market = market().await;
    let order = Order::new(&format!("{}/paid", market.seller.url()), PAYER_KEY);
    for buyer in [Buyer::Fetch, Buyer::Httpx] {
        let report = market.clients.buy(buyer, &order.clone().times(2)).await.unwrap();
        assert!(report.served, "{report:?}\n{}", market.seller.log());
        for purchase in &report.purchases {
            assert_eq!(purchase.body.as_deref(), Some(r#"{"sold":"paid"}"#));
            let paid = purchase.paid().collect::<Vec<_>>();
            assert_eq!(paid.len(), 1);
            assert_eq!(paid[0].settled.as_ref().unwrap()["success"], json!(true));
        }
    }
    let earned = market.anvil.tokens_of(PAY_TO).await.unwrap();
    assert_eq!(earned, Amount::from_units(PRICE * 4));
}

#[tokio::test]
async fn an_answer_that_fails_is_reported_and_not_paid() {
    let market = market().await;
    let order = Order::new(&format!("{}/broken", market.seller.url()), PAYER_KEY);
    for buyer in [Buyer::Fetch, Buyer::Httpx] {
        let report = market.clients.buy(buyer, &order).await.unwrap();
        assert!(!report.served);
        assert_eq!(report.purchases[0].status, Some(500));
    }
    assert_eq!(market.anvil.tokens_of(PAY_TO).await.unwrap(), Amount::ZERO);
}

#[tokio::test]
async fn viem_and_ethers_use_the_chain() {
    let clients = Clients::installed().unwrap();
    let anvil = Anvil::start(Blocks::Instant).await.unwrap();
    anvil.give_tokens(PAYER, Amount::from_units(100)).await.unwrap();
    let seen = clients.chain(anvil.url(), PAYER_KEY).await.unwrap();
    assert_eq!(seen["viem"]["moved"], json!(7), "{seen}");
    assert_eq!(seen["ethers"]["moved"], json!(5), "{seen}");
}
