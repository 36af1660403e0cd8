//! Checks that ask no chain, over payments that the official clients signed.

use farebox_chains::{
    AuthorizationWindow, EvmToken, Exact, Scheme, TokenConfig, check_payment, find_network,
    find_token, sign_exact,
};
use farebox_protocol::wire::SettleRequest;
use farebox_protocol::{Network, Timestamp};
use serde_json::{Value, json};

use crate::support::{PAY_TO, altered, demand, key, nonce, payer, request};

/// Recorded `/verify` bodies of the official TypeScript client (npm 2.27.0).
fn recorded() -> Vec<SettleRequest> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/tests/vectors/");
    let files = ["exact-eip3009__ts.json", "exact-eip3009-post-chat__ts.json"];
    let mut requests = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(format!("{directory}{file}")).unwrap();
        let recording: Value = serde_json::from_str(&text).unwrap();
        for hop in recording["wire"].as_array().unwrap() {
            if hop["request"]["path"] == "/verify" {
                requests.push(serde_json::from_value(hop["request"]["body"].clone()).unwrap());
            }
        }
    }
    assert_eq!(requests.len(), 2);
    requests
}

fn usdc(network: &str) -> EvmToken {
    let row = find_token(network, "usdc").unwrap();
    EvmToken::new(network.parse().unwrap(), TokenConfig::from(row)).unwrap()
}

/// When the recordings were made.
const THEN: Timestamp = Timestamp::from_seconds(1_795_222_400);

fn reason(token: &EvmToken, request: &SettleRequest, now: Timestamp) -> String {
    match check_payment(token, request, now) {
        Ok(payment) => format!("ok {}", payment.payer()),
        Err(refusal) => {
            assert!(refusal.message.contains("expected"), "{refusal:?}");
            refusal.reason.to_string()
        }
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Value), expected: &str) {
    let good = &recorded()[0];
    assert_eq!(reason(&usdc("eip155:84532"), &altered(good, change), THEN), expected);
}

const AUTHORIZATION: &str = "/paymentPayload/payload/authorization";
const SIGNATURE: &str = "/paymentPayload/payload/signature";

fn set(json: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[key] = value;
}

#[test]
fn what_official_clients_sign_is_good_and_known_by_its_nonce() {
    for request in recorded() {
        let payment = check_payment(&usdc("eip155:84532"), &request, THEN).unwrap();
        let payload = request.payment_payload.value();
        let identified = Exact.identify(payload, request.payment_requirements.value()).unwrap();
        assert_eq!(identified.id, payment.id());
        assert_eq!(identified.payer, payment.payer().to_string());
        assert_eq!(identified.amount, payment.amount());
        let from = &payload.payload["authorization"]["from"];
        assert_eq!(*from, json!(payment.payer().to_string()));
        // As does the Python client, which sends addresses as they come.
        let lower = altered(&request, |it| {
            for key in ["from", "to"] {
                let pointer = format!("{AUTHORIZATION}/{key}");
                let address = it.pointer(&pointer).unwrap().as_str().unwrap().to_lowercase();
                set(it, &pointer, json!(address));
            }
        });
        assert_eq!(check_payment(&usdc("eip155:84532"), &lower, THEN).unwrap().id(), payment.id());
    }
}

#[test]
fn every_rule_has_its_reason() {
    check(|_| {}, "ok 0x49991a0b71e820267ed33F7f2a1af983b6c80DCa");
    check(|it| set(it, "/x402Version", json!(1)), "invalid_x402_version");
    check(|it| set(it, "/paymentPayload/x402Version", json!(3)), "invalid_x402_version");
    let scheme = "/paymentPayload/accepted/scheme";
    check(|it| set(it, scheme, json!("upto")), "invalid_exact_evm_scheme");
    check(|it| set(it, "/paymentRequirements/scheme", json!("e")), "unsupported_scheme");
    let network = "/paymentPayload/accepted/network";
    let mismatch = "invalid_exact_evm_network_mismatch";
    check(|it| set(it, network, json!("eip155:8453")), mismatch);
    let extra = "/paymentRequirements/extra";
    let missing = "invalid_exact_evm_missing_eip712_domain";
    check(|it| set(it, &format!("{extra}/name"), json!("")), missing);
    check(|it| set(it, &format!("{extra}/version"), json!(null)), missing);
    let method = format!("{extra}/assetTransferMethod");
    check(|it| set(it, &method, json!("permit2")), "unsupported_payload_type");
    let permit = "/paymentPayload/payload/permit2Authorization";
    check(|it| set(it, permit, json!({})), "unsupported_payload_type");
    check(|it| set(it, "/paymentPayload/payload", json!({})), "invalid_payload");
    check(|it| set(it, "/paymentPayload/payload", json!("no")), "invalid_payload");
    let to = format!("{AUTHORIZATION}/to");
    check(
        |it| set(it, &to, json!(format!("0x{}", "11".repeat(20)))),
        "invalid_exact_evm_recipient_mismatch",
    );
    let pay_to = "/paymentRequirements/payTo";
    check(|it| set(it, pay_to, json!(PAY_TO)), "invalid_exact_evm_recipient_mismatch");
    check(|it| set(it, pay_to, json!("me")), "invalid_payment_requirements");
    let value = "invalid_exact_evm_payload_authorization_value_mismatch";
    check(|it| set(it, &format!("{AUTHORIZATION}/value"), json!("999")), value);
    check(|it| set(it, &format!("{AUTHORIZATION}/value"), json!("1001")), value);
    check(|it| set(it, "/paymentRequirements/amount", json!("1001")), value);
    let signature = "invalid_exact_evm_signature";
    check(|it| set(it, &format!("{AUTHORIZATION}/validAfter"), json!("1")), signature);
    check(|it| set(it, &format!("{AUTHORIZATION}/from"), json!(PAY_TO)), signature);
    check(
        |it| set(it, &format!("{AUTHORIZATION}/nonce"), json!(format!("0x{}", "a7".repeat(32)))),
        signature,
    );
}

#[test]
fn a08_the_window_has_edges() {
    let (token, good) = (usdc("eip155:84532"), &recorded()[0]);
    let before = "invalid_exact_evm_payload_authorization_valid_before";
    let after = "invalid_exact_evm_payload_authorization_valid_after";
    let ends = 1_795_222_633;
    let at = Timestamp::from_seconds;
    assert!(reason(&token, good, at(ends - 6)).starts_with("ok"));
    assert_eq!(reason(&token, good, at(ends - 5)), before);
    assert_eq!(reason(&token, good, at(ends + 1_000)), before);
    let demand = demand(5);
    let window =
        |after, before| AuthorizationWindow { valid_after: at(after), valid_before: at(before) };
    let sign = |window| request(&demand, sign_exact(&payer(), &demand, window, nonce(1)).unwrap());
    assert_eq!(reason(&token, &sign(window(1_001, 2_000)), at(1_000)), after);
    assert!(reason(&token, &sign(window(1_000, 2_000)), at(1_000)).starts_with("ok"));
    assert_eq!(reason(&token, &sign(window(1_000, 1_005)), at(1_000)), before);
}

/// The order of the curve; `n - s` is the twin of `s`.
const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

fn minus(one: &str, other: &str) -> String {
    let (one, other) = (hex::decode(one).unwrap(), hex::decode(other).unwrap());
    let mut borrow = 0_i16;
    let mut digits = vec![0_u8; 32];
    for index in (0..32).rev() {
        let mut digit =
            i16::from(one[index]).saturating_sub(i16::from(other[index])).saturating_sub(borrow);
        borrow = i16::from(digit < 0);
        digit = digit.rem_euclid(256);
        digits[index] = u8::try_from(digit).unwrap();
    }
    hex::encode(digits)
}

#[test]
fn a11_only_one_spelling_of_a_signature_is_taken() {
    let good =
        recorded()[0].payment_payload.value().payload["signature"].as_str().unwrap().to_owned();
    let digits = good.strip_prefix("0x").unwrap();
    let (r, rest) = digits.split_at(64);
    let (s, v) = rest.split_at(64);
    let flipped = if v == "1b" { "1c" } else { "1b" };
    let bad = "invalid_exact_evm_signature";
    let twin = format!("0x{r}{}{flipped}", minus(ORDER, s));
    check(|it| set(it, SIGNATURE, json!(twin)), bad);
    check(|it| set(it, SIGNATURE, json!(format!("0x{r}{s}{flipped}"))), bad);
    for v in ["00", "01", "1d", "25", ""] {
        check(|it| set(it, SIGNATURE, json!(format!("0x{r}{s}{v}"))), bad);
    }
    check(|it| set(it, SIGNATURE, json!(format!("{good}00"))), bad);
    check(|it| set(it, SIGNATURE, json!(format!("0x00{digits}"))), bad);
    check(|it| set(it, SIGNATURE, json!(digits)), bad);
    check(|it| set(it, SIGNATURE, json!("")), bad);
    let end = "6492".repeat(16);
    check(|it| set(it, SIGNATURE, json!(format!("{good}{end}"))), bad);
    // By a factory, with an empty call and an empty signature.
    let words = ["99".to_owned(), "60".to_owned(), "80".to_owned(), "0".to_owned(), "0".to_owned()];
    let words: Vec<String> = words.iter().map(|it| format!("{it:0>64}")).collect();
    let undeployed = format!("0x{}{end}", words.concat());
    check(|it| set(it, SIGNATURE, json!(undeployed)), "eip6492_factory_not_allowed");
    check(|it| set(it, SIGNATURE, json!(format!("0x{}", "11".repeat(5_000)))), bad);
    // Upper case is the same signature, and the same payment.
    let upper = altered(&recorded()[0], |it| {
        set(it, SIGNATURE, json!(format!("0x{}", digits.to_uppercase())));
    });
    let token = usdc("eip155:84532");
    let id = |request| check_payment(&token, request, THEN).unwrap().id();
    assert_eq!(id(&upper), id(&recorded()[0]));
}

#[test]
fn a28_a_signature_is_good_on_its_own_network_only() {
    let ids = [
        "eip155:1",
        "eip155:8453",
        "eip155:137",
        "eip155:42161",
        "eip155:10",
        "eip155:43114",
        "eip155:1329",
        "eip155:11155111",
        "eip155:84532",
        "eip155:80002",
        "eip155:421614",
        "eip155:11155420",
        "eip155:43113",
        "eip155:1328",
    ];
    let tokens: Vec<EvmToken> = ids.iter().map(|it| usdc(it)).collect();
    let at = Timestamp::from_seconds(1_000);
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: Timestamp::from_seconds(2_000),
    };
    let demand_of = |token: &EvmToken| {
        let mut demand = demand(7);
        demand.network = token.network().clone();
        demand.asset = token.address().to_string();
        demand.extra.insert("name".to_owned(), json!(token.config().name));
        demand.extra.insert("version".to_owned(), json!(token.config().version));
        demand
    };
    for token in &tokens {
        let own = demand_of(token);
        let payload = sign_exact(&payer(), &own, window, nonce(3)).unwrap();
        assert!(reason(token, &request(&own, payload.clone()), at).starts_with("ok"), "{token:?}");
        for other in tokens.iter().filter(|it| it.network() != token.network()) {
            let elsewhere = request(&demand_of(other), payload.clone());
            assert_eq!(reason(other, &elsewhere, at), "invalid_exact_evm_signature");
            let found = reason(token, &elsewhere, at);
            assert_eq!(found, "invalid_network", "{other:?} on {token:?}");
        }
        // Signed for another contract, name or version of the same chain.
        let mut foreign = own.clone();
        foreign.asset = format!("0x{}", "22".repeat(20));
        let payload = sign_exact(&payer(), &foreign, window, nonce(3)).unwrap();
        assert_eq!(
            reason(token, &request(&own, payload.clone()), at),
            "invalid_exact_evm_signature"
        );
        assert_eq!(reason(token, &request(&foreign, payload), at), "invalid_payment_requirements");
        for (key, refused) in [
            ("name", "invalid_exact_evm_token_name_mismatch"),
            ("version", "invalid_exact_evm_token_version_mismatch"),
        ] {
            let mut renamed = own.clone();
            renamed.extra.insert(key.to_owned(), json!("Other"));
            let payload = sign_exact(&payer(), &renamed, window, nonce(3)).unwrap();
            assert_eq!(
                reason(token, &request(&own, payload.clone()), at),
                "invalid_exact_evm_signature"
            );
            assert_eq!(reason(token, &request(&renamed, payload), at), refused);
        }
    }
    assert!(ids.iter().all(|it| find_network(it).is_some()));
}

#[test]
fn another_key_is_another_payer() {
    let demand = demand(5);
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: Timestamp::from_seconds(2_000),
    };
    let payload = sign_exact(&key([7; 32]), &demand, window, nonce(1)).unwrap();
    let stolen = altered(&request(&demand, payload), |it| {
        set(it, &format!("{AUTHORIZATION}/from"), json!(payer().address().to_string()));
    });
    let found = reason(&usdc("eip155:84532"), &stolen, Timestamp::from_seconds(1_000));
    assert_eq!(found, "invalid_exact_evm_signature");
    assert!(Network::eip155(1).evm_chain_id().is_some());
}
