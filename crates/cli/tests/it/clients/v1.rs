//! The official x402 v1 packages: `x402-fetch` buys from `farebox serve`, `x402-express` sells through
//! `farebox facilitator`, both at version 1.2.0; and our agent buys from the latter.

use farebox_agent::{Limits, Outcome, PayingClient, Policy, Proof, Usd, Wallet};
use farebox_protocol::Amount;
use farebox_testkit::clients::{Attempt, Buyer, Order, Purchase, Report};
use farebox_testkit::evm::{EvmKind, payer};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::shop::{Farebox, PAY_TO, Shop, assert_earned, foundations};
use super::{WORDS, assert_passed_as_it_came, assert_stream, paid_once, price, sum};

const CHAINS: [EvmKind; 2] = [EvmKind::Devnet, EvmKind::Anvil];

/// What a v1 client signed for; it echoes no offer.
fn signed_for(attempt: &Attempt) -> Amount {
    let signed = attempt.signed.as_ref().unwrap();
    assert_eq!((&signed["x402Version"], &signed["network"]), (&json!(1), &json!("base-sepolia")));
    signed["payload"]["authorization"]["value"].as_str().unwrap().parse().unwrap()
}

/// Asserts that `X-PAYMENT-RESPONSE` tells of a settled payment, in the words of v1.
fn assert_told(attempt: &Attempt) {
    let told = attempt.settled.as_ref().unwrap();
    assert!(!attempt.headers.contains_key("payment-response"), "{attempt:#?}");
    assert_eq!(told["success"], json!(true), "{told}");
    assert_eq!(told["network"], json!("base-sepolia"), "{told}");
    assert_eq!(told["payer"], json!(payer().address.to_string()), "{told}");
    assert_eq!(told["transaction"].as_str().map(str::len), Some(66), "{told}");
}

/// The stock client pays ten cents at most, so the answer is bounded.
fn chat(prompt: &str, stream: bool) -> Value {
    json!({
        "model": "test",
        "messages": [{ "role": "user", "content": prompt }],
        "max_tokens": 50,
        "stream": stream,
    })
}

async fn buy(shop: &Shop, order: &Order) -> Purchase {
    let Report { served, mut purchases, .. } = shop.clients.buy_v1(order).await.unwrap();
    assert!(served, "{purchases:#?}\n{}", shop.log());
    assert_eq!(purchases.len(), 1);
    purchases.remove(0)
}

#[tokio::test]
async fn the_v1_client_buys_json_and_streams_beside_v2_clients() {
    for chain in CHAINS {
        let shop = Shop::open(chain).await;
        let mut charged = Vec::new();
        let bought =
            buy(&shop, &shop.order("/v1/chat/completions").post(&chat(WORDS, false))).await;
        let body: Value = serde_json::from_str(bought.body.as_deref().unwrap()).unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], json!(WORDS));
        assert_told(paid_once(&bought));
        charged.push(signed_for(paid_once(&bought)));

        let order = shop.order("/v1/chat/completions").streamed().post(&chat(WORDS, true));
        let streamed = buy(&shop, &order).await;
        assert_passed_as_it_came(&streamed);
        assert_stream(streamed.frames.as_deref().unwrap());
        charged.push(signed_for(paid_once(&streamed)));

        let flat = buy(&shop, &shop.order("/premium/a/b?c=d")).await;
        assert_eq!(signed_for(paid_once(&flat)), Amount::from_units(10_000));
        charged.push(signed_for(paid_once(&flat)));

        // The same 402 serves the next version.
        let report = shop.clients.buy(Buyer::Fetch, &shop.order("/premium/a/b?c=d")).await.unwrap();
        let in_two = paid_once(&report.purchases[0]);
        assert_eq!(in_two.signed.as_ref().unwrap()["x402Version"], json!(2));
        charged.push(price(in_two));

        shop.assert_earned(sum(charged)).await;
        let asked = shop.asked().await;
        assert_eq!(asked.len(), 4, "one upstream call a payment, none before it: {asked:#?}");
        assert!(asked.iter().all(|call| call["headers"].get("x-payment").is_none()));
    }
}

#[tokio::test]
async fn an_upstream_failure_charges_the_v1_client_nothing() {
    let shop = Shop::open(EvmKind::Devnet).await;
    let order = shop.order("/v1/chat/completions").post(&chat("fail now", false));
    let report = shop.clients.buy_v1(&order).await.unwrap();
    let paid = report.purchases[0].paid().collect::<Vec<_>>();
    assert_eq!(paid.len(), 1, "{report:#?}");
    assert_eq!((paid[0].status, &paid[0].settled), (Some(500), &None));
    let next = buy(&shop, &shop.order("/premium/x")).await;
    shop.assert_earned(signed_for(paid_once(&next))).await;
}

#[tokio::test]
async fn the_v1_server_sells_through_our_facilitator_to_clients_of_both_versions() {
    for kind in CHAINS {
        let (chain, clients) = foundations(kind).await;
        let facilitator = Farebox::facilitator(&chain).await;
        let seller = clients.seller_v1(facilitator.url(), &PAY_TO.to_string()).await.unwrap();
        let log = || format!("{}\n{}", seller.log(), facilitator.log());
        let order =
            |path: &str| Order::new(&format!("{}{path}", seller.url()), &payer().private_key_hex());
        let mut charged = Vec::new();
        let paid = order("/paid").times(2);
        for report in [clients.buy_v1(&paid).await, clients.buy(Buyer::Fetch, &paid).await] {
            let report = report.unwrap();
            assert!(report.served, "{report:#?}\n{}", log());
            for purchase in &report.purchases {
                assert_told(paid_once(purchase));
                charged.push(signed_for(paid_once(purchase)));
            }
        }
        let report = clients.buy_v1(&order("/broken")).await.unwrap();
        assert_eq!(report.purchases[0].status, Some(500));
        assert_eq!(charged, [Amount::from_units(1_000); 4]);
        assert_earned(&chain, sum(charged), log).await;
    }
}

#[tokio::test]
async fn our_agent_buys_from_the_v1_server() {
    let (chain, clients) = foundations(EvmKind::Devnet).await;
    let facilitator = Farebox::facilitator(&chain).await;
    let seller = clients.seller_v1(facilitator.url(), &PAY_TO.to_string()).await.unwrap();
    let cent: Usd = "0.01".parse().unwrap();
    let policy = Policy::new(Limits { per_payment: cent, total: cent });
    let wallet = Wallet::from_hex(&SecretString::from(payer().private_key_hex())).unwrap();
    drop(rustls::crypto::ring::default_provider().install_default());
    let agent = PayingClient::new(reqwest::Client::builder().no_proxy(), wallet, policy).unwrap();
    let url = format!("{}/paid", seller.url()).parse().unwrap();
    let mut request = reqwest::Request::new(reqwest::Method::POST, url);
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    *request.body_mut() = Some(r#"{"a":1}"#.into());
    let answer = agent.execute(request).await.unwrap();
    let Outcome::Paid { charged, proof: Proof::Settlement(told) } = answer.payment.unwrap().outcome
    else {
        panic!("not settled: {}", facilitator.log())
    };
    assert_eq!((charged, told.network.as_str()), (Amount::from_units(1_000), "eip155:84532"));
    let body: Value = answer.response.json().await.unwrap();
    assert_eq!(body, json!({ "sold": "paid", "echo": { "a": 1 } }));
    assert_earned(&chain, charged, || facilitator.log()).await;
}
