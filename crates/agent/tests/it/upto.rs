//! Paying by `upto` and over Permit2: what is chosen, what is signed, what is counted. Attack rows
//! A21, A23, A27.

use std::sync::Arc;
use std::time::Duration;

use farebox_agent::{
    Clock, Disclaimers, Funding, PayError, PayingClient, Permit2Approval, Policy, Preview, WhyNot,
    preview,
};
use farebox_chains::{EvmToken, check_payment, find_token, scheme_of};
use farebox_protocol::wire::{PaymentPayload, VerifyRequest};
use farebox_protocol::{PaymentId, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::node::FakeNode;
use crate::seller::{
    ASSET, Answer, Line, NETWORK, PAY_TO, Seen, Seller, TRANSACTION, base64, demand, offer,
    required, status,
};
use crate::tools::{
    TestClock, assert_one_payment, books, ending, http, policy, post, request, wallet,
};

const SETTLER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// A ceiling of one cent.
fn upto() -> Value {
    let mut offer = offer();
    offer["scheme"] = json!("upto");
    offer["extra"]["assetTransferMethod"] = json!("permit2");
    offer["extra"]["facilitatorAddress"] = json!(SETTLER);
    offer
}

/// One cent by `exact`, over Permit2.
fn exact_permit2() -> Value {
    let mut offer = offer();
    offer["extra"]["assetTransferMethod"] = json!("permit2");
    offer
}

fn at(mut offer: Value, amount: &str) -> Value {
    offer["amount"] = json!(amount);
    offer
}

/// A 402 of a seller that submits permits, and has more to say of that.
fn sponsoring(accepts: &[Value]) -> Line {
    let required = json!({
        "x402Version": 2, "error": "Payment required", "accepts": accepts,
        "resource": { "url": "https://seller.example/" },
        "extensions": {
            "bazaar": { "info": 1 },
            "eip2612GasSponsoring": {
                "info": { "description": "gasless", "version": "1", "from": PAY_TO },
                "schema": { "type": "object" },
            },
        },
    });
    Line::Answer(Answer::new(402).header("PAYMENT-REQUIRED", base64(&required)))
}

/// A settlement of so much.
fn charged(amount: &'static str) -> Value {
    json!({
        "success": true, "transaction": TRANSACTION, "network": NETWORK, "amount": amount,
        "payer": wallet().address().to_string(),
    })
}

fn settled(amount: &'static str) -> Line {
    Line::Answer(Answer::new(200).header("PAYMENT-RESPONSE", base64(&charged(amount))))
}

fn client(policy: Policy, clock: &Arc<TestClock>) -> PayingClient {
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    PayingClient::new(http(), wallet(), policy).unwrap().with_clock(clock)
}

fn asking(node: &FakeNode) -> Policy {
    Policy { nodes: node.as_policy(), ..policy() }
}

fn approved() -> Policy {
    Policy { permit2_approval: Permit2Approval::Given, ..policy() }
}

/// What the seller was sent with the payment, and by which scheme.
fn sent(seller: &Seller) -> (Value, &'static str) {
    let payload = seller.seen().last().unwrap().payload();
    let accepted = serde_json::from_value(payload["accepted"].clone()).unwrap();
    (payload, scheme_of(&accepted).unwrap().word())
}

/// A facilitator takes it; the name that its chain has for it.
#[track_caller]
fn assert_good(payload: &Value) -> PaymentId {
    let request = json!({
        "x402Version": 2, "paymentPayload": payload, "paymentRequirements": payload["accepted"],
    });
    let request: VerifyRequest = serde_json::from_str(&request.to_string()).unwrap();
    let row = find_token(NETWORK, "usdc").unwrap();
    let token = EvmToken::new(NETWORK.parse().unwrap(), row.into()).unwrap();
    let now = Timestamp::from_seconds(1_795_000_000);
    let checked = check_payment(&token, &request, now);
    assert!(checked.is_ok(), "{:?}", checked.err());
    let payment: PaymentPayload = serde_json::from_value(payload.clone()).unwrap();
    scheme_of(&payment.accepted).unwrap().identify(&payment, &payment.accepted).unwrap().id
}

#[tokio::test]
async fn what_is_signed_over_permit2_is_good_and_named_as_chains_name_it() {
    for (offer, word) in [(upto(), "upto"), (exact_permit2(), "exact-permit2")] {
        let mut offer = offer;
        offer["extra"]["quote"] = json!("1.1800000000.v1.0000000000000001.00");
        let seller = Seller::start(vec![demand(&[offer.clone()]), settled("10000")]).await;
        let client = client(approved(), &TestClock::new());
        let answer = post(&client, &seller.url()).await.unwrap();
        let (payload, found) = sent(&seller);
        assert_eq!((found, &payload["accepted"]), (word, &offer));
        assert_eq!(payload["extensions"], json!({ "bazaar": { "info": 1 } }));
        let terms = answer.payment.unwrap().terms;
        assert_eq!(terms.id, assert_good(&payload));
        // A deadline's own second is still good.
        let deadline = &payload["payload"]["permit2Authorization"]["deadline"];
        assert_eq!((deadline, terms.valid_before.seconds()), (&json!("1795000060"), 1_795_000_061));
        assert_eq!(books(&client), (10_000, 0));
    }
}

/// Which offer is paid, by this policy; `-` where none is.
async fn choice(policy: Policy, line: Line) -> String {
    let seller = Seller::start(vec![line, status(200)]).await;
    let outcome = post(&client(policy, &TestClock::new()), &seller.url()).await;
    if seller.payments().is_empty() {
        return format!("- {}", ending(&outcome));
    }
    let (payload, word) = sent(&seller);
    assert_good(&payload);
    let permit = payload["extensions"]["eip2612GasSponsoring"]["info"].get("signature");
    format!(
        "{word} {}{}",
        payload["accepted"]["amount"].as_str().unwrap(),
        match permit {
            Some(_) => " with permit",
            None => "",
        }
    )
}

#[tokio::test]
async fn the_cheapest_offer_that_can_be_moved_is_taken() {
    let all = || [exact_permit2(), offer(), upto()];
    let node = FakeNode::start().await;
    // Nothing is known of an allowance: what needs none goes first, the rest is better than nothing.
    assert_eq!(choice(policy(), demand(&all())).await, "exact 10000");
    assert_eq!(choice(policy(), demand(&[at(upto(), "5000"), offer()])).await, "exact 10000");
    assert_eq!(choice(policy(), demand(&[exact_permit2(), upto()])).await, "upto 10000");
    assert_eq!(choice(policy(), demand(&[upto(), at(offer(), "90000")])).await, "upto 10000");
    // It is there, says its owner.
    assert_eq!(choice(approved(), demand(&all())).await, "upto 10000");
    let dearer = [at(upto(), "10001"), offer()];
    assert_eq!(choice(approved(), demand(&dearer)).await, "exact 10000");
    // It is not there, and can be signed for, or not.
    assert_eq!(choice(asking(&node), sponsoring(&all())).await, "upto 10000 with permit");
    assert_eq!(choice(asking(&node), demand(&all())).await, "exact 10000");
    let refused = choice(asking(&node), demand(&[upto()])).await;
    let expected =
        "Permit2's allowance: expected 10000, found 0, and the seller submits no permits";
    assert!(refused.starts_with('-') && refused.contains(expected), "{refused}");
    node.set(|it| it.permit_nonce = None);
    assert_eq!(choice(asking(&node), sponsoring(&all())).await, "exact 10000");
    let refused = choice(asking(&node), sponsoring(&[upto()])).await;
    assert!(refused.contains("the token takes no permits; approve Permit2 once"), "{refused}");
    // It is there, says the chain; no permit is signed that would make it smaller.
    node.set(|it| (it.allowance, it.permit_nonce) = (10_000, Some(0)));
    assert_eq!(choice(asking(&node), sponsoring(&all())).await, "upto 10000");
    // Nobody answers: as if there were no node.
    node.set(|it| it.answers = false);
    assert_eq!(choice(asking(&node), sponsoring(&all())).await, "exact 10000");
}

#[tokio::test]
async fn a16_a_list_of_offers_asks_the_node_once() {
    let node = FakeNode::start().await;
    let many: Vec<Value> = (0..12).map(|it| at(upto(), &(90_000 + it).to_string())).collect();
    let refused = choice(asking(&node), sponsoring(&many)).await;
    assert!(refused.contains("; offer 12: amount: $0.090011 is over"), "{refused}");
    assert_eq!(node.asked(), 1);
}

#[tokio::test]
async fn a23_a_permit_is_for_the_demanded_amount_and_this_payment() {
    let node = FakeNode::start().await;
    let seller = Seller::start(vec![sponsoring(&[upto()]), settled("1")]).await;
    post(&client(asking(&node), &TestClock::new()), &seller.url()).await.unwrap();
    let (payload, _) = sent(&seller);
    let extensions = &payload["extensions"];
    assert_eq!(extensions["bazaar"], json!({ "info": 1 }));
    let declared = &extensions["eip2612GasSponsoring"];
    assert_eq!(declared["schema"], json!({ "type": "object" }));
    let mut info = declared["info"].clone();
    let signature = info.as_object_mut().unwrap().remove("signature").unwrap();
    assert_eq!(signature.as_str().unwrap().len(), 132);
    // What the seller filled in beforehand is not what is signed.
    assert_eq!(
        info,
        json!({
            "description": "gasless", "version": "1", "from": wallet().address().to_string(),
            "asset": ASSET, "spender": "0x000000000022D473030F116dDEE9F6B43aC78BA3",
            "amount": "10000", "nonce": "7", "deadline": "1795000061",
        })
    );
}

#[tokio::test]
async fn two_permits_with_one_nonce_are_not_signed() {
    let node = FakeNode::start().await;
    let buy = async |client: &PayingClient, line: Line| {
        let seller = Seller::start(vec![line, status(200)]).await;
        let outcome = post(client, &seller.url()).await;
        if seller.payments().is_empty() { ending(&outcome) } else { sent(&seller).1.to_owned() }
    };
    let both = || sponsoring(&[upto(), offer()]);
    let clock = TestClock::new();
    let client = client(asking(&node), &clock);
    assert_eq!(buy(&client, both()).await, "upto");
    // The first is on its way: another way to pay, or none.
    assert_eq!(buy(&client, both()).await, "exact");
    let refused = buy(&client, sponsoring(&[upto()])).await;
    assert!(refused.contains("taken up by payments on their way"), "{refused}");
    // Part of an allowance is spoken for as well.
    node.set(|it| it.allowance = 19_999);
    assert_eq!(buy(&client, both()).await, "exact");
    // Settled, by whomever: the chain says so.
    node.set(|it| (it.allowance, it.used) = (0, true));
    assert_eq!(buy(&client, both()).await, "upto");
    assert_eq!(books(&client), (20_000, 20_000));
    // Nor for ever: what has ended is let go of.
    node.set(|it| (it.used, it.time) = (false, 1_795_000_061));
    clock.advance(Duration::from_secs(61));
    assert_eq!(buy(&client, both()).await, "upto");
}

/// Buys once by `upto` and says how it ended, and the books then.
async fn buy(policy: Policy, line: Line) -> (String, (u128, u128)) {
    let seller = Seller::start(vec![demand(&[upto()]), line]).await;
    let client = client(policy, &TestClock::new());
    let ending = ending(&post(&client, &seller.url()).await);
    assert_one_payment(&seller, 1);
    (ending, books(&client))
}

#[tokio::test]
async fn a27_a_charge_below_the_ceiling_frees_nothing_on_the_sellers_word() {
    let trusting = || Policy { disclaimers: Disclaimers::Trust, ..approved() };
    let node = FakeNode::start().await;
    node.set(|it| it.allowance = 1_000_000);
    for (policy, reserved) in [(approved(), 9_000), (asking(&node), 9_000), (trusting(), 0)] {
        let bought = buy(policy, settled("1000")).await;
        assert_eq!(bought, ("200 paid 1000".to_owned(), (1_000, reserved)));
    }
    // The whole of it is the whole of it; without an amount it is that, too.
    assert_eq!(buy(approved(), settled("10000")).await.1, (10_000, 0));
    let mut silent = charged("1");
    silent.as_object_mut().unwrap().remove("amount");
    let silent = Answer::new(200).header("PAYMENT-RESPONSE", base64(&silent));
    assert_eq!(buy(approved(), Line::Answer(silent)).await.1, (10_000, 0));
    // Nothing at all is a word like any other.
    let mut nothing = charged("0");
    nothing["transaction"] = json!("");
    let nothing = || Line::Answer(Answer::new(200).header("PAYMENT-RESPONSE", base64(&nothing)));
    let expected = ("200 not charged: nothing_owed".to_owned(), (0, 10_000));
    assert_eq!(buy(approved(), nothing()).await, expected);
    assert_eq!(buy(trusting(), nothing()).await, expected);
    // No answer that says anything: the ceiling.
    assert_eq!(buy(approved(), status(200)).await, ("200 accepted".to_owned(), (0, 10_000)));
    assert_eq!(buy(trusting(), status(500)).await.1, (0, 10_000));
}

#[tokio::test]
async fn a27_receipts_over_the_ceiling_or_without_a_transaction_prove_nothing() {
    let lie = |key: &str, value: Value| {
        let mut receipt = charged("1000");
        receipt[key] = value;
        Line::Answer(Answer::new(200).header("PAYMENT-RESPONSE", base64(&receipt)))
    };
    for (line, expected) in [
        (lie("amount", json!("10001")), "amount: expected at most 10000, found 10001"),
        (lie("transaction", json!("")), "transaction: expected"),
        (lie("network", json!("eip155:8453")), "network: expected"),
        (lie("payer", json!(PAY_TO)), "payer: expected"),
    ] {
        let (ending, booked) = buy(approved(), line).await;
        assert!(ending.contains(expected), "{ending}");
        assert_eq!(booked, (0, 10_000));
    }
}

/// A seller says that it charged a tenth, or nothing. What its payer's chain shows later decides.
#[tokio::test]
async fn a27_the_chain_frees_what_was_not_charged() {
    let refused = || {
        let header = required(&[upto()], "insufficient_funds");
        Line::Answer(Answer::new(402).header("PAYMENT-REQUIRED", header))
    };
    for (line, spent) in [(settled("1000"), 1_000), (refused(), 0), (status(500), 0)] {
        let node = FakeNode::start().await;
        node.set(|it| it.allowance = 1_000_000);
        let seller = Seller::start(vec![demand(&[upto()]), line.clone()]).await;
        let clock = TestClock::new();
        let client = client(asking(&node), &clock);
        post(&client, &seller.url()).await.unwrap();
        let counted = (spent, 10_000 - spent);
        assert_eq!(books(&client), counted);
        // No such transaction, and the signature is still good; nor right after its end.
        for time in [1_795_000_000, 1_795_000_061, 1_795_000_120] {
            node.set(|it| it.time = time);
            client.reconcile().await;
            assert_eq!(books(&client), counted, "at {time}");
        }
        node.set(|it| it.answers = false);
        client.reconcile().await;
        assert_eq!(books(&client), counted, "a silent node");
        // Used, and not by that transaction: the seller lied, and took who knows how much.
        node.set(|it| (it.answers, it.used, it.time) = (true, true, 1_795_009_000));
        client.reconcile().await;
        assert_eq!(books(&client), counted, "used");
        node.set(|it| it.used = false);
        client.reconcile().await;
        assert_eq!(books(&client), (spent, 0), "a minute after its end, and unused");
    }
}

#[tokio::test]
async fn a21_a_used_signature_without_a_proof_is_kept_for_good() {
    let node = FakeNode::start().await;
    node.set(|it| (it.allowance, it.used) = (1_000_000, true));
    let seller = Seller::start(vec![demand(&[upto()]), settled("1")]).await;
    let clock = TestClock::new();
    let client = client(asking(&node), &clock);
    post(&client, &seller.url()).await.unwrap();
    clock.advance(Duration::from_hours(2));
    client.reconcile().await;
    node.set(|it| (it.used, it.time) = (false, 1_795_099_999));
    client.reconcile().await;
    assert_eq!(books(&client), (1, 9_999));
}

/// The budget is asked for more than it has, while some of it is only reserved.
#[tokio::test]
async fn a_budget_that_lacks_money_looks_again_first() {
    let node = FakeNode::start().await;
    node.set(|it| it.allowance = 1_000_000);
    let script = (0..6).flat_map(|_| [demand(&[upto()]), settled("1000")]).collect();
    let seller = Seller::start(script).await;
    let clock = TestClock::new();
    let client = client(asking(&node), &clock);
    for _ in 0..5 {
        assert_eq!(ending(&post(&client, &seller.url()).await), "200 paid 1000");
    }
    assert_eq!(books(&client), (5_000, 45_000));
    let refused = ending(&post(&client, &seller.url()).await);
    assert!(refused.contains("$0.010000 is over the $0.000000 left"), "{refused}");
    let seller = Seller::start(vec![demand(&[upto()]), settled("1000")]).await;
    node.set(|it| it.time = 1_795_000_200);
    assert_eq!(ending(&post(&client, &seller.url()).await), "200 paid 1000");
    assert_eq!(books(&client), (6_000, 9_000));
}

/// A stream's receipt says what was charged after the answer was handed over.
#[tokio::test]
async fn a_stream_is_booked_by_its_receipt() {
    let stream: fn(&Seen) -> Answer = |seen| {
        let receipt = json!({
            "paymentId": assert_good(&seen.payload()), "route": "r", "scheme": "upto",
            "network": NETWORK, "asset": ASSET, "payer": wallet().address().to_string(),
            "payTo": PAY_TO, "quoted": "10000", "charged": "1200", "priceVersion": "v1", "at": 1,
            "state": "captured",
        });
        let comment = format!("data: 1\n\n: farebox-receipt {receipt}\n\ndata: [DONE]\n\n");
        Answer::new(200).header("content-type", "text/event-stream").chunks(&[&comment])
    };
    let trusting = Policy { disclaimers: Disclaimers::Trust, ..approved() };
    for (policy, after_its_end) in [(approved(), 8_800), (trusting, 0)] {
        let seller = Seller::start(vec![demand(&[upto()]), Line::From(stream)]).await;
        let clock = TestClock::new();
        let client = client(policy, &clock);
        let answer = post(&client, &seller.url()).await.unwrap();
        client.reconcile().await;
        assert_eq!(books(&client), (0, 10_000), "before the receipt");
        answer.response.bytes().await.unwrap();
        client.reconcile().await;
        // Charged is not settled: the ceiling can still be.
        assert_eq!(books(&client), (1_200, 8_800));
        clock.advance(Duration::from_secs(62));
        let seller = Seller::start(vec![demand(&[offer()]), status(200)]).await;
        post(&client, &seller.url()).await.unwrap();
        assert_eq!(books(&client), (11_200, after_its_end));
    }
}

fn wants_allowance() -> Line {
    let header = required(&[upto()], "permit2_allowance_required");
    Line::Answer(Answer::new(412).header("PAYMENT-REQUIRED", header))
}

#[tokio::test]
async fn a_412_is_answered_with_a_permit_once_and_with_the_same_payment() {
    let node = FakeNode::start().await;
    // It could not be asked at first.
    node.set(|it| it.answers = false);
    let first = sponsoring(&[upto()]);
    let seller = Seller::start(vec![first.clone(), wants_allowance(), settled("10000")]).await;
    let client = client(asking(&node), &TestClock::new());
    let url = seller.url();
    let answering = async {
        while seller.payments().is_empty() {
            tokio::task::yield_now().await;
        }
        node.set(|it| it.answers = true);
    };
    let (outcome, ()) = tokio::join!(post(&client, &url), answering);
    assert_eq!(ending(&outcome), "200 paid 10000");
    let [_, without, with] = &seller.seen()[..] else { panic!("expected three requests") };
    assert_eq!(without.payload()["payload"], with.payload()["payload"]);
    let info = |it: &Seen| it.payload()["extensions"]["eip2612GasSponsoring"]["info"].clone();
    assert_eq!(info(without).get("signature"), None);
    assert_eq!(info(with)["amount"], json!("10000"));
    assert_eq!(books(&client), (10_000, 0));
}

#[tokio::test]
async fn a_412_that_no_permit_helps_is_an_answer() {
    let node = FakeNode::start().await;
    let check = async |policy: Policy, first: Line, sent: usize| {
        let seller = Seller::start(vec![first, wants_allowance(), status(200)]).await;
        let client = client(policy, &TestClock::new());
        let ending = ending(&post(&client, &seller.url()).await);
        assert_eq!(ending, "412 not charged: permit2_allowance_required");
        assert_one_payment(&seller, sent);
        assert_eq!(books(&client), (0, 10_000));
    };
    // No node; a permit was sent already; the chain says that there is an allowance.
    check(policy(), sponsoring(&[upto()]), 1).await;
    check(asking(&node), sponsoring(&[upto()]), 1).await;
    node.set(|it| it.allowance = 10_000);
    check(asking(&node), sponsoring(&[upto()]), 1).await;
}

#[tokio::test]
async fn a_preview_tells_why() {
    let node = FakeNode::start().await;
    let payer = Some(wallet().address());
    let look = async |payer| {
        let accepts = [offer(), at(upto(), "7"), json!({ "scheme": "batch" }), upto()];
        let seller = Seller::start(vec![sponsoring(&accepts)]).await;
        let request = request(Method::GET, &seller.url());
        let seen = preview(http(), asking(&node), request, payer).await.unwrap();
        assert_one_payment(&seller, 0);
        let Preview::WouldPay(choice) = seen else { panic!("nothing to pay") };
        let others = choice.others.iter().map(|it| match &it.why {
            WhyNot::Refused(refusal) => format!("{} {}", it.place, refusal.to_string().len() > 9),
            WhyNot::Behind { scheme, worth, .. } => format!("{} {scheme} {worth}", it.place),
        });
        (choice.place, choice.funding, others.collect::<Vec<_>>())
    };
    let (place, funding, others) = look(payer).await;
    assert_eq!((place, funding), (2, Funding::Permit { nonce: 7 }));
    assert_eq!(others, ["1 exact $0.010000", "3 true", "4 upto $0.010000"]);
    // Without a payer there is no allowance to look at.
    assert_eq!(look(None).await.0, 1);
}

#[tokio::test]
async fn a21_a_facilitator_with_a_part_in_the_payment_is_not_signed_for() {
    for named in [wallet().address().to_string(), ASSET.to_owned(), PAY_TO.to_owned()] {
        let mut offer = upto();
        offer["extra"]["facilitatorAddress"] = json!(named);
        let seller = Seller::start(vec![demand(&[offer])]).await;
        let client = client(approved(), &TestClock::new());
        let outcome = post(&client, &seller.url()).await;
        assert!(matches!(outcome, Err(PayError::Refused(_))), "{}", ending(&outcome));
        assert_eq!(books(&client), (0, 0));
    }
}
