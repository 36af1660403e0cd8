//! What the client is told over HTTP when its settlement does not go as it should.

use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::Limits;
use farebox_protocol::Reason;
use farebox_store::{Ledger as _, SettleMode, SqliteLedger, SqliteOptions};
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};

use crate::app::{PAY_TO, Setup, TestApp, chat};

const SECRET: &str = "what was paid for";
const CHUNK: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\n";
const PAID_NOTHING: u128 = 1_000_000;

fn setup(settle: SettleMode, settle_wait: Duration) -> Setup {
    let standard = Setup::default();
    Setup { settle, limits: Limits { settle_wait, ..standard.limits }, ..standard }
}

async fn start(setup: Setup) -> TestApp {
    TestApp::start(setup, |_| Script::json(&format!("{{\"a\":\"{SECRET}\"}}"))).await
}

#[tokio::test]
async fn a_refused_settlement_is_a_402_without_a_byte_of_the_answer() {
    for (settle, asked) in [(SettleMode::After, 1), (SettleMode::Before, 0)] {
        let app = start(setup(settle, Duration::from_secs(20))).await;
        let reason = Reason::InvalidExactEvmInsufficientBalance;
        app.facilitator.on_settle(OnSettle::Reject(reason.clone()));
        let payment = app.quote("GET", "/premium/a", "", 1).await;
        let answer = app.pay("GET", "/premium/a", "", &payment).await;
        answer.assert_problem(402, "payment_required");
        assert!(!answer.body.contains(SECRET), "{answer:?}");
        let told = answer.settlement().unwrap();
        assert!(!told.success);
        assert_eq!(told.error_reason, Some(reason));
        assert_eq!(told.transaction, "");
        assert_eq!(told.payer.unwrap(), app.buyer.address().to_string());
        assert_eq!(answer.header("cache-control"), "private, no-store");
        assert!(!answer.required().accepts.is_empty());
        app.until_states(&["released"]).await;
        assert_eq!(app.received(), asked, "{settle:?}");
        assert_eq!(app.facilitator.balance(PAY_TO), PAID_NOTHING);
        // Given back, so the same payment buys it once the chain takes it.
        app.facilitator.on_settle(OnSettle::Honest);
        let answer = app.pay("GET", "/premium/a", "", &payment).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains(SECRET));
        app.pay("GET", "/premium/a", "", &payment)
            .await
            .assert_problem(409, "payment_already_used");
    }
}

#[tokio::test]
async fn a_refused_settlement_of_a_stream_is_booked_as_lost() {
    let script = Script::events(vec![Part::text(CHUNK), Part::text("data: [DONE]\n\n")]);
    let app = TestApp::answering(script).await;
    app.facilitator.on_settle(OnSettle::Reject(Reason::InvalidExactEvmInsufficientBalance));
    let payment = app.quote("POST", "/v1/chat/completions", &chat(true), 1).await;
    let answer = app.pay("POST", "/v1/chat/completions", &chat(true), &payment).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("hello") && answer.body.contains("[DONE]"), "{answer:?}");
    app.until_states(&["lost"]).await;
    let receipt = answer.header("farebox-receipt").replace("https://api.example.com", "");
    let receipt = app.ask("GET", &receipt, "").await;
    assert_eq!(receipt.json()["reason"], "invalid_exact_evm_insufficient_balance");
    assert_eq!(app.facilitator.balance(PAY_TO), PAID_NOTHING);
    let again = app.pay("POST", "/v1/chat/completions", &chat(true), &payment).await;
    again.assert_problem(409, "payment_already_used");
}

#[tokio::test]
async fn a_settlement_that_takes_too_long_is_pending_and_owed_back_when_it_lands() {
    for settle in [SettleMode::After, SettleMode::Before] {
        let app = start(setup(settle, Duration::from_secs(1))).await;
        let gate = Arc::new(Gate::default());
        app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
        let payment = app.quote("GET", "/premium/a", "", 1).await;
        let answer = app.pay("GET", "/premium/a", "", &payment).await;
        answer.assert_problem(503, "settlement_pending");
        assert!(!answer.body.contains(SECRET), "{answer:?}");
        assert_eq!(answer.header("x-should-retry"), "false");
        assert_eq!(answer.header("payment-required"), "");
        assert!(!answer.header("retry-after").is_empty());
        let path = answer.header("farebox-receipt").replace("https://api.example.com", "");
        assert_eq!(app.ask("GET", &path, "").await.json()["state"], "settling");
        let again = app.pay("GET", "/premium/a", "", &payment).await;
        again.assert_problem(409, "payment_in_progress");
        gate.open();
        app.until_states(&["settled"]).await;
        until_owed(&app, &path).await;
        let again = app.pay("GET", "/premium/a", "", &payment).await;
        again.assert_problem(409, "payment_already_used");
        assert_eq!(app.facilitator.landed(), 1);
    }
}

/// Waits until a receipt says that the payment is owed back.
async fn until_owed(app: &TestApp, path: &str) {
    let owed = async {
        while app.ask("GET", path, "").await.json()["refundOwed"] != "settled_unanswered" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), owed).await.unwrap();
}

#[tokio::test]
async fn a_settlement_that_was_never_sent_is_given_back_after_the_wait() {
    let app = start(setup(SettleMode::After, Duration::from_secs(1))).await;
    app.facilitator.on_settle(OnSettle::NotSent);
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    let answer = app.pay("GET", "/premium/a", "", &payment).await;
    answer.assert_problem(503, "settlement_pending");
    app.facilitator.on_settle(OnSettle::Honest);
    app.until_states(&["released"]).await;
    assert_eq!(app.facilitator.balance(PAY_TO), PAID_NOTHING);
    let answer = app.pay("GET", "/premium/a", "", &payment).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_shutdown_in_the_middle_of_a_settlement_leaves_it_to_be_looked_up() {
    let standard = Setup::default();
    let limits = Limits { drain: Duration::from_millis(100), ..standard.limits };
    let app = start(Setup { limits, ..standard }).await;
    let gate = Arc::new(Gate::default());
    app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    let request = app.request("GET", "/premium/a", "").header("payment-signature", payment);
    let asking = tokio_util::task::TaskTracker::new().spawn(request.send());
    gate.reached_by(1).await;
    let facilitator = Arc::clone(&app.facilitator);
    let (ledger, files) = app.shutdown().await;
    // Nobody was told anything, and nothing of the answer has left.
    assert!(asking.await.unwrap().is_err());
    let path = ledger.path().to_owned();
    ledger.close().await.unwrap();
    drop(ledger);
    let ledger = SqliteLedger::open(path, SqliteOptions::default()).unwrap();
    let now = farebox_gateway::Clock::now(&farebox_gateway::SystemClock);
    assert_eq!(ledger.recover(now).await.unwrap().to_reconcile, 1);
    let payments = ledger.list(None, 10).await.unwrap();
    assert_eq!(payments[0].state.name(), "unknown");
    assert!(ledger.check().await.unwrap().is_sound());
    assert_eq!(facilitator.landed(), 0);
    drop(files);
}
