//! Offers, honest and hostile, one field at a time.

use serde_json::json;

use super::*;
use crate::budget::Limits;

fn policy() -> Policy {
    let dollar = Usd::from_micros(1_000_000);
    Policy::new(Limits { per_payment: dollar, total: dollar })
}

fn honest() -> Value {
    json!({
        "scheme": "exact",
        "network": "eip155:84532",
        "amount": "1000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "maxTimeoutSeconds": 300,
        "extra": { "name": "USDC", "version": "2", "quote": "1.9.v.0.0" },
        "unknown": [1],
    })
}

/// An honest offer of a ceiling.
fn honest_upto() -> Value {
    let mut offer = honest();
    offer["scheme"] = json!("upto");
    offer["extra"]["assetTransferMethod"] = json!("permit2");
    offer["extra"]["facilitatorAddress"] = json!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8");
    offer
}

fn examine_in(entry: &Value, version: Version) -> Result<Offer, Refusal> {
    let payer = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266".parse().ok();
    Examiner { policy: &policy(), payer, version }.examine(entry)
}

fn examine(entry: &Value) -> Result<Offer, Refusal> {
    examine_in(entry, Version::Two)
}

/// The honest offer with one value replaced (or removed, by null), and what is said of it.
#[track_caller]
fn check(pointer: &str, value: Value, expected: &str) {
    check_of(honest(), pointer, value, expected);
}

/// The same of an offer of a ceiling.
#[track_caller]
fn check_upto(pointer: &str, value: Value, expected: &str) {
    check_of(honest_upto(), pointer, value, expected);
}

#[track_caller]
fn check_of(mut entry: Value, pointer: &str, value: Value, expected: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = entry.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key)
    } else {
        parent.insert(key.to_owned(), value)
    };
    let outcome = match examine(&entry) {
        Ok(offer) => format!("pays {}", offer.worth),
        Err(refusal) => refusal.to_string(),
    };
    assert!(outcome.contains(expected), "{pointer}: {outcome}");
}

#[test]
fn a21_honest_offers_are_paid() {
    let offer = examine(&honest()).unwrap();
    assert_eq!(offer.quote(), Some("1.9.v.0.0"));
    assert_eq!(serde_json::to_value(&offer.requirements).unwrap(), honest());
    let lower = "0x036cbd53842c5426634e7929541ec2318f3dcf7e";
    check("/asset", json!(lower), "pays $0.001");
    check("/payTo", json!("0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc"), "pays");
    check("/extra/quote", Value::Null, "pays");
    check("/extra/assetTransferMethod", json!("eip3009"), "pays");
    check("/extra/paymentFlow", json!("upfront"), "pays");
    check("/extra/assetTransferMethod", json!("permit2"), "pays");
    check_upto("/extra/paymentFlow", json!("authorization"), "pays $0.001");
    check_upto("/extra/assetTransferMethod", Value::Null, "pays");
    check("/maxTimeoutSeconds", json!(600), "pays");
}

#[test]
fn a21_hostile_offers_are_refused_with_what_was_expected() {
    check("/scheme", json!("batch"), r#"scheme: expected "exact" or "upto", found "batch""#);
    check(
        "/scheme",
        json!("upto"),
        "extra.facilitatorAddress: expected \"the address that settles",
    );
    check("/network", json!("eip155:4242"), r#"found "eip155:4242""#);
    check("/network", json!("base"), "malformed: expected a CAIP-2 network id");
    check("/network", json!("eip155:084532"), "network: expected one");
    check("/asset", json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"), "asset on eip155:84532");
    check("/asset", json!("usdc"), r#"found "usdc""#);
    check("/payTo", json!("0x3C44"), "payTo");
    check("/payTo", json!("0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC"), "EIP-55");
    check("/payTo", json!(format!("0x{}", "0".repeat(40))), "the zero address");
    check("/payTo", honest()["asset"].clone(), "the token's own contract");
    check("/maxTimeoutSeconds", json!(601), "expected 10 to 600, found 601");
    check("/maxTimeoutSeconds", json!(9), "expected 10 to 600, found 9");
    check("/maxTimeoutSeconds", json!(u64::MAX), "expected 10 to 600");
    check("/maxTimeoutSeconds", json!("300"), "malformed");
    check("/amount", json!("0"), "between 1 and");
    check("/amount", json!("-5"), "malformed");
    check("/amount", json!(1000), "malformed");
    check("/amount", json!("1e3"), "malformed");
    check("/amount", json!("340282366920938463463374607431768211456"), "malformed");
}

#[test]
fn a28_a_foreign_domain_is_never_signed() {
    check("/extra/name", json!("USD Coin"), r#"extra.name: expected "USDC", found "USD Coin""#);
    check("/extra/name", Value::Null, r#"extra.name: expected "USDC", found nothing"#);
    check("/extra/version", json!("1"), r#"extra.version: expected "2", found "1""#);
    check("/extra/version", json!(2), r#"extra.version: expected "2", found 2"#);
    check("/extra", Value::Null, "extra.name");
    check("/network", json!("eip155:8453"), "asset on eip155:8453");
    let expected = r#"extra.assetTransferMethod: expected "eip3009 or permit2""#;
    check("/extra/assetTransferMethod", json!("erc7710"), expected);
    check("/extra/assetTransferMethod", json!(7), expected);
    check("/extra/paymentFlow", json!("escrow"), "extra.paymentFlow");
    check("/extra/quote", json!(7), "extra.quote");
}

#[test]
fn a21_hostile_ceilings_are_refused_with_what_was_expected() {
    let named = |address: &str| (json!(address), "/extra/facilitatorAddress");
    for (address, expected) in [
        (named("0x7099"), "expected `0x` and 40"),
        (named("0x70997970c51812dc3A010C7d01b50e0d17dc79C8"), "EIP-55"),
        (named(&format!("0x{}", "0".repeat(40))), "found the zero address"),
        (named("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"), "found the payer"),
        (named("0x036CbD53842c5426634e7929541eC2318f3dCF7e"), "found the token's own contract"),
        (named("0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc"), "found the recipient"),
        (
            (json!(7), "/extra/facilitatorAddress"),
            r#"expected "the address that settles", found 7"#,
        ),
        ((Value::Null, "/extra/facilitatorAddress"), "found nothing"),
        ((json!("eip3009"), "/extra/assetTransferMethod"), r#"expected "permit2""#),
        ((json!("upfront"), "/extra/paymentFlow"), "extra.paymentFlow: expected \"authorization\""),
        ((json!("USD Coin"), "/extra/name"), "extra.name"),
        ((Value::Null, "/extra/version"), "extra.version"),
        ((json!(601), "/maxTimeoutSeconds"), "expected 10 to 600"),
        ((json!("0"), "/amount"), "between 1 and"),
        ((json!(format!("0x{}", "0".repeat(40))), "/payTo"), "the zero address"),
        ((json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"), "/asset"), "asset on"),
        ((json!("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"), "/network"), "network: expected one"),
    ] {
        let (value, pointer) = address;
        check_upto(pointer, value, expected);
    }
}

#[test]
fn a21_sellers_of_v1_are_paid_by_the_token_alone() {
    let refused = |entry: &Value| examine_in(entry, Version::One).unwrap_err().to_string();
    assert!(examine_in(&honest(), Version::One).is_ok());
    assert!(refused(&honest_upto()).contains("as in all of x402 v1, found \"upto\""));
    let mut permit2 = honest();
    permit2["extra"]["assetTransferMethod"] = json!("permit2");
    let expected = r#"extra.assetTransferMethod: expected "eip3009", found "permit2""#;
    assert_eq!(refused(&permit2), expected);
}
