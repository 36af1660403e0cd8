//! Permit2 payloads that the official clients signed, and what is wrong with others; no chain is asked.

use farebox_chains::{
    AuthorizationWindow, EvmToken, TokenConfig, check_payment, check_settlement, scheme_of,
    sign_eip2612_permit, sign_permit2_exact, sign_upto,
};
use farebox_protocol::Timestamp;
use farebox_protocol::wire::SettleRequest;
use serde_json::{Value, json};

use crate::support::{
    PAY_TO, altered, at_amount, demand_by_permit2, facilitator, nonce, payer, request,
};

/// When the recordings were made.
const THEN: Timestamp = Timestamp::from_seconds(1_795_222_400);

const EXACT: &str = "exact-permit2__ts.json";
const UPTO: &str = "upto-permit2__ts.json";
const UPTO_EIP2612: &str = "upto-permit2-eip2612__ts.json";
const EXACT_APPROVAL: &str = "exact-permit2-erc20approval__ts.json";

/// The recorded bodies of a path of the facilitator.
fn recorded(file: &str, path: &str) -> Vec<SettleRequest> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/tests/vectors/");
    let text = std::fs::read_to_string(format!("{directory}{file}")).unwrap();
    let recording: Value = serde_json::from_str(&text).unwrap();
    let hops = recording["wire"].as_array().unwrap().iter();
    let bodies = hops.filter(|it| it["request"]["path"] == path);
    let bodies: Vec<SettleRequest> =
        bodies.map(|it| serde_json::from_value(it["request"]["body"].clone()).unwrap()).collect();
    assert!(!bodies.is_empty(), "{file} {path}");
    bodies
}

/// The token that the demand speaks of.
fn token_of(request: &SettleRequest) -> EvmToken {
    let demand = request.payment_requirements.value();
    let text = |key| demand.extra.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let address = demand.asset.parse().unwrap();
    let config = TokenConfig { address, decimals: 6, name: text("name"), version: text("version") };
    EvmToken::new(demand.network.clone(), config).unwrap()
}

fn verified(request: &SettleRequest, now: Timestamp) -> String {
    match check_payment(&token_of(request), request, now) {
        Ok(payment) => format!("ok {}", payment.payer()),
        Err(refusal) => {
            assert!(refusal.message.contains("expected"), "{refusal:?}");
            refusal.reason.to_string()
        }
    }
}

fn settled(request: &SettleRequest) -> String {
    match check_settlement(&token_of(request), request, THEN) {
        Ok(payment) => format!("ok {} of {}", payment.amount(), payment.authorized()),
        Err(refusal) => refusal.reason.to_string(),
    }
}

#[track_caller]
fn check(file: &str, pointer: &str, value: Value, expected: &str) {
    let bodies = recorded(file, "/verify");
    let changed = altered(&bodies[0], |it| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        it.pointer_mut(parent).unwrap()[key] = value;
    });
    assert_eq!(verified(&changed, THEN), expected, "{file} {pointer}");
}

#[test]
fn what_official_clients_sign_is_good_and_known_by_its_nonce() {
    for file in [
        EXACT,
        UPTO,
        UPTO_EIP2612,
        EXACT_APPROVAL,
        "exact-permit2-eip2612__ts.json",
        "upto-permit2-zero__ts.json",
    ] {
        for body in recorded(file, "/verify") {
            let payment = check_payment(&token_of(&body), &body, THEN).unwrap();
            let payload = body.payment_payload.value();
            let authorization = &payload.payload["permit2Authorization"];
            assert_eq!(authorization["from"], json!(payment.payer().to_string()), "{file}");
            let demand = body.payment_requirements.value();
            let scheme = scheme_of(demand).unwrap();
            assert_eq!(payment.scheme().word(), scheme.word());
            let identified = scheme.identify(payload, demand).unwrap();
            assert_eq!(identified.id, payment.id(), "{file}");
            assert_eq!(identified.payer, payment.payer().to_string());
            assert_eq!(identified.amount, payment.authorized());
            // The last second of a deadline is still good.
            let deadline: u64 = authorization["deadline"].as_str().unwrap().parse().unwrap();
            assert_eq!(identified.valid_before, Timestamp::from_seconds(deadline + 1));
        }
        for body in recorded(file, "/settle") {
            let demanded = body.payment_requirements.value().amount;
            let payment = check_settlement(&token_of(&body), &body, THEN).unwrap();
            assert_eq!(payment.amount(), demanded, "{file}");
            assert_eq!(payment.id(), {
                let verify = &recorded(file, "/verify")[0];
                check_payment(&token_of(verify), verify, THEN).unwrap().id()
            });
        }
    }
}

#[test]
fn every_rule_has_its_reason() {
    let permit = "/paymentPayload/payload/permit2Authorization";
    let other = || json!(format!("0x{}", "11".repeat(20)));
    for file in [EXACT, UPTO] {
        let at = |field: &str| format!("{permit}/{field}");
        check(file, &at("spender"), other(), "invalid_permit2_spender");
        check(file, &at("witness/to"), other(), "invalid_permit2_recipient_mismatch");
        check(
            file,
            "/paymentRequirements/payTo",
            json!(PAY_TO),
            "invalid_permit2_recipient_mismatch",
        );
        check(file, &at("permitted/token"), other(), "permit2_token_mismatch");
        for amount in ["1", "999999"] {
            check(file, &at("permitted/amount"), json!(amount), "permit2_amount_mismatch");
            check(file, "/paymentRequirements/amount", json!(amount), "permit2_amount_mismatch");
        }
        let deadline = THEN.seconds() + 5;
        check(file, &at("deadline"), json!(deadline.to_string()), "permit2_deadline_expired");
        let after = THEN.seconds() + 1;
        check(file, &at("witness/validAfter"), json!(after.to_string()), "permit2_not_yet_valid");
        for (field, value) in
            [("nonce", json!("7")), ("from", other()), ("deadline", json!("1795222999"))]
        {
            check(file, &at(field), value, "invalid_permit2_signature");
        }
        for (field, value) in [
            ("nonce", json!(7)),
            ("nonce", json!("0x")),
            ("nonce", json!(format!("0x1{}", "0".repeat(64)))),
            ("nonce", json!("9".repeat(78))),
            ("witness", json!(null)),
            ("permitted", json!("1000")),
            ("deadline", json!("-1")),
        ] {
            check(file, &at(field), value, "invalid_payload");
        }
        check(file, "/paymentPayload/payload/authorization", json!({}), "unsupported_payload_type");
        check(
            file,
            "/paymentRequirements/extra/assetTransferMethod",
            json!("erc7710"),
            "unsupported_scheme",
        );
    }
    check(EXACT, "/paymentPayload/accepted/scheme", json!("upto"), "invalid_exact_evm_scheme");
    check(UPTO, "/paymentPayload/accepted/scheme", json!("exact"), "invalid_upto_evm_scheme");
    let network = "/paymentPayload/accepted/network";
    check(EXACT, network, json!("eip155:1"), "invalid_exact_evm_network_mismatch");
    check(UPTO, network, json!("eip155:1"), "invalid_upto_evm_network_mismatch");
    let named = "/paymentRequirements/extra/facilitatorAddress";
    check(UPTO, named, other(), "upto_facilitator_mismatch");
    check(UPTO, &format!("{permit}/witness/facilitator"), other(), "upto_facilitator_mismatch");
    check(UPTO, &format!("{permit}/witness/facilitator"), json!(null), "invalid_payload");
    // The signature is over the facilitator, too.
    let bodies = recorded(UPTO, "/verify");
    let changed = altered(&bodies[0], |it| {
        it["paymentPayload"]["payload"]["permit2Authorization"]["witness"]["facilitator"] = other();
        it["paymentRequirements"]["extra"]["facilitatorAddress"] = other();
    });
    assert_eq!(verified(&changed, THEN), "invalid_permit2_signature");
}

#[test]
fn a_settlement_is_for_anything_up_to_the_ceiling() {
    let upto = &recorded(UPTO, "/verify")[0];
    assert_eq!(settled(&at_amount(upto, 0)), "ok 0 of 5000");
    assert_eq!(settled(&at_amount(upto, 1)), "ok 1 of 5000");
    assert_eq!(settled(upto), "ok 5000 of 5000");
    let over = "invalid_upto_evm_payload_settlement_exceeds_amount";
    assert_eq!(settled(&at_amount(upto, 5_001)), over);
    let exact = &recorded(EXACT, "/verify")[0];
    assert_eq!(settled(exact), "ok 1000 of 1000");
    assert_eq!(settled(&at_amount(exact, 999)), "permit2_amount_mismatch");
}

#[test]
fn a08_the_window_has_edges() {
    let body = &recorded(UPTO, "/verify")[0];
    let deadline = &body.payment_payload.value().payload["permit2Authorization"]["deadline"];
    let deadline: u64 = deadline.as_str().unwrap().parse().unwrap();
    let at = Timestamp::from_seconds;
    assert!(verified(body, at(deadline - 6)).starts_with("ok"));
    assert_eq!(verified(body, at(deadline - 5)), "permit2_deadline_expired");
    assert_eq!(verified(body, at(deadline + 1_000)), "permit2_deadline_expired");
}

#[test]
fn permits_that_come_along_are_checked() {
    let info = "/paymentPayload/extensions/eip2612GasSponsoring/info";
    let at = |field: &str| format!("{info}/{field}");
    let other = || json!(format!("0x{}", "11".repeat(20)));
    let format = "invalid_eip2612_extension_format";
    for (field, value, expected) in [
        ("from", other(), "eip2612_from_mismatch"),
        ("asset", other(), "eip2612_asset_mismatch"),
        ("spender", other(), "eip2612_spender_not_permit2"),
        ("amount", json!("6001"), "permit2_2612_amount_mismatch"),
        ("from", json!("0x12"), format),
        ("nonce", json!("1"), format),
        ("nonce", json!("0x1"), format),
        ("deadline", json!("1795229999"), format),
        ("signature", json!("0x12"), format),
    ] {
        check(UPTO_EIP2612, &at(field), value, expected);
    }
    // An echo that the payer did not fill in is none.
    let payer = "ok 0x010C261A68a78036BB5479e03c04a1887066CF5B";
    check(UPTO_EIP2612, &at("signature"), json!(null), payer);
    let body = &recorded(UPTO_EIP2612, "/verify")[0];
    let deadline = body.payment_payload.value().extensions.as_ref().unwrap();
    let deadline = &deadline["eip2612GasSponsoring"]["info"]["deadline"];
    let deadline: u64 = deadline.as_str().unwrap().parse().unwrap();
    assert_eq!(verified(body, Timestamp::from_seconds(deadline - 6)), payer);
}

#[test]
fn approvals_that_come_along_are_checked_to_the_letter() {
    let info = "/paymentPayload/extensions/erc20ApprovalGasSponsoring/info";
    let at = |field: &str| format!("{info}/{field}");
    let other = || json!(format!("0x{}", "11".repeat(20)));
    let body = &recorded(EXACT_APPROVAL, "/verify")[0];
    let extensions = body.payment_payload.value().extensions.as_ref().unwrap();
    let raw = &extensions["erc20ApprovalGasSponsoring"]["info"]["signedTransaction"];
    let raw = raw.as_str().unwrap();
    let with = |old: &str, new: &str| {
        assert_eq!(raw.matches(old).count(), 1, "{old}");
        json!(raw.replacen(old, new, 1))
    };
    for (field, value, expected) in [
        ("from", other(), "erc20_approval_from_mismatch"),
        ("asset", other(), "erc20_approval_asset_mismatch"),
        ("spender", other(), "erc20_approval_spender_not_permit2"),
        ("spender", json!("0x"), "invalid_erc20_approval_extension_format"),
        ("signedTransaction", json!("0xzz"), "invalid_erc20_approval_extension_format"),
        ("signedTransaction", json!("0x02c0"), "erc20_approval_tx_parse_failed"),
        ("signedTransaction", json!(format!("{raw}00")), "erc20_approval_tx_parse_failed"),
        (
            "signedTransaction",
            with("959922be3caee4b8cd9a407cc3ac1c251c2007b1", &"11".repeat(20)),
            "erc20_approval_tx_wrong_target",
        ),
        ("signedTransaction", with("095ea7b3", "a9059cbb"), "erc20_approval_tx_wrong_selector"),
        (
            "signedTransaction",
            with("22d473030f116ddee9f6b43ac78ba3", &"11".repeat(15)),
            "erc20_approval_tx_wrong_spender",
        ),
        (
            "signedTransaction",
            with(&"f".repeat(64), &format!("{:064x}", 1_699)),
            "erc20_approval_tx_invalid_calldata",
        ),
        // Another chain, another amount: the signature is somebody else's.
        ("signedTransaction", with("83014a34", "83014a35"), "erc20_approval_tx_wrong_target"),
        (
            "signedTransaction",
            with(&"f".repeat(64), &format!("{:064x}", 1_700)),
            "erc20_approval_tx_signer_mismatch",
        ),
    ] {
        check(EXACT_APPROVAL, &at(field), value, expected);
    }
}

/// The keys of an object and of those in it, in their order.
fn shape(value: &Value) -> Vec<String> {
    let Some(object) = value.as_object() else { return Vec::new() };
    let below = |(key, value): (&String, &Value)| {
        let inner = shape(value).into_iter().map(|it| format!("{key}/{it}"));
        [key.clone()].into_iter().chain(inner.collect::<Vec<_>>())
    };
    object.iter().flat_map(below).collect()
}

#[test]
fn what_is_signed_here_has_the_form_of_what_official_clients_sign() {
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: Timestamp::from_seconds(2_000),
    };
    let now = Timestamp::from_seconds(1_000);
    let us = facilitator();
    for (file, named) in [(EXACT, None), (UPTO, Some(us.as_str()))] {
        let demand = demand_by_permit2(1_700, named);
        let sign = if named.is_some() { sign_upto } else { sign_permit2_exact };
        let payload = sign(&payer(), &demand, window, nonce(1)).unwrap();
        let theirs = &recorded(file, "/verify")[0];
        assert_eq!(shape(&payload), shape(&theirs.payment_payload.value().payload), "{file}");
        let body = request(&demand, payload);
        assert_eq!(verified(&body, now), format!("ok {}", payer().address()));
        let permit = sign_eip2612_permit(&payer(), &demand, 3, window.valid_before).unwrap();
        let with_permit = altered(&body, |it| {
            it["paymentPayload"]["extensions"] = json!({"eip2612GasSponsoring": {"info": permit}});
        });
        assert_eq!(verified(&with_permit, now), format!("ok {}", payer().address()));
        let late = Timestamp::from_seconds(1_995);
        assert_eq!(verified(&with_permit, late), "permit2_deadline_expired");
    }
    let unnamed = demand_by_permit2(5, None);
    let missing = sign_upto(&payer(), &unnamed, window, nonce(1)).unwrap_err();
    assert_eq!(missing.field, "extra.facilitatorAddress");
    let upto = demand_by_permit2(5, Some(&us));
    assert_eq!(sign_permit2_exact(&payer(), &upto, window, nonce(1)).unwrap_err().field, "scheme");
}
