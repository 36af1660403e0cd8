//! The official clients buy from `farebox serve`; the official server sells through `farebox facilitator`.

macro_rules! on_each_chain {
    ($($scenario:ident),* $(,)?) => {
        mod devnet {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(farebox_testkit::evm::EvmKind::Devnet).await;
            })*
        }
        mod anvil {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(farebox_testkit::evm::EvmKind::Anvil).await;
            })*
        }
    };
}

mod apis;
mod shop;
mod upto;
mod v1;
mod wallets;

use std::time::Duration;

use farebox_protocol::Amount;
use farebox_testkit::clients::{Attempt, Buyer, Frame, Order, Purchase, Report};
use farebox_testkit::evm::{EvmKind, payer};
use serde_json::{Value, json};

use self::shop::{Farebox, PACE, PAY_TO, Shop, assert_earned, foundations};

const WORDS: &str = "one two three four five six";

/// What the offer that a client accepted asks for. `exact` moves the whole of it.
fn price(attempt: &Attempt) -> Amount {
    let signed = attempt.signed.as_ref().unwrap();
    signed["accepted"]["amount"].as_str().unwrap().parse().unwrap()
}

fn sum(amounts: impl IntoIterator<Item = Amount>) -> Amount {
    amounts.into_iter().fold(Amount::ZERO, |sum, it| sum.checked_add(it).unwrap())
}

/// Asserts that a purchase was served for one payment; returns that payment's exchange.
fn paid_once(purchase: &Purchase) -> &Attempt {
    let paid = purchase.paid().collect::<Vec<_>>();
    let [once] = paid.as_slice() else { panic!("paid {} times: {purchase:#?}", paid.len()) };
    assert_eq!(once.status, Some(200));
    once
}

/// Asserts that a receipt on the wire tells of a settled payment of our network.
fn assert_receipt(receipt: &Value) {
    assert_eq!(receipt["success"], json!(true), "{receipt}");
    assert_eq!(receipt["network"], json!("eip155:84532"), "{receipt}");
    assert_eq!(receipt["payer"], json!(payer().address.to_string()), "{receipt}");
    let transaction = receipt["transaction"].as_str().unwrap().strip_prefix("0x");
    assert_eq!(transaction.map(str::len), Some(64), "{receipt}");
}

/// A chat completion as each buyer orders it.
fn chat(shop: &Shop, buyer: Buyer, prompt: &str) -> Order {
    chat_of(|path| shop.order(path), buyer, prompt)
}

fn chat_of(order: impl Fn(&str) -> Order, buyer: Buyer, prompt: &str) -> Order {
    match buyer {
        Buyer::OpenAiNpm | Buyer::OpenAiPython => {
            order("/v1").with(&["--prompt", prompt, "--max-tokens", "50"])
        }
        Buyer::Fetch | Buyer::Httpx => order("/v1/chat/completions").post(&json!({
            "model": "test",
            "messages": [{ "role": "user", "content": prompt }],
            "max_tokens": 50,
        })),
    }
}

async fn buy(shop: &Shop, buyer: Buyer, order: &Order) -> Purchase {
    let Report { served, mut purchases, .. } = shop.clients.buy(buyer, order).await.unwrap();
    assert!(served, "{buyer:?}: {purchases:#?}\n{}", shop.log());
    assert_eq!(purchases.len(), 1);
    purchases.remove(0)
}

const BUYERS: [Buyer; 4] = [Buyer::Fetch, Buyer::Httpx, Buyer::OpenAiNpm, Buyer::OpenAiPython];

async fn stock_clients_buy_json(kind: EvmKind) {
    let shop = Shop::open(kind).await;
    let mut charged = Vec::new();
    for buyer in BUYERS {
        let purchase = buy(&shop, buyer, &chat(&shop, buyer, WORDS)).await;
        let paid = paid_once(&purchase);
        assert_receipt(paid.settled.as_ref().unwrap());
        assert_eq!(paid.headers["cache-control"], "private, no-store");
        let content = purchase.content.clone().unwrap_or_else(|| {
            let body: Value = serde_json::from_str(purchase.body.as_deref().unwrap()).unwrap();
            body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
        });
        assert_eq!(content, WORDS, "{buyer:?}");
        charged.push(price(paid));
    }
    for buyer in [Buyer::Fetch, Buyer::Httpx] {
        for (path, flow) in
            [("/premium/a/b?c=d", Value::Null), ("/premium/first/a", json!("upfront"))]
        {
            let purchase = buy(&shop, buyer, &shop.order(path)).await;
            let paid = paid_once(&purchase);
            assert_eq!(price(paid), Amount::from_units(10_000));
            assert_eq!(paid.signed.as_ref().unwrap()["accepted"]["extra"]["paymentFlow"], flow);
            assert_receipt(paid.settled.as_ref().unwrap());
            charged.push(price(paid));
        }
    }
    shop.assert_earned(sum(charged)).await;
    let asked = shop.asked().await;
    assert_eq!(asked.len(), 8, "one upstream call a payment, none before it: {asked:#?}");
    for call in &asked {
        assert_eq!(call["headers"]["authorization"], json!("Bearer the-upstream-key"));
        assert_eq!(call["headers"].get("payment-signature"), None);
    }
}

async fn stock_clients_buy_streams(kind: EvmKind) {
    let shop = Shop::open(kind).await;
    let mut charged = Vec::new();
    for buyer in BUYERS {
        let order = chat(&shop, buyer, WORDS);
        let order = match buyer {
            Buyer::OpenAiNpm | Buyer::OpenAiPython => order.streamed(),
            Buyer::Fetch | Buyer::Httpx => {
                shop.order("/v1/chat/completions").streamed().post(&json!({
                    "model": "test",
                    "messages": [{ "role": "user", "content": WORDS }],
                    "max_tokens": 50,
                    "stream": true,
                }))
            }
        };
        let purchase = buy(&shop, buyer, &order).await;
        charged.push(price(paid_once(&purchase)));
        assert_passed_as_it_came(&purchase);
        if let Some(frames) = &purchase.frames {
            assert_stream(frames);
        } else {
            assert_eq!(purchase.content.as_deref(), Some(WORDS), "{buyer:?}");
            assert_eq!(purchase.finish_reason.as_deref(), Some("stop"), "{buyer:?}");
            assert_eq!(purchase.usage, None, "not asked for, so not shown");
        }
    }
    shop.assert_earned(sum(charged)).await;
    for call in shop.asked().await {
        assert_eq!(call["body"]["stream_options"]["include_usage"], json!(true), "{call}");
    }
}

/// Six words, each [`PACE`] after the other: who buffers shows the first with the last.
fn assert_passed_as_it_came(purchase: &Purchase) {
    let (first, total) = (purchase.first_chunk_ms.unwrap(), purchase.total_ms.unwrap());
    let spread = Duration::from_millis(total.saturating_sub(first));
    assert!(spread >= PACE.saturating_mul(3), "first piece after {first} ms of {total} ms");
}

fn assert_stream(frames: &[Frame]) {
    assert_eq!(frames.last(), Some(&Frame::Data("[DONE]".to_owned())));
    let mut chunks = Vec::new();
    for frame in frames {
        if let Frame::Data(data) = frame
            && data != "[DONE]"
        {
            chunks.push(serde_json::from_str::<Value>(data).unwrap());
        }
    }
    let said = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    assert_eq!(chunks.iter().filter_map(said).collect::<String>(), WORDS);
    assert!(
        chunks.iter().all(|chunk| chunk.get("usage").is_none_or(Value::is_null)),
        "{chunks:#?}"
    );
    let comments = frames.iter().filter(|frame| matches!(frame, Frame::Comment(_)));
    assert!(comments.count() >= 1, "a receipt before the end: {frames:#?}");
}

/// Each of the SDK's own retries signs anew; a failed answer must charge none of them.
async fn an_upstream_failure_charges_nothing(kind: EvmKind) {
    let shop = Shop::open(kind).await;
    for buyer in BUYERS {
        let order = chat(&shop, buyer, "fail please");
        let report = shop.clients.buy(buyer, &order).await.unwrap();
        assert!(!report.served, "{report:#?}");
        let paid = report.purchases[0].paid().collect::<Vec<_>>();
        assert!(!paid.is_empty());
        for attempt in paid {
            assert!(attempt.status.unwrap() >= 500, "{attempt:#?}");
            assert_eq!(attempt.settled, None);
        }
    }
    // What is bought next is the first that is paid for: nothing of the above was on its way.
    let purchase = buy(&shop, Buyer::Fetch, &shop.order("/premium/x")).await;
    shop.assert_earned(price(paid_once(&purchase))).await;
}

async fn the_stock_server_sells_through_our_facilitator(kind: EvmKind) {
    let (chain, clients) = foundations(kind).await;
    let facilitator = Farebox::facilitator(&chain).await;
    let seller = clients.seller(facilitator.url(), &PAY_TO.to_string()).await.unwrap();
    let log = || format!("{}\n{}", seller.log(), facilitator.log());
    let mut charged = Vec::new();
    for buyer in [Buyer::Fetch, Buyer::Httpx] {
        for path in ["/paid", "/upfront"] {
            let url = format!("{}{path}", seller.url());
            let order = Order::new(&url, &payer().private_key_hex()).times(2);
            let report = clients.buy(buyer, &order).await.unwrap();
            assert!(report.served, "{report:#?}\n{}", log());
            for purchase in &report.purchases {
                let paid = paid_once(purchase);
                assert_receipt(paid.settled.as_ref().unwrap());
                charged.push(price(paid));
            }
        }
        let order = Order::new(&format!("{}/broken", seller.url()), &payer().private_key_hex());
        let report = clients.buy(buyer, &order).await.unwrap();
        assert_eq!(report.purchases[0].status, Some(500));
    }
    assert_earned(&chain, sum(charged), log).await;
}

/// The official extension `payment-identifier`: its clients sign each try anew.
async fn a_request_of_one_identifier_is_charged_once(kind: EvmKind) {
    let shop = Shop::open(kind).await;
    for (buyer, id) in [(Buyer::Fetch, "order_of_npm_0001"), (Buyer::Httpx, "order_of_pypi_0001")] {
        let order = shop.order("/premium/a").times(2).with(&["--identifier", id]);
        let Report { served, purchases, .. } = shop.clients.buy(buyer, &order).await.unwrap();
        assert!(served, "{buyer:?}: {purchases:#?}\n{}", shop.log());
        let [first, again] = &purchases[..] else { panic!("{purchases:#?}") };
        let (first_paid, again_paid) = (paid_once(first), paid_once(again));
        let signed = |it: &Attempt| it.signed.clone().unwrap();
        for paid in [first_paid, again_paid] {
            let info = &signed(paid)["extensions"]["payment-identifier"]["info"];
            assert_eq!(info["id"], json!(id), "{buyer:?}");
        }
        assert_ne!(signed(first_paid)["payload"], signed(again_paid)["payload"], "{buyer:?}");
        assert_receipt(first_paid.settled.as_ref().unwrap());
        assert_eq!(again_paid.settled, None, "{buyer:?}: the second payment was settled");
        assert_eq!(again_paid.headers["idempotent-replayed"], "true");
        assert_eq!(again_paid.headers["farebox-receipt"], first_paid.headers["farebox-receipt"]);
        assert_eq!(again.body, first.body, "{buyer:?}");
    }
    shop.assert_earned(Amount::from_units(20_000)).await;
    assert_eq!(shop.asked().await.len(), 2, "one upstream call for each identifier");
}

on_each_chain!(
    stock_clients_buy_json,
    stock_clients_buy_streams,
    an_upstream_failure_charges_nothing,
    the_stock_server_sells_through_our_facilitator,
    a_request_of_one_identifier_is_charged_once,
);
