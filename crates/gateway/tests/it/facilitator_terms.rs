//! For whom payments are verified and settled, and which: strangers do not decide what sellers get.

use std::sync::Arc;

use farebox_chains::EvmAddress;
use farebox_devnet::DEV_ACCOUNTS;
use farebox_gateway::{Callers, FacilitatorTerms, Seller, SystemClock};
use farebox_protocol::wire::PaymentRequirements;
use farebox_protocol::{Amount, Asset};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::app::{PAY_TO, USDC};
use crate::chain::{CHAIN, FUNDS, TestChain, facilitator, sign};
use crate::facilitator_api::{Answer, Service, UNITS, assert_settle_shape, demand, trusting};

const A: &str = "Bearer key-of-shop-a-0123456789";
const B: &str = "Bearer key-of-shop-b-0123456789";
const ELSEWHERE: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

fn account(text: &str) -> EvmAddress {
    text.parse().unwrap()
}

fn seller(name: &str, authorization: &str, pay_to: &[&str]) -> Seller {
    let key = SecretString::from(authorization.trim_start_matches("Bearer ").to_owned());
    Seller::new(name.to_owned(), &key, pay_to.iter().map(|it| account(it)).collect())
}

/// Two sellers with accounts of their own.
fn sellers() -> Callers {
    Callers::Sellers(vec![seller("shop-a", A, &[PAY_TO]), seller("shop-b", B, &[ELSEWHERE])])
}

async fn start(callers: Callers) -> Service {
    on_terms(FacilitatorTerms { callers, ..trusting() }).await
}

async fn on_terms(terms: FacilitatorTerms) -> Service {
    let chain = TestChain::start().await;
    chain.approve_permit2().await;
    let facilitator = facilitator(&chain.devnet.url());
    Service::on_terms(chain, facilitator, (Arc::new(SystemClock), terms)).await
}

/// A payment of at most [`UNITS`], and what is to be taken of it.
fn upto(service: &Service, number: u8, units: u128) -> Value {
    let settler = DEV_ACCOUNTS[0].address.to_string();
    let extra = json!({ "name": "USDC", "version": "2", "facilitatorAddress": settler });
    let extra = extra.as_object().unwrap().clone();
    let offer = PaymentRequirements { scheme: "upto".to_owned(), extra, ..demand() };
    let payload = sign(&service.chain.buyer, &offer, [number; 32]);
    let settled = PaymentRequirements { amount: Amount::from_units(units), ..offer };
    json!({ "x402Version": 2, "paymentPayload": payload, "paymentRequirements": settled })
}

#[track_caller]
fn assert_refused(answer: &Answer, reason: &str, words: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let (verdict, said, message) = if answer.body.get("isValid").is_some() {
        ("isValid", "invalidReason", "invalidMessage")
    } else {
        assert_settle_shape(&answer.body);
        ("success", "errorReason", "errorMessage")
    };
    assert_eq!(answer.body[verdict], false, "{answer:?}");
    assert_eq!(answer.body[said], reason, "{answer:?}");
    assert!(answer.body[message].as_str().unwrap().contains(words), "{answer:?}");
}

async fn is_settled(service: &Service, authorization: &str, body: &Value) {
    let verified = service.post_as(authorization, "/verify", body).await;
    assert_eq!(verified.body["isValid"], true, "{verified:?}");
    let settled = service.post_as(authorization, "/settle", body).await;
    assert_eq!(settled.body["success"], true, "{settled:?}");
}

#[tokio::test]
async fn whoever_has_no_key_is_told_to_bring_one() {
    let service = start(sellers()).await;
    let body = service.body(1);
    let upper = A.replace("Bearer", "BEARER");
    let both = format!("{A}, {B}");
    let cases = [
        "",
        "Bearer",
        "Bearer ",
        "key-of-shop-a-0123456789",
        "Basic key-of-shop-a-0123456789",
        "Bearer key-of-shop-a-012345678",
        "Bearer key-of-shop-a-01234567890",
        "Bearer KEY-OF-SHOP-A-0123456789",
        &both,
    ];
    for path in ["/verify", "/settle"] {
        let mut answers = vec![service.post_json(path, &body).await];
        for authorization in cases {
            answers.push(service.post_as(authorization, path, &body).await);
        }
        // Whoever is not known is not told what a body should be, either.
        answers.push(service.post_json(path, &json!({})).await);
        for answer in answers {
            assert_eq!(answer.status, 401, "{answer:?}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert_eq!(answer.headers["content-type"], "application/problem+json");
            assert_eq!(answer.body["type"], "urn:farebox:problem:unauthorized");
            assert!(!answer.body.to_string().contains("key-of"), "{answer:?}");
        }
    }
    assert_eq!(service.chain.buyer_has().await, FUNDS);
    assert_eq!(service.get("/supported").await.status, 200);
    is_settled(&service, &upper, &body).await;
    assert_eq!(service.chain.buyer_has().await, FUNDS - UNITS);
}

#[tokio::test]
async fn a_key_is_for_payments_to_its_accounts() {
    let service = start(sellers()).await;
    let body = service.body(2);
    for path in ["/verify", "/settle"] {
        let refused = service.post_as(B, path, &body).await;
        assert_refused(&refused, "invalid_payment_requirements", "the key of `shop-b`");
    }
    // Nor does it help to say so of what is signed to others.
    let mut lie = body.clone();
    lie["paymentRequirements"]["payTo"] = json!(ELSEWHERE);
    let refused = service.post_as(B, "/settle", &lie).await;
    assert_refused(&refused, "invalid_exact_evm_recipient_mismatch", "");
    is_settled(&service, A, &body).await;
}

/// The attack: somebody who has seen a payload settles it at nothing, or at next to nothing, before
/// its seller settles what was used.
#[tokio::test]
async fn a6_a_stranger_does_not_decide_what_is_taken_of_an_upto_payment() {
    let service = start(sellers()).await;
    for (number, units) in [(1, 0), (2, 1)] {
        let had = service.chain.tokens_of(PAY_TO).await;
        let wanted = upto(&service, number, 60);
        let mut stolen = wanted.clone();
        stolen["paymentRequirements"]["amount"] = json!(units.to_string());
        assert_eq!(service.post_json("/settle", &stolen).await.status, 401);
        let refused = service.post_as(B, "/settle", &stolen).await;
        assert_refused(&refused, "invalid_payment_requirements", "the key of `shop-b`");
        let settled = service.post_as(A, "/settle", &wanted).await;
        assert_eq!(settled.body["success"], true, "{settled:?}");
        assert_eq!(service.chain.tokens_of(PAY_TO).await, had + 60);
    }
    // The seller may, of course.
    let nothing = upto(&service, 3, 0);
    let settled = service.post_as(A, "/settle", &nothing).await;
    assert_eq!(settled.body["success"], true, "{settled:?}");
}

#[tokio::test]
async fn a6_upto_is_not_settled_where_anybody_may_ask() {
    let service = start(Callers::Anybody).await;
    let supported = service.get("/supported").await.body;
    let schemes: Vec<&Value> =
        supported["kinds"].as_array().unwrap().iter().map(|it| &it["scheme"]).collect();
    assert!(!schemes.is_empty() && schemes.iter().all(|it| **it == "exact"), "{supported}");
    for units in [0, 60, UNITS] {
        for path in ["/verify", "/settle"] {
            let refused = service.post_json(path, &upto(&service, 1, units)).await;
            assert_refused(&refused, "unsupported_scheme", "whatever the caller says");
        }
    }
    assert_eq!(service.chain.buyer_has().await, FUNDS);
    let settled = service.post_json("/settle", &service.body(2)).await;
    assert_eq!(settled.body["success"], true, "{settled:?}");
}

/// Who is on the same machine is trusted.
#[tokio::test]
async fn upto_is_settled_for_whoever_reaches_a_port_of_this_machine_alone() {
    let service = start(Callers::Trusted).await;
    let supported = service.get("/supported").await.body;
    let kinds = supported["kinds"].as_array().unwrap();
    assert!(kinds.iter().any(|it| it["scheme"] == "upto"), "{supported}");
    let settled = service.post_json("/settle", &upto(&service, 1, 60)).await;
    assert_eq!(settled.body["success"], true, "{settled:?}");
    assert_eq!(service.chain.buyer_has().await, FUNDS - 60);
}

/// A key for any account is good for `exact`; how much is taken it may say only where there is nobody
/// else whose payment it could be.
#[tokio::test]
async fn a6_a_key_for_any_account_is_not_one_for_the_accounts_of_others() {
    let alone = || Callers::Sellers(vec![seller("shop-a", A, &[])]);
    let service = start(alone()).await;
    is_settled(&service, A, &service.body(1)).await;
    let settled = service.post_as(A, "/settle", &upto(&service, 2, 60)).await;
    assert_eq!(settled.body["success"], true, "{settled:?}");

    let own = vec![account(PAY_TO)];
    let beside = on_terms(FacilitatorTerms { callers: alone(), own, ..trusting() }).await;
    let refused = beside.post_as(A, "/settle", &upto(&beside, 3, 0)).await;
    assert_refused(&refused, "unsupported_scheme", "the gateway's account");
    is_settled(&beside, A, &beside.body(4)).await;

    let two = vec![seller("shop-a", A, &[]), seller("shop-b", B, &[])];
    let service = start(Callers::Sellers(two)).await;
    let refused = service.post_as(A, "/settle", &upto(&service, 5, 0)).await;
    assert_refused(&refused, "unsupported_scheme", "while others have keys");
    let supported = service.get("/supported").await.body;
    assert!(!supported.to_string().contains("\"upto\""), "{supported}");
    is_settled(&service, B, &service.body(6)).await;
}

#[tokio::test]
async fn what_is_not_worth_its_gas_is_refused() {
    let usdc = Asset::new(CHAIN.parse().unwrap(), USDC).unwrap();
    let at_least = |units| FacilitatorTerms {
        minimums: vec![(usdc.clone(), Amount::from_units(units))],
        ..trusting()
    };
    let service = on_terms(at_least(UNITS + 1)).await;
    for path in ["/verify", "/settle"] {
        let refused = service.post_json(path, &service.body(1)).await;
        assert_refused(&refused, "invalid_payment_requirements", "at least 101, found 100");
    }
    let refused = service.post_json("/settle", &upto(&service, 2, 60)).await;
    assert_refused(&refused, "invalid_payment_requirements", "at least 101, found 60");
    let settled = service.post_json("/settle", &upto(&service, 2, 0)).await;
    assert_eq!(settled.body["success"], true, "{settled:?}");
    assert_eq!(service.chain.buyer_has().await, FUNDS);

    let service = on_terms(at_least(UNITS)).await;
    let settled = service.post_json("/settle", &service.body(3)).await;
    assert_eq!(settled.body["success"], true, "{settled:?}");
}
