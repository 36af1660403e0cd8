//! The official OpenAI and Anthropic packages buy what is sold besides chat.

use farebox_protocol::Amount;
use farebox_testkit::clients::{Api, Purchase, Report, Sdk};
use farebox_testkit::evm::EvmKind;
use serde_json::{Value, json};

use super::shop::Shop;
use super::{WORDS, assert_passed_as_it_came, assert_receipt, paid_once, price, sum};

const SDKS: [Sdk; 2] = [Sdk::Npm, Sdk::Python];
const STREAMING: [Api; 3] = [Api::Completions, Api::Responses, Api::Messages];

fn order(shop: &Shop, prompt: &str) -> farebox_testkit::clients::Order {
    shop.order("/v1").with(&["--prompt", prompt, "--max-tokens", "50"])
}

async fn buy(shop: &Shop, api: Api, sdk: Sdk, stream: bool) -> Purchase {
    let order = order(shop, WORDS);
    let order = if stream { order.streamed() } else { order };
    let Report { served, mut purchases, .. } =
        shop.clients.buy_from(api, sdk, &order).await.unwrap();
    assert!(served, "{api:?} {sdk:?}: {purchases:#?}\n{}", shop.log());
    purchases.remove(0)
}

/// Words in and out, as the API calls them.
fn assert_usage(api: Api, usage: &Value, expected: (u64, u64)) {
    let (input, output) = match api {
        Api::Completions | Api::Embeddings => ("prompt_tokens", "completion_tokens"),
        Api::Responses | Api::Messages => ("input_tokens", "output_tokens"),
    };
    let told = |name: &str| usage[name].as_u64().unwrap_or(0);
    assert_eq!((told(input), told(output)), expected, "{api:?}: {usage}");
}

fn assert_finished(api: Api, purchase: &Purchase) {
    let expected = match api {
        Api::Completions => Some("stop"),
        Api::Embeddings => None,
        Api::Responses => Some("completed"),
        Api::Messages => Some("end_turn"),
    };
    assert_eq!(purchase.finish_reason.as_deref(), expected, "{api:?}");
}

/// What the model was asked: with our key where that API looks for it, and held to the limits.
fn assert_asked(call: &Value) {
    let header = |name: &str| call["headers"].get(name).and_then(Value::as_str);
    let keys = (header("authorization"), header("x-api-key"));
    let body = &call["body"];
    match call["path"].as_str().unwrap() {
        "/v1/messages" => {
            assert_eq!(keys, (None, Some("the-upstream-key")));
            assert!(header("anthropic-version").is_some(), "{call}");
            assert_eq!(body["max_tokens"], json!(50));
        }
        path => {
            assert_eq!(keys, (Some("Bearer the-upstream-key"), None), "{path}");
            match path {
                "/v1/completions" => assert_eq!(body["max_tokens"], json!(50)),
                "/v1/responses" => {
                    assert_eq!(body["max_output_tokens"], json!(50));
                    assert_eq!(body["store"], json!(false), "nothing is kept for later requests");
                }
                _ => {}
            }
        }
    }
    assert_eq!(header("payment-signature"), None);
}

#[tokio::test]
async fn official_packages_buy_json() {
    let shop = Shop::open(EvmKind::Devnet).await;
    let mut charged = Vec::new();
    for api in [Api::Completions, Api::Embeddings, Api::Responses, Api::Messages] {
        for sdk in SDKS {
            let purchase = buy(&shop, api, sdk, false).await;
            let paid = paid_once(&purchase);
            assert_receipt(paid.settled.as_ref().unwrap());
            assert_finished(api, &purchase);
            let content = purchase.content.as_deref().unwrap();
            let usage = purchase.usage.as_ref().unwrap();
            if api == Api::Embeddings {
                let lengths = [3.0, 3.0, 5.0, 4.0, 4.0, 3.0];
                let vectors: Vec<Vec<f64>> = serde_json::from_str(content).unwrap();
                assert_eq!(vectors, lengths.map(|it| vec![it, 0.5]), "{sdk:?}");
                assert_usage(api, usage, (6, 0));
            } else {
                assert_eq!(content, WORDS, "{api:?} {sdk:?}");
                assert_usage(api, usage, (6, 6));
            }
            charged.push(price(paid));
        }
    }
    shop.assert_earned(sum(charged)).await;
    let asked = shop.asked().await;
    assert_eq!(asked.len(), 8, "one upstream call a payment, none before it: {asked:#?}");
    asked.iter().for_each(assert_asked);
}

#[tokio::test]
async fn official_packages_buy_streams() {
    let shop = Shop::open(EvmKind::Devnet).await;
    let mut charged = Vec::new();
    for api in STREAMING {
        for sdk in SDKS {
            let purchase = buy(&shop, api, sdk, true).await;
            charged.push(price(paid_once(&purchase)));
            assert_passed_as_it_came(&purchase);
            assert_eq!(purchase.content.as_deref(), Some(WORDS), "{api:?} {sdk:?}");
            assert_finished(api, &purchase);
            match (api, &purchase.usage) {
                (Api::Completions, usage) => {
                    assert_eq!(*usage, None, "not asked for, so not shown");
                }
                (Api::Messages, usage) => assert_usage(api, usage.as_ref().unwrap(), (0, 6)),
                (_, usage) => assert_usage(api, usage.as_ref().unwrap(), (6, 6)),
            }
        }
    }
    shop.assert_earned(sum(charged)).await;
    shop.asked().await.iter().for_each(assert_asked);
}

/// Each of the SDKs' own retries signs anew; a failed answer must charge none of them.
#[tokio::test]
async fn an_upstream_failure_charges_nothing() {
    let shop = Shop::open(EvmKind::Devnet).await;
    for api in STREAMING {
        for sdk in SDKS {
            let order = order(&shop, "fail please");
            let report = shop.clients.buy_from(api, sdk, &order).await.unwrap();
            assert!(!report.served, "{report:#?}");
            let failure = report.purchases[0].error.as_ref().unwrap();
            assert_eq!(failure.status, Some(500), "{api:?} {sdk:?}: {failure:?}");
            let paid = report.purchases[0].paid().collect::<Vec<_>>();
            assert!(!paid.is_empty() && paid.iter().all(|it| it.settled.is_none()), "{paid:#?}");
        }
    }
    shop.assert_earned(Amount::ZERO).await;
}
