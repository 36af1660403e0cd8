//! What fails after a payment was found good, and what it costs whom.

use std::sync::Arc;
use std::time::Duration;

use farebox_protocol::Reason;
use farebox_store::{AnswerMark, SettleMode};
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};
use http::StatusCode;

use crate::app::{PAY_TO, Setup, TestApp, chat};

const SECRET: &str = "{\"secret\":\"bytes\"}";

fn impatient(settle: SettleMode) -> Setup {
    let standard = Setup::default();
    let limits =
        farebox_gateway::Limits { settle_wait: Duration::from_millis(100), ..standard.limits };
    Setup { settle, limits, ..standard }
}

#[tokio::test]
async fn a3_a_refused_settlement_lets_no_byte_out() {
    for settle in [SettleMode::After, SettleMode::Before] {
        let setup = Setup { settle, ..Setup::default() };
        let app = TestApp::start(setup, |_| Script::json(SECRET)).await;
        app.facilitator.on_settle(OnSettle::Reject(Reason::InvalidExactEvmInsufficientBalance));
        let answer = app.buy("GET", "/premium/a", "", 1).await;
        answer.assert_problem(402, "payment_required");
        assert_eq!(answer.json()["reason"], "invalid_exact_evm_insufficient_balance");
        assert!(!answer.body.contains("secret"));
        let settlement = answer.settlement().unwrap();
        assert!(!settlement.success && settlement.transaction.is_empty());
        assert_eq!(
            settlement.error_reason,
            Some(Reason::InvalidExactEvmInsufficientBalance),
            "{settle:?}"
        );
        assert!(!answer.required().accepts.is_empty());
        assert_eq!(app.states().await, ["released"], "{settle:?}");
        assert_eq!(app.received(), usize::from(settle == SettleMode::After));
        assert_eq!(app.facilitator.balance(PAY_TO), 1_000_000);
    }
}

#[tokio::test]
async fn a3_a_background_answer_whose_settlement_is_refused_is_booked_as_lost() {
    let app = TestApp::start(impatient(SettleMode::Background), |_| Script::json(SECRET)).await;
    app.facilitator.on_settle(OnSettle::Reject(Reason::InvalidExactEvmInsufficientBalance));
    let answer = app.buy("GET", "/premium/a", "", 1).await;
    assert_eq!(answer.body, SECRET);
    app.until_states(&["lost"]).await;
}

#[tokio::test]
async fn a3_a_settlement_that_is_not_known_lets_no_byte_out_and_is_owed_back_if_it_lands() {
    for settle in [SettleMode::After, SettleMode::Before] {
        let gate = Arc::new(Gate::default());
        let app = TestApp::start(impatient(settle), |_| Script::json(SECRET)).await;
        app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
        let answer = app.buy("GET", "/premium/a", "", 1).await;
        answer.assert_problem(503, "settlement_pending");
        assert_eq!(answer.header("x-should-retry"), "false");
        assert!(!answer.header("retry-after").is_empty());
        assert!(!answer.headers.contains_key("payment-required"));
        assert!(!answer.body.contains("secret"));
        assert_eq!(answer.json()["receipt"], answer.header("farebox-receipt"));
        assert!(answer.header("farebox-receipt").contains("/v1/receipts/pay_"));
        // Nobody here knows whether it was sent.
        assert!(!answer.body.contains("was sent"), "{answer:?}");
        gate.open();
        app.until_states(&["settled"]).await;
        while app.payments().await[0].refund_owed.is_none() {
            tokio::task::yield_now().await;
        }
        let path = answer.json()["receipt"].as_str().unwrap().to_owned();
        let path = path.strip_prefix("https://api.example.com").unwrap();
        let receipt = app.ask("GET", path, "").await.json();
        assert_eq!(receipt["state"], "settled");
        assert!(receipt["refundOwed"].is_string(), "{receipt}");
    }
}

#[tokio::test]
async fn a_settlement_nobody_heard_of_is_looked_up_and_not_repeated() {
    let app = TestApp::start(Setup::default(), |_| Script::json(SECRET)).await;
    app.facilitator.on_settle(OnSettle::LandUnheard);
    let answer = app.buy("GET", "/premium/a", "", 1).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(app.facilitator.settlements(), 1);
    assert_eq!(app.facilitator.landed(), 1);
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a_settlement_that_is_not_sent_is_tried_again() {
    let app = TestApp::start(impatient(SettleMode::Background), |_| Script::json(SECRET)).await;
    app.facilitator.on_settle(OnSettle::NotSent);
    assert_eq!(app.buy("GET", "/premium/a", "", 1).await.status, 200);
    while app.facilitator.settlements() == 0 {
        tokio::task::yield_now().await;
    }
    app.facilitator.on_settle(OnSettle::Honest);
    app.clock.advance(Duration::from_secs(2));
    // Whatever is captured next wakes the worker, which then finds the first one due.
    assert_eq!(app.buy("GET", "/premium/a", "", 2).await.status, 200);
    app.until_states(&["settled", "settled"]).await;
}

#[tokio::test]
async fn an_upstream_that_refuses_is_passed_on_and_costs_nothing() {
    for status in [400, 401, 404, 429, 500, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        let script =
            Script::new(status, "application/json", vec![Part::text("{\"error\":\"no\"}")])
                .with_header("retry-after", "7");
        let app = TestApp::answering(script).await;
        let answer = app.buy("POST", "/v1/chat/completions", &chat(false), 1).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, "{\"error\":\"no\"}"));
        assert_eq!(answer.header("x-farebox-charged"), "0");
        assert_eq!(answer.header("retry-after"), "7");
        assert!(answer.settlement().is_none());
        assert_eq!(app.states().await, ["released"]);
        assert_eq!(app.facilitator.settlements(), 0);
    }
}

#[tokio::test]
async fn an_upstream_that_redirects_or_breaks_is_a_bad_gateway_and_costs_nothing() {
    for (script, expected) in [
        (
            Script::new(StatusCode::FOUND, "text/plain", vec![])
                .with_header("location", "http://x/"),
            "upstream_failed",
        ),
        (
            Script::new(StatusCode::OK, "text/plain", vec![Part::text("a"), Part::Break]),
            "upstream_failed",
        ),
    ] {
        let app = TestApp::answering(script).await;
        let answer = app.buy("GET", "/premium/a", "", 1).await;
        answer.assert_problem(502, expected);
        assert!(!answer.headers.contains_key("location"));
        assert_eq!(app.states().await, ["released"]);
    }
}

#[tokio::test]
async fn an_upstream_that_fails_after_the_money_came_is_owed_back() {
    for script in [
        Script::new(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", vec![Part::text(SECRET)]),
        Script::events(vec![Part::Break]),
        Script::new(StatusCode::FOUND, "text/plain", vec![]),
    ] {
        let setup = Setup { settle: SettleMode::Before, ..Setup::default() };
        let app = TestApp::start(setup, move |_| script.clone()).await;
        let answer = app.buy("GET", "/premium/a", "", 1).await;
        answer.assert_problem(502, "refund_owed");
        assert_eq!(answer.header("x-should-retry"), "false");
        assert!(answer.settlement().unwrap().success);
        assert!(answer.json()["receipt"].as_str().unwrap().contains("/v1/receipts/pay_"));
        let payment = &app.payments().await[0];
        assert!(payment.refund_owed.is_some(), "{payment:?}");
        assert_eq!(payment.answer, AnswerMark::Withheld);
    }
}

#[tokio::test]
async fn a_whole_answer_that_is_only_an_error_costs_nothing() {
    let app = TestApp::answering(Script::json("{\"error\":{\"message\":\"overloaded\"}}")).await;
    let answer = app.buy("POST", "/v1/chat/completions", &chat(false), 1).await;
    assert_eq!(answer.header("x-farebox-charged"), "0", "{answer:?}");
    assert_eq!(app.states().await, ["released"]);
}
