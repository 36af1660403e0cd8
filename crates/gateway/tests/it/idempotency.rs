//! Asking again is not paying again: by the same payment, by `Idempotency-Key`, by `payment-identifier`.

use std::sync::Arc;
use std::time::Duration;

use farebox_chains::EvmKey;
use farebox_gateway::{Keep, Limits};
use farebox_protocol::header;
use farebox_store::SettleMode;
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use crate::app::{Answer, FLAT, PAY_TO, Setup, TestApp, changed, chat};

const PATH: &str = "/premium/a";
const CHAT: &str = "/v1/chat/completions";
const KEEP: Keep = Keep { span: Duration::from_mins(10), bytes_max: 64 << 10 };
const ID: &str = "pay_7d5d747be160e280504c099d984bcfe0";

fn keeping(settle: SettleMode) -> Setup {
    Setup { settle, keep: Some(KEEP), ..Setup::default() }
}

fn event(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

const DONE: &str = "data: [DONE]\n\n";

/// A request as it is sent: with a name, or without.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'static str,
    target: &'a str,
    body: &'a str,
    key: Option<&'a str>,
}

const GET: Asked<'static> = Asked { method: "GET", target: PATH, body: "", key: Some("k") };

impl Asked<'_> {
    async fn quote(&self, app: &TestApp, nonce: u8) -> String {
        app.quote(self.method, self.target, self.body, nonce).await
    }

    async fn pay(&self, app: &TestApp, payment: &str) -> Answer {
        let request = app.request(self.method, self.target, self.body);
        let request = request.header("payment-signature", payment);
        let request = match self.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        TestApp::send(request).await
    }

    /// Signs anew.
    async fn buy(&self, app: &TestApp, nonce: u8) -> Answer {
        let payment = self.quote(app, nonce).await;
        self.pay(app, &payment).await
    }
}

fn identified(payment: &str, id: &str) -> String {
    let info = json!({ "required": false, "id": id });
    changed(payment, |it| it["extensions"] = json!({ "payment-identifier": { "info": info } }))
}

/// What `app` has taken so far.
async fn assert_taken(app: &TestApp, payments: usize) {
    app.until_states(&vec!["settled"; payments]).await;
    assert_eq!((app.received(), app.facilitator.landed()), (payments, payments));
    let units = FLAT * u128::try_from(payments).unwrap();
    assert_eq!(app.facilitator.balance(PAY_TO), 1_000_000 + units);
}

/// The kept answer, for a payment of which nothing was taken.
#[track_caller]
fn assert_replayed(answer: &Answer, first: &Answer) {
    assert_eq!((answer.status, &answer.body), (first.status, &first.body), "{answer:?}");
    assert_eq!(answer.header("idempotent-replayed"), "true");
    assert_eq!(answer.header("x-farebox-charged"), "0");
    assert_eq!(answer.settlement(), None, "the second payment was not settled");
    for same in ["content-type", "cache-control", "farebox-receipt"] {
        assert_eq!(answer.header(same), first.header(same), "{same}");
        assert!(!answer.header(same).is_empty(), "{same}");
    }
}

/// The receipt of the first payment, for one of which nothing was taken.
#[track_caller]
fn assert_receipt(answer: &Answer, first: &Answer) {
    answer.assert_problem(409, "already_answered");
    assert_eq!(answer.header("farebox-receipt"), first.header("farebox-receipt"));
    assert_eq!(answer.json()["receipt"], first.header("farebox-receipt"));
    assert_eq!(answer.header("x-farebox-charged"), "0");
    assert_eq!(answer.header("x-should-retry"), "false", "asking again brings nothing else");
    assert_eq!(answer.settlement(), None);
}

#[tokio::test]
async fn the_402_declares_the_extension_as_the_specification_has_it() {
    let app = TestApp::answering(Script::json("{}")).await;
    let required = app.ask("GET", PATH, "").await.required();
    let expected = json!({
        "info": { "required": false },
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "required": { "type": "boolean" },
                "id": {
                    "type": "string", "minLength": 16, "maxLength": 128,
                    "pattern": "^[a-zA-Z0-9_-]+$",
                },
            },
            "required": ["required"],
        },
    });
    assert_eq!(required.extensions.unwrap()["payment-identifier"], expected);
}

#[tokio::test]
async fn a_request_signed_anew_gets_its_kept_answer_and_is_charged_once() {
    for settle in [SettleMode::After, SettleMode::Background] {
        let app = TestApp::start(keeping(settle), |_| Script::json("{\"a\":1}")).await;
        let first = GET.buy(&app, 1).await;
        assert_eq!(first.status, 200, "{first:?}");
        assert!(!first.headers.contains_key("idempotent-replayed"));
        let again = GET.buy(&app, 2).await;
        assert_replayed(&again, &first);
        // The name is the same with the quotes that the draft has.
        let quoted = Asked { key: Some("\"k\""), ..GET };
        assert_replayed(&quoted.buy(&app, 3).await, &first);
        assert_taken(&app, 1).await;
    }
}

#[tokio::test]
async fn without_a_kept_answer_it_gets_the_receipt_and_is_charged_once() {
    let app = TestApp::start(Setup::default(), |_| Script::json("{\"a\":1}")).await;
    let first = GET.buy(&app, 1).await;
    let again = GET.buy(&app, 2).await;
    assert_receipt(&again, &first);
    assert_eq!(again.json()["state"], "settled");
    assert_taken(&app, 1).await;
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time_and_size() {
    let long = "x".repeat(KEEP.bytes_max + 1);
    let app = TestApp::start(keeping(SettleMode::After), move |it| {
        Script::json(if it.target == PATH { "{}" } else { &long })
    })
    .await;
    let first = GET.buy(&app, 1).await;
    app.clock.advance(KEEP.span.checked_sub(Duration::from_secs(30)).unwrap());
    assert_replayed(&GET.buy(&app, 2).await, &first);
    app.clock.advance(Duration::from_secs(30));
    assert_receipt(&GET.buy(&app, 3).await, &first);
    let large = Asked { target: "/premium/large", key: Some("l"), ..GET };
    let first = large.buy(&app, 4).await;
    assert_eq!(first.status, 200);
    assert_receipt(&large.buy(&app, 5).await, &first);
    assert_taken(&app, 2).await;
}

#[tokio::test]
async fn the_extension_names_a_request_as_the_header_does() {
    let app = TestApp::start(keeping(SettleMode::After), |_| Script::json("{\"a\":1}")).await;
    let bare = Asked { key: None, ..GET };
    let first = bare.pay(&app, &identified(&bare.quote(&app, 1).await, ID)).await;
    assert_eq!(first.status, 200, "{first:?}");
    let again = bare.pay(&app, &identified(&bare.quote(&app, 2).await, ID)).await;
    assert_replayed(&again, &first);
    // The header's names are others, even of the same letters.
    let named = Asked { key: Some(ID), ..GET };
    let second = named.buy(&app, 3).await;
    assert!(!second.headers.contains_key("idempotent-replayed"), "{second:?}");
    // Of two names, either is enough.
    let other = identified(&bare.quote(&app, 4).await, "another_identifier");
    assert_replayed(&named.pay(&app, &other).await, &second);
    assert_taken(&app, 2).await;
    // Who only echoes what is declared gives no name.
    let declared = app.ask("GET", PATH, "").await.required().extensions.unwrap();
    for nonce in [5, 6] {
        let echoed = changed(&bare.quote(&app, nonce).await, |it| {
            it["extensions"] = declared.clone().into();
        });
        let answer = bare.pay(&app, &echoed).await;
        assert_eq!((answer.status.as_u16(), answer.header("idempotent-replayed")), (200, ""));
    }
}

#[tokio::test]
async fn a2_a_name_is_good_for_one_request() {
    let app = TestApp::start(keeping(SettleMode::After), |_| Script::json("{\"a\":1}")).await;
    assert_eq!(GET.buy(&app, 1).await.status, 200);
    let post = |target, body| Asked { method: "POST", target, body, key: Some("k") };
    for other in [
        Asked { target: "/premium/b", ..GET },
        Asked { target: "/premium/a?x=1", ..GET },
        post("/flat", ""),
    ] {
        let payment = other.quote(&app, 2).await;
        let refused = other.pay(&app, &payment).await;
        refused.assert_problem(409, "idempotency_key_reused");
        assert_eq!(refused.header("x-should-retry"), "false");
        assert!(refused.json().get("receipt").is_none(), "{refused:?}");
        assert!(refused.headers.get("retry-after").is_none());
    }
    assert_taken(&app, 1).await;
    // What was refused for its name is as good as new under another.
    let other = Asked { key: Some("l"), ..post("/flat", "") };
    assert_eq!(other.buy(&app, 2).await.status, 200);
    let changed_body = Asked { body: "{}", ..other };
    changed_body.buy(&app, 3).await.assert_problem(409, "idempotency_key_reused");
    assert_taken(&app, 2).await;
}

#[tokio::test]
async fn while_it_runs_a_request_may_be_asked_again_later() {
    let gate = Arc::new(Gate::default());
    let wait = Arc::clone(&gate);
    let decide = move |_: &_| {
        let parts = vec![Part::Wait(Arc::clone(&wait)), Part::text("{\"a\":1}")];
        Script::new(StatusCode::OK, "application/json", parts)
    };
    let app = Arc::new(TestApp::start(keeping(SettleMode::After), decide).await);
    let payment = GET.quote(&app, 1).await;
    let mut first = JoinSet::new();
    let (one, header) = (Arc::clone(&app), payment.clone());
    first.spawn(async move { GET.pay(&one, &header).await });
    gate.reached_by(1).await;
    for again in [GET.pay(&app, &payment).await, GET.buy(&app, 2).await] {
        again.assert_problem(409, "payment_in_progress");
        assert_eq!(again.header("retry-after"), "2");
        // SDKs repeat a 409 by themselves, with the same header: that costs nothing here.
        assert!(!again.headers.contains_key("x-should-retry"), "{again:?}");
    }
    // Without the header, they would buy a second time.
    let bare = Asked { key: None, ..GET };
    assert_eq!(bare.pay(&app, &payment).await.header("x-should-retry"), "false");
    gate.open();
    let first = first.join_next().await.unwrap().unwrap();
    assert_eq!(first.status, 200);
    assert_replayed(&GET.buy(&app, 2).await, &first);
    assert_taken(&app, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_many_payments_of_one_name_at_once_are_one_charge() {
    for settle in [SettleMode::After, SettleMode::Before, SettleMode::Background] {
        let app = Arc::new(TestApp::start(keeping(settle), |_| Script::json("{\"a\":1}")).await);
        let mut requests = JoinSet::new();
        for nonce in 1..=50 {
            let app = Arc::clone(&app);
            requests.spawn(async move { GET.buy(&app, nonce).await });
        }
        let mut grants = 0;
        while let Some(answer) = requests.join_next().await {
            let answer = answer.unwrap();
            let replayed = answer.headers.contains_key("idempotent-replayed");
            match answer.status.as_u16() {
                200 if replayed => assert_eq!(answer.header("x-farebox-charged"), "0"),
                200 => grants += 1,
                _ if answer.header("retry-after").is_empty() => {
                    answer.assert_problem(409, "already_answered");
                }
                _ => answer.assert_problem(409, "payment_in_progress"),
            }
        }
        assert_eq!(grants, 1, "{settle:?}");
        assert_taken(&app, 1).await;
    }
}

#[tokio::test]
async fn a_name_is_its_payers_alone() {
    let app = TestApp::start(keeping(SettleMode::After), |_| Script::json("{\"a\":1}")).await;
    let first = GET.buy(&app, 1).await;
    assert_eq!(first.status, 200);
    // Another payer has names of its own.
    let other = EvmKey::from_bytes([0x43; 32]).unwrap();
    let required = app.ask("GET", PATH, "").await.required();
    let payment = header::encode(&app.payload(&other, &required.accepts[0], [2; 32])).unwrap();
    let answer = GET.pay(&app, &payment).await;
    assert_eq!((answer.status.as_u16(), answer.header("idempotent-replayed")), (200, ""));
    assert_ne!(answer.header("farebox-receipt"), first.header("farebox-receipt"));
    assert_taken(&app, 2).await;
    // Who says that it is the payer, and is not, learns nothing: not even whether there is such a name.
    let forge = |nonce: u8| {
        let payload = app.payload(&other, &required.accepts[0], [nonce; 32]);
        let payer = app.buyer.address().to_string();
        changed(&header::encode(&payload).unwrap(), |it| {
            it["payload"]["authorization"]["from"] = payer.into();
        })
    };
    let unknown = Asked { key: Some("unknown"), ..GET };
    for (asked, nonce) in [(GET, 3), (unknown, 4)] {
        let refused = asked.pay(&app, &forge(nonce)).await;
        refused.assert_problem(402, "payment_required");
        assert!(!refused.headers.contains_key("farebox-receipt"), "{refused:?}");
    }
    // Nor does who has seen the payment on its chain.
    let payment = header::encode(&app.payload(&app.buyer, &required.accepts[0], [1; 32])).unwrap();
    let refused = GET.pay(&app, &payment).await;
    refused.assert_problem(409, "payment_already_used");
    assert!(!refused.headers.contains_key("farebox-receipt"), "{refused:?}");
    assert_taken(&app, 2).await;
}

#[tokio::test]
async fn a1_the_very_payment_gets_the_kept_answer_again_with_what_shows_that_it_is_paid() {
    let app = TestApp::start(keeping(SettleMode::Background), |_| Script::json("{\"a\":1}")).await;
    let bare = Asked { key: None, ..GET };
    let payment = bare.quote(&app, 1).await;
    let first = bare.pay(&app, &payment).await;
    assert_eq!(first.settlement(), None);
    assert_taken(&app, 1).await;
    let again = bare.pay(&app, &payment).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &first.body));
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert!(!again.headers.contains_key("x-farebox-charged"));
    let settlement = again.settlement().unwrap();
    assert_eq!((settlement.success, settlement.amount.unwrap().units()), (true, FLAT));
    assert_eq!(again.header("farebox-receipt"), first.header("farebox-receipt"));
    app.clock.advance(KEEP.span);
    let over = bare.pay(&app, &payment).await;
    over.assert_problem(409, "payment_already_used");
    assert_eq!(over.settlement().unwrap(), settlement);
    assert_taken(&app, 1).await;
}

#[tokio::test]
async fn a_stream_is_kept_to_its_end_whether_or_not_its_client_stays() {
    for settle in [SettleMode::After, SettleMode::Before] {
        let gate = Arc::new(Gate::default());
        let script = Script::events(vec![
            Part::text(&event("hel")),
            Part::Wait(Arc::clone(&gate)),
            Part::text(&event("lo")),
            Part::text(DONE),
        ]);
        let app = TestApp::start(keeping(settle), move |_| script.clone()).await;
        let body = chat(true);
        let post = Asked { method: "POST", target: CHAT, body: &body, key: Some("k") };
        let payment = post.quote(&app, 1).await;
        let request = app.request("POST", CHAT, &body).header("payment-signature", payment);
        let mut response = request.header("idempotency-key", "k").send().await.unwrap();
        let receipt = response.headers()["farebox-receipt"].clone();
        assert!(response.chunk().await.unwrap().is_some());
        drop(response);
        gate.open();
        app.until_states(&["settled"]).await;
        let again = loop {
            let again = post.buy(&app, 2).await;
            if again.status == StatusCode::OK {
                break again;
            }
            // A stream that was paid for before is settled before it ends.
            assert_eq!(settle, SettleMode::Before);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(again.header("content-type"), "text/event-stream");
        assert_eq!(again.headers["farebox-receipt"], receipt);
        assert_eq!(again.header("idempotent-replayed"), "true");
        let (before, after) = again.body.split_once(": farebox-receipt ").unwrap();
        assert_eq!(before, event("hel") + &event("lo"));
        assert!(after.ends_with(DONE), "{after}");
        assert_eq!((app.received(), app.facilitator.landed()), (1, 1));
    }
}

#[tokio::test]
async fn a_stream_that_broke_off_is_not_kept() {
    let gate = Arc::new(Gate::default());
    let wait = Part::Wait(Arc::clone(&gate));
    let script = Script::events(vec![Part::text(&event("hel")), wait, Part::Break]);
    let app = TestApp::start(keeping(SettleMode::After), move |_| script.clone()).await;
    let body = chat(true);
    let post = Asked { method: "POST", target: CHAT, body: &body, key: Some("k") };
    let payment = post.quote(&app, 1).await;
    let request = app.request("POST", CHAT, &body).header("payment-signature", payment);
    let response = request.header("idempotency-key", "k").send().await.unwrap();
    gate.open();
    assert!(response.text().await.is_err());
    app.until_states(&["settled"]).await;
    post.buy(&app, 2).await.assert_problem(409, "already_answered");
    assert_eq!((app.received(), app.facilitator.landed()), (1, 1));
}

#[tokio::test]
async fn what_was_given_back_may_be_paid_for_again_under_its_name() {
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = Arc::clone(&down);
    let app = TestApp::start(keeping(SettleMode::After), move |_| {
        if state.load(std::sync::atomic::Ordering::SeqCst) {
            Script::new(StatusCode::SERVICE_UNAVAILABLE, "text/plain", vec![Part::text("no")])
        } else {
            Script::json("{}")
        }
    })
    .await;
    let first = GET.quote(&app, 1).await;
    assert_eq!(GET.pay(&app, &first).await.status, 503);
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    let bought = GET.buy(&app, 2).await;
    assert_eq!(bought.status, 200);
    // The first, though nothing was taken for it, comes too late.
    assert_replayed(&GET.pay(&app, &first).await, &bought);
    app.until_states(&["released", "settled"]).await;
    assert_eq!(app.facilitator.landed(), 1);
}

#[tokio::test]
async fn a27_while_nobody_knows_whether_it_settled_nothing_more_is_taken() {
    let limits = Limits { settle_wait: Duration::from_millis(100), ..Setup::default().limits };
    let setup = Setup { limits, ..keeping(SettleMode::After) };
    let app = TestApp::start(setup, |_| Script::json("{\"a\":1}")).await;
    let gate = Arc::new(Gate::default());
    app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
    GET.buy(&app, 1).await.assert_problem(503, "settlement_pending");
    let again = GET.buy(&app, 2).await;
    again.assert_problem(409, "payment_in_progress");
    assert!(!again.header("retry-after").is_empty());
    gate.open();
    app.until_states(&["settled"]).await;
    // Its answer was given up: it is owed back, and shown to be.
    let over = GET.buy(&app, 3).await;
    over.assert_problem(409, "already_answered");
    assert_taken(&app, 1).await;
}

#[tokio::test]
async fn a31_a_name_outlives_the_process_and_an_answer_does_not() {
    let app = TestApp::start(keeping(SettleMode::After), |_| Script::json("{\"a\":1}")).await;
    let first = GET.buy(&app, 1).await;
    assert_eq!(first.status, 200);
    let (ledger, files) = app.shutdown().await;
    drop(ledger);
    let decide = |_: &_| Script::json("{\"a\":2}");
    let app = TestApp::start_in(files, keeping(SettleMode::After), decide).await;
    assert_receipt(&GET.buy(&app, 2).await, &first);
    assert_eq!((app.received(), app.facilitator.landed()), (0, 0));
    assert_eq!(app.states().await, ["settled"]);
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_before_anything_is_paid() {
    let app = TestApp::start(keeping(SettleMode::After), |_| Script::json("{}")).await;
    for bad in ["", "two words", "\"open", &"x".repeat(256)] {
        let request = app.request("GET", PATH, "").header("idempotency-key", bad);
        TestApp::send(request).await.assert_problem(400, "malformed_request");
    }
    let twice = app.request("GET", PATH, "").header("idempotency-key", "a");
    let twice = twice.header("idempotency-key", "b");
    TestApp::send(twice).await.assert_problem(400, "malformed_request");
    let bare = Asked { key: None, ..GET };
    let payment = bare.quote(&app, 1).await;
    for bad in ["short", "pay_7d5d747be160e28 !", &"a".repeat(129)] {
        let refused = bare.pay(&app, &identified(&payment, bad)).await;
        refused.assert_problem(400, "malformed_payment");
        assert!(refused.json()["detail"].as_str().unwrap().contains("payment-identifier"));
    }
    assert!(app.payments().await.is_empty());
    assert_eq!(bare.pay(&app, &payment).await.status, 200);
}

#[tokio::test]
async fn a_v1_payment_that_can_be_read_on_its_chain_shows_no_answer() {
    let app = TestApp::start(keeping(SettleMode::After), |_| Script::json("{\"a\":1}")).await;
    let v1 = |payment: &str| {
        changed(payment, |it| {
            let payload = it["payload"].clone();
            *it = json!({
                "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload,
            });
        })
    };
    let pay = async |payment: &str| {
        let request = app.request("GET", PATH, "").header("x-payment", payment);
        TestApp::send(request.header("idempotency-key", "k")).await
    };
    let payment = v1(&GET.quote(&app, 1).await);
    let first = pay(&payment).await;
    assert_eq!(first.status, 200, "{first:?}");
    let again = pay(&payment).await;
    again.assert_problem(409, "payment_already_used");
    assert!(!again.header("x-payment-response").is_empty(), "{again:?}");
    assert_replayed(&pay(&v1(&GET.quote(&app, 2).await)).await, &first);
    assert_taken(&app, 1).await;
}
