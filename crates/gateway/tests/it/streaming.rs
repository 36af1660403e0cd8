//! Streams: metered as they pass, captured however they end.

use std::sync::Arc;
use std::time::Duration;

use farebox_billing::Payment;
use farebox_protocol::Reason;
use farebox_store::SettleMode;
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};
use futures_util::StreamExt as _;
use http::StatusCode;

use crate::app::{Setup, TestApp, chat};

const PATH: &str = "/v1/chat/completions";

fn event(text: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    )
}

const USAGE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn complete() -> Script {
    Script::events(vec![
        Part::text(&event("hel")),
        Part::text(&event("lo")),
        Part::text(USAGE),
        Part::text(DONE),
    ])
}

#[tokio::test]
async fn a_stream_passes_and_ends_with_its_receipt() {
    let app = TestApp::answering(complete()).await;
    let answer = app.buy("POST", PATH, &chat(true), 1).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert!(answer.header("farebox-receipt").contains("/v1/receipts/pay_"));
    let (before, receipt) = answer.body.split_once(": farebox-receipt ").unwrap();
    // The usage was asked for by the gateway, not by the client: hidden again.
    assert_eq!(before, format!("{}{}", event("hel"), event("lo")));
    let (receipt, after) = receipt.split_once('\n').unwrap();
    assert_eq!(after, DONE);
    let receipt: serde_json::Value = serde_json::from_str(receipt).unwrap();
    assert_eq!(receipt["state"], "captured");
    assert_eq!(receipt["usage"]["outputTokens"], 2);
    assert_eq!(receipt["charged"], receipt["quoted"]);
    app.until_states(&["settled"]).await;
    let sent: serde_json::Value = serde_json::from_slice(&app.upstream.received()[0].body).unwrap();
    assert_eq!(sent["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn the_first_byte_leaves_after_its_checkpoint_and_before_the_end() {
    let gate = Arc::new(Gate::default());
    let script = Script::events(vec![
        Part::text(&event("hel")),
        Part::Wait(Arc::clone(&gate)),
        Part::text(DONE),
    ]);
    let app = TestApp::answering(script).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut body = request.send().await.unwrap().bytes_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), event("hel"));
    let payment = &app.payments().await[0];
    let Payment::Serving { limit, delivered } = payment.state else {
        panic!("{:?}", payment.state)
    };
    assert_eq!(limit, delivered);
    gate.open();
    while body.next().await.is_some() {}
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_is_charged_all_the_same() {
    let gate = Arc::new(Gate::default());
    let script = Script::events(vec![
        Part::text(&event("hel")),
        Part::Wait(Arc::clone(&gate)),
        Part::text(&event("lo")),
        Part::text(USAGE),
        Part::text(DONE),
    ]);
    let app = TestApp::answering(script).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut response = request.send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    gate.open();
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_answer_is_charged_all_the_same() {
    for stream in [true, false] {
        let gate = Arc::new(Gate::default());
        let wait = Arc::clone(&gate);
        let app = TestApp::start(Setup::default(), move |_| {
            let mut script = if stream {
                complete()
            } else {
                Script::json("{\"choices\":[{\"message\":{\"content\":\"hello\"}}]}")
            };
            script.parts.insert(0, Part::Wait(Arc::clone(&wait)));
            script
        })
        .await;
        let payment = app.quote("POST", PATH, &chat(stream), 1).await;
        let request = app.request("POST", PATH, &chat(stream)).header("payment-signature", payment);
        tokio::select! {
            answer = request.send() => panic!("{answer:?}"),
            () = gate.reached_by(1) => {}
        }
        assert_eq!(app.states().await, ["serving"]);
        gate.open();
        app.until_states(&["settled"]).await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_cut_for_the_client_and_charged() {
    let gate = Arc::new(Gate::default());
    let script =
        Script::events(vec![Part::text(&event("hel")), Part::Wait(Arc::clone(&gate)), Part::Break]);
    let app = TestApp::answering(script).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut body = request.send().await.unwrap().bytes_stream();
    let mut text = String::new();
    let mut cut = false;
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => {
                text.push_str(std::str::from_utf8(&piece).unwrap());
                gate.open();
            }
            Err(_) => cut = true,
        }
    }
    assert!(cut && text.starts_with(&event("hel")) && !text.contains("[DONE]"), "{text}");
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a_stream_that_gives_nothing_costs_nothing() {
    for parts in [
        vec![],
        vec![Part::Break],
        vec![Part::text("data: {\"error\":{\"message\":\"overloaded\"}}\n\n"), Part::text(DONE)],
    ] {
        let app = TestApp::answering(Script::events(parts)).await;
        let answer = app.buy("POST", PATH, &chat(true), 1).await;
        answer.assert_problem(502, "upstream_failed");
        assert!(!answer.headers.contains_key("x-should-retry"), "{answer:?}");
        assert_eq!(app.states().await, ["released"]);
        assert_eq!(app.facilitator.settlements(), 0);
    }
}

#[tokio::test]
async fn a_silent_stream_is_cut() {
    let gate = Arc::new(Gate::default());
    let script = Script::events(vec![Part::text(&event("a")), Part::Wait(gate)]);
    let setup = Setup { idle_timeout: Duration::from_millis(50), ..Setup::default() };
    let app = TestApp::start(setup, move |_| script.clone()).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let text = request.send().await.unwrap().text().await;
    assert!(text.is_err(), "{text:?}");
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a3_a_stream_whose_settlement_is_refused_is_booked_as_lost() {
    let app = TestApp::answering(complete()).await;
    app.facilitator.on_settle(OnSettle::Reject(Reason::InvalidExactEvmInsufficientBalance));
    let answer = app.buy("POST", PATH, &chat(true), 1).await;
    assert!(answer.body.ends_with(DONE));
    app.until_states(&["lost"]).await;
    let Payment::Lost { reason, .. } = &app.payments().await[0].state else { panic!() };
    assert_eq!(reason, "invalid_exact_evm_insufficient_balance");
}

#[tokio::test]
async fn a_prepaid_stream_names_its_settlement() {
    let setup = Setup { settle: SettleMode::Before, ..Setup::default() };
    let app = TestApp::start(setup, |_| complete()).await;
    let answer = app.buy("POST", PATH, &chat(true), 1).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(answer.settlement().unwrap().success);
    assert!(answer.body.contains("\"state\":\"settled\"") && answer.body.ends_with(DONE));
}

#[tokio::test]
async fn what_is_flat_is_not_read() {
    let script = Script::events(vec![Part::text("data: 1\n\n"), Part::text("data: 2\n\n")]);
    let app = TestApp::answering(script).await;
    let answer = app.buy("GET", "/premium/ticks", "", 1).await;
    assert_eq!(answer.body, "data: 1\n\ndata: 2\n\n");
    app.until_states(&["settled"]).await;
}

#[tokio::test]
async fn a_large_background_answer_is_not_withheld() {
    let setup = Setup {
        settle: SettleMode::Background,
        limits: farebox_gateway::Limits { withheld_bytes_max: 10, ..Setup::default().limits },
        ..Setup::default()
    };
    let app = TestApp::start(setup, |_| Script::json(&"x".repeat(100_000))).await;
    let answer = app.buy("GET", "/premium/big", "", 1).await;
    assert_eq!(answer.body.len(), 100_000);
    assert_eq!(answer.header("content-length"), "100000");
    app.until_states(&["settled"]).await;
}
