//! A27: facilitators that lie, fail and dawdle. Never a false grant.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use farebox_chains::{
    ChainReader, Facilitator, FacilitatorError, Lookup, NotAdmitted, RemoteConfig,
    RemoteFacilitator, SettleError, Verification, sign_eip2612_permit,
};
use farebox_devnet::Mining;
use farebox_protocol::wire::SettleRequest;
use farebox_protocol::{Amount, Reason};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::contract_payers::{
    future_wallet, pay_by_future_wallet, pay_by_wallet, pay_with_nonsense,
};
use crate::support::{
    CHAIN, TOKEN, World, altered, at_amount, demand, demand_by_permit2, facilitator,
    network_config, now, pay, pay_by_permit2, payer, use_tls,
};

const HASH: &str = "0xa7227545fdf08b8326e0d1290123ab278f47b25910dbe239b8a9a6d8c019f32c";

/// What a facilitator answers to everything.
#[derive(Clone, Debug)]
enum Script {
    Answer(u16, String),
    /// A byte now and then, for ever.
    Dawdle,
    /// Somewhere else, where money would be found.
    Redirect(String),
    /// This to whoever sends the header `authorization` so, else a problem with 401.
    Known(String, String),
}

struct Fake {
    url: String,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Fake {
    async fn start(script: Script) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::new(script));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let serving = axum::serve(listener, router);
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { serving.await }));
        Self { url, stop, tasks }
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn answer(State(script): State<Arc<Script>>, headers: HeaderMap) -> Response {
    match &*script {
        Script::Known(authorization, body) => {
            if headers.get("authorization").is_some_and(|it| it == authorization) {
                return body.clone().into_response();
            }
            let problem = json!({ "type": "urn:farebox:problem:unauthorized", "status": 401 });
            (StatusCode::UNAUTHORIZED, problem.to_string()).into_response()
        }
        Script::Answer(status, body) => {
            (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response()
        }
        Script::Redirect(to) => {
            (StatusCode::TEMPORARY_REDIRECT, [("location", to.clone())]).into_response()
        }
        Script::Dawdle => {
            let bytes = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Ok::<_, std::io::Error>(" "), ()))
            });
            Body::from_stream(bytes).into_response()
        }
    }
}

fn remote(urls: &[&str], reader: Option<ChainReader>) -> RemoteFacilitator {
    known_remote(urls, reader, None).unwrap()
}

fn known_remote(
    urls: &[&str],
    reader: Option<ChainReader>,
    key: Option<&str>,
) -> Result<RemoteFacilitator, FacilitatorError> {
    use_tls();
    let bearer = key.map(SecretString::from);
    let urls = urls.iter().map(|it| it.parse().unwrap()).collect();
    let timeout = Duration::from_millis(1_500);
    RemoteFacilitator::new(RemoteConfig { urls, timeout, bearer }, reader)
}

fn success() -> Value {
    json!({
        "success": true,
        "transaction": HASH,
        "network": CHAIN,
        "payer": payer().address().to_string(),
    })
}

fn with(mut body: Value, key: &str, value: Value) -> Script {
    body[key] = value;
    Script::Answer(200, body.to_string())
}

/// The outcome in short.
async fn settle(script: Script) -> String {
    settle_this(&pay(&payer(), &demand(1_000), 1), script).await
}

async fn settle_this(request: &SettleRequest, script: Script) -> String {
    let fake = Fake::start(script).await;
    let result = remote(&[&fake.url], None).settle(request, now()).await;
    fake.end().await;
    match result {
        Ok(settlement) => format!("settled {}", settlement.transaction),
        Err(SettleError::Rejected { reason, .. }) => format!("rejected {reason}"),
        Err(SettleError::NotServed { reason, .. }) => format!("not served {reason}"),
        Err(SettleError::NotSent(_)) => "not sent".to_owned(),
        Err(SettleError::Unknown { transaction }) => {
            format!("unknown {}", transaction.unwrap_or_default())
        }
    }
}

#[tokio::test]
async fn who_asks_with_a_key_shows_it_and_without_it_nothing_is_sent() {
    let known = || Script::Known("Bearer key of ours".to_owned(), success().to_string());
    let request = pay(&payer(), &demand(1_000), 1);
    for (key, settles) in [(Some("key of ours"), true), (Some("another"), false), (None, false)] {
        let fake = Fake::start(known()).await;
        let remote = known_remote(&[&fake.url], None, key).unwrap();
        let result = remote.settle(&request, now()).await;
        fake.end().await;
        match result {
            Ok(settlement) => assert!(settles, "{settlement:?}"),
            Err(SettleError::NotSent(_)) => assert!(!settles),
            Err(error) => panic!("{error:?}"),
        }
        assert!(!format!("{remote:?}").contains("key of ours"), "{remote:?}");
    }
    let error = known_remote(&["https://a.example"], None, Some("a\nb")).unwrap_err();
    assert!(error.to_string().contains("cannot stand in a header"), "{error}");
    assert!(!format!("{error:?}").contains("a\\nb"), "{error:?}");
}

/// Before the first payment does.
#[tokio::test]
async fn a_caller_who_is_not_let_in_is_told_so() {
    let open = Fake::start(Script::Answer(400, "{}".to_owned())).await;
    let keyed = Fake::start(Script::Known("Bearer key of ours".to_owned(), "{}".to_owned())).await;
    let gone = "http://127.0.0.1:1/";
    let status = 401;
    let host = keyed.url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    for (key, expected) in [
        (Some("key of ours"), None),
        (Some("another"), Some(NotAdmitted::WrongKey { host: host.clone(), status })),
        (None, Some(NotAdmitted::NoKey { host, status })),
    ] {
        let remote = known_remote(&[&open.url, gone, &keyed.url], None, key).unwrap();
        let found = remote.check().await;
        assert_eq!(found, Vec::from_iter(expected), "{key:?}");
        assert!(found.iter().all(|it| !it.to_string().contains("another")), "{found:?}");
    }
    keyed.end().await;
    open.end().await;
}

#[tokio::test]
async fn a27_only_a_success_that_fits_is_one() {
    let settled = format!("settled {HASH}");
    let good = || Script::Answer(200, success().to_string());
    assert_eq!(settle(good()).await, settled);
    let without = |key: &str| {
        let mut body = success();
        body.as_object_mut().unwrap().remove(key);
        Script::Answer(200, body.to_string())
    };
    assert_eq!(settle(without("payer")).await, settled);
    for lie in [
        with(success(), "transaction", json!("")),
        with(success(), "transaction", json!("0x12")),
        with(success(), "transaction", json!(format!("0x{}", "zz".repeat(32)))),
        without("transaction"),
        with(success(), "network", json!("eip155:8453")),
        with(success(), "network", json!("base")),
        without("network"),
        with(success(), "payer", json!("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")),
        with(success(), "payer", json!("nobody")),
        with(success(), "amount", json!("999")),
        with(success(), "errorReason", json!("settlement_pending")),
        with(success(), "success", json!("true")),
        Script::Answer(200, "true".to_owned()),
        Script::Answer(200, String::new()),
        Script::Answer(200, "<html>".to_owned()),
        Script::Answer(200, format!("{}{}", " ".repeat(300_000), success())),
        Script::Answer(502, "bad gateway".to_owned()),
        Script::Answer(503, String::new()),
        Script::Dawdle,
    ] {
        let shown = format!("{lie:?}");
        assert_eq!(settle(lie).await, "unknown ", "{}", shown.get(..200).unwrap_or(&shown));
    }
}

#[tokio::test]
async fn a27_upto_is_settled_at_what_was_asked_for() {
    let ceiling = demand_by_permit2(5_000, Some(&facilitator()));
    let request = pay_by_permit2(&payer(), &ceiling, 1);
    let says = |amount: &str, transaction: &str| {
        let mut body = success();
        body["amount"] = json!(amount);
        body["transaction"] = json!(transaction);
        Script::Answer(200, body.to_string())
    };
    let some = at_amount(&request, 12);
    assert_eq!(settle_this(&some, says("12", HASH)).await, format!("settled {HASH}"));
    for (amount, transaction) in [("13", HASH), ("5000", HASH), ("12", ""), ("0", "")] {
        assert_eq!(settle_this(&some, says(amount, transaction)).await, "unknown ");
    }
    // Nothing moves, so there is no transaction.
    let nothing = at_amount(&request, 0);
    assert_eq!(settle_this(&nothing, says("0", "")).await, "settled ");
    assert_eq!(settle_this(&nothing, says("0", HASH)).await, "unknown ");
    assert_eq!(settle_this(&nothing, says("1", "")).await, "unknown ");
    let refused = |reason: &str| {
        let body = json!({
            "success": false, "errorReason": reason, "transaction": "", "network": CHAIN,
        });
        Script::Answer(200, body.to_string())
    };
    let required = "permit2_allowance_required";
    assert_eq!(settle_this(&some, refused(required)).await, format!("rejected {required}"));
    // By its own settlement, perhaps.
    assert_eq!(settle_this(&some, refused("permit2_invalid_nonce")).await, "unknown ");
}

#[tokio::test]
async fn failures_are_told_apart_by_what_to_do() {
    let failure = |reason: &str, transaction: &str| {
        let body = json!({
            "success": false, "errorReason": reason, "transaction": transaction, "network": CHAIN,
        });
        Script::Answer(200, body.to_string())
    };
    assert_eq!(settle(failure("insufficient_funds", "")).await, "rejected insufficient_funds");
    assert_eq!(settle(failure("brand_new", "")).await, "rejected brand_new");
    // What it verified once, it does not know now: it may again.
    for reason in ["invalid_network", "unsupported_scheme", "upto_facilitator_mismatch"] {
        assert_eq!(settle(failure(reason, "")).await, format!("not served {reason}"));
    }
    let pending = failure("settlement_pending", HASH);
    assert_eq!(settle(pending).await, format!("unknown {HASH}"));
    assert_eq!(settle(failure("unexpected_settle_error", "")).await, "not sent");
    assert_eq!(settle(failure("paused_by_owner", "")).await, "rejected paused_by_owner");
    // Used by whom? By a transaction of this very payment, for all that is known.
    for used in [
        "invalid_exact_evm_nonce_already_used",
        "nonce_already_used",
        "authorization_used",
        "duplicate_settlement",
        "invalid_exact_evm_transaction_failed",
        "transaction_failed",
    ] {
        assert_eq!(settle(failure(used, "")).await, "unknown ", "{used}");
    }
    let sent = failure("invalid_exact_evm_transaction_simulation_failed", HASH);
    assert_eq!(settle(sent).await, format!("unknown {HASH}"));
    for (message, expected) in [
        ("FiatTokenV2: authorization is used or canceled", "unknown "),
        ("Pausable: paused", "rejected simulation_failed"),
    ] {
        let body = json!({
            "success": false, "errorReason": "simulation_failed", "errorMessage": message,
            "transaction": "", "network": CHAIN,
        });
        assert_eq!(settle(Script::Answer(200, body.to_string())).await, expected, "{message}");
    }
    let doubtful = failure("unexpected_settle_error", HASH);
    assert_eq!(settle(doubtful).await, format!("unknown {HASH}"));
    assert_eq!(settle(Script::Answer(429, "slow down".to_owned())).await, "not sent");
    assert_eq!(settle(Script::Answer(404, String::new())).await, "not sent");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Fake::start(Script::Answer(200, success().to_string())).await;
    let script = Script::Redirect(target.url.clone());
    assert_eq!(settle(script).await, "unknown ");
    target.end().await;
}

#[tokio::test]
async fn the_next_one_is_asked_only_if_certainly_nothing_was_sent() {
    let good = Fake::start(Script::Answer(200, success().to_string())).await;
    let broken = Fake::start(Script::Answer(502, String::new())).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let dead = "http://127.0.0.1:1/";
    let result = remote(&[dead, &good.url], None).settle(&request, now()).await;
    assert_eq!(result.unwrap().transaction, HASH);
    let result = remote(&[&broken.url, &good.url], None).settle(&request, now()).await;
    assert!(matches!(result, Err(SettleError::Unknown { transaction: None })), "{result:?}");
    let result = remote(&[dead], None).settle(&request, now()).await;
    assert!(matches!(result, Err(SettleError::NotSent(_))), "{result:?}");
    good.end().await;
    broken.end().await;
}

#[tokio::test]
async fn verification_asks_on_and_believes_no_other_payer() {
    let request = pay(&payer(), &demand(1_000), 1);
    let from = payer().address().to_string();
    let broken = Fake::start(Script::Answer(502, String::new())).await;
    let honest = json!({"isValid": true, "payer": from, "invalidReason": null});
    let honest = Fake::start(Script::Answer(200, honest.to_string())).await;
    let valid = Verification::Valid { payer: from, collectable: None };
    let both = remote(&[&broken.url, &honest.url], None);
    assert_eq!(both.verify(&request, now()).await.unwrap(), valid);
    for (status, body, refused) in [
        (
            200,
            json!({"isValid": true, "payer": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"}),
            false,
        ),
        (200, json!({"isValid": "true"}), false),
        (200, json!({"isValid": false, "invalidReason": "unexpected_verify_error"}), false),
        (200, json!({"isValid": false, "invalidReason": "invalid_payload"}), true),
        (400, json!({"isValid": false, "invalidReason": "insufficient_funds"}), true),
    ] {
        let fake = Fake::start(Script::Answer(status, body.to_string())).await;
        let result = remote(&[&fake.url], None).verify(&request, now()).await;
        let was_refused = matches!(result, Ok(Verification::Invalid { .. }));
        assert!(was_refused == refused && was_refused == result.is_ok(), "{body}: {result:?}");
        fake.end().await;
    }
    let lookup = remote(&[&broken.url], None).lookup(&request, now()).await;
    assert_eq!(lookup.unwrap(), Lookup::CannotTell);
    broken.end().await;
    honest.end().await;
}

#[tokio::test]
async fn a27_a_payment_is_checked_here_before_anybody_is_believed() {
    let liar = json!({"isValid": true, "payer": payer().address().to_string()});
    let liar = Fake::start(Script::Answer(200, liar.to_string())).await;
    let client = remote(&[&liar.url], None);
    let good = pay(&payer(), &demand(1_000), 1);
    let verification = client.verify(&good, now()).await.unwrap();
    assert!(matches!(verification, Verification::Valid { .. }), "{verification:?}");
    let authorization = |field: &'static str, value: &'static str| {
        altered(&good, |it| {
            it["paymentPayload"]["payload"]["authorization"][field] = json!(value);
        })
    };
    let expected = Reason::InvalidExactEvmPayloadAuthorizationValueMismatch;
    for (request, at, expected) in [
        (authorization("value", "1"), now(), expected.clone()),
        (authorization("value", "1000000"), now(), expected),
        (authorization("to", TOKEN), now(), Reason::InvalidExactEvmRecipientMismatch),
        (
            good.clone(),
            now().plus(Duration::from_hours(1)),
            Reason::InvalidExactEvmPayloadAuthorizationValidBefore,
        ),
    ] {
        let verification = client.verify(&request, at).await.unwrap();
        let Verification::Invalid { reason, .. } = verification else { panic!("{expected}") };
        assert_eq!(reason, expected);
    }
    liar.end().await;
}

#[tokio::test]
async fn a27_with_a_chain_to_ask_nobody_is_believed_what_a_contract_says() {
    let world = World::start(Mining::Instant, 1).await;
    let wallet = world.honest_wallet().await;
    let liar = json!({"isValid": true});
    let liar = Fake::start(Script::Answer(200, liar.to_string())).await;
    let client = remote(&[&liar.url], Some(reader(&world, world.devnet.url())));
    let good = pay_by_wallet(wallet, &demand(1_000), 1);
    let verification = client.verify(&good, now()).await.unwrap();
    assert!(matches!(verification, Verification::Valid { .. }), "{verification:?}");
    for account in [wallet, payer().address().as_bytes().into()] {
        let forged = pay_with_nonsense(account, &demand(1_000), 2);
        let verification = client.verify(&forged, now()).await.unwrap();
        let Verification::Invalid { reason, .. } = verification else { panic!("{verification:?}") };
        assert_eq!(reason, Reason::InvalidExactEvmSignature);
    }
    // Which wallets are deployed is for the facilitator to say, who pays for it.
    let future = future_wallet(1);
    world.devnet.set_token_balance(future.address, 1_000);
    let undeployed = pay_by_future_wallet(&future, &demand(1_000), 3);
    let verification = client.verify(&undeployed, now()).await.unwrap();
    assert!(matches!(verification, Verification::Valid { .. }), "{verification:?}");
    liar.end().await;
    world.end().await;
}

#[tokio::test]
async fn a11_a_malleable_signature_is_refused_before_anybody_is_asked() {
    let nobody = remote(&["http://127.0.0.1:1/"], None);
    let good = pay(&payer(), &demand(1_000), 1);
    assert!(nobody.verify(&good, now()).await.is_err());
    for change in [
        |signature: &str| signature.get(..130).unwrap().to_owned(),
        |signature: &str| format!("{}00", signature.get(..130).unwrap()),
        |signature: &str| format!("{}01", signature.get(..130).unwrap()),
        |signature: &str| format!("0x{}", signature.get(2..).unwrap().repeat(64)),
    ] {
        let forged = altered(&good, |it| {
            let place = it.pointer_mut("/paymentPayload/payload/signature").unwrap();
            *place = json!(change(place.as_str().unwrap()));
        });
        let verification = nobody.verify(&forged, now()).await.unwrap();
        let Verification::Invalid { reason, .. } = verification else { panic!("{verification:?}") };
        assert_eq!(reason, Reason::InvalidExactEvmSignature);
    }
}

#[tokio::test]
async fn a05_a_chain_to_ask_tells_what_can_be_collected() {
    let world = World::start(Mining::Instant, 1).await;
    let from = payer().address().to_string();
    let honest = json!({"isValid": true, "payer": from});
    let honest = Fake::start(Script::Answer(200, honest.to_string())).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let client = remote(&[&honest.url], Some(reader(&world, world.devnet.url())));
    let valid = |units| Verification::Valid {
        payer: from.clone(),
        collectable: Some(Amount::from_units(units)),
    };
    let balance = valid(world.balance(&from).await);
    assert_eq!(client.verify(&request, now()).await.unwrap(), balance);
    // Of what Permit2 is to move, no more than it may.
    let by_permit2 = demand_by_permit2(1_000, None);
    let request = pay_by_permit2(&payer(), &by_permit2, 2);
    assert_eq!(client.verify(&request, now()).await.unwrap(), valid(0));
    let deadline = now().plus(Duration::from_mins(6));
    let permit = sign_eip2612_permit(&payer(), &by_permit2, 0, deadline).unwrap();
    let permitted = altered(&request, |it| {
        it["paymentPayload"]["extensions"] = json!({"eip2612GasSponsoring": {"info": permit}});
    });
    assert_eq!(client.verify(&permitted, now()).await.unwrap(), valid(1_000));
    world.approve_permit2().await;
    assert_eq!(client.verify(&request, now()).await.unwrap(), balance);
    let blind = remote(&[&honest.url], Some(reader(&world, "http://127.0.0.1:1".to_owned())));
    assert!(blind.verify(&request, now()).await.is_err());
    honest.end().await;
    world.end().await;
}

fn reader(world: &World, url: String) -> ChainReader {
    let config = vec![network_config(&[url])];
    ChainReader::new(config, world.tasks.clone(), world.stop.clone()).unwrap()
}

#[tokio::test]
async fn a_refusal_is_believed_only_where_the_chain_does_not_contradict() {
    let world = World::start(Mining::Instant, 1).await;
    let refusal = |reason: &str| {
        let body =
            json!({"success": false, "errorReason": reason, "transaction": "", "network": CHAIN});
        Script::Answer(200, body.to_string())
    };
    let plain = Fake::start(refusal("insufficient_funds")).await;
    let used = Fake::start(refusal("nonce_already_used")).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let sees = || Some(reader(&world, world.devnet.url()));
    let blind = || Some(reader(&world, "http://127.0.0.1:1".to_owned()));
    let settle = async |fake: &Fake, reader| {
        remote(&[&fake.url], reader).settle(&request, now()).await.unwrap_err()
    };
    let unknown = |it: SettleError| matches!(it, SettleError::Unknown { transaction: None });
    let rejected = |it: SettleError| matches!(it, SettleError::Rejected { .. });
    assert!(rejected(settle(&plain, sees()).await));
    assert!(unknown(settle(&plain, blind()).await));
    assert!(unknown(settle(&used, sees()).await));
    assert!(unknown(settle(&used, blind()).await));
    world.devnet.increase_time(600);
    world.devnet.mine();
    assert!(rejected(settle(&plain, sees()).await));
    assert!(rejected(settle(&used, sees()).await));
    plain.end().await;
    used.end().await;
    world.end().await;
}

#[tokio::test]
async fn supported_is_read_as_official_facilitators_write_it() {
    let body = json!({
        "kinds": [
            {"x402Version": 2, "scheme": "exact", "network": CHAIN, "extra": null},
            {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"},
        ],
        "signers": {"eip155:*": ["0x209693Bc6afc0C5328bA36FaF03C514EF312287C"]},
    });
    let fake = Fake::start(Script::Answer(200, body.to_string())).await;
    let supported = remote(&[&fake.url], None).supported().await.unwrap();
    assert_eq!(supported.kinds.len(), 2);
    fake.end().await;
}

#[tokio::test]
async fn a27_with_a_chain_to_ask_no_lie_is_believed() {
    let world = World::start(Mining::Instant, 1).await;
    let config = vec![network_config(&[world.devnet.url()])];
    let reader = ChainReader::new(config, world.tasks.clone(), world.stop.clone()).unwrap();
    assert!(reader.check().await.is_empty());
    let liar = Fake::start(Script::Answer(200, success().to_string())).await;
    let refuser = json!({"success": false, "errorReason": "invalid_payload", "transaction": "", "network": CHAIN});
    let refuser = Fake::start(Script::Answer(200, refuser.to_string())).await;
    let (liar_client, refuser_client) =
        (remote(&[&liar.url], Some(reader.clone())), remote(&[&refuser.url], Some(reader)));

    let request = pay(&payer(), &demand(1_000), 1);
    let result = liar_client.settle(&request, now()).await;
    let Err(SettleError::Unknown { transaction }) = result else { panic!("{result:?}") };
    assert_eq!(transaction.as_deref(), Some(HASH));
    assert_eq!(liar_client.lookup(&request, now()).await.unwrap(), Lookup::Open);
    let result = refuser_client.settle(&request, now()).await;
    assert!(matches!(result, Err(SettleError::Rejected { .. })), "{result:?}");

    // It really moves now: the chain names the transaction, whatever anybody claims or denies.
    let truth = world.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(liar_client.settle(&request, now()).await.unwrap(), truth);
    assert_eq!(refuser_client.settle(&request, now()).await.unwrap(), truth);
    assert_eq!(refuser_client.lookup(&request, now()).await.unwrap(), Lookup::Landed(truth));
    liar.end().await;
    refuser.end().await;
    world.end().await;
}
