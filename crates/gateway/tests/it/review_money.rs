//! What must not be given away: streams that end in time to be settled, and charges that outlast a
//! ledger that is away for a while.

use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::Clock as _;
use farebox_store::{AnswerMark, Ledger as _, SettleMode};
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};
use futures_util::StreamExt as _;

use crate::app::{Setup, TestApp, chat};
use crate::faults::{Fault, Faults, Operation};

const PATH: &str = "/v1/chat/completions";
const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hel\"}}]}\n\n";
const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const COMMENT: &str = ": queued\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// More failures in a row than a client is kept waiting for.
const MANY: u32 = 12;

async fn faulty(settle: SettleMode, script: Script) -> (TestApp, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let setup = Setup { settle, faults: Arc::clone(&faults), ..Setup::default() };
    (TestApp::start(setup, move |_| script.clone()).await, faults)
}

/// Lets time pass until the payments are in these states.
async fn in_time(app: &TestApp, expected: &[&str]) {
    for _ in 0..2_000 {
        if app.states().await == expected {
            return;
        }
        app.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("expected {expected:?}, found {:?}", app.states().await);
}

#[tokio::test]
async fn a8_a_stream_ends_in_time_to_be_settled() {
    let gate = Arc::new(Gate::default());
    let script = Script::events(vec![Part::text(EVENT), Part::Wait(gate)]);
    let app = TestApp::answering(script).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut body = request.send().await.unwrap().bytes_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), EVENT);
    // The payment is good for 300 s; no settlement is taken in its last 6.
    app.clock.advance(Duration::from_secs(285));
    let mut end = body.next().await;
    while let Some(Ok(receipt)) = end {
        assert!(receipt.starts_with(b": "), "{receipt:?}");
        end = body.next().await;
    }
    assert!(end.unwrap().is_err());
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a8_a_client_that_reads_slowly_does_not_push_the_end_past_the_settlement() {
    let parts = (0..40_000).map(|_| Part::text(&EVENT.repeat(20))).collect();
    let app = TestApp::answering(Script::events(parts)).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut body = request.send().await.unwrap().bytes_stream();
    assert!(body.next().await.unwrap().is_ok());
    // Nobody reads on: the queues are full by the time the authorisation nears its end.
    app.clock.advance(Duration::from_secs(285));
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a8_a_payment_that_leaves_little_time_is_refused() {
    let app = TestApp::answering(Script::json("{}")).await;
    let required = app.ask("GET", "/premium/a", "").await.required();
    let stale = app.sign(&required, 1);
    app.clock.advance(Duration::from_secs(35));
    let answer = app.pay("GET", "/premium/a", "", &stale).await;
    answer.assert_problem(402, "payment_required");
    assert_eq!(answer.json()["reason"], "invalid_exact_evm_payload_authorization_valid_before");
    let late = app.sign(&answer.required(), 2);
    app.clock.advance(Duration::from_secs(25));
    assert_eq!(app.pay("GET", "/premium/a", "", &late).await.status, 200);
}

#[tokio::test]
async fn a_stream_is_charged_however_long_the_ledger_is_away() {
    let script = Script::events(vec![Part::text(EVENT), Part::text(DONE)]);
    for fault in [Fault::Unavailable, Fault::UnknownBefore] {
        let (app, faults) = faulty(SettleMode::After, script.clone()).await;
        faults.set(Operation::Capture, fault, MANY);
        let answer = app.buy("POST", PATH, &chat(true), 1).await;
        assert!(answer.body.ends_with(DONE), "{answer:?}");
        assert!(!answer.body.contains("farebox-receipt"), "{answer:?}");
        assert_eq!(app.states().await, ["serving"]);
        in_time(&app, &["settled"]).await;
    }
}

#[tokio::test]
async fn a_release_outlasts_a_ledger_that_is_away_and_keeps_nobody_waiting() {
    let (app, faults) = faulty(SettleMode::After, Script::events(vec![Part::Break])).await;
    faults.set(Operation::Release, Fault::Unavailable, MANY);
    app.buy("POST", PATH, &chat(true), 1).await.assert_problem(502, "upstream_failed");
    in_time(&app, &["released"]).await;
}

#[tokio::test]
async fn what_a_settlement_came_to_is_recorded_however_long_the_ledger_is_away() {
    let (app, faults) = faulty(SettleMode::Background, Script::json("{}")).await;
    faults.set(Operation::Resolve, Fault::Unavailable, MANY);
    assert_eq!(app.buy("GET", "/premium/a", "", 1).await.status, 200);
    in_time(&app, &["settled"]).await;
    assert_eq!(app.facilitator.settlements(), 1);
}

/// The outcome was recorded, which nobody knows, and the settlement is tried again meanwhile: what
/// the first try came to must not be recorded over the second.
#[tokio::test]
async fn an_old_outcome_is_not_recorded_over_a_new_try() {
    let (app, faults) = faulty(SettleMode::Background, Script::json("{}")).await;
    app.facilitator.on_settle(OnSettle::NotSent);
    faults.set_then(Operation::Resolve, (Fault::UnknownAfter, 1), (Fault::Unavailable, 6));
    assert_eq!(app.buy("GET", "/premium/a", "", 1).await.status, 200);
    while app.facilitator.settlements() == 0 {
        tokio::task::yield_now().await;
    }
    app.facilitator.on_settle(OnSettle::Honest);
    in_time(&app, &["settled"]).await;
    assert_eq!((app.facilitator.settlements(), app.facilitator.landed()), (2, 1));
}

#[tokio::test]
async fn what_is_owed_back_is_recorded_however_long_the_ledger_is_away() {
    let gate = Arc::new(Gate::default());
    let (app, faults) = faulty(SettleMode::After, Script::json("{}")).await;
    app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
    faults.set(Operation::OweRefund, Fault::Unavailable, MANY);
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    let (answer, ()) = tokio::join!(app.pay("GET", "/premium/a", "", &payment), async {
        gate.reached_by(1).await;
        app.clock.advance(Duration::from_secs(40));
    });
    answer.assert_problem(503, "settlement_pending");
    gate.open();
    for _ in 0..2_000 {
        if app.payments().await[0].refund_owed.is_some() {
            return;
        }
        app.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?}", app.payments().await);
}

/// What the ledger is told after the money came, it is told until it listens; nobody waits for that.
#[tokio::test]
async fn what_became_of_a_paid_answer_is_recorded_however_long_the_ledger_is_away() {
    let broken = Script::events(vec![Part::Break]);
    for (settle, script, operation) in [
        (SettleMode::Before, broken, Operation::OweRefund),
        (SettleMode::After, Script::json("{}"), Operation::MarkAnswer),
    ] {
        let (app, faults) = faulty(settle, script).await;
        faults.set(operation, Fault::Unavailable, MANY);
        let answer = app.buy("GET", "/premium/a", "", 1).await;
        let recorded = async || {
            let payment = app.payments().await.remove(0);
            if operation == Operation::OweRefund {
                return payment.refund_owed.as_deref() == Some("upstream_failed");
            }
            payment.answer == AnswerMark::Sent
        };
        assert_eq!(answer.status == 200, operation == Operation::MarkAnswer, "{answer:?}");
        assert!(!recorded().await, "the ledger is still away");
        let in_time = async {
            while !recorded().await {
                app.clock.advance(Duration::from_secs(1));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), in_time).await.unwrap();
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever_for_a_ledger_that_is_away() {
    let script = Script::events(vec![Part::text(EVENT), Part::text(DONE)]);
    let (app, faults) = faulty(SettleMode::After, script).await;
    faults.set(Operation::Capture, Fault::Unavailable, u32::MAX);
    app.buy("POST", PATH, &chat(true), 1).await;
    let clock = Arc::clone(&app.clock);
    let (ledger, _files) =
        tokio::time::timeout(Duration::from_secs(8), app.shutdown()).await.unwrap();
    // The checkpoint says what is owed.
    let recovered = ledger.recover(clock.now()).await.unwrap();
    assert_eq!(recovered.captured, 1, "{recovered:?}");
}

#[tokio::test]
async fn a_stream_without_content_costs_nothing() {
    let error = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    for parts in [
        vec![Part::text(COMMENT), Part::Break],
        vec![Part::text(ROLE), Part::Break],
        vec![Part::text(COMMENT), Part::text(ROLE)],
        vec![Part::text(ROLE), Part::text(error), Part::text(DONE)],
    ] {
        let shown = format!("{parts:?}");
        let app = TestApp::answering(Script::events(parts)).await;
        let answer = app.buy("POST", PATH, &chat(true), 1).await;
        answer.assert_problem(502, "upstream_failed");
        assert_eq!(app.states().await, ["released"], "{shown}");
    }
}

#[tokio::test]
async fn what_was_kept_back_leaves_with_the_first_content() {
    let gate = Arc::new(Gate::default());
    let parts = vec![
        Part::text(COMMENT),
        Part::text(ROLE),
        Part::text(EVENT),
        Part::Wait(Arc::clone(&gate)),
        Part::text(DONE),
    ];
    let app = TestApp::answering(Script::events(parts)).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut body = request.send().await.unwrap().bytes_stream();
    let expected = format!("{COMMENT}{ROLE}{EVENT}");
    let mut seen = String::new();
    while seen.len() < expected.len() {
        seen.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!(seen, expected);
    gate.open();
    while body.next().await.is_some() {}
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a_checkpoint_that_may_have_been_written_warns_of_paying_again() {
    let script = Script::events(vec![Part::text(EVENT), Part::text(DONE)]);
    let (app, faults) = faulty(SettleMode::After, script).await;
    faults.set_then(Operation::Meter, (Fault::UnknownBefore, 1), (Fault::Unavailable, u32::MAX));
    let answer = app.buy("POST", PATH, &chat(true), 1).await;
    answer.assert_problem(503, "unavailable");
    assert_eq!(answer.header("x-should-retry"), "false");
}

#[tokio::test]
async fn a_prepaid_stream_stops_when_nobody_wants_it() {
    let gate = Arc::new(Gate::default());
    let parts = vec![Part::text(EVENT), Part::Wait(Arc::clone(&gate)), Part::text(DONE)];
    let setup = Setup { settle: SettleMode::Before, ..Setup::default() };
    let app = TestApp::start(setup, move |_| Script::events(parts.clone())).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut response = request.send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    // The gate stays shut: only a stream that is given up lets the gateway finish before its drain.
    tokio::time::timeout(Duration::from_secs(8), app.shutdown()).await.unwrap();
}
