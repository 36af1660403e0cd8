//! Attack row A16: whatever bytes a payment header has, it is read or refused, never a panic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_protocol::header::{self, BadHeader, HEADER_BYTES_MAX, JSON_DEPTH_MAX};
use farebox_protocol::wire::{PaymentPayload, PaymentRequired, SettlementResponse};
use proptest::prelude::*;
use serde_json::Value;

/// Reads a header as everything that it could be.
fn read_as_everything(value: &[u8]) {
    drop(header::decode::<PaymentRequired>(value));
    drop(header::decode::<PaymentPayload>(value));
    drop(header::decode::<SettlementResponse>(value));
    drop(header::decode::<Value>(value));
}

/// JSON values as deep as headers may be.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a16_arbitrary_bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_as_everything(&value);
    }

    #[test]
    fn a16_arbitrary_base64_never_panics(value in "[A-Za-z0-9+/=]{0,400}") {
        read_as_everything(value.as_bytes());
    }

    #[test]
    fn a16_arbitrary_json_text_never_panics(text in r#"[{}\[\]",:a-z0-9 \\]{0,120}"#) {
        read_as_everything(STANDARD.encode(text).as_bytes());
    }

    #[test]
    fn what_is_written_reads_back(value in json()) {
        let text = header::encode(&value).unwrap();
        let raw = header::decode::<Value>(text.as_bytes()).unwrap();
        prop_assert_eq!(raw.value(), &value);
        prop_assert_eq!(header::encode(&raw).unwrap(), text);
    }

    #[test]
    fn a16_the_limits_hold_for_every_size(extra in 1_usize..5_000) {
        let long = vec![b'A'; HEADER_BYTES_MAX.saturating_add(extra)];
        prop_assert!(matches!(header::decode::<Value>(&long), Err(BadHeader::TooLong)));
    }

    #[test]
    fn a16_the_depth_holds_for_every_mix(opens in proptest::collection::vec(any::<bool>(), 0..40)) {
        let mut value = Value::Null;
        for open in &opens {
            value = if *open { Value::from(vec![value]) } else { serde_json::json!({"[{": value}) };
        }
        let outcome = header::decode::<Value>(header::encode(&value).unwrap().as_bytes());
        prop_assert_eq!(outcome.is_ok(), opens.len() <= JSON_DEPTH_MAX);
    }
}
