//! `upto`: the quote is the ceiling, the charge is the price of what was used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farebox_billing::Payment;
use farebox_protocol::Amount;
use farebox_store::SettleMode;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};
use futures_util::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};

use crate::app::{PAY_TO, Setup, TestApp, chat};

const PATH: &str = "/v1/chat/completions";
const DONE: &str = "data: [DONE]\n\n";
/// 9 tokens in at 0.15 and 2 out at 0.60 dollars for a million, rounded up.
const USED: u128 = 3;

fn upto() -> Setup {
    Setup { offers: &["upto", "exact"], ..Setup::default() }
}

fn completion(prompt_tokens: u64, completion_tokens: u64) -> Script {
    let usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens});
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": "hello"}});
    let body = json!({"object": "chat.completion", "choices": [choice], "usage": usage});
    Script::json(&body.to_string())
}

fn event(text: &str) -> String {
    let choice = json!({"index": 0, "delta": {"content": text}});
    format!("data: {}\n\n", json!({"object": "chat.completion.chunk", "choices": [choice]}))
}

fn usage(prompt_tokens: u64, completion_tokens: u64) -> String {
    let usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens});
    let chunk = json!({"object": "chat.completion.chunk", "choices": [], "usage": usage});
    format!("data: {chunk}\n\n")
}

fn earned(app: &TestApp) -> u128 {
    app.facilitator.balance(PAY_TO) - 1_000_000
}

/// What the one payment has cost so far, and what it may.
async fn serving(app: &TestApp) -> (Amount, Amount) {
    let state = app.payments().await.remove(0).state;
    let Payment::Serving { limit, delivered } = state else { panic!("{state:?}") };
    (delivered, limit)
}

#[tokio::test]
async fn a_json_answer_costs_what_it_used() {
    let app = TestApp::start(upto(), |_| completion(9, 2)).await;
    let required = app.ask("POST", PATH, &chat(false)).await.required();
    let [first, second] = &required.accepts[..] else { panic!("{required:?}") };
    assert_eq!((first.scheme.as_str(), second.scheme.as_str()), ("upto", "exact"));
    assert_eq!(first.amount, second.amount);
    assert_eq!(first.extra["assetTransferMethod"], "permit2");
    assert!(first.extra["facilitatorAddress"].is_string());
    assert_eq!(
        required.extensions.as_ref().unwrap()["eip2612GasSponsoring"]["info"]["version"],
        "1"
    );
    let answer = app.pay("POST", PATH, &chat(false), &app.sign(&required, 1)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let settled = answer.settlement().unwrap();
    assert_eq!(settled.amount, Some(Amount::from_units(USED)));
    assert!(Amount::from_units(USED) < first.amount);
    assert_eq!(earned(&app), USED);
    let path = answer.header("farebox-receipt").strip_prefix("https://api.example.com").unwrap();
    let receipt = app.ask("GET", path, "").await.json();
    assert_eq!(receipt["charged"], USED.to_string());
    assert_eq!(receipt["quoted"], first.amount.to_string());
    // `exact` stands beside it at the quote.
    let payment = app.sign_offer(second, [2; 32]);
    let answer = app.pay("POST", PATH, &chat(false), &payment).await;
    assert_eq!(answer.settlement().unwrap().amount, Some(second.amount));
    assert_eq!(earned(&app), USED + second.amount.units());
}

#[tokio::test]
async fn a_stream_costs_what_it_used() {
    let parts = [event("hel"), event("lo"), usage(9, 2), DONE.to_owned()];
    let script = Script::events(parts.iter().map(|it| Part::text(it)).collect());
    for settle in [SettleMode::After, SettleMode::Background] {
        let script = script.clone();
        let app = TestApp::start(Setup { settle, ..upto() }, move |_| script.clone()).await;
        let answer = app.buy("POST", PATH, &chat(true), 1).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (_, receipt) = answer.body.split_once(": farebox-receipt ").unwrap();
        let receipt: Value = serde_json::from_str(receipt.split_once('\n').unwrap().0).unwrap();
        assert_eq!(receipt["charged"], USED.to_string());
        app.until_states(&["settled"]).await;
        assert_eq!(earned(&app), USED);
    }
}

#[tokio::test]
async fn an_upstream_that_uses_more_than_it_may_is_not_paid_more() {
    let app = TestApp::start(upto(), |_| completion(9_000_000, 9_000_000)).await;
    let required = app.ask("POST", PATH, &chat(false)).await.required();
    let answer = app.pay("POST", PATH, &chat(false), &app.sign(&required, 1)).await;
    assert_eq!(answer.settlement().unwrap().amount, Some(required.accepts[0].amount));
}

#[tokio::test]
async fn what_failed_costs_nothing_and_the_payment_can_be_used_again() {
    let failed = AtomicBool::new(false);
    let app = TestApp::start(upto(), move |_| {
        if failed.swap(true, Ordering::Relaxed) {
            return completion(9, 2);
        }
        Script { status: StatusCode::INTERNAL_SERVER_ERROR, ..Script::json("{}") }
    })
    .await;
    let payment = app.quote("POST", PATH, &chat(false), 1).await;
    let answer = app.pay("POST", PATH, &chat(false), &payment).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-farebox-charged")), (500, "0"));
    app.until_states(&["released"]).await;
    let answer = app.pay("POST", PATH, &chat(false), &payment).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(earned(&app), USED);
    let answer = app.pay("POST", PATH, &chat(false), &payment).await;
    answer.assert_problem(409, "payment_already_used");
}

#[tokio::test]
async fn checkpoints_follow_the_stream() {
    let gates: Vec<Arc<Gate>> = (0..3).map(|_| Arc::default()).collect();
    let wait = |number: usize| Part::Wait(Arc::clone(&gates[number]));
    let long = event(&"word ".repeat(40));
    let script = Script::events(vec![
        Part::text(&event("hi")),
        wait(0),
        Part::text(&long),
        wait(1),
        Part::text(&event("!")),
        wait(2),
        Part::text(&usage(9, 2)),
        Part::text(DONE),
    ]);
    let app = TestApp::start(upto(), move |_| script.clone()).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut body = request.send().await.unwrap().bytes_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), event("hi"));
    let (first, limit) = serving(&app).await;
    assert!(!first.is_zero() && first < limit, "{first} of {limit}");
    gates[0].open();
    assert_eq!(body.next().await.unwrap().unwrap(), long);
    gates[1].open();
    assert_eq!(body.next().await.unwrap().unwrap(), event("!"));
    let (second, _) = serving(&app).await;
    // Fifty tokens more, estimated, at 0.60 dollars for a million.
    assert_eq!(second.units(), first.units() + 30, "{first}, {second} of {limit}");
    gates[2].open();
    while body.next().await.is_some() {}
    // The upstream's own count undercuts the estimate.
    app.until_states(&["settled"]).await;
    assert_eq!(earned(&app), USED);
}

#[tokio::test]
async fn a8_a_stream_that_outlives_its_authorisation_is_ended_in_time_and_charged() {
    let gate = Arc::new(Gate::default());
    let script = Script::events(vec![
        Part::text(&event("hello there")),
        Part::Wait(Arc::clone(&gate)),
        Part::text(DONE),
    ]);
    let app = TestApp::start(upto(), move |_| script.clone()).await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let request = app.request("POST", PATH, &chat(true)).header("payment-signature", payment);
    let mut body = request.send().await.unwrap().bytes_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), event("hello there"));
    let (delivered, limit) = serving(&app).await;
    app.clock.advance(Duration::from_secs(285));
    while body.next().await.is_some_and(|it| it.is_ok()) {}
    app.until_states(&["settled"]).await;
    assert_eq!(earned(&app), delivered.units());
    assert!(delivered < limit);
}

#[tokio::test]
async fn a15_another_facilitator_or_method_is_not_our_offer() {
    let app = TestApp::start(upto(), |_| completion(9, 2)).await;
    let required = app.ask("POST", PATH, &chat(false)).await.required();
    for (key, value) in [
        ("facilitatorAddress", json!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8")),
        ("assetTransferMethod", json!("eip3009")),
        ("assetTransferMethod", json!("other")),
    ] {
        let mut offer = required.accepts[0].clone();
        let good = app.payload(&app.buyer, &offer, [3; 32]);
        offer.extra.insert(key.to_owned(), value);
        let payload = farebox_protocol::wire::PaymentPayload { accepted: offer, ..good };
        let payment = farebox_protocol::header::encode(&payload).unwrap();
        let answer = app.pay("POST", PATH, &chat(false), &payment).await;
        assert_eq!(answer.status, 402, "{answer:?}");
    }
    assert_eq!(app.received(), 0);
}
