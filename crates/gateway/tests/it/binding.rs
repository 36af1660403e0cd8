//! A payment is good for the request it was quoted for, on the terms it was quoted on.

use std::time::Duration;

use farebox_chains::EvmKey;
use farebox_protocol::{bound_nonce, header};
use farebox_testkit::facilitator::OnVerify;
use farebox_testkit::upstream::Script;
use serde_json::json;

use crate::app::{TestApp, changed};

#[tokio::test]
async fn a2_a_payment_for_one_request_buys_no_other() {
    let app = TestApp::answering(Script::json("{}")).await;
    let payment = app.quote("GET", "/premium/a?x=1", "", 1).await;
    for target in
        ["/premium/b?x=1", "/premium/a?x=2", "/premium/a", "/premium/a?x=1&y", "/premium/A?x=1"]
    {
        let answer = app.pay("GET", target, "", &payment).await;
        answer.assert_problem(402, "payment_required");
        assert_eq!(answer.json()["reason"], "quote_mismatch", "{target}");
        assert_eq!(answer.required().error.as_deref(), Some("quote_mismatch"));
    }
    let post = app.quote("POST", "/flat", "{\"a\":1}", 2).await;
    for (method, target, body) in
        [("POST", "/flat", "{\"a\":2}"), ("POST", "/flat", ""), ("GET", "/premium/a", "{\"a\":1}")]
    {
        let answer = app.pay(method, target, body, &post).await;
        assert_eq!(answer.json()["reason"], "quote_mismatch", "{target}");
    }
    assert_eq!(app.received(), 0);
    assert_eq!(app.facilitator.verifications(), 0);
    assert!(app.payments().await.is_empty());
}

#[tokio::test]
async fn a2_another_spelling_of_the_same_url_is_the_same_request() {
    let app = TestApp::answering(Script::json("{}")).await;
    let payment = app.quote("GET", "/premium/%61b%c3%a9?q=%7e", "", 1).await;
    let answer = app.pay("GET", "/premium/ab%C3%A9?q=~", "", &payment).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(app.upstream.received()[0].target, "/premium/ab%C3%A9?q=~");
}

#[tokio::test]
async fn a15_every_field_of_the_accepted_offer_counts() {
    let app = TestApp::answering(Script::json("{}")).await;
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    let other = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
    let cases = [
        ("scheme", json!("upto"), "unsupported_scheme"),
        ("network", json!("eip155:8453"), "invalid_network"),
        ("amount", json!("1"), "quote_mismatch"),
        ("amount", json!("10001"), "quote_mismatch"),
        ("asset", json!(other), "invalid_payment_requirements"),
        ("asset", json!(crate::app::USDC.to_lowercase()), "invalid_payment_requirements"),
        ("payTo", json!(other), "invalid_payment_requirements"),
        ("maxTimeoutSeconds", json!(301), "invalid_payment_requirements"),
        ("note", json!("x"), "invalid_payment_requirements"),
        ("extra", json!({}), "invalid_payment_requirements"),
    ];
    for (field, value, reason) in cases {
        let forged = changed(&payment, |it| it["accepted"][field] = value.clone());
        let answer = app.pay("GET", "/premium/a", "", &forged).await;
        answer.assert_problem(402, "payment_required");
        assert_eq!(answer.json()["reason"], reason, "{field}");
        assert!(!answer.required().accepts.is_empty());
    }
    for (field, value, reason) in [
        ("name", json!("USD Coin"), "invalid_payment_requirements"),
        ("version", json!("1"), "invalid_payment_requirements"),
        (
            "quote",
            json!("1.99999999999.0.0000000000000000.00000000000000000000000000000000"),
            "quote_mismatch",
        ),
        ("quote", json!(7), "invalid_payment_requirements"),
        ("quote", json!("x"), "quote_malformed"),
    ] {
        let forged = changed(&payment, |it| it["accepted"]["extra"][field] = value.clone());
        let answer = app.pay("GET", "/premium/a", "", &forged).await;
        answer.assert_problem(402, "payment_required");
        assert_eq!(answer.json()["reason"], reason, "{field} {value}");
    }
    // What is gained in `extra` is allowed (x402 v2), and the payment is still good.
    let more = changed(&payment, |it| it["accepted"]["extra"]["more"] = json!(1));
    assert_eq!(app.pay("GET", "/premium/a", "", &more).await.status, 200);
    assert_eq!(app.received(), 1);
}

#[tokio::test]
async fn a15_an_authorisation_on_other_terms_is_refused() {
    let app = TestApp::answering(Script::json("{}")).await;
    let offer = app.ask("GET", "/premium/a", "").await.required().accepts[0].clone();
    let less = farebox_protocol::wire::PaymentRequirements {
        amount: farebox_protocol::Amount::from_units(1),
        ..offer.clone()
    };
    let mut payload = app.payload(&app.buyer, &less, [1; 32]);
    payload.accepted = offer.clone();
    let answer = app.pay("GET", "/premium/a", "", &header::encode(&payload).unwrap()).await;
    answer.assert_problem(402, "payment_required");
    assert_eq!(answer.json()["reason"], "invalid_exact_evm_payload_authorization_value_mismatch");
    // Signed by somebody else than it says.
    let other = EvmKey::from_bytes([7; 32]).unwrap();
    let mut payload = app.payload(&other, &offer, [2; 32]);
    payload.payload["authorization"]["from"] = app.buyer.address().to_string().into();
    let answer = app.pay("GET", "/premium/a", "", &header::encode(&payload).unwrap()).await;
    answer.assert_problem(402, "payment_required");
    assert_eq!(answer.json()["reason"], "invalid_exact_evm_signature");
    assert_eq!(app.received(), 0);
    assert!(app.payments().await.is_empty());
}

#[tokio::test]
async fn a_nonce_that_was_derived_from_a_quote_is_good_for_that_quote_alone() {
    let app = TestApp::answering(Script::json("{}")).await;
    let one = app.ask("GET", "/premium/a", "").await.required().accepts[0].clone();
    let two = app.ask("GET", "/premium/a", "").await.required().accepts[0].clone();
    let nonce = bound_nonce(one.extra["quote"].as_str().unwrap());
    let moved = app.pay("GET", "/premium/a", "", &app.sign_offer(&two, nonce)).await;
    moved.assert_problem(402, "payment_required");
    assert_eq!(moved.json()["reason"], "nonce_not_of_this_quote");
    let kept = app.pay("GET", "/premium/a", "", &app.sign_offer(&one, nonce)).await;
    assert_eq!(kept.status, 200, "{kept:?}");
}

#[tokio::test]
async fn an_old_quote_is_refused_and_an_old_payment_is_remembered() {
    let app = TestApp::answering(Script::json("{}")).await;
    let used = app.quote("GET", "/premium/a", "", 1).await;
    assert_eq!(app.pay("GET", "/premium/a", "", &used).await.status, 200);
    let old = app.quote("GET", "/premium/a", "", 2).await;
    app.clock.advance(Duration::from_secs(301));
    let answer = app.pay("GET", "/premium/a", "", &old).await;
    answer.assert_problem(402, "payment_required");
    assert_eq!(answer.json()["reason"], "quote_expired");
    // Paying again would be wrong for this one, so it is not told that its quote is old.
    app.pay("GET", "/premium/a", "", &used).await.assert_problem(409, "payment_already_used");
}

#[tokio::test]
async fn an_authorisation_that_ends_too_soon_is_refused() {
    let app = TestApp::answering(Script::json("{}")).await;
    let mut offer = app.ask("GET", "/premium/a", "").await.required().accepts[0].clone();
    let accepted = offer.clone();
    offer.max_timeout_seconds = 4;
    let mut payload = app.payload(&app.buyer, &offer, [1; 32]);
    payload.accepted = accepted;
    let answer = app.pay("GET", "/premium/a", "", &header::encode(&payload).unwrap()).await;
    answer.assert_problem(402, "payment_required");
    assert_eq!(answer.json()["reason"], "invalid_exact_evm_payload_authorization_valid_before");
    assert_eq!(app.facilitator.verifications(), 0);
}

#[tokio::test]
async fn an_unanswered_verification_is_no_refusal() {
    let app = TestApp::answering(Script::json("{}")).await;
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    for behaviour in [OnVerify::Unreachable, OnVerify::OtherPayer] {
        app.facilitator.on_verify(behaviour);
        let answer = app.pay("GET", "/premium/a", "", &payment).await;
        answer.assert_problem(503, "unavailable");
        assert!(!answer.header("retry-after").is_empty());
        assert!(!answer.headers.contains_key("payment-required"), "{answer:?}");
    }
    assert!(app.payments().await.is_empty());
    app.facilitator.on_verify(OnVerify::Honest);
    assert_eq!(app.pay("GET", "/premium/a", "", &payment).await.status, 200);
}
