//! A ledger that does not do its part: 503 before anything is served, never free service, and
//! never a 402 that would make the payer sign again.

use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::Clock as _;
use farebox_store::{Intake, Ledger as _, Quarantine, QuarantineReason, SettleMode};
use farebox_testkit::upstream::{Part, Script};

use crate::app::{Answer, Setup, TestApp, chat};
use crate::faults::{Fault, Faults, Operation};

const ALWAYS: u32 = u32::MAX;
const PATH: &str = "/v1/chat/completions";

async fn app(settle: SettleMode, stream: bool) -> (TestApp, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let setup = Setup { settle, faults: Arc::clone(&faults), ..Setup::default() };
    let app = TestApp::start(setup, move |_| {
        if stream {
            let event = "data: {\"choices\":[{\"delta\":{\"content\":\"secret\"}}]}\n\n";
            Script::events(vec![Part::text(event), Part::text("data: [DONE]\n\n")])
        } else {
            Script::json("{\"choices\":[{\"message\":{\"content\":\"secret\"}}]}")
        }
    });
    (app.await, faults)
}

#[track_caller]
fn check_unavailable(answer: &Answer) {
    answer.assert_problem(503, "unavailable");
    assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    assert!(!answer.headers.contains_key("payment-required"), "{answer:?}");
    assert!(!answer.body.contains("secret"), "{answer:?}");
}

#[tokio::test]
async fn i17_no_hold_no_service() {
    let (app, faults) = app(SettleMode::After, false).await;
    let body = chat(false);
    let payment = app.quote("POST", PATH, &body, 1).await;
    for operation in [Operation::Lookup, Operation::Admit] {
        faults.set(operation, Fault::Unavailable, 1);
        let answer = app.pay("POST", PATH, &body, &payment).await;
        check_unavailable(&answer);
        assert!(!answer.headers.contains_key("x-should-retry"));
    }
    assert_eq!(app.received(), 0);
    assert!(app.payments().await.is_empty());
    assert_eq!(app.pay("POST", PATH, &body, &payment).await.status, 200);
}

/// Known before anything is asked: nothing is quoted, verified or served, whoever asks.
#[tokio::test]
async fn i17_a_ledger_that_takes_nothing_is_told_before_verification() {
    let quarantine =
        Quarantine { reason: QuarantineReason::Behind, copied_at: None, safe_from: None };
    for (intake, says) in [(Intake::Full, "room"), (Intake::Quarantined(quarantine), "quarantine")]
    {
        let (app, faults) = app(SettleMode::After, false).await;
        let body = chat(false);
        let payment = app.quote("POST", PATH, &body, 1).await;
        let before = app.facilitator.verifications();
        faults.set_intake(intake);
        let paid = app.pay("POST", PATH, &body, &payment).await;
        check_unavailable(&paid);
        assert!(!paid.headers.contains_key("x-should-retry"), "it may come again");
        check_unavailable(&app.ask("POST", PATH, &body).await);
        let ready = app.ask("GET", "/readyz", "").await;
        ready.assert_problem(503, "unavailable");
        assert!(ready.body.contains(says), "{ready:?}");
        assert_eq!(app.ask("GET", "/healthz", "").await.status, 200);
        assert_eq!(app.ask("POST", "/free", "").await.status, 200);
        assert_eq!(app.facilitator.verifications(), before);
        assert!(app.payments().await.is_empty());
        faults.set_intake(Intake::Open);
        assert_eq!(app.pay("POST", PATH, &body, &payment).await.status, 200);
        assert_eq!(app.ask("GET", "/readyz", "").await.status, 200);
    }
}

#[tokio::test]
async fn i11_an_unknown_hold_is_not_served_and_not_paid_for_again() {
    let (app, faults) = app(SettleMode::After, false).await;
    let body = chat(false);
    let payment = app.quote("POST", PATH, &body, 1).await;
    faults.set(Operation::Admit, Fault::UnknownAfter, 1);
    let answer = app.pay("POST", PATH, &body, &payment).await;
    check_unavailable(&answer);
    assert_eq!(answer.header("x-should-retry"), "false");
    app.pay("POST", PATH, &body, &payment).await.assert_problem(409, "payment_in_progress");
    assert_eq!(app.received(), 0);
    app.ledger.recover(app.clock.now()).await.unwrap();
    assert_eq!(app.states().await, ["released"]);
    assert_eq!(app.pay("POST", PATH, &body, &payment).await.status, 200);
}

#[tokio::test]
async fn what_fails_once_is_tried_again() {
    for fault in [Fault::Unavailable, Fault::UnknownBefore, Fault::UnknownAfter] {
        for operation in [Operation::BeginServe, Operation::Meter, Operation::Capture] {
            let (app, faults) = app(SettleMode::After, true).await;
            faults.set(operation, fault, 2);
            let answer = app.buy("POST", PATH, &chat(true), 1).await;
            assert_eq!(answer.status, 200, "{fault:?} {operation:?}: {answer:?}");
            app.until_states(&["settled"]).await;
        }
    }
}

#[tokio::test]
async fn what_fails_before_a_byte_left_is_given_back() {
    for (settle, stream, operation) in [
        (SettleMode::After, false, Operation::BeginServe),
        (SettleMode::After, true, Operation::Meter),
        (SettleMode::After, false, Operation::Capture),
        (SettleMode::Background, false, Operation::Capture),
        (SettleMode::Before, false, Operation::Capture),
    ] {
        let (app, faults) = app(settle, stream).await;
        faults.set(operation, Fault::Unavailable, ALWAYS);
        let answer = app.buy("POST", PATH, &chat(stream), 1).await;
        check_unavailable(&answer);
        assert_eq!(app.states().await, ["released"], "{settle:?} {operation:?}");
        assert_eq!(app.facilitator.settlements(), 0);
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_captured_has_no_receipt_and_is_captured_by_recovery() {
    let (app, faults) = app(SettleMode::After, true).await;
    faults.set(Operation::Capture, Fault::Unavailable, ALWAYS);
    let answer = app.buy("POST", PATH, &chat(true), 1).await;
    assert!(answer.body.contains("secret") && answer.body.ends_with("data: [DONE]\n\n"));
    assert!(!answer.body.contains("farebox-receipt"), "{answer:?}");
    assert_eq!(app.states().await, ["serving"]);
    app.ledger.recover(app.clock.now()).await.unwrap();
    assert_eq!(app.states().await, ["captured"]);
}

/// A stream or an answer at once, from a ledger whose `operation` is carried out though it says that
/// it does not know, and which cannot be asked any more from then on.
async fn unheard(settle: SettleMode, operation: Operation) -> (TestApp, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let setup = Setup { settle, faults: Arc::clone(&faults), ..Setup::default() };
    let told = Arc::clone(&faults);
    let app = TestApp::start(setup, move |_| {
        told.set_then(operation, (Fault::UnknownAfter, 1), (Fault::Unavailable, ALWAYS));
        told.set(Operation::Lookup, Fault::Unavailable, ALWAYS);
        if settle == SettleMode::After {
            Script::events(vec![
                Part::text("data: {\"choices\":[{\"delta\":{\"content\":\"secret\"}}]}\n\n"),
                Part::text("data: [DONE]\n\n"),
            ])
        } else {
            Script::json("{\"choices\":[{\"message\":{\"content\":\"secret\"}}]}")
        }
    });
    (app.await, faults)
}

const UNHEARD: [(SettleMode, Operation); 2] =
    [(SettleMode::After, Operation::Meter), (SettleMode::Background, Operation::Capture)];

#[tokio::test]
async fn i11_what_was_written_unheard_and_given_up_is_given_back() {
    for (settle, operation) in UNHEARD {
        for away in [0, 12] {
            let (app, faults) = unheard(settle, operation).await;
            faults.set(Operation::Withdraw, Fault::Unavailable, away);
            let answer = app.buy("POST", PATH, &chat(settle == SettleMode::After), 1).await;
            check_unavailable(&answer);
            assert_eq!(answer.header("x-should-retry"), "false", "{operation:?}");
            app.until_over().await;
            let payment = &app.payments().await[0];
            // Where the worker was quicker, it is owed back.
            let owed = payment.state.name() == "settled" && payment.refund_owed.is_some();
            let given_back = payment.state.name() == "released";
            assert!(owed || given_back, "{operation:?}: {payment:?}");
            assert!(given_back || away != 0, "{operation:?}: {payment:?}");
        }
    }
}

#[tokio::test]
async fn i11_what_was_written_unheard_and_settled_is_owed_back() {
    let (app, faults) = unheard(SettleMode::Background, Operation::Capture).await;
    faults.set(Operation::Withdraw, Fault::Unavailable, ALWAYS);
    check_unavailable(&app.buy("POST", PATH, &chat(false), 1).await);
    let settled = async {
        while app.states().await != ["settled"] {
            app.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
    faults.set(Operation::Withdraw, Fault::Unavailable, 0);
    app.until_over().await;
    let payment = &app.payments().await[0];
    assert_eq!(payment.refund_owed.as_deref(), Some("settled_unanswered"), "{payment:?}");
}
