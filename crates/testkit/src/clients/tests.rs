//! The harness proves itself without us: stock buyers, stock server and stock facilitator, on
//! anvil (nothing of ours but the token) and on our dev chain.

use alloy_primitives::{Address, address};
use farebox_protocol::Amount;
use serde_json::json;

use super::*;
use crate::anvil::Blocks;
use crate::evm::{EvmChain, EvmKind, payer, settler};

const PAY_TO: Address = address!("0x00000000000000000000000000000000000000fe");
const PRICE: u128 = 1_000;

struct Market {
    chain: EvmChain,
    clients: Clients,
    seller: Server,
    _facilitator: Server,
}

async fn market(kind: EvmKind) -> Market {
    let clients = Clients::installed().unwrap();
    let chain = EvmChain::start(kind, Blocks::Instant).await.unwrap();
    chain.give_tokens(payer().address, Amount::from_units(PRICE * 10)).await.unwrap();
    let key = settler().private_key_hex();
    let facilitator = clients.facilitator(chain.url(), &key).await.unwrap();
    let seller = clients.seller(facilitator.url(), &PAY_TO.to_string()).await.unwrap();
    Market { chain, clients, seller, _facilitator: facilitator }
}

async fn stock_buyers_buy_from_the_stock_server(kind: EvmKind) {
    let market = market(kind).await;
    for (path, body) in [("/paid", r#"{"sold":"paid"}"#), ("/upfront", r#"{"sold":"upfront"}"#)] {
        let url = format!("{}{path}", market.seller.url());
        let order = Order::new(&url, &payer().private_key_hex()).times(2);
        for buyer in [Buyer::Fetch, Buyer::Httpx] {
            let report = market.clients.buy(buyer, &order).await.unwrap();
            assert!(report.served, "{report:#?}\n{}", market.seller.log());
            for purchase in &report.purchases {
                assert_eq!(purchase.body.as_deref(), Some(body));
                let paid = purchase.paid().collect::<Vec<_>>();
                assert_eq!(paid.len(), 1);
                assert_eq!(paid[0].settled.as_ref().unwrap()["success"], json!(true));
            }
        }
    }
    let earned = market.chain.tokens_of(PAY_TO).await.unwrap();
    assert_eq!(earned, Amount::from_units(PRICE * 8));
    let kept = market.chain.tokens_of(payer().address).await.unwrap();
    assert_eq!(kept, Amount::from_units(PRICE * 2));
}

async fn an_answer_that_fails_is_reported_and_not_paid(kind: EvmKind) {
    let market = market(kind).await;
    let url = format!("{}/broken", market.seller.url());
    for buyer in [Buyer::Fetch, Buyer::Httpx] {
        let order = Order::new(&url, &payer().private_key_hex());
        let report = market.clients.buy(buyer, &order).await.unwrap();
        assert!(!report.served);
        assert_eq!(report.purchases[0].status, Some(500));
        assert_eq!(report.purchases[0].paid().count(), 1);
    }
    assert_eq!(market.chain.tokens_of(PAY_TO).await.unwrap(), Amount::ZERO);
}

async fn viem_and_ethers_use_the_chain(kind: EvmKind) {
    let clients = Clients::installed().unwrap();
    let chain = EvmChain::start(kind, Blocks::Instant).await.unwrap();
    chain.give_tokens(payer().address, Amount::from_units(100)).await.unwrap();
    let seen = clients.chain(chain.url(), &payer().private_key_hex()).await.unwrap();
    let refused = "ERC20: transfer amount exceeds balance";
    let viem_refused = format!(
        "The contract function \"transfer\" reverted with the following reason:\n{refused}"
    );
    let expected = json!({
        "viem": {
            "chainId": 84532, "name": "USDC", "moved": 7, "simulated": true, "refused": viem_refused,
            "gasCovers": true, "status": "success", "logs": 1, "logValue": 7, "transactions": 1,
            "feeCoversBase": true, "feeHistory": 1, "etherOfSomebody": true, "code": true, "nonce": 2,
        },
        "ethers": {
            "chainId": 84532, "moved": 5, "simulated": true, "refused": refused, "gasCovers": true,
            "status": 1, "events": 1, "eventValue": 5, "ether": 1, "maxFee": true, "block": true,
            "nonce": 4,
        },
    });
    assert_eq!(seen, expected, "{kind:?}");
}

#[tokio::test]
async fn stock_buyers_buy_from_the_stock_server_on_anvil() {
    stock_buyers_buy_from_the_stock_server(EvmKind::Anvil).await;
}

#[tokio::test]
async fn stock_buyers_buy_from_the_stock_server_on_the_devnet() {
    stock_buyers_buy_from_the_stock_server(EvmKind::Devnet).await;
}

#[tokio::test]
async fn an_answer_that_fails_is_reported_and_not_paid_on_anvil() {
    an_answer_that_fails_is_reported_and_not_paid(EvmKind::Anvil).await;
}

#[tokio::test]
async fn viem_and_ethers_use_anvil() {
    viem_and_ethers_use_the_chain(EvmKind::Anvil).await;
}

#[tokio::test]
async fn viem_and_ethers_use_the_devnet() {
    viem_and_ethers_use_the_chain(EvmKind::Devnet).await;
}

#[tokio::test]
async fn stock_openai_clients_talk_to_the_model() {
    let clients = Clients::installed().unwrap();
    let pace = Duration::from_millis(100);
    let model = clients.model(pace, "not-a-key").await.unwrap();
    let base = format!("{}/v1", model.url());
    let order = Order::new(&base, &payer().private_key_hex()).with(&[
        "--prompt",
        "one two three four five",
        "--max-tokens",
        "4",
        "--include-usage",
    ]);
    for buyer in [Buyer::OpenAiNpm, Buyer::OpenAiPython] {
        for order in [order.clone(), order.clone().streamed()] {
            let report = clients.buy(buyer, &order).await.unwrap();
            assert!(report.served, "{report:#?}");
            let answer = &report.purchases[0];
            assert_eq!(answer.content.as_deref(), Some("one two three four"));
            assert_eq!(answer.finish_reason.as_deref(), Some("length"));
            assert_eq!(answer.usage.as_ref().unwrap()["completion_tokens"], json!(4));
            assert_eq!(answer.paid().count(), 0, "the model is free");
            if let (Some(first), Some(total)) = (answer.first_chunk_ms, answer.total_ms) {
                assert!(
                    Duration::from_millis(total.saturating_sub(first)) >= pace.saturating_mul(2)
                );
            }
        }
    }
}
