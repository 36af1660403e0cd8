//! Requests that have a name, under which a seller charges them once.

use farebox_agent::PayingClient;
use reqwest::Method;
use serde_json::{Value, json};

use crate::seller::{Answer, Line, Seen, Seller, base64, honest, offer};
use crate::tools::{TestClock, assert_one_payment, books, client, ending, request};

/// An offer of a seller that charges a named request once.
fn demand() -> Line {
    let required = json!({
        "x402Version": 2,
        "error": "Payment required",
        "resource": { "url": "https://seller.example/v1/chat/completions" },
        "accepts": [offer()],
        "extensions": {
            "bazaar": { "info": 1 },
            "payment-identifier": { "info": { "required": false }, "schema": { "type": "object" } },
        },
    });
    Line::Answer(Answer::new(402).header("PAYMENT-REQUIRED", base64(&required)))
}

/// Buys under this `Idempotency-Key`; how it ended.
async fn buy(client: &PayingClient, seller: &Seller, key: Option<&str>) -> String {
    let mut request = request(Method::POST, &seller.url());
    if let Some(key) = key {
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    }
    ending(&client.execute(request).await)
}

/// The name in the payment; what else was declared goes back as it was.
fn name(seen: &Seen) -> String {
    let extensions = &seen.payload()["extensions"];
    assert_eq!(extensions["bazaar"], json!({ "info": 1 }));
    let identifier = &extensions["payment-identifier"];
    assert_eq!(identifier["schema"], json!({ "type": "object" }));
    assert_eq!(identifier["info"]["required"], Value::Bool(false));
    identifier["info"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_request_has_a_name_of_its_own_and_keeps_it_when_it_is_sent_again() {
    let again = Line::Answer(Answer::new(409).header("retry-after", "2"));
    let script = vec![demand(), Line::HangUp, again, honest(), demand(), honest()];
    let seller = Seller::start(script).await;
    let client = client(&TestClock::new());
    assert_eq!(buy(&client, &seller, None).await, "200 paid 10000");
    assert_one_payment(&seller, 3);
    assert_eq!(buy(&client, &seller, None).await, "200 paid 10000");
    let names: Vec<String> =
        seller.seen().iter().filter(|it| it.payment.is_some()).map(name).collect();
    let [one, two, three, other] = &names[..] else { panic!("{names:?}") };
    assert!(one == two && two == three && one != other, "{names:?}");
    let good = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    assert!(names.iter().all(|it| (16..=128).contains(&it.len()) && it.bytes().all(good)));
}

#[tokio::test]
async fn a_caller_names_its_request_for_sellers_of_either_kind() {
    for (key, same) in [("order_2026_11_21_7", true), ("7", false), ("\"quoted, and long\"", false)]
    {
        let seller = Seller::start(vec![demand(), honest()]).await;
        let client = client(&TestClock::new());
        assert_eq!(buy(&client, &seller, Some(key)).await, "200 paid 10000");
        let [unpaid, paid] = &seller.seen()[..] else { panic!("expected two requests") };
        assert_eq!((unpaid.key.as_deref(), paid.key.as_deref()), (Some(key), Some(key)));
        assert_eq!(name(paid) == key, same, "{key}");
    }
}

#[tokio::test]
async fn an_answer_that_was_paid_for_before_is_not_counted_as_spent_again() {
    let replayed =
        Answer::new(200).header("idempotent-replayed", "true").header("x-farebox-charged", "0");
    let script = vec![demand(), honest(), demand(), Line::Answer(replayed)];
    let seller = Seller::start(script).await;
    let client = client(&TestClock::new());
    let key = Some("order_2026_11_21_7");
    assert_eq!(buy(&client, &seller, key).await, "200 paid 10000");
    assert_eq!(books(&client), (10_000, 0));
    assert_eq!(buy(&client, &seller, key).await, "200 not charged: nothing_owed");
    // The second payment is a signature that the seller has, whatever it says of it.
    assert_eq!(books(&client), (10_000, 10_000));
}
