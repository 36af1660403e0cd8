//! What a buyer gets for its money, in each mode.

use std::sync::Arc;

use farebox_gateway::{ModelPattern, Models};
use farebox_store::{AnswerMark, SettleMode};
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::Script;
use serde_json::json;

use crate::app::{FLAT, PAY_TO, Setup, TestApp, USDC, chat};

const COMPLETION: &str = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"}}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;

#[tokio::test]
async fn an_unpaid_request_is_told_how_to_pay_and_asks_nobody() {
    let app = TestApp::answering(Script::json("{}")).await;
    let answer = app.ask("GET", "/premium/a?x=1", "").await;
    answer.assert_problem(402, "payment_required");
    let required = answer.required();
    assert_eq!(required.x402_version, 2);
    assert_eq!(required.error.as_deref(), Some("Payment required"));
    assert_eq!(required.resource.url, "https://api.example.com/premium/a?x=1");
    let offer = &required.accepts[0];
    assert_eq!(offer.amount.units(), FLAT);
    assert_eq!((offer.scheme.as_str(), offer.asset.as_str()), ("exact", USDC));
    assert_eq!(offer.pay_to, PAY_TO);
    assert_eq!(offer.max_timeout_seconds, 300);
    assert_eq!((&offer.extra["name"], &offer.extra["version"]), (&json!("USDC"), &json!("2")));
    assert_eq!(app.received(), 0);
    assert_eq!(app.facilitator.verifications(), 0);
    assert!(app.payments().await.is_empty());
}

#[tokio::test]
async fn a_json_answer_is_given_after_its_settlement() {
    let app = TestApp::answering(Script::json(COMPLETION)).await;
    let answer = app.buy("POST", "/v1/chat/completions", &chat(false), 1).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, COMPLETION);
    let settlement = answer.settlement().unwrap();
    assert!(settlement.success && settlement.transaction.starts_with("0x"));
    assert_eq!(settlement.payer.unwrap(), app.buyer.address().to_string());
    let paid = app.facilitator.balance(PAY_TO) - 1_000_000;
    assert_eq!(settlement.amount.unwrap().units(), paid);
    assert!(0 < paid);
    app.until_states(&["settled"]).await;
    let receipt = answer.header("farebox-receipt");
    let path = receipt.strip_prefix("https://api.example.com").unwrap();
    let receipt = app.ask("GET", path, "").await;
    assert_eq!(receipt.status, 200, "{receipt:?}");
    assert_eq!(receipt.json()["state"], "settled");
    assert_eq!(receipt.json()["transaction"], settlement.transaction);
    assert_eq!(receipt.json()["charged"], paid.to_string());
    assert!(!receipt.body.contains("hello") && !receipt.body.contains("\"hi\""));
}

#[tokio::test]
async fn what_the_quote_assumed_is_enforced_upstream() {
    let app = TestApp::answering(Script::json(COMPLETION)).await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = app.buy("POST", "/v1/chat/completions", body, 1).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let received = app.upstream.received();
    let sent: serde_json::Value = serde_json::from_slice(&received[0].body).unwrap();
    assert_eq!(sent["max_tokens"], 4096);
    assert_eq!(received[0].headers["accept-encoding"], "identity");
    assert_eq!(received[0].headers["authorization"], "Bearer upstream-key");
}

#[tokio::test]
async fn a_background_answer_leaves_before_its_settlement() {
    let gate = Arc::new(Gate::default());
    let setup = Setup { settle: SettleMode::Background, ..Setup::default() };
    let app = TestApp::start(setup, |_| Script::json("{\"a\":1}")).await;
    app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
    let answer = app.buy("GET", "/premium/a", "", 1).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "{\"a\":1}"));
    assert!(answer.settlement().is_none());
    assert!(answer.header("farebox-receipt").contains("/v1/receipts/pay_"));
    gate.reached_by(1).await;
    assert_eq!(app.states().await, ["settling"]);
    gate.open();
    app.until_states(&["settled"]).await;
    assert_eq!(app.facilitator.balance(PAY_TO), 1_000_000 + FLAT);
}

#[tokio::test]
async fn a_prepaid_answer_comes_after_the_money() {
    let setup = Setup { settle: SettleMode::Before, ..Setup::default() };
    let app = TestApp::start(setup, |_| Script::json("{\"a\":1}")).await;
    let offer = app.ask("GET", "/premium/a", "").await.required().accepts.remove(0);
    assert_eq!(offer.extra["paymentFlow"], "upfront");
    let answer = app.buy("GET", "/premium/a", "", 1).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "{\"a\":1}"), "{answer:?}");
    assert!(answer.settlement().unwrap().success);
    app.until_states(&["settled"]).await;
    while app.payments().await[0].answer != AnswerMark::Sent {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.payments().await[0].refund_owed, None);
}

#[tokio::test]
async fn a_free_route_passes_both_ways() {
    let script = Script::json("{\"data\":[]}").with_header("x-models", "1");
    let app = TestApp::answering(script).await;
    let answer = app.ask("GET", "/v1/models?a=%7e", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "{\"data\":[]}"));
    assert_eq!(answer.header("x-models"), "1");
    assert_eq!(app.upstream.received()[0].target, "/v1/models?a=~");
    let big = "x".repeat(100_000);
    assert_eq!(app.ask("POST", "/free", &big).await.status, 200);
    assert_eq!(app.upstream.received()[1].body.len(), 100_000);
    assert!(app.payments().await.is_empty());
}

#[tokio::test]
async fn a_metered_request_without_bounds_is_not_served() {
    let app = TestApp::answering(Script::json("{}")).await;
    for body in
        ["", "[]", "{}", "{\"messages\":1}", "{\"model\":\"m\",\"model\":\"n\",\"messages\":[]}"]
    {
        let answer = app.ask("POST", "/v1/chat/completions", body).await;
        answer.assert_problem(400, "malformed_request");
        assert!(answer.json()["expected"].is_string(), "{answer:?}");
    }
    assert_eq!(app.received(), 0);
}

#[tokio::test]
async fn a_route_may_sell_some_models_only() {
    let models = Models::Listed(vec![
        ModelPattern::Exact("m".to_owned()),
        ModelPattern::Prefix("llama-".to_owned()),
    ]);
    let app = TestApp::start(Setup { models, ..Setup::default() }, |_| Script::json("{}")).await;
    let path = "/v1/chat/completions";
    let named = |name: &str| chat(false).replace("\"model\":\"m\",", name);
    let ask = |model: &str| named(&format!("\"model\":\"{model}\","));
    for sold in ["m", "llama-", "llama-3-70b"] {
        assert_eq!(app.ask("POST", path, &ask(sold)).await.status, 402, "{sold}");
    }
    let payment = app.quote("POST", path, &ask("m"), 1).await;
    for other in ["M", "m2", "gpt-4o", "llama", ""] {
        for answer in [
            app.ask("POST", path, &ask(other)).await,
            app.pay("POST", path, &ask(other), &payment).await,
        ] {
            answer.assert_problem(404, "model_not_found");
            assert!(!answer.headers.contains_key("payment-required"), "{answer:?}");
            let error = &answer.json()["error"];
            assert_eq!(error["code"], "model_not_found");
            assert_eq!(error["type"], "invalid_request_error");
            assert!(error["message"].as_str().unwrap().contains(&format!("`{other}`")), "{error}");
        }
    }
    app.ask("POST", path, &named("")).await.assert_problem(404, "model_not_found");
    assert_eq!((app.received(), app.facilitator.verifications()), (0, 0));
    assert!(app.payments().await.is_empty());
}
