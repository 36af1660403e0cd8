//! Every way in which a paid request can end: what is sent, what is returned, what is booked.

use std::time::Duration;

use farebox_agent::{PayError, PayingClient, Retry};
use farebox_chains::{EvmToken, check_payment, find_token};
use farebox_protocol::wire::VerifyRequest;
use farebox_protocol::{Timestamp, bound_nonce};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::seller::{
    Answer, Line, Seen, Seller, demand, honest, offer, paid, quoted_offer, read_and_reset,
    required, status,
};
use crate::tools::{
    TestClock, assert_one_payment, books, client, ending, http, policy, post, wallet,
};

/// Plays the script after a 402 with the honest offer, and checks the ending, how often the one
/// payment was sent, and the books (spent, reserved) afterwards.
async fn check(script: Vec<Line>, expected: &str, sent: usize, booked: (u128, u128)) {
    check_offer(offer(), script, expected, sent, booked).await;
}

async fn check_offer(
    offer: Value,
    script: Vec<Line>,
    expected: &str,
    sent: usize,
    booked: (u128, u128),
) {
    let lines = std::iter::once(demand(&[offer])).chain(script).collect();
    let seller = Seller::start(lines).await;
    let client = client(&TestClock::new());
    let outcome = post(&client, &seller.url()).await;
    let ending = ending(&outcome);
    assert!(ending.contains(expected), "expected {expected:?}, found {ending:?}");
    assert_one_payment(&seller, sent);
    assert_eq!(books(&client), booked, "{ending}");
    assert_eq!(seller.left(), 0, "{ending}: the script was not played to its end");
}

/// `PAYMENT-RESPONSE` of a settlement that failed.
fn failed(status: u16, reason: &str) -> Line {
    let receipt = json!({
        "success": false, "errorReason": reason, "transaction": "", "network": "eip155:84532",
    });
    Line::Answer(Answer::new(status).header("PAYMENT-RESPONSE", crate::seller::base64(&receipt)))
}

fn refused(reason: &str) -> Line {
    Line::Answer(Answer::new(402).header("PAYMENT-REQUIRED", required(&[offer()], reason)))
}

#[tokio::test]
async fn a_purchase() {
    let seller = Seller::start(vec![demand(&[quoted_offer()]), honest()]).await;
    let client = client(&TestClock::new());
    let answer = post(&client, &seller.url()).await.unwrap();
    let terms = answer.payment.unwrap().terms;
    assert_eq!(answer.response.bytes().await.unwrap(), "answer");
    assert_eq!(books(&client), (10_000, 0));
    let [first, second] = &seller.seen()[..] else { panic!("expected two requests") };
    assert!(first.payment.is_none());
    let same = |it: &Seen| (it.method.clone(), it.path.clone(), it.body.clone());
    assert_eq!(same(first), same(second));
    let payload = second.payload();
    // What the seller wrote goes back as it was, fields that nobody knows included.
    assert_eq!(payload["accepted"], quoted_offer());
    assert_eq!(payload["resource"]["seller"], "field");
    assert_eq!(payload["extensions"], json!({ "bazaar": { "info": 1 } }));
    assert_eq!(payload["x402Version"], 2);
    let authorization = &payload["payload"]["authorization"];
    let seal = quoted_offer()["extra"]["quote"].as_str().unwrap().to_owned();
    assert_eq!(authorization["nonce"], format!("0x{}", hex::encode(bound_nonce(&seal))));
    assert_eq!(authorization["validAfter"], "0");
    assert_eq!(authorization["validBefore"], "1795000060");
    assert_eq!(authorization["value"], "10000");
    assert_eq!(authorization["from"], wallet().address().to_string());
    assert_eq!(terms.valid_before.seconds(), 1_795_000_060);
    assert_good(&payload, 1_795_000_000);
}

/// A facilitator takes the payment at this second.
#[track_caller]
fn assert_good(payload: &Value, now: u64) {
    let request = json!({
        "x402Version": 2, "paymentPayload": payload, "paymentRequirements": payload["accepted"],
    });
    let request: VerifyRequest = serde_json::from_str(&request.to_string()).unwrap();
    let network = payload["accepted"]["network"].as_str().unwrap();
    let row = find_token(network, "usdc").unwrap();
    let token = EvmToken::new(network.parse().unwrap(), row.into()).unwrap();
    let checked = check_payment(&token, &request, Timestamp::from_seconds(now));
    assert!(checked.is_ok(), "{:?}", checked.err());
}

#[tokio::test]
async fn a28_every_known_token_is_signed_for_in_its_own_domain() {
    for token in farebox_agent::known_tokens() {
        let config = token.config();
        let mut offer = offer();
        offer["network"] = json!(token.network());
        offer["asset"] = json!(token.address().to_string());
        offer["extra"] = json!({ "name": config.name, "version": config.version });
        let seller = Seller::start(vec![demand(&[offer]), status(200)]).await;
        let client = client(&TestClock::new());
        post(&client, &seller.url()).await.unwrap();
        assert_good(&seller.seen()[1].payload(), 1_795_000_000);
    }
}

#[tokio::test]
async fn a2_without_a_seal_no_two_nonces_are_alike() {
    let script = vec![demand(&[offer()]), honest(), demand(&[offer()]), honest()];
    let seller = Seller::start(script).await;
    let client = client(&TestClock::new());
    for _ in 0..2 {
        post(&client, &seller.url()).await.unwrap();
    }
    let nonce = |it: &Seen| it.payload()["payload"]["authorization"]["nonce"].clone();
    let seen = seller.seen();
    assert_ne!(nonce(&seen[1]), nonce(&seen[3]));
}

#[tokio::test]
async fn what_is_free_is_not_paid() {
    let seller = Seller::start(vec![status(200), status(402), status(500)]).await;
    let client = client(&TestClock::new());
    for expected in ["200 free", "402 free", "500 free"] {
        assert_eq!(ending(&post(&client, &seller.url()).await), expected);
    }
    assert_one_payment(&seller, 0);
    assert_eq!(books(&client), (0, 0));
}

#[tokio::test]
async fn answers_that_say_what_became_of_it() {
    check(vec![honest()], "200 paid 10000", 1, (10_000, 0)).await;
    check(vec![status(200)], "200 accepted", 1, (10_000, 0)).await;
    check(vec![failed(402, "insufficient_funds")], "402 not charged: insuff", 1, (0, 10_000)).await;
    check(vec![failed(500, "insufficient_funds")], "500 not charged: insuff", 1, (0, 10_000)).await;
    check(vec![refused("insufficient_funds")], "402 not charged: insuff", 1, (0, 10_000)).await;
    let unread = Answer::new(400).header("PAYMENT-REQUIRED", required(&[offer()], "malformed"));
    check(vec![Line::Answer(unread)], "400 not charged: malformed", 1, (0, 10_000)).await;
    check(vec![refused("")], "402 unknown: the seller answered 402", 1, (0, 10_000)).await;
    check(vec![status(402)], "402 unknown", 1, (0, 10_000)).await;
    let uncharged = |status| Line::Answer(Answer::new(status).header("x-farebox-charged", "0"));
    check(vec![uncharged(500)], "500 not charged: nothing_owed", 1, (0, 10_000)).await;
    check(vec![uncharged(200)], "200 not charged: nothing_owed", 1, (0, 10_000)).await;
    check(vec![status(400)], "400 unknown", 1, (0, 10_000)).await;
    check(vec![status(409)], "409 unknown", 1, (0, 10_000)).await;
    check(vec![status(500)], "500 unknown", 1, (0, 10_000)).await;
    check(vec![refused("invalid_exact_evm_nonce_already_used")], "402 unknown", 1, (0, 10_000))
        .await;
}

#[tokio::test]
async fn open_outcomes_are_asked_again_with_the_same_bytes() {
    let busy = || Line::Answer(Answer::new(409).header("retry-after", "1"));
    check(vec![status(502), honest()], "200 paid", 2, (10_000, 0)).await;
    check(vec![status(503), status(504), honest()], "200 paid", 3, (10_000, 0)).await;
    check(vec![busy(), busy(), honest()], "200 paid", 3, (10_000, 0)).await;
    check(vec![failed(402, "settlement_pending"), honest()], "200 paid", 2, (10_000, 0)).await;
    check(vec![refused("settlement_pending"), honest()], "200 paid", 2, (10_000, 0)).await;
    // Dropped before or after the charge: from here the two look the same.
    check(vec![Line::HangUp, honest()], "200 paid", 2, (10_000, 0)).await;
    check(vec![Line::HangUp, Line::HangUp, honest()], "200 paid", 3, (10_000, 0)).await;
    let silent = vec![Line::HangUp, Line::HangUp, Line::HangUp, Line::HangUp, Line::HangUp];
    check(silent, "no answer came back: whether it was charged is unknown", 5, (0, 10_000)).await;
    let failing = vec![status(503), status(503), status(503), status(503), status(503)];
    check(failing, "503 unknown", 5, (0, 10_000)).await;
}

#[tokio::test]
async fn a_refusal_after_an_open_outcome_proves_nothing() {
    // The first sending took the money, which is why the second one finds none.
    let script = vec![Line::HangUp, refused("insufficient_funds")];
    check(script, "402 unknown: the seller refused it (insufficient_funds)", 2, (0, 10_000)).await;
    let script = vec![status(502), failed(402, "invalid_payload")];
    check(script, "402 unknown: the seller refused it", 2, (0, 10_000)).await;
    let script = vec![Line::HangUp, refused("invalid_exact_evm_nonce_already_used")];
    check(script, "402 unknown", 2, (0, 10_000)).await;
}

#[tokio::test]
async fn a27_receipts_that_lie_are_believed_in_nothing() {
    let lies: [(Line, &str); 10] = [
        (Line::From(|it| paid(it, |it| it["amount"] = json!("9999999"))), "amount: expected 10000"),
        (Line::From(|it| paid(it, |it| it["amount"] = json!("1"))), "amount: expected 10000"),
        (Line::From(|it| paid(it, |it| it["network"] = json!("eip155:8453"))), "network: expected"),
        (Line::From(|it| paid(it, |it| it["network"] = json!("base"))), "not a settlement"),
        (Line::From(|it| paid(it, |it| it["payer"] = json!(crate::seller::PAY_TO))), "payer: exp"),
        (Line::From(|it| paid(it, |it| it["transaction"] = json!(""))), "transaction: expected"),
        (
            Line::From(|it| paid(it, |it| it["transaction"] = json!("0x12"))),
            "transaction: expected",
        ),
        (Line::From(|it| paid(it, |it| it["success"] = json!("true"))), "not a settlement"),
        (Line::From(|it| paid(it, |_| ()).header("PAYMENT-RESPONSE", "e30=")), "expected one"),
        (Line::Answer(Answer::new(200).header("PAYMENT-RESPONSE", "%%")), "not a settlement"),
    ];
    for (line, expected) in lies {
        // The answer is passed on; what was signed stays counted in full.
        let expected = format!("200 unknown: the seller's receipt does not fit: {expected}");
        check(vec![line], &expected, 1, (0, 10_000)).await;
    }
}

/// What `GET /v1/receipts/{id}` answers for the payment that it is asked with.
fn receipt(seen: &Seen, state: Value) -> Answer {
    let id = seen.path.rsplit('/').next().unwrap();
    assert!(seen.payment.is_none(), "a receipt needs no payment");
    let mut receipt = json!({
        "paymentId": id, "route": "r", "scheme": "exact", "network": crate::seller::NETWORK,
        "asset": crate::seller::ASSET, "payer": wallet().address().to_lower_hex(),
        "payTo": crate::seller::PAY_TO, "quoted": "10000", "charged": "10000",
        "priceVersion": "v1", "at": 1,
    });
    for (key, value) in state.as_object().unwrap() {
        receipt[key] = value.clone();
    }
    Answer::new(200).chunks(&[&receipt.to_string()])
}

#[tokio::test]
async fn the_receipt_of_a_farebox_gateway_settles_what_is_open() {
    let hang_ups = || vec![Line::HangUp, Line::HangUp, Line::HangUp, Line::HangUp, Line::HangUp];
    let with = |state| hang_ups().into_iter().chain([state]).collect::<Vec<_>>();
    let settled = Line::From(|it| {
        receipt(it, json!({ "state": "settled", "transaction": crate::seller::TRANSACTION }))
    });
    let captured = Line::From(|it| receipt(it, json!({ "state": "captured" })));
    let released =
        Line::From(|it| receipt(it, json!({ "state": "released", "reason": "crashed" })));
    let serving = Line::From(|it| receipt(it, json!({ "state": "serving" })));
    let foreign = Line::From(|it| {
        let id = format!("pay_{}", "0".repeat(64));
        receipt(it, json!({ "state": "released", "reason": "crashed", "paymentId": id }))
    });
    let says = "the seller's receipt says that it was";
    let charged = format!("{says} charged: error sending request paid 10000");
    let quoted = quoted_offer;
    check_offer(quoted(), with(settled), &charged, 5, (10_000, 0)).await;
    check_offer(quoted(), with(captured), &charged, 5, (10_000, 0)).await;
    let not = format!("{says} not charged: error sending request not charged: crashed");
    check_offer(quoted(), with(released), &not, 5, (0, 10_000)).await;
    check_offer(quoted(), with(serving), "charged is unknown", 5, (0, 10_000)).await;
    check_offer(quoted(), with(foreign), "payment: expected pay_", 5, (0, 10_000)).await;
    check_offer(quoted(), with(status(404)), "charged is unknown", 5, (0, 10_000)).await;
    let script = vec![
        status(500),
        Line::From(|it| receipt(it, json!({ "state": "released", "reason": "upstream_failed" }))),
    ];
    check_offer(quoted(), script, "500 not charged: upstream_failed", 1, (0, 10_000)).await;
}

#[tokio::test]
async fn pauses_grow_are_bounded_and_end_with_the_signature() {
    let slow = |seconds: &str| Line::Answer(Answer::new(503).header("retry-after", seconds));
    let script = vec![demand(&[offer()]), slow("3"), slow("9999"), status(503), honest()];
    let seller = Seller::start(script).await;
    let clock = TestClock::new();
    post(&client(&clock), &seller.url()).await.unwrap();
    let slept = clock.slept();
    assert_eq!(slept[..2], [Duration::from_secs(3), Duration::from_secs(10)]);
    assert!((1_000..=2_000).contains(&slept[2].as_millis()), "{slept:?}");

    let retry = Retry {
        attempts_max: 100.try_into().unwrap(),
        pause_first: Duration::from_secs(20),
        pause_max: Duration::from_secs(20),
    };
    let script = std::iter::once(demand(&[offer()])).chain((0..100).map(|_| slow("20")));
    let seller = Seller::start(script.collect()).await;
    let clock = TestClock::new();
    let policy = farebox_agent::Policy { retry, ..policy() };
    let client = PayingClient::new(http(), wallet(), policy).unwrap().with_clock(clock);
    // 60 seconds of validity: sent at 0, 20 and 40; at 60 it is worth nothing any more.
    assert!(ending(&post(&client, &seller.url()).await).contains("503 unknown"));
    assert_one_payment(&seller, 3);
}

#[tokio::test]
async fn what_never_left_is_given_back() {
    let Line::Answer(last) = demand(&[offer()]) else { panic!("a demand is an answer") };
    let seller = Seller::start(vec![Line::Last(last)]).await;
    let client = client(&TestClock::new());
    let outcome = post(&client, &seller.url()).await;
    assert!(matches!(outcome, Err(PayError::NotSent(_))), "{}", ending(&outcome));
    assert_eq!(books(&client), (0, 0));
}

#[tokio::test]
async fn a_purchase_that_is_given_up_stays_reserved() {
    let seller = Seller::start(vec![demand(&[offer()]), Line::Silence]).await;
    let client = client(&TestClock::new());
    let url = seller.url();
    let giving_up = async {
        while seller.payments().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = post(&client, &url) => panic!("answered: {}", ending(&outcome)),
        () = giving_up => {}
    }
    assert_eq!(books(&client), (0, 10_000));
}

#[tokio::test]
async fn a_connection_reset_while_sending_is_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let resetting = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            read_and_reset(stream).await;
        }
    };
    let client = client(&TestClock::new());
    let url = format!("http://{address}/");
    tokio::select! {
        () = resetting => panic!("the listener ended"),
        outcome = post(&client, &url) => {
            assert!(ending(&outcome).contains("nothing was signed"));
        }
    }
    assert_eq!(books(&client), (0, 0));
}
