//! The budget over many requests, and through the middleware. Attack row A21: budget split, retry
//! storm, a seller that denies what it was paid.

use std::sync::Arc;
use std::time::Duration;

use farebox_agent::{
    Clock, Disclaimers, Limits, PayError, PayingClient, PayingMiddleware, Payment, Policy, Usd,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::seller::{Answer, Line, Seller, demand, honest, offer, required, status};
use crate::tools::{
    TestClock, assert_one_payment, books, client, ending, http, policy, post, wallet,
};

/// Five cents are denied, one after the other, then the signatures expire. Returns the books before
/// and after one more purchase, and how that ended.
async fn after_denials(policy: Policy) -> ((u128, u128), String, (u128, u128)) {
    let denial = || {
        let header = required(&[offer()], "insufficient_funds");
        Line::Answer(Answer::new(402).header("PAYMENT-REQUIRED", header))
    };
    let script = (0..6).flat_map(|_| [demand(&[offer()]), denial()]).collect();
    let seller = Seller::start(script).await;
    let clock = TestClock::new();
    let shared: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
    let client = PayingClient::new(http(), wallet(), policy).unwrap().with_clock(shared);
    for _ in 0..5 {
        let ending = ending(&post(&client, &seller.url()).await);
        assert_eq!(ending, "402 not charged: insufficient_funds");
    }
    let before = books(&client);
    assert!(ending(&post(&client, &seller.url()).await).contains("over the $0.000000 left"));
    clock.advance(Duration::from_secs(61));
    let seller = Seller::start(vec![demand(&[offer()]), honest()]).await;
    let ending = ending(&post(&client, &seller.url()).await);
    (before, ending, books(&client))
}

/// A seller can settle at once and deny it: that the signature has expired says nothing of before.
#[tokio::test]
async fn a21_a27_a_denial_frees_nothing_even_after_it_expired() {
    let (before, ending, after) = after_denials(policy()).await;
    assert_eq!((before, after), ((0, 50_000), (0, 50_000)));
    assert!(ending.contains("over the $0.000000 left"), "{ending}");
}

#[tokio::test]
async fn a21_a_denial_that_is_trusted_frees_nothing_while_it_can_be_charged() {
    let policy = Policy { disclaimers: Disclaimers::Trust, ..policy() };
    let (before, ending, after) = after_denials(policy).await;
    assert_eq!((before, after), ((0, 50_000), (10_000, 0)));
    assert_eq!(ending, "200 paid 10000");
}

#[tokio::test]
async fn one_second_signature_is_never_made() {
    let again = || {
        Line::Answer(
            Answer::new(402).header("PAYMENT-REQUIRED", required(&[offer()], "quote_expired")),
        )
    };
    let seller = Seller::start(vec![demand(&[offer()]), again(), again()]).await;
    let client = client(&TestClock::new());
    assert_eq!(ending(&post(&client, &seller.url()).await), "402 not charged: quote_expired");
    assert_one_payment(&seller, 1);
    assert_eq!(seller.left(), 1);
}

#[tokio::test]
async fn the_total_holds_over_requests() {
    let script = (0..6).flat_map(|_| [demand(&[offer()]), honest()]).collect();
    let seller = Seller::start(script).await;
    let client = client(&TestClock::new());
    for _ in 0..5 {
        assert_eq!(ending(&post(&client, &seller.url()).await), "200 paid 10000");
    }
    let refused = ending(&post(&client, &seller.url()).await);
    assert!(refused.contains("$0.010000 is over the $0.000000 left of the budget of $0.050000"));
    assert_eq!(books(&client), (50_000, 0));
}

/// A seller that asks for a cent whenever there is no payment.
fn vending() -> Vec<Line> {
    let sell: fn(&crate::seller::Seen) -> Answer = |seen| match seen.payment {
        Some(_) => crate::seller::paid(seen, |_| ()),
        None => Answer::new(402).header("PAYMENT-REQUIRED", required(&[offer()], "pay")),
    };
    vec![Line::From(sell); 1_000]
}

#[tokio::test]
async fn a21_500_parallel_calls_on_a_dollar() {
    let seller = Arc::new(Seller::start(vending()).await);
    let usd = |text: &str| text.parse::<Usd>().unwrap();
    let limits = Limits { per_payment: usd("0.01"), total: usd("1") };
    let client = PayingClient::new(http(), wallet(), Policy { limits, ..policy() }).unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..500 {
        let (client, url) = (client.clone(), seller.url());
        calls.spawn(async move { post(&client, &url).await.is_ok() });
    }
    let outcomes = calls.join_all().await;
    assert_eq!(outcomes.iter().filter(|it| **it).count(), 100);
    let payments: std::collections::HashSet<_> = seller.payments().into_iter().collect();
    assert_eq!(payments.len(), 100);
    assert_eq!(books(&client), (1_000_000, 0));
}

#[tokio::test]
async fn the_middleware_pays_and_says_what() {
    let script = vec![
        demand(&[offer()]),
        status(502),
        honest(),
        demand(&[json!({ "scheme": "exact" })]),
        demand(&[offer()]),
        Line::HangUp,
        honest(),
    ];
    let seller = Seller::start(script).await;
    let clock: Arc<dyn Clock> = TestClock::new();
    let layer = PayingMiddleware::new(wallet(), policy()).with_clock(clock);
    let inner = http().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let client = reqwest_middleware::ClientBuilder::new(inner).with(layer.clone()).build();
    let answer = client.get(seller.url()).send().await.unwrap();
    let payment = answer.extensions().get::<Payment>().unwrap();
    assert_eq!(payment.terms.amount.units(), 10_000);
    assert_eq!(answer.text().await.unwrap(), "answer");
    assert_one_payment(&seller, 2);
    let error = client.get(seller.url()).send().await.unwrap_err();
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error}") };
    assert!(matches!(error.downcast_ref(), Some(PayError::Refused(_))));
    assert!(client.get(seller.url()).send().await.unwrap().status().is_success());
    assert_eq!(layer.standing().spent.micros(), 20_000);
}

#[tokio::test]
async fn a22_a_client_that_follows_redirects_is_not_paid_through() {
    let elsewhere = Seller::start(vec![demand(&[offer()])]).await;
    let moved = Answer::new(307).header("location", format!("{}&token=secret", elsewhere.url()));
    let seller = Seller::start(vec![Line::Answer(moved)]).await;
    let layer = PayingMiddleware::new(wallet(), policy());
    let client =
        reqwest_middleware::ClientBuilder::new(http().build().unwrap()).with(layer.clone());
    let error = client.build().get(seller.url()).send().await.unwrap_err().to_string();
    assert!(error.contains("expected one that follows no redirects"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert_eq!(layer.standing().reserved, Usd::ZERO);
}
