//! Demands that must not be paid: each is refused with what was expected and found, and costs
//! nothing. Attack rows A21, A22, A23, A16.

use farebox_agent::{Funding, PayError, PayingClient, PlainHttp, Policy, Preview, preview};
use reqwest::Method;
use serde_json::{Value, json};

use crate::seller::{Answer, Line, Seller, base64, demand, honest, offer, required, status};
use crate::tools::{
    KEY, TestClock, assert_one_payment, books, client, ending, http, policy, post, request, wallet,
};

/// The demand is refused with this text, and nothing is sent or reserved.
async fn check(line: Line, expected: &str) {
    let seller = Seller::start(vec![line]).await;
    let client = client(&TestClock::new());
    let outcome = post(&client, &seller.url()).await;
    let text = ending(&outcome);
    assert!(text.contains(expected), "expected {expected:?}, found {text:?}");
    assert!(!format!("{outcome:?}{text}").contains(KEY.split_at(16).0), "the key leaked");
    assert_one_payment(&seller, 0);
    assert_eq!(books(&client), (0, 0));
}

fn with(key: &str, value: Value) -> Value {
    let mut offer = offer();
    offer[key] = value;
    offer
}

fn header(value: impl Into<String>) -> Line {
    Line::Answer(Answer::new(402).header("PAYMENT-REQUIRED", value))
}

#[tokio::test]
async fn a21_hostile_offers_cost_nothing() {
    let token = |name: &str, version: &str| json!({ "name": name, "version": version });
    let huge = "1000000000000";
    let offers = [
        (with("amount", json!(huge)), "$1000000.000000 is over the cap of $0.020000 per payment"),
        (with("asset", json!(crate::seller::PAY_TO)), "asset on eip155:84532: expected 0x036"),
        (
            with("extra", token("USD Coin", "2")),
            "extra.name: expected \"USDC\", found \"USD Coin\"",
        ),
        (with("extra", token("USDC", "1")), "extra.version"),
        (with("extra", json!({})), "extra.name: expected \"USDC\", found nothing"),
        (with("maxTimeoutSeconds", json!(31_536_000)), "expected 10 to 600, found 31536000"),
        (with("payTo", json!("0x0000000000000000000000000000000000000000")), "the zero address"),
        (with("network", json!("eip155:1337")), "network: expected one"),
        (with("scheme", json!("upto")), "extra.facilitatorAddress: expected"),
        (with("scheme", json!("batch")), "scheme: expected \"exact\" or \"upto\""),
        (json!(7), "malformed"),
    ];
    for (offer, expected) in &offers {
        check(demand(std::slice::from_ref(offer)), expected).await;
    }
    let all: Vec<Value> = offers.iter().map(|it| it.0.clone()).collect();
    for (place, (_, expected)) in offers.iter().enumerate() {
        check(demand(&all), expected).await;
        check(demand(&all), &format!("; offer {}: ", place + 1)).await;
    }
    check(demand(&[]), "the seller makes no offer").await;
}

#[tokio::test]
async fn a21_the_honest_offer_among_hostile_ones_is_paid() {
    let accepts = [with("amount", json!("999999999")), json!(null), offer()];
    let seller = Seller::start(vec![demand(&accepts), honest()]).await;
    let client = client(&TestClock::new());
    assert_eq!(ending(&post(&client, &seller.url()).await), "200 paid 10000");
    assert_eq!(seller.seen()[1].payload()["accepted"], offer());
}

#[tokio::test]
async fn a16_demands_that_cannot_be_read() {
    let good = required(&[offer()], "Payment required");
    let twice = Answer::new(402)
        .header("PAYMENT-REQUIRED", good.clone())
        .header("payment-required", good.clone());
    check(Line::Answer(twice), "expected one PAYMENT-REQUIRED header, found 2").await;
    check(header("%"), "cannot be read").await;
    check(header("e30="), "cannot be read").await;
    check(header("A".repeat(12_000)), "cannot be read").await;
    let v1 = base64(&json!({ "x402Version": 1, "accepts": [offer()] }));
    check(header(v1), "expected x402 version 2, found 1").await;
    let many = vec![json!(1); 33];
    check(demand(&many), "expected at most 32 offers, found 33").await;
}

#[tokio::test]
async fn a22_no_payment_over_plain_http_or_after_a_redirect() {
    // A name that only this client resolves, to the seller on this machine.
    let buy = async |policy: Policy| {
        let seller = Seller::start(vec![demand(&[offer()]), honest()]).await;
        let builder = http().resolve("seller.example", seller.address);
        let client = PayingClient::new(builder, wallet(), policy).unwrap();
        let url = format!("http://seller.example:{}/", seller.address.port());
        let outcome = post(&client, &url).await;
        (ending(&outcome), seller.payments().len(), books(&client))
    };
    let (text, payments, booked) = buy(policy()).await;
    assert!(text.contains("expected https, found http to \"seller.example\""), "{text}");
    assert_eq!((payments, booked), (0, (0, 0)));
    let (text, payments, _) = buy(Policy { plain_http: PlainHttp::Allowed, ..policy() }).await;
    assert_eq!((text.as_str(), payments), ("200 paid 10000", 1));

    // A redirect on the way is an answer like any other: not followed, and not paid.
    let elsewhere = Seller::start(vec![demand(&[offer()])]).await;
    let moved = Answer::new(307).header("location", elsewhere.url());
    let seller = Seller::start(vec![Line::Answer(moved.clone())]).await;
    let client = client(&TestClock::new());
    assert_eq!(ending(&post(&client, &seller.url()).await), "307 free");
    let seller = Seller::start(vec![demand(&[offer()]), Line::Answer(moved)]).await;
    assert!(ending(&post(&client, &seller.url()).await).contains("307 unknown"));
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_twice_is_not_paid_for() {
    let stream = || {
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>("once")]);
        reqwest::Body::wrap_stream(chunks)
    };
    let send = async |script| {
        let seller = Seller::start(script).await;
        let client = client(&TestClock::new());
        let mut request = request(Method::POST, &seller.url());
        *request.body_mut() = Some(stream());
        ending(&client.execute(request).await)
    };
    assert_eq!(send(vec![status(200)]).await, "200 free");
    assert!(send(vec![demand(&[offer()])]).await.contains("cannot be sent twice"));
}

#[tokio::test]
async fn a_request_with_a_payment_of_its_own_is_not_touched() {
    let client = client(&TestClock::new());
    let mut request = request(Method::GET, "http://127.0.0.1:1/");
    request.headers_mut().insert("Payment-Signature", "e30=".parse().unwrap());
    let outcome = client.execute(request).await;
    assert!(matches!(outcome, Err(PayError::CarriesPayment)));
}

#[tokio::test]
async fn a_preview_needs_no_key_and_signs_nothing() {
    let script = vec![demand(&[offer()]), demand(&[with("amount", json!("20001"))]), status(200)];
    let seller = Seller::start(script).await;
    let look = || preview(http(), policy(), request(Method::GET, &seller.url()), None);
    let Ok(Preview::WouldPay(choice)) = look().await else { panic!("no offer") };
    assert_eq!(choice.offer.amount().units(), 10_000);
    assert_eq!((choice.place, choice.funding), (1, Funding::Token));
    assert!(matches!(look().await, Err(PayError::Refused(_))));
    assert!(matches!(look().await, Ok(Preview::Free(_))));
    assert_one_payment(&seller, 0);
}

#[tokio::test]
async fn a23_nothing_prints_the_key_or_a_payment() {
    let seller = Seller::start(vec![demand(&[offer()]), honest()]).await;
    let client = client(&TestClock::new());
    let outcome = post(&client, &seller.url()).await;
    let printed = format!("{client:?} {outcome:?} {:?}", client.wallet());
    assert!(!printed.contains(KEY.split_at(16).0), "{printed}");
    let payments = seller.payments();
    assert!(!printed.contains(payments[0].split_at(24).0), "{printed}");
}
