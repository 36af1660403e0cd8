//! Sellers of x402 v1: paid under the same caps and checks, believed no further.

use std::sync::Arc;

use farebox_chains::{EvmToken, check_payment, find_token, request_from_v1};
use farebox_protocol::Timestamp;
use farebox_protocol::wire::v1;
use serde_json::{Value, json};

use crate::seller::{
    ASSET, Answer, Line, NETWORK, PAY_TO, Seen, Seller, TRANSACTION, base64, honest, offer, paid,
    required, status,
};
use crate::tools::{TestClock, assert_one_payment, books, client, ending, post, wallet};

/// How v1 calls [`NETWORK`].
const NAME: &str = "base-sepolia";

/// An honest offer of one cent, as `x402-express` 1.2.0 makes it.
fn offer_v1() -> Value {
    json!({
        "scheme": "exact", "network": NAME, "maxAmountRequired": "10000",
        "resource": "http://seller.example/", "description": "", "mimeType": "", "payTo": PAY_TO,
        "maxTimeoutSeconds": 60, "asset": ASSET,
        "outputSchema": { "input": { "type": "http", "method": "POST", "discoverable": true } },
        "extra": { "name": "USDC", "version": "2" },
    })
}

fn body(accepts: &[Value], error: &str) -> String {
    json!({ "x402Version": 1, "error": error, "accepts": accepts }).to_string()
}

/// A 402 of v1; its body comes in pieces.
fn demand_v1(accepts: &[Value], error: &str) -> Line {
    let body = body(accepts, error);
    let (start, end) = body.split_at(20);
    Line::Answer(Answer::new(402).chunks(&[start, end]))
}

/// 200 with the v1 receipt that `change` made of a true one.
fn paid_v1(seen: &Seen, change: impl FnOnce(&mut Value)) -> Answer {
    let mut receipt = json!({
        "success": true,
        "transaction": TRANSACTION,
        "network": NAME,
        "payer": seen.payload()["payload"]["authorization"]["from"],
    });
    change(&mut receipt);
    Answer::new(200).header("X-PAYMENT-RESPONSE", base64(&receipt))
}

/// Plays the script after a v1 402 with this offer.
async fn check_offer(
    offer: Value,
    script: Vec<Line>,
    expected: &str,
    (sent, booked): (usize, (u128, u128)),
) -> Arc<Seller> {
    let lines = std::iter::once(demand_v1(&[offer], "X-PAYMENT header is required"));
    let seller = Arc::new(Seller::start(lines.chain(script).collect()).await);
    let client = client(&TestClock::new());
    let outcome = post(&client, &seller.url()).await;
    let ending = ending(&outcome);
    assert!(ending.contains(expected), "expected {expected:?}, found {ending:?}");
    assert_one_payment(&seller, sent);
    assert_eq!(books(&client), booked, "{ending}");
    assert_eq!(seller.left(), 0, "{ending}: the script was not played to its end");
    seller
}

async fn check(script: Vec<Line>, expected: &str, sent: usize, booked: (u128, u128)) {
    check_offer(offer_v1(), script, expected, (sent, booked)).await;
}

#[tokio::test]
async fn a_v1_seller_is_paid_in_v1() {
    let receipt = Line::From(|it| paid_v1(it, |_| ()));
    let expected = "200 paid 10000";
    let seller = check_offer(offer_v1(), vec![receipt], expected, (1, (10_000, 0))).await;
    let [first, second] = &seller.seen()[..] else { panic!("expected two requests") };
    assert!(first.payment.is_none());
    assert_eq!(
        (&first.method, &first.path, &first.body),
        (&second.method, &second.path, &second.body)
    );
    let payload = second.payload();
    let authorization = &payload["payload"]["authorization"];
    assert_eq!((&payload["x402Version"], &payload["scheme"]), (&json!(1), &json!("exact")));
    assert_eq!(payload["network"], NAME);
    assert_eq!(payload.get("accepted"), None);
    assert_eq!(authorization["value"], "10000");
    assert_eq!(authorization["from"], wallet().address().to_string());
    assert_eq!(authorization["validBefore"], "1795000060");
    // A facilitator takes it.
    let request = json!({
        "x402Version": 1, "paymentPayload": payload, "paymentRequirements": offer_v1(),
    });
    let request: v1::VerifyRequest = serde_json::from_str(&request.to_string()).unwrap();
    let row = find_token(NETWORK, "usdc").unwrap();
    let token = EvmToken::new(NETWORK.parse().unwrap(), row.into()).unwrap();
    let request = request_from_v1(&request).unwrap();
    let checked = check_payment(&token, &request, Timestamp::from_seconds(1_795_000_000));
    assert!(checked.is_ok(), "{:?}", checked.err());
}

#[tokio::test]
async fn answers_of_v1_sellers_say_what_became_of_it() {
    let refused = |error| demand_v1(&[offer_v1()], error);
    check(vec![status(200)], "200 accepted", 1, (10_000, 0)).await;
    let reason = "402 not charged: insufficient_funds";
    check(vec![refused("insufficient_funds")], reason, 1, (0, 10_000)).await;
    check(vec![refused("")], "402 unknown", 1, (0, 10_000)).await;
    check(vec![status(402)], "402 unknown", 1, (0, 10_000)).await;
    check(vec![status(500)], "500 unknown", 1, (0, 10_000)).await;
    let pending = vec![refused("settlement_pending"), Line::From(|it| paid_v1(it, |_| ()))];
    check(pending, "200 paid 10000", 2, (10_000, 0)).await;
    let again = vec![Line::HangUp, refused("insufficient_funds")];
    check(again, "402 unknown: the seller refused it", 2, (0, 10_000)).await;
    let failed = |it: &Seen| {
        paid_v1(it, |it| {
            it["success"] = json!(false);
            it["errorReason"] = json!("insufficient_funds");
        })
    };
    check(vec![Line::From(failed)], "200 not charged: insufficient_funds", 1, (0, 10_000)).await;
}

#[tokio::test]
async fn a27_v1_receipts_that_lie_are_believed_in_nothing() {
    let lies: [(Line, &str); 6] = [
        (Line::From(|it| paid_v1(it, |it| it["network"] = json!("base"))), "network: expected"),
        (Line::From(|it| paid_v1(it, |it| it["network"] = json!(NETWORK))), "not a settlement"),
        (Line::From(|it| paid_v1(it, |it| it["payer"] = json!(PAY_TO))), "payer: expected"),
        (Line::From(|it| paid_v1(it, |it| it["transaction"] = json!("0x1"))), "transaction: exp"),
        (Line::From(|it| paid_v1(it, |it| it["success"] = json!(1))), "not a settlement"),
        (Line::From(|it| paid_v1(it, |_| ()).header("X-PAYMENT-RESPONSE", "e30=")), "expected one"),
    ];
    for (line, expected) in lies {
        let expected = format!("200 unknown: the seller's receipt does not fit: {expected}");
        check(vec![line], &expected, 1, (0, 10_000)).await;
    }
    // The other version's header is no answer to this payment.
    let other = Line::From(|it| paid(it, |_| ()));
    check(vec![other], "200 accepted", 1, (10_000, 0)).await;
}

#[tokio::test]
async fn a21_v1_offers_meet_the_same_checks_and_caps() {
    let cases = [
        ("maxAmountRequired", json!("20001"), "amount: "),
        ("maxAmountRequired", json!("0"), "between 1 and"),
        ("maxAmountRequired", json!(10_000), "malformed"),
        ("network", json!("moon"), "malformed"),
        ("network", json!("base"), "asset on eip155:8453"),
        ("scheme", json!("upto"), "scheme: expected"),
        ("asset", json!(PAY_TO), "asset on eip155:84532"),
        ("payTo", json!(ASSET), "the token's own contract"),
        ("maxTimeoutSeconds", json!(601), "expected 10 to 600"),
        ("extra", json!({ "name": "USD Coin", "version": "2" }), "extra.name"),
        ("extra", json!({ "assetTransferMethod": "permit2" }), "extra.assetTransferMethod"),
    ];
    for (field, value, expected) in cases {
        let mut offer = offer_v1();
        offer[field] = value;
        check_offer(offer, Vec::new(), expected, (0, (0, 0))).await;
    }
    let seller = Seller::start(vec![demand_v1(&vec![offer_v1(); 33], "pay")]).await;
    let outcome = post(&client(&TestClock::new()), &seller.url()).await;
    assert!(ending(&outcome).contains("at most 32 offers"), "{}", ending(&outcome));
}

#[tokio::test]
async fn the_header_goes_before_the_body() {
    let both = Answer::new(402).header("PAYMENT-REQUIRED", required(&[offer()], "pay"));
    let both = both.chunks(&[&body(&[offer_v1()], "pay")]);
    let seller = Seller::start(vec![Line::Answer(both), honest()]).await;
    let outcome = post(&client(&TestClock::new()), &seller.url()).await;
    assert_eq!(ending(&outcome), "200 paid 10000");
    assert_eq!(seller.seen()[1].payload()["x402Version"], 2);
}

#[tokio::test]
async fn a_402_that_is_no_demand_comes_back_whole() {
    let long = "x".repeat(70_000);
    for body in ["plain words", "{}", "[1]", r#"{"x402Version":2,"accepts":[]}"#, &long] {
        let (start, end) = body.split_at(1);
        let seller =
            Seller::start(vec![Line::Answer(Answer::new(402).chunks(&[start, end]))]).await;
        let answer = post(&client(&TestClock::new()), &seller.url()).await.unwrap();
        assert!(answer.payment.is_none());
        assert_eq!(answer.response.text().await.unwrap(), body);
    }
    let seller = Seller::start(vec![demand_v1(&[], "pay")]).await;
    let outcome = post(&client(&TestClock::new()), &seller.url()).await;
    assert!(ending(&outcome).contains("the seller makes no offer"), "{}", ending(&outcome));
}
