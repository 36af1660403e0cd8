//! One payment, one grant, one charge.

use std::sync::Arc;

use farebox_store::SettleMode;
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};
use http::StatusCode;
use tokio::task::JoinSet;

use crate::app::{FLAT, PAY_TO, Setup, TestApp};

async fn check_parallel(settle: SettleMode, times: usize) {
    let setup = Setup { settle, ..Setup::default() };
    let app = Arc::new(TestApp::start(setup, |_| Script::json("{\"a\":1}")).await);
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    let mut requests = JoinSet::new();
    for _ in 0..times {
        let (app, payment) = (Arc::clone(&app), payment.clone());
        requests.spawn(async move { app.pay("GET", "/premium/a", "", &payment).await });
    }
    let mut grants = 0;
    let mut refusals = 0;
    while let Some(answer) = requests.join_next().await {
        let answer = answer.unwrap();
        if answer.status == StatusCode::OK {
            grants += 1;
            continue;
        }
        assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
        assert_eq!(answer.header("x-should-retry"), "false");
        let kind = answer.json()["type"].as_str().unwrap().to_owned();
        assert!(kind.ends_with("payment_in_progress") || kind.ends_with("payment_already_used"));
        refusals += 1;
    }
    assert_eq!((grants, refusals), (1, times - 1), "{settle:?}");
    assert_eq!(app.received(), 1, "{settle:?}");
    app.until_states(&["settled"]).await;
    assert_eq!(app.facilitator.landed(), 1);
    assert_eq!(app.facilitator.balance(PAY_TO), 1_000_000 + FLAT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1_a_thousand_identical_payments_are_one_grant() {
    check_parallel(SettleMode::Background, 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_parallel_duplicates_are_refused_in_every_mode() {
    check_parallel(SettleMode::After, 50).await;
    check_parallel(SettleMode::Before, 50).await;
}

#[tokio::test]
async fn a1_a_used_payment_names_its_receipt_to_its_own_payload_alone() {
    let app = TestApp::answering(Script::json("{\"a\":1}")).await;
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    assert_eq!(app.pay("GET", "/premium/a", "", &payment).await.status, 200);
    let again = app.pay("GET", "/premium/a", "", &payment).await;
    again.assert_problem(409, "payment_already_used");
    assert!(again.header("farebox-receipt").contains("/v1/receipts/pay_"));
    assert_eq!(again.json()["receipt"], again.header("farebox-receipt"));
    assert_eq!(again.json()["state"], "settled");
    // The same authorisation in another envelope: seen by anybody who saw the chain.
    let envelope = crate::app::changed(&payment, |it| it["note"] = "mine".into());
    let other = app.pay("GET", "/premium/a", "", &envelope).await;
    other.assert_problem(409, "payment_already_used");
    assert!(other.json().get("receipt").is_none(), "{other:?}");
    assert!(!other.headers.contains_key("farebox-receipt"), "{other:?}");
    assert_eq!(app.received(), 1);
}

#[tokio::test]
async fn a_payment_that_waits_is_in_progress() {
    let gate = Arc::new(Gate::default());
    let wait = Arc::clone(&gate);
    let decide = move |_: &_| {
        Script::new(
            StatusCode::OK,
            "application/json",
            vec![Part::Wait(Arc::clone(&wait)), Part::text("{}")],
        )
    };
    let app = Arc::new(TestApp::start(Setup::default(), decide).await);
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    let mut first = JoinSet::new();
    let (one, header) = (Arc::clone(&app), payment.clone());
    first.spawn(async move { one.pay("GET", "/premium/a", "", &header).await });
    gate.reached_by(1).await;
    let again = app.pay("GET", "/premium/a", "", &payment).await;
    again.assert_problem(409, "payment_in_progress");
    assert!(!again.header("retry-after").is_empty());
    gate.open();
    assert_eq!(first.join_next().await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_released_payment_may_be_held_again_for_the_same_request() {
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = Arc::clone(&down);
    let app = TestApp::start(Setup::default(), move |_| {
        if state.load(std::sync::atomic::Ordering::SeqCst) {
            Script::new(StatusCode::SERVICE_UNAVAILABLE, "text/plain", vec![Part::text("no")])
        } else {
            Script::json("{}")
        }
    })
    .await;
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    assert_eq!(app.pay("GET", "/premium/a", "", &payment).await.status, 503);
    assert_eq!(app.states().await, ["released"]);
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(app.pay("GET", "/premium/a", "", &payment).await.status, 200);
    app.until_states(&["settled"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_wallet_buys_no_more_than_it_holds() {
    let setup = Setup { settle: SettleMode::Background, ..Setup::default() };
    let app = Arc::new(TestApp::start(setup, |_| Script::json("{\"a\":1}")).await);
    let gate = Arc::new(Gate::default());
    app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
    app.facilitator.set_balance(&app.buyer.address().to_string(), 7 * FLAT + 1);
    let mut requests = JoinSet::new();
    for nonce in 1..=50 {
        let app = Arc::clone(&app);
        requests.spawn(async move { app.buy("GET", "/premium/a", "", nonce).await });
    }
    let mut grants = 0;
    while let Some(answer) = requests.join_next().await {
        let answer = answer.unwrap();
        if answer.status == StatusCode::OK {
            grants += 1;
        } else {
            answer.assert_problem(402, "payment_required");
            assert_eq!(answer.json()["reason"], "exposure_exceeded");
        }
    }
    assert_eq!(grants, 7);
    gate.open();
    app.until_states(&["settled"; 7]).await;
}

#[tokio::test]
async fn a5_an_exposure_limit_holds_below_the_balance() {
    let gate = Arc::new(Gate::default());
    let setup = Setup {
        settle: SettleMode::Background,
        exposure_limit: Some(2 * FLAT),
        ..Setup::default()
    };
    let app = TestApp::start(setup, |_| Script::json("{\"a\":1}")).await;
    app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
    for (nonce, status) in [(1, 200), (2, 200), (3, 402)] {
        assert_eq!(app.buy("GET", "/premium/a", "", nonce).await.status, status);
    }
    gate.open();
    app.until_states(&["settled", "settled"]).await;
    assert_eq!(app.buy("GET", "/premium/a", "", 3).await.status, 200);
}
