//! Attack row A15: `accepted` tampering.

use farebox_protocol::wire::PaymentRequirements;
use farebox_protocol::{Amount, Network, accepted_matches};
use proptest::prelude::*;
use serde_json::{Value, json};

fn offered() -> Value {
    json!({
        "scheme": "exact",
        "network": "eip155:84532",
        "amount": "2000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "maxTimeoutSeconds": 300,
        "extra": {"name": "USDC", "version": "2", "quote": "1.2.3", "nested": {"a": [1]}},
        "unknownYet": {"a": 1}
    })
}

fn parse(requirements: &Value) -> PaymentRequirements {
    serde_json::from_value(requirements.clone()).unwrap()
}

/// The field that the comparison complains of, if any.
fn altered(echoed: &Value) -> Option<String> {
    let outcome = accepted_matches(&parse(&offered()), &parse(echoed));
    outcome.err().map(|it| it.field.to_string())
}

#[track_caller]
fn check(pointer: &str, value: Value, expected: Option<&str>) {
    let mut echoed = offered();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let object = echoed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    object.insert(key.to_owned(), value);
    assert_eq!(altered(&echoed).as_deref(), expected, "{pointer}");
}

#[test]
fn a15_an_echo_may_add_and_may_not_change() {
    assert_eq!(altered(&offered()), None);
    check("/scheme", json!("Exact"), Some("scheme"));
    check("/network", json!("eip155:8453"), Some("network"));
    check("/amount", json!("1999"), Some("amount"));
    check("/asset", json!(offered()["asset"].as_str().unwrap().to_lowercase()), Some("asset"));
    check("/payTo", json!(offered()["payTo"].as_str().unwrap().to_lowercase()), Some("payTo"));
    check("/maxTimeoutSeconds", json!(301), Some("maxTimeoutSeconds"));
    check("/maxTimeoutSeconds", json!(299), Some("maxTimeoutSeconds"));
    check("/extra/name", json!("usdc"), Some("extra.name"));
    check("/extra/version", Value::Null, Some("extra.version"));
    check("/extra/nested/a", json!([1, 2]), Some("extra.nested"));
    check("/unknownYet", json!({"a": 2}), Some("unknownYet"));
    check("/extra/added", json!(7), None);
    check("/added", json!(7), None);
}

#[test]
fn a15_what_was_offered_may_not_be_left_out() {
    for key in ["name", "version", "quote", "nested"] {
        let mut echoed = offered();
        echoed["extra"].as_object_mut().unwrap().shift_remove(key);
        assert_eq!(altered(&echoed), Some(format!("extra.{key}")));
    }
    for (key, field) in [("extra", "extra.name"), ("unknownYet", "unknownYet")] {
        let mut echoed = offered();
        echoed.as_object_mut().unwrap().shift_remove(key);
        assert_eq!(altered(&echoed).as_deref(), Some(field));
    }
}

/// What one field may be changed into, and the name it is then refused by.
fn change() -> impl Strategy<Value = (&'static str, Value)> {
    let texts = prop_oneof![Just("scheme"), Just("asset"), Just("payTo")];
    prop_oneof![
        (texts, ".{0,50}").prop_map(|(field, text)| (field, json!(text))),
        any::<u64>().prop_map(|id| ("network", json!(Network::eip155(id).to_string()))),
        any::<u128>().prop_map(|it| ("amount", json!(Amount::from_units(it).to_string()))),
        any::<u64>().prop_map(|it| ("maxTimeoutSeconds", json!(it))),
    ]
}

fn shuffled(object: &Value, turn: usize) -> Value {
    let mut members: Vec<_> = object.as_object().unwrap().clone().into_iter().collect();
    let turn = turn.checked_rem(members.len()).unwrap_or(0);
    members.rotate_left(turn);
    Value::Object(members.into_iter().collect())
}

proptest! {
    #[test]
    fn a15_any_changed_field_is_refused_by_its_name((field, value) in change()) {
        let mut echoed = offered();
        prop_assume!(echoed[field] != value);
        echoed[field] = value;
        prop_assert_eq!(altered(&echoed), Some(field.to_owned()));
    }

    #[test]
    fn a15_any_changed_key_of_extra_is_refused_by_its_name(
        key in prop_oneof![Just("name"), Just("version"), Just("quote")],
        value in ".{0,20}",
    ) {
        let mut echoed = offered();
        prop_assume!(echoed["extra"][key] != value);
        echoed["extra"][key] = json!(value);
        prop_assert_eq!(altered(&echoed), Some(format!("extra.{key}")));
    }

    #[test]
    fn the_order_of_keys_and_additions_do_not_matter(
        turn in 0_usize..8,
        inner in 0_usize..8,
        added in "x[a-z]{1,8}",
        text in ".{0,20}",
    ) {
        let mut echoed = shuffled(&offered(), turn);
        echoed["extra"] = shuffled(&echoed["extra"], inner);
        echoed["extra"][&added] = json!(text);
        echoed[&added] = json!(text);
        prop_assert_eq!(altered(&echoed), None);
    }
}
