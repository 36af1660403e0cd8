//! Every x402 message of the recorded traffic, v1 and v2, reads, and is written again without loss.
//!
//! `tests/vectors/` holds what the official clients and servers said to each other (npm packages
//! 2.27.0, Python package 2.25.0). A message that is not covered is listed with its reason, and every count is asserted, so
//! the tests cannot pass by finding nothing.

use std::collections::BTreeMap;
use std::path::Path;

use farebox_protocol::wire::{
    PaymentPayload, PaymentRequired, SettleRequest, SettlementResponse, SupportedResponse,
    VerifyRequest, VerifyResponse, v1,
};
use farebox_protocol::{accepted_matches, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What kind of message, as the traffic names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    PaymentRequired,
    PaymentSignature,
    PaymentResponse,
    XPayment,
    XPaymentResponse,
    VerifyRequest,
    VerifyResponse,
    SettleRequest,
    SettleResponse,
    /// x402 v1: the body of a 402 answer.
    V1PaymentRequired,
    V1VerifyRequest,
    V1VerifyResponse,
    V1SettleRequest,
    V1SettleResponse,
}

/// One message: where it was found, and what was sent (a header's value, a body's JSON).
#[derive(Debug)]
struct Message {
    place: String,
    kind: Kind,
    sent: String,
}

/// Every file of the recordings.
fn recordings() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        all.push((name, serde_json::from_str(&text).unwrap()));
    }
    all.sort_by(|one, two| one.0.cmp(&two.0));
    all
}

fn messages() -> Vec<Message> {
    let mut all = Vec::new();
    for (file, recording) in recordings() {
        let hops = recording["wire"].as_array().cloned().unwrap_or_default();
        for (index, hop) in hops.iter().enumerate() {
            let place = format!("{file} hop {index}");
            add_headers(&mut all, &place, &hop["request"]["headers"]);
            add_headers(&mut all, &place, &hop["response"]["headers"]);
            add_bodies(&mut all, &place, hop);
        }
        if let Some(value) = recording["PAYMENT-SIGNATURE"].as_str() {
            let sent = value.to_owned();
            all.push(Message { place: file, kind: Kind::PaymentSignature, sent });
        }
    }
    all
}

fn add_headers(all: &mut Vec<Message>, place: &str, headers: &Value) {
    for header in headers.as_array().unwrap() {
        let kind = match header[0].as_str().unwrap().to_lowercase().as_str() {
            header::PAYMENT_REQUIRED => Kind::PaymentRequired,
            header::PAYMENT_SIGNATURE => Kind::PaymentSignature,
            header::PAYMENT_RESPONSE => Kind::PaymentResponse,
            header::X_PAYMENT => Kind::XPayment,
            header::X_PAYMENT_RESPONSE => Kind::XPaymentResponse,
            _ => continue,
        };
        let sent = header[1].as_str().unwrap().to_owned();
        all.push(Message { place: place.to_owned(), kind, sent });
    }
}

fn add_bodies(all: &mut Vec<Message>, place: &str, hop: &Value) {
    let is_v1 = |side: &str| hop[side]["body"]["x402Version"] == 1;
    let kinds = match (hop["hop"].as_str(), hop["request"]["path"].as_str()) {
        (Some("server->facilitator"), Some("/verify")) if is_v1("request") => {
            [Kind::V1VerifyRequest, Kind::V1VerifyResponse]
        }
        (Some("server->facilitator"), Some("/settle")) if is_v1("request") => {
            [Kind::V1SettleRequest, Kind::V1SettleResponse]
        }
        (Some("server->facilitator"), Some("/verify")) => {
            [Kind::VerifyRequest, Kind::VerifyResponse]
        }
        (Some("server->facilitator"), Some("/settle")) => {
            [Kind::SettleRequest, Kind::SettleResponse]
        }
        (Some("client->server"), Some(_)) if is_v1("response") => {
            let sent = hop["response"]["body"].to_string();
            all.push(Message { place: place.to_owned(), kind: Kind::V1PaymentRequired, sent });
            return;
        }
        (Some("client->server"), Some(_)) => return,
        unforeseen => panic!("{place}: {unforeseen:?}"),
    };
    for (kind, side) in kinds.into_iter().zip(["request", "response"]) {
        let sent = hop[side]["body"].to_string();
        all.push(Message { place: place.to_owned(), kind, sent });
    }
}

/// A header decodes, encodes to the same bytes, and its typed form has the same JSON value.
fn check_header<T: DeserializeOwned + Serialize>(message: &Message) {
    let raw = header::decode::<T>(message.sent.as_bytes())
        .unwrap_or_else(|error| panic!("{}: {error}", message.place));
    assert_eq!(header::encode(&raw).unwrap(), message.sent, "{}", message.place);
    check_value(message, raw.text(), raw.value());
}

/// A body parses, and its typed form has the same JSON value.
fn check_body<T: DeserializeOwned + Serialize>(message: &Message) {
    let value: T = serde_json::from_str(&message.sent)
        .unwrap_or_else(|error| panic!("{}: {error}", message.place));
    check_value(message, &message.sent, &value);
}

fn check_value(message: &Message, sent: &str, typed: &impl Serialize) {
    let mut sent: Value = serde_json::from_str(sent).unwrap();
    if says_nothing_of_the_amount(&sent) {
        sent.as_object_mut().unwrap().shift_remove("amount");
    }
    assert_eq!(serde_json::to_value(typed).unwrap(), sent, "{}", message.place);
}

/// Answers to vouchers, which move nothing by themselves, write `"amount": ""`: the same as none.
fn says_nothing_of_the_amount(message: &Value) -> bool {
    message["amount"] == "" && message["success"].is_boolean()
}

/// A message is one of its kind.
fn check(message: &Message) {
    match message.kind {
        Kind::PaymentRequired => check_header::<PaymentRequired>(message),
        Kind::PaymentSignature => check_header::<PaymentPayload>(message),
        Kind::PaymentResponse => check_header::<SettlementResponse>(message),
        Kind::VerifyRequest => {
            check_body::<VerifyRequest>(message);
            check_payload_is_kept(message);
        }
        Kind::VerifyResponse | Kind::V1VerifyResponse => check_body::<VerifyResponse>(message),
        Kind::SettleRequest => {
            check_body::<SettleRequest>(message);
            check_payload_is_kept(message);
        }
        Kind::SettleResponse => check_body::<SettlementResponse>(message),
        Kind::XPayment => check_header::<v1::PaymentPayload>(message),
        Kind::XPaymentResponse => check_header::<v1::SettlementResponse>(message),
        Kind::V1PaymentRequired => check_body::<v1::PaymentRequired>(message),
        Kind::V1VerifyRequest | Kind::V1SettleRequest => check_v1_request(message),
        Kind::V1SettleResponse => check_body::<v1::SettlementResponse>(message),
    }
}

#[test]
fn every_message_reads_and_writes_without_loss() {
    let mut counts = BTreeMap::<Kind, usize>::new();
    for message in messages() {
        let count = counts.entry(message.kind).or_default();
        *count = count.saturating_add(1);
        check(&message);
    }
    let expected = [
        (Kind::PaymentRequired, 28),
        (Kind::PaymentSignature, 24),
        (Kind::PaymentResponse, 23),
        (Kind::XPayment, 4),
        (Kind::XPaymentResponse, 4),
        (Kind::VerifyRequest, 17),
        (Kind::VerifyResponse, 17),
        (Kind::SettleRequest, 23),
        (Kind::SettleResponse, 23),
        (Kind::V1PaymentRequired, 5),
        (Kind::V1VerifyRequest, 3),
        (Kind::V1VerifyResponse, 3),
        (Kind::V1SettleRequest, 4),
        (Kind::V1SettleResponse, 4),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
}

/// The same as [`check_payload_is_kept`], of v1.
fn check_v1_request(message: &Message) {
    check_body::<v1::VerifyRequest>(message);
    let sent: Value = serde_json::from_str(&message.sent).unwrap();
    let request: v1::VerifyRequest = serde_json::from_str(&message.sent).unwrap();
    let (payload, requirements) = (&request.payment_payload, &request.payment_requirements);
    assert_eq!(payload.text(), sent["paymentPayload"].to_string());
    assert_eq!(requirements.text(), sent["paymentRequirements"].to_string());
    check_value(message, payload.text(), payload.value());
    check_value(message, requirements.text(), requirements.value());
}

/// The one normalisation that [`check_value`] makes, and how often.
#[test]
fn only_answers_to_vouchers_have_an_empty_amount() {
    let mut places = Vec::new();
    for message in messages() {
        if message.kind != Kind::PaymentResponse {
            continue;
        }
        let raw = header::decode::<SettlementResponse>(message.sent.as_bytes()).unwrap();
        let sent: Value = serde_json::from_str(raw.text()).unwrap();
        if says_nothing_of_the_amount(&sent) {
            assert_eq!(raw.value().amount, None);
            places.push(message.place);
        }
    }
    assert_eq!(places.len(), 4, "{places:?}");
    assert!(places.iter().all(|it| it.starts_with("batch-")), "{places:?}");
}

/// What is signed and hashed is the client's own text, inside a request as well; and the structs
/// lose nothing of it either.
fn check_payload_is_kept(message: &Message) {
    let sent: Value = serde_json::from_str(&message.sent).unwrap();
    let request: VerifyRequest = serde_json::from_str(&message.sent).unwrap();
    let (payload, requirements) = (&request.payment_payload, &request.payment_requirements);
    assert_eq!(payload.text(), sent["paymentPayload"].to_string());
    assert_eq!(requirements.text(), sent["paymentRequirements"].to_string());
    check_value(message, payload.text(), payload.value());
    check_value(message, requirements.text(), requirements.value());
}

/// Recordings without hops: what they hold and why it is read, or not.
#[test]
fn recordings_of_single_messages() {
    let mut payloads = 0_usize;
    let mut others = Vec::new();
    for (file, recording) in recordings() {
        if recording["wire"].is_array() {
            continue;
        }
        if recording["accepted"].is_object() {
            payloads = payloads.saturating_add(1);
            let sent = recording.to_string();
            check_body::<PaymentPayload>(&Message {
                place: file,
                kind: Kind::PaymentSignature,
                sent,
            });
        } else {
            others.push(file);
        }
    }
    assert_eq!(payloads, 2);
    // A Solana transaction taken apart, for the Solana scheme; and a header, read above.
    assert_eq!(others, ["svm-exact-py.settled.json", "svm-exact-ts.header.json"]);
}

/// Stock clients echo the offer that they take, and add to it at most: the comparison accepts each
/// recorded purchase.
#[test]
fn every_recorded_payment_takes_an_offer_that_was_made() {
    let mut taken = 0_usize;
    let mut offers: Vec<PaymentRequired> = Vec::new();
    let mut place_of_offers = String::new();
    for message in messages() {
        let file = message.place.split(' ').next().unwrap_or_default().to_owned();
        if file != place_of_offers {
            offers.clear();
            place_of_offers = file;
        }
        if message.kind == Kind::PaymentRequired {
            offers.push(
                header::decode::<PaymentRequired>(message.sent.as_bytes()).unwrap().value().clone(),
            );
        }
        if message.kind == Kind::PaymentSignature && message.place.contains("hop") {
            let payload = header::decode::<PaymentPayload>(message.sent.as_bytes()).unwrap();
            let accepted = &payload.value().accepted;
            let mut all = offers.iter().flat_map(|it| &it.accepts);
            assert!(all.any(|it| accepted_matches(it, accepted).is_ok()), "{}", message.place);
            taken = taken.saturating_add(1);
        }
    }
    assert_eq!(taken, 23);
}

/// No recording has `GET /supported`, so this one is written from x402 v2 §7.3.
#[test]
fn supported_reads_and_writes_without_loss() {
    let sent = json!({
        "kinds": [
            {"x402Version": 2, "scheme": "exact", "network": "eip155:84532"},
            {"x402Version": 2, "scheme": "upto", "network": "eip155:84532",
             "extra": {"facilitatorAddress": "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"}},
            {"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "unknown": 1},
        ],
        "extensions": ["payment-identifier"],
        "signers": {"eip155:*": ["0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"]},
        "unknown": {"a": [1]},
    });
    let typed: SupportedResponse = serde_json::from_value(sent.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), sent);
}

/// What carries structs that a peer writes.
const HEADERS: [Kind; 4] =
    [Kind::PaymentRequired, Kind::PaymentSignature, Kind::XPayment, Kind::XPaymentResponse];
const BODIES: [Kind; 2] = [Kind::V1PaymentRequired, Kind::V1SettleRequest];

/// Objects that a peer may add to.
const PLACES: [&str; 7] = [
    "",
    "/resource",
    "/accepted",
    "/accepted/extra",
    "/accepts/0",
    "/paymentPayload",
    "/paymentRequirements",
];

/// Fields from the future survive in every struct that a peer writes.
#[test]
fn unknown_fields_survive_at_every_level() {
    let mut added = 0_usize;
    for message in messages() {
        let in_header = HEADERS.contains(&message.kind);
        if !in_header && !BODIES.contains(&message.kind) {
            continue;
        }
        let mut future = if in_header {
            header::decode::<Value>(message.sent.as_bytes()).unwrap().value().clone()
        } else {
            serde_json::from_str(&message.sent).unwrap()
        };
        // The request is its sender's own; the two documents inside are not.
        let places = if message.kind == Kind::V1SettleRequest { &PLACES[1..] } else { &PLACES };
        for pointer in places {
            if let Some(object) = future.pointer_mut(pointer).and_then(Value::as_object_mut) {
                object.insert("fromTheFuture".to_owned(), json!({"a": [1, null, "x"]}));
                added = added.saturating_add(1);
            }
        }
        let sent = if in_header { header::encode(&future).unwrap() } else { future.to_string() };
        let message = Message { sent, ..message };
        check(&message);
    }
    assert!(170 < added, "{added}");
}
