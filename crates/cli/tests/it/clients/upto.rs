//! Payers that own nothing but the token, no gas and no allowance, buy on every offer over Permit2 from
//! stock clients, and pay for what was used.

use alloy_primitives::Address;
use farebox_chains::EvmKey;
use farebox_protocol::Amount;
use farebox_testkit::clients::{Api, Buyer, Order, Purchase, Report, Sdk};
use farebox_testkit::evm::{EvmChain, EvmKind};
use serde_json::{Value, json};

use super::shop::{FUNDS, Farebox, Offers, PAY_TO, Shop, foundations};
use super::{BUYERS, WORDS, assert_stream, chat_of, paid_once, price};

const BOTH: Offers = Offers { metered: r#"["upto", "exact"]"#, premium: r#"["exact-permit2"]"# };
/// Six words in, six words out, at 10 and 100 dollars for a million.
const USED: Amount = Amount::from_units(6 * 10 + 6 * 100);

/// A payer with tokens and nothing else.
struct Poor {
    key: String,
    address: Address,
}

impl Poor {
    async fn new(shop: &Shop, number: u8) -> Self {
        Self::on(&shop.chain, number).await
    }

    async fn on(chain: &EvmChain, number: u8) -> Self {
        let secret = [number; 32];
        let address = EvmKey::from_bytes(secret).unwrap().address();
        let address = Address::from(*address.as_bytes());
        chain.give_tokens(address, FUNDS).await.unwrap();
        Self { key: format!("0x{}", hex::encode(secret)), address }
    }

    async fn spent(&self, shop: &Shop) -> Amount {
        FUNDS.checked_sub(shop.chain.tokens_of(self.address).await.unwrap()).unwrap()
    }
}

async fn buy(shop: &Shop, buyer: Buyer, order: &Order) -> Purchase {
    let Report { served, mut purchases, .. } = shop.clients.buy(buyer, order).await.unwrap();
    assert!(served, "{buyer:?}: {purchases:#?}\n{}", shop.log());
    purchases.remove(0)
}

/// Waits for streams, which settle after they end.
async fn assert_spent(shop: &Shop, payer: &Poor, expected: Amount) {
    let arrived = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while payer.spent(shop).await < expected {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let in_time = arrived.await.is_ok();
    assert_eq!(payer.spent(shop).await, expected, "in time: {in_time}\n{}", shop.log());
}

fn scheme(purchase: &Purchase) -> &Value {
    &paid_once(purchase).signed.as_ref().unwrap()["accepted"]["scheme"]
}

async fn what_was_used_is_paid(kind: EvmKind) {
    let shop = Shop::offering(kind, &BOTH).await;
    let mut earned = Amount::ZERO;
    for (buyer, number) in BUYERS.into_iter().zip(1..) {
        let payer = Poor::new(&shop, number).await;
        let order = |shop: &Shop| {
            let order = |path: &str| shop.order_paid_by(path, &payer.key);
            chat_of(order, buyer, WORDS).reading(shop.chain.url()).upto()
        };
        let purchase = buy(&shop, buyer, &order(&shop)).await;
        assert_eq!(scheme(&purchase), &json!("upto"), "{buyer:?}");
        let paid = paid_once(&purchase);
        assert!(USED < price(paid), "the ceiling lies above what is used");
        let settled = paid.settled.as_ref().unwrap();
        assert_eq!(settled["amount"], json!(USED.to_string()), "{buyer:?}");
        assert_spent(&shop, &payer, USED).await;

        // Now there is an allowance, or a permit is signed again: both must do.
        let streamed = match buyer {
            Buyer::OpenAiNpm | Buyer::OpenAiPython => order(&shop).streamed(),
            Buyer::Fetch | Buyer::Httpx => shop
                .order_paid_by("/v1/chat/completions", &payer.key)
                .reading(shop.chain.url())
                .upto()
                .streamed()
                .post(&json!({
                    "model": "test",
                    "messages": [{ "role": "user", "content": WORDS }],
                    "max_tokens": 50,
                    "stream": true,
                })),
        };
        let purchase = buy(&shop, buyer, &streamed).await;
        assert_eq!(scheme(&purchase), &json!("upto"), "{buyer:?}");
        if let Some(frames) = &purchase.frames {
            assert_stream(frames);
        }
        let both = USED.checked_add(USED).unwrap();
        assert_spent(&shop, &payer, both).await;
        earned = earned.checked_add(both).unwrap();
    }
    assert_eq!(shop.chain.tokens_of(PAY_TO).await.unwrap(), earned);
}

/// A client with its default registration does not know `upto`, and takes `exact` behind it.
async fn default_clients_buy_beside_upto(kind: EvmKind) {
    let shop = Shop::offering(kind, &BOTH).await;
    for (buyer, number) in BUYERS.into_iter().zip(1..) {
        let payer = Poor::new(&shop, number).await;
        let order = chat_of(|path| shop.order_paid_by(path, &payer.key), buyer, WORDS);
        let purchase = buy(&shop, buyer, &order).await;
        assert_eq!(scheme(&purchase), &json!("exact"), "{buyer:?}");
        assert_spent(&shop, &payer, price(paid_once(&purchase))).await;
    }
}

/// The same payers buy at a flat price over Permit2; who cannot sign for an allowance is told so.
async fn exact_is_paid_over_permit2(kind: EvmKind) {
    let shop = Shop::offering(kind, &BOTH).await;
    for (buyer, number) in [Buyer::Fetch, Buyer::Httpx].into_iter().zip(1..) {
        let payer = Poor::new(&shop, number).await;
        let order = shop.order_paid_by("/premium/a", &payer.key);
        let report = shop.clients.buy(buyer, &order).await.unwrap();
        assert_eq!(report.purchases[0].status, Some(412), "{report:#?}");
        let purchase = buy(&shop, buyer, &order.reading(shop.chain.url())).await;
        assert_eq!(price(paid_once(&purchase)), Amount::from_units(10_000));
        assert_spent(&shop, &payer, Amount::from_units(10_000)).await;
    }
}

/// The other APIs, through their official packages.
async fn what_other_apis_used_is_paid(kind: EvmKind) {
    let shop = Shop::offering(kind, &BOTH).await;
    let payer = Poor::new(&shop, 1).await;
    let mut spent = Amount::ZERO;
    let apis = [Api::Completions, Api::Embeddings, Api::Responses, Api::Messages];
    for (api, sdk) in apis.into_iter().zip([Sdk::Npm, Sdk::Python].into_iter().cycle()) {
        let order = shop
            .order_paid_by("/v1", &payer.key)
            .with(&["--prompt", WORDS, "--max-tokens", "50"])
            .reading(shop.chain.url())
            .upto();
        let used = if api == Api::Embeddings { Amount::from_units(60) } else { USED };
        let orders = [Some(order.clone()), (api != Api::Embeddings).then(|| order.streamed())];
        for order in orders.into_iter().flatten() {
            let report = shop.clients.buy_from(api, sdk, &order).await.unwrap();
            assert!(report.served, "{api:?} {sdk:?}: {report:#?}\n{}", shop.log());
            assert_eq!(scheme(&report.purchases[0]), &json!("upto"), "{api:?} {sdk:?}");
            spent = spent.checked_add(used).unwrap();
            assert_spent(&shop, &payer, spent).await;
        }
    }
}

/// The official server sells over Permit2 through our facilitator.
async fn the_stock_server_sells_over_permit2(kind: EvmKind) {
    let (chain, clients) = foundations(kind).await;
    let facilitator = Farebox::facilitator(&chain).await;
    let seller = clients.seller(facilitator.url(), &PAY_TO.to_string()).await.unwrap();
    let log = || format!("{}\n{}", seller.log(), facilitator.log());
    for (buyer, number) in [Buyer::Fetch, Buyer::Httpx].into_iter().zip(1..) {
        let payer = Poor::on(&chain, number).await;
        let mut spent = Amount::ZERO;
        for (path, cost) in [("/permit2", 1_000), ("/upto", 100), ("/nothing", 0), ("/upto", 100)] {
            let order = Order::new(&format!("{}{path}", seller.url()), &payer.key);
            let order = order.reading(chain.url()).upto();
            let report = clients.buy(buyer, &order).await.unwrap();
            assert!(report.served, "{path}: {report:#?}\n{}", log());
            let settled = paid_once(&report.purchases[0]).settled.clone().unwrap();
            assert_eq!(settled["success"], json!(true), "{path}: {settled}\n{}", log());
            spent = spent.checked_add(Amount::from_units(cost)).unwrap();
            let kept = chain.tokens_of(payer.address).await.unwrap();
            assert_eq!(FUNDS.checked_sub(kept).unwrap(), spent, "{buyer:?} {path}\n{}", log());
        }
    }
    assert_eq!(chain.tokens_of(PAY_TO).await.unwrap(), Amount::from_units(2 * 1_200));
}

on_each_chain!(
    the_stock_server_sells_over_permit2,
    what_was_used_is_paid,
    what_other_apis_used_is_paid,
    default_clients_buy_beside_upto,
    exact_is_paid_over_permit2,
);
