//! Clients of x402 v1: one 402 serves both versions, and a payment is one payment in both.

use farebox_chains::requirements_from_v1;
use farebox_gateway::Versions;
use farebox_protocol::wire::{PaymentPayload, PaymentRequirements, v1};
use farebox_protocol::{Reason, bound_nonce, header};
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::upstream::{Part, Script};
use serde_json::{Value, json};

use crate::app::{Answer, FLAT, PAY_TO, Setup, TestApp, USDC, changed, chat};

/// The v1 demand in a 402 answer.
fn demand(answer: &Answer) -> v1::PaymentRequired {
    assert_eq!(answer.status, 402, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// `X-PAYMENT` over a v1 offer.
fn sign(app: &TestApp, offer: &v1::PaymentRequirements, nonce: [u8; 32]) -> String {
    let in_two: PaymentRequirements = requirements_from_v1(offer).unwrap();
    header::encode(&json!({
        "x402Version": 1,
        "scheme": offer.scheme,
        "network": offer.network,
        "payload": app.payload(&app.buyer, &in_two, nonce).payload,
    }))
    .unwrap()
}

/// The same authorisation, the other header.
fn as_v1(payment: &str) -> String {
    changed(payment, |it| {
        let payload = it["payload"].clone();
        *it = json!({
            "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload,
        });
    })
}

async fn pay(app: &TestApp, method: &str, target: &str, body: &str, payment: &str) -> Answer {
    TestApp::send(app.request(method, target, body).header("x-payment", payment)).await
}

/// Asks, signs, pays.
async fn buy(app: &TestApp, method: &str, target: &str, body: &str, nonce: u8) -> Answer {
    let offers = demand(&app.ask(method, target, body).await).accepts;
    let payment = sign(app, &offers[0], [nonce; 32]);
    pay(app, method, target, body, &payment).await
}

/// What `X-PAYMENT-RESPONSE` says; nothing is said in v2's header then.
fn told(answer: &Answer) -> Value {
    assert_eq!(answer.settlement(), None, "{answer:?}");
    let value = answer.header("x-payment-response");
    header::decode::<Value>(value.as_bytes()).unwrap().value().clone()
}

#[tokio::test]
async fn one_402_serves_clients_of_both_versions() {
    let app = TestApp::answering(Script::json("{}")).await;
    let answer = app.ask("GET", "/premium/a?x=%22", "").await;
    let body = answer.json();
    assert_eq!((&body["x402Version"], &body["error"]), (&json!(1), &json!("payment_required")));
    let offer = json!({
        "scheme": "exact", "network": "base-sepolia", "maxAmountRequired": FLAT.to_string(),
        "resource": "https://api.example.com/premium/a?x=%22", "description": "for tests",
        "mimeType": "", "payTo": PAY_TO, "maxTimeoutSeconds": 300, "asset": USDC,
        "extra": { "name": "USDC", "version": "2" },
    });
    assert_eq!(body["accepts"], json!([offer]));
    let in_two = &answer.required().accepts[0];
    assert_eq!(in_two.amount, demand(&answer).accepts[0].max_amount_required);
    assert_eq!(answer.required().x402_version, 2);
}

#[tokio::test]
async fn a_v1_payment_buys_json_and_streams_and_is_told_so_in_v1() {
    let app = TestApp::answering(Script::json("{\"a\":1}")).await;
    let answer = buy(&app, "GET", "/premium/a", "", 1).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "{\"a\":1}"));
    let told = told(&answer);
    let payer = app.buyer.address().to_string();
    assert_eq!(told["transaction"].as_str().unwrap().len(), 66);
    let transaction = &told["transaction"];
    let expected = json!({
        "success": true, "transaction": transaction, "network": "base-sepolia", "payer": payer,
    });
    assert_eq!(told, expected);
    assert!(answer.header("access-control-expose-headers").contains("X-PAYMENT-RESPONSE"));
    assert!(answer.header("vary").contains("X-PAYMENT"));
    assert_eq!(app.facilitator.balance(PAY_TO), 1_000_000 + FLAT);
    let received = &app.upstream.received()[0];
    assert!(received.headers.iter().all(|(name, _)| !name.as_str().starts_with("x-payment")));

    let events =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n";
    let app = TestApp::answering(Script::events(vec![Part::text(events)])).await;
    let answer = buy(&app, "POST", "/v1/chat/completions", &chat(true), 1).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("data: [DONE]"), "{answer:?}");
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a1_the_same_authorisation_in_both_versions_is_one_payment() {
    let app = TestApp::answering(Script::json("{}")).await;
    let in_two = app.quote("GET", "/premium/a", "", 1).await;
    let in_one = as_v1(&in_two);
    assert_eq!(pay(&app, "GET", "/premium/a", "", &in_one).await.status, 200);
    // Its own payload again names the receipt; the other form of it is another payload.
    let again = pay(&app, "GET", "/premium/a", "", &in_one).await;
    again.assert_problem(409, "payment_already_used");
    assert!(again.json()["receipt"].is_string(), "{again:?}");
    app.pay("GET", "/premium/a", "", &in_two).await.assert_problem(409, "payment_already_used");

    let in_two = app.quote("GET", "/premium/b", "", 2).await;
    assert_eq!(app.pay("GET", "/premium/b", "", &in_two).await.status, 200);
    for target in ["/premium/b", "/premium/c"] {
        let again = pay(&app, "GET", target, "", &as_v1(&in_two)).await;
        again.assert_problem(409, "payment_already_used");
    }
    assert_eq!((app.received(), app.payments().await.len()), (2, 2));
    assert_eq!(app.facilitator.balance(PAY_TO), 1_000_000 + 2 * FLAT);
}

#[tokio::test]
async fn a2_a_v1_payment_buys_nothing_of_another_price() {
    let app = TestApp::answering(Script::json("{}")).await;
    let offers = demand(&app.ask("POST", "/v1/chat/completions", &chat(false)).await).accepts;
    let cheap = sign(&app, &offers[0], [1; 32]);
    let answer = pay(&app, "GET", "/premium/a", "", &cheap).await;
    answer.assert_problem(402, "payment_required");
    let reason = "invalid_exact_evm_payload_authorization_value_mismatch";
    let refused = demand(&answer);
    assert_eq!(refused.error.as_deref(), Some(reason));
    assert_eq!(refused.accepts[0].max_amount_required.units(), FLAT);
    // More than the price is no more welcome.
    let mut dear = demand(&app.ask("GET", "/premium/a", "").await).accepts.remove(0);
    dear.max_amount_required = "10001".parse().unwrap();
    let answer = pay(&app, "GET", "/premium/a", "", &sign(&app, &dear, [2; 32])).await;
    assert_eq!(demand(&answer).error.as_deref(), Some(reason));
    assert_eq!(app.received(), 0);
    assert!(app.payments().await.is_empty());
}

/// What a careful v2 client bound to its request stays bound to it.
#[tokio::test]
async fn a2_a_nonce_of_a_quote_cannot_be_freed_by_the_other_header() {
    let app = TestApp::answering(Script::json("{}")).await;
    let required = app.ask("GET", "/premium/a", "").await.required();
    let nonce = bound_nonce(required.accepts[0].extra["quote"].as_str().unwrap());
    let bound = as_v1(&app.sign_offer(&required.accepts[0], nonce));
    for target in ["/premium/a", "/premium/b"] {
        let answer = pay(&app, "GET", target, "", &bound).await;
        assert_eq!(demand(&answer).error.as_deref(), Some("nonce_not_of_this_quote"));
    }
    assert_eq!((app.received(), app.facilitator.verifications()), (0, 0));
}

#[tokio::test]
async fn a15_what_names_no_offer_is_refused() {
    let app = TestApp::answering(Script::json("{}")).await;
    let payment = as_v1(&app.quote("GET", "/premium/a", "", 1).await);
    let cases = [
        ("network", json!("base"), 402, "invalid_network"),
        ("network", json!("eip155:84532"), 402, "invalid_network"),
        ("scheme", json!("upto"), 402, "unsupported_scheme"),
        ("x402Version", json!(2), 400, "invalid_x402_version"),
        ("payload", json!({}), 400, "invalid_payload"),
        ("network", Value::Null, 400, "invalid_payload"),
    ];
    for (field, value, status, reason) in cases {
        let forged = changed(&payment, |it| it[field] = value.clone());
        let answer = pay(&app, "GET", "/premium/a", "", &forged).await;
        assert_eq!(answer.status.as_u16(), status, "{field}: {answer:?}");
        assert_eq!(answer.json()["reason"], reason, "{field}: {answer:?}");
        assert!(!answer.required().accepts.is_empty());
    }
    let long = "A".repeat(header::HEADER_BYTES_MAX + 1);
    let answer = pay(&app, "GET", "/premium/a", "", &long).await;
    answer.assert_problem(431, "headers_too_large");
    assert_eq!((app.received(), app.facilitator.verifications()), (0, 0));
}

/// What is stored is read again for the settlement: a field of v2's name must not spoil it.
#[tokio::test]
async fn a16_fields_of_the_other_version_mean_nothing() {
    let app = TestApp::answering(Script::json("{}")).await;
    let payment = as_v1(&app.quote("GET", "/premium/a", "", 1).await);
    let padded = changed(&payment, |it| {
        for name in ["accepted", "resource", "extensions", "amount"] {
            it[name] = json!({ "amount": "1" });
        }
    });
    let answer = pay(&app, "GET", "/premium/a", "", &padded).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let stored = app.payments().await.remove(0).terms;
    assert!(serde_json::from_str::<PaymentPayload>(&stored.payload).is_ok(), "{}", stored.payload);
    assert_eq!(app.facilitator.balance(PAY_TO), 1_000_000 + FLAT);
}

#[tokio::test]
async fn refusals_and_failed_settlements_are_told_in_v1() {
    let app = TestApp::answering(Script::json("{}")).await;
    let payer = app.buyer.address().to_string();
    app.facilitator.set_balance(&payer, 0);
    let answer = buy(&app, "GET", "/premium/a", "", 1).await;
    let reason = Reason::InvalidExactEvmInsufficientBalance;
    assert_eq!(demand(&answer).error.as_deref(), Some(reason.as_str()));
    assert_eq!(demand(&answer).accepts.len(), 1);
    app.facilitator.set_balance(&payer, 1_000_000);
    app.facilitator.on_settle(OnSettle::Reject(Reason::InsufficientFunds));
    let answer = buy(&app, "GET", "/premium/a", "", 2).await;
    assert_eq!(demand(&answer).error.as_deref(), Some("insufficient_funds"));
    let told = told(&answer);
    let expected = json!({
        "success": false, "errorReason": "insufficient_funds", "transaction": "",
        "network": "base-sepolia", "payer": payer,
    });
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_route_may_refuse_v1() {
    let setup = Setup { versions: Versions::TwoOnly, ..Setup::default() };
    let app = TestApp::start(setup, |_| Script::json("{}")).await;
    let answer = app.ask("GET", "/premium/a", "").await;
    // Still a v1 object: the stock client fails without the list.
    assert_eq!(demand(&answer).accepts, []);
    let payment = as_v1(&app.sign(&answer.required(), 1));
    let answer = pay(&app, "GET", "/premium/a", "", &payment).await;
    answer.assert_problem(400, "unsupported_payment");
    assert!(!answer.required().accepts.is_empty());
    assert_eq!(app.received(), 0);
}
