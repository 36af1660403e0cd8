//! Answers in one piece that are too long to be withheld: the work is done, so they leave like a stream,
//! and are charged like one.

use std::sync::Arc;

use farebox_billing::Payment;
use farebox_protocol::{Amount, Reason};
use farebox_store::{AnswerMark, SettleMode};
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};
use http::StatusCode;
use serde_json::json;

use crate::app::{PAY_TO, Setup, TestApp, chat};

const CHAT: &str = "/v1/chat/completions";
/// What is withheld at most, and the length of what is longer.
const WITHHELD: usize = 1_000;
const LONG: usize = 100_000;

fn setup(settle: SettleMode) -> Setup {
    let limits =
        farebox_gateway::Limits { withheld_bytes_max: WITHHELD, ..Setup::default().limits };
    Setup { settle, limits, offers: &["upto", "exact"], ..Setup::default() }
}

fn earned(app: &TestApp) -> u128 {
    app.facilitator.balance(PAY_TO) - 1_000_000
}

/// A document in two parts, the first of which is already more than is withheld.
fn document(end: &str) -> [String; 2] {
    let text = "x".repeat(LONG);
    [format!(r#"{{"choices":[{{"message":{{"content":"{text}""#), format!("}}}}]{end}")]
}

fn in_parts(parts: &[String]) -> Script {
    let parts = parts.iter().map(|it| Part::text(it)).collect();
    Script::new(StatusCode::OK, "application/json", parts)
}

#[tokio::test]
async fn a_flat_one_leaves_whether_or_not_its_length_is_told() {
    for declared in [true, false] {
        let half = "x".repeat(LONG / 2);
        // A body of several parts has no length beforehand.
        let script =
            if declared { Script::json(&half.repeat(2)) } else { in_parts(&[half.clone(), half]) };
        let app = TestApp::start(setup(SettleMode::After), move |_| script.clone()).await;
        let answer = app.buy("GET", "/premium/big", "", 1).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, LONG));
        assert_eq!(answer.headers.contains_key("content-length"), declared);
        assert!(answer.settlement().is_none(), "it does not wait for it");
        assert!(answer.header("farebox-receipt").contains("/v1/receipts/pay_"));
        assert_eq!(answer.header("cache-control"), "private, no-store");
        app.until_states(&["settled"]).await;
        assert_eq!(earned(&app), app.payments().await[0].terms.limit.units());
    }
}

#[tokio::test]
async fn one_that_fits_waits_for_its_settlement() {
    let app =
        TestApp::start(setup(SettleMode::After), |_| Script::json(&"x".repeat(WITHHELD))).await;
    let answer = app.buy("GET", "/premium/small", "", 1).await;
    assert!(answer.settlement().unwrap().success, "{answer:?}");
}

#[tokio::test]
async fn a_metered_one_costs_what_it_used() {
    for settle in [SettleMode::After, SettleMode::Background] {
        let end = r#","usage":{"prompt_tokens":9,"completion_tokens":2}}"#;
        let app = TestApp::start(setup(settle), move |_| in_parts(&document(end))).await;
        let answer = app.buy("POST", CHAT, &chat(false), 1).await;
        assert_eq!(answer.body, document(end).concat());
        app.until_states(&["settled"]).await;
        // 9 tokens in at 0.15 and 2 out at 0.60 dollars for a million, rounded up.
        assert_eq!(earned(&app), 3);
    }
}

#[tokio::test]
async fn a_list_of_embeddings_costs_its_input() {
    let numbers = vec!["0.123456"; LONG / 10].join(",");
    let body = format!(
        r#"{{"data":[{{"embedding":[{numbers}]}}],"usage":{{"prompt_tokens":20,"total_tokens":20}}}}"#
    );
    let app = TestApp::start(setup(SettleMode::After), move |_| Script::json(&body)).await;
    let request = json!({"model": "m", "input": ["hi", "ho"]}).to_string();
    let answer = app.buy("POST", "/v1/embeddings", &request, 1).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.ends_with("20}}"));
    app.until_states(&["settled"]).await;
    assert_eq!(earned(&app), 3);
}

/// Nothing is charged that was not delivered, and nothing is delivered that is not charged.
#[tokio::test]
async fn one_that_breaks_off_costs_what_was_delivered() {
    let [begin, _] = document("");
    let gate = Arc::new(Gate::default());
    let parts = vec![Part::text(&begin), Part::Wait(Arc::clone(&gate)), Part::Break];
    let script = Script::new(StatusCode::OK, "application/json", parts);
    let app = TestApp::start(setup(SettleMode::After), move |_| script.clone()).await;
    let request = json!({
        "model": "m", "max_tokens": 4_000, "messages": [{"role": "user", "content": "hi"}],
    });
    let payment = app.quote("POST", CHAT, &request.to_string(), 1).await;
    let request = app.request("POST", CHAT, &request.to_string());
    let response = request.header("payment-signature", payment).send().await.unwrap();
    assert_eq!(response.status(), 200);
    gate.open();
    assert!(response.bytes().await.is_err(), "it must not look complete");
    app.until_states(&["settled"]).await;
    let payment = app.payments().await.remove(0);
    let Payment::Settled { charge, .. } = payment.state else { panic!("{payment:?}") };
    assert!(Amount::from_units(1) < charge && charge <= payment.terms.limit, "{payment:?}");
    // A break before anything has left costs nothing.
    let script =
        Script::new(StatusCode::OK, "application/json", vec![Part::text("{"), Part::Break]);
    let app = TestApp::start(setup(SettleMode::After), move |_| script.clone()).await;
    app.buy("POST", CHAT, &chat(false), 1).await.assert_problem(502, "upstream_failed");
    assert_eq!(app.states().await, ["released"]);
}

/// It has left, so a settlement that is refused is a loss and no release.
#[tokio::test]
async fn one_that_is_never_settled_is_lost() {
    let app = TestApp::start(setup(SettleMode::After), |_| Script::json(&"x".repeat(LONG))).await;
    let reason = Reason::InvalidExactEvmInsufficientBalance;
    app.facilitator.on_settle(OnSettle::Reject(reason));
    app.buy("GET", "/premium/big", "", 1).await;
    app.until_states(&["lost"]).await;
    assert_eq!(app.payments().await[0].answer, AnswerMark::Sent);
}
