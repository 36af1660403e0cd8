//! Where the agent looks for the receipt of a payment whose outcome is open.

use serde_json::{Value, json};

use crate::seller::{Answer, Line, Seller, demand, offer, quoted_offer, status};
use crate::tools::{TestClock, client, post};

/// A seller that makes this offer answers a payment so; the path at which a receipt is then asked
/// for, with `ID` for the payment's. The answer's body comes through.
async fn check(offer: Value, answer: Answer, body: &str, expected: Option<&str>) {
    let script = vec![demand(&[offer]), Line::Answer(answer), status(404)];
    let seller = Seller::start(script).await;
    let answer = post(&client(&TestClock::new()), &seller.url()).await.unwrap();
    let payment = answer.payment.unwrap();
    let expected = expected.map(|it| it.replace("ID", &payment.terms.id.to_string()));
    let asked = seller.seen().get(2).map(|it| it.path.clone());
    assert_eq!(asked, expected);
    let shown = payment.receipt_url.map(|it| it.to_string());
    assert_eq!(shown, expected.map(|it| format!("http://{}{it}", seller.address)));
    assert_eq!(answer.response.status(), 409);
    assert_eq!(answer.response.text().await.unwrap(), body);
}

fn problem(receipt: &Value) -> (Answer, String) {
    let body = json!({ "title": "used", "receipt": receipt }).to_string();
    let answer = Answer::new(409)
        .header("content-type", "application/problem+json; charset=utf-8")
        .header("content-length", body.len().to_string())
        .chunks(&body.split_inclusive(',').collect::<Vec<_>>());
    (answer, body)
}

const ROOT: Option<&str> = Some("/v1/receipts/ID");

#[tokio::test]
async fn the_header_names_the_receipt() {
    let named = |it: &str| Answer::new(409).header("farebox-receipt", it);
    let mounted = Some("/mount/v1/receipts/r");
    check(quoted_offer(), named("/mount/v1/receipts/r"), "answer", mounted).await;
    check(offer(), named("/mount/v1/receipts/r"), "answer", mounted).await;
    check(quoted_offer(), named("https://127.0.0.2/v1/receipts/r"), "answer", ROOT).await;
    check(quoted_offer(), named("//127.0.0.2/v1/receipts/r"), "answer", ROOT).await;
    check(quoted_offer(), Answer::new(409), "answer", ROOT).await;
    check(offer(), Answer::new(409), "answer", None).await;
}

#[tokio::test]
async fn a_problem_names_the_receipt_and_is_passed_on() {
    let (answer, body) = problem(&json!("/mount/v1/receipts/r"));
    let mounted = Some("/mount/v1/receipts/r");
    check(quoted_offer(), answer.clone(), &body, mounted).await;
    check(offer(), answer, &body, mounted).await;
    for useless in [json!("http://169.254.169.254/latest"), json!(7), json!({ "a": [] })] {
        let (answer, body) = problem(&useless);
        check(quoted_offer(), answer, &body, ROOT).await;
    }
    // The header goes before the member.
    let (answer, body) = problem(&json!("/mount/v1/receipts/r"));
    check(quoted_offer(), answer.header("farebox-receipt", "/h"), &body, Some("/h")).await;
}

#[tokio::test]
async fn a_problem_too_long_to_read_is_passed_on() {
    let long = json!({ "receipt": "/r", "detail": "x".repeat(70_000) }).to_string();
    let answer = |it: Answer| it.header("content-type", "application/problem+json");
    let told = Answer::new(409).header("content-length", long.len().to_string());
    check(quoted_offer(), answer(told).chunks(&[&long]), &long, ROOT).await;
    let untold = answer(Answer::new(409)).chunks(&[&long]);
    check(quoted_offer(), untold, &long, ROOT).await;
}
