//! Starting, stopping, and the steps that a crash test can stop at.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use farebox_chains::NetworkReadiness;
use farebox_gateway::{Limits, Mount, PathPattern, Probe, Step};
use farebox_protocol::PaymentId;
use farebox_store::{Ledger as _, SettleMode};
use farebox_testkit::facilitator::OnSettle;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};

use crate::app::{Setup, TestApp, chat};

/// Remembers the steps.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Step>>);

impl Probe for Recorder {
    fn reached(&self, step: Step, _id: PaymentId) {
        self.0.lock().unwrap().push(step);
    }
}

async fn steps(settle: SettleMode, stream: bool) -> Vec<Step> {
    let recorder = Arc::new(Recorder::default());
    let setup = Setup { settle, probe: Arc::<Recorder>::clone(&recorder), ..Setup::default() };
    let app = TestApp::start(setup, move |_| {
        if stream {
            let event = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
            Script::events(vec![Part::text(event), Part::text("data: [DONE]\n\n")])
        } else {
            Script::json("{\"choices\":[{\"message\":{\"content\":\"a\"}}]}")
        }
    })
    .await;
    let answer = app.buy("POST", "/v1/chat/completions", &chat(stream), 1).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    app.until_states(&["settled"]).await;
    app.shutdown().await;
    recorder.0.lock().unwrap().clone()
}

#[tokio::test]
async fn every_mode_takes_its_steps_in_order() {
    use Step::{
        Answered, Captured, Decoded, FirstByte, Held, Metered, Serving, Settled, UpstreamAnswered,
        Verified,
    };
    assert_eq!(
        steps(SettleMode::After, false).await,
        [Decoded, Verified, Held, Serving, UpstreamAnswered, Captured, Settled, Answered]
    );
    assert_eq!(
        steps(SettleMode::Background, false).await,
        [Decoded, Verified, Held, Serving, UpstreamAnswered, Captured, Answered]
    );
    assert_eq!(
        steps(SettleMode::After, true).await,
        [
            Decoded,
            Verified,
            Held,
            Serving,
            UpstreamAnswered,
            Metered,
            FirstByte,
            Captured,
            Answered
        ]
    );
    assert_eq!(
        steps(SettleMode::Before, true).await,
        [
            Decoded,
            Verified,
            Held,
            Captured,
            Settled,
            Serving,
            UpstreamAnswered,
            FirstByte,
            Answered
        ]
    );
}

#[tokio::test]
async fn a_shutdown_finishes_what_runs_even_without_its_client() {
    let gate = Arc::new(Gate::default());
    let wait = Arc::clone(&gate);
    let app = TestApp::start(Setup::default(), move |_| {
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        let end = Part::text("data: [DONE]\n\n");
        Script::events(vec![Part::text(event), Part::Wait(Arc::clone(&wait)), end])
    })
    .await;
    let payment = app.quote("POST", "/v1/chat/completions", &chat(true), 1).await;
    let request = app.request("POST", "/v1/chat/completions", &chat(true));
    let mut response = request.header("payment-signature", payment).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    gate.reached_by(1).await;
    let (ledger, _files) = tokio::join!(app.shutdown(), async {
        tokio::task::yield_now().await;
        gate.open();
    })
    .0;
    let payments = ledger.list(None, 10).await.unwrap();
    assert_eq!(payments.len(), 1);
    assert_eq!(payments[0].state.name(), "settled");
}

#[tokio::test]
async fn an_announced_shutdown_takes_readiness_alone() {
    let app = TestApp::start(Setup::default(), |_| Script::json("{}")).await;
    assert_eq!(app.ask("GET", "/readyz", "").await.status, 200);
    app.leave();
    app.ask("GET", "/readyz", "").await.assert_problem(503, "shutting_down");
    assert_eq!(app.ask("GET", "/healthz", "").await.status, 200);
    assert_eq!(app.buy("GET", "/premium/a", "", 1).await.status, 200);
    app.until_states(&["settled"]).await;
}

/// A network without gas money is named; the gateway is out of service once there is no other.
#[tokio::test]
async fn a_gateway_that_can_settle_nothing_is_not_ready() {
    let app = TestApp::start(Setup::default(), |_| Script::json("{}")).await;
    let of = |network: &str, obstacle: Option<&str>| NetworkReadiness {
        network: network.parse().unwrap(),
        obstacle: obstacle.map(ToOwned::to_owned),
    };
    let dry = "no signer has the gas money: send some to 0xABC";
    app.facilitator.set_readiness(vec![of("eip155:1", Some(dry)), of("eip155:10", None)]);
    let ready = app.ask("GET", "/readyz", "").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    let obstacles = serde_json::json!([{ "network": "eip155:1", "obstacle": dry }]);
    assert_eq!(ready.json(), serde_json::json!({ "status": "ready", "obstacles": obstacles }));
    app.facilitator.set_readiness(vec![of("eip155:1", Some(dry)), of("eip155:10", Some("x"))]);
    let not = app.ask("GET", "/readyz", "").await;
    not.assert_problem(503, "unavailable");
    let told = not.json()["detail"].as_str().unwrap().to_owned();
    assert!(told.contains("eip155:1: no signer") && told.contains("eip155:10: x"), "{told}");
    // It lives all the same, and is ready as soon as there is gas money again.
    assert_eq!(app.ask("GET", "/healthz", "").await.status, 200);
    app.facilitator.set_readiness(vec![of("eip155:1", None), of("eip155:10", None)]);
    assert_eq!(
        app.ask("GET", "/readyz", "").await.json(),
        serde_json::json!({ "status": "ready" })
    );
}

#[tokio::test]
async fn a_shutdown_ends_at_its_time_and_leaves_the_rest_to_recovery() {
    let setup = Setup {
        settle: SettleMode::Background,
        limits: Limits { drain: Duration::from_millis(100), ..Limits::STANDARD },
        ..Setup::default()
    };
    let app = TestApp::start(setup, |_| Script::json("{}")).await;
    let gate = Arc::new(Gate::default());
    app.facilitator.on_settle(OnSettle::Wait(Arc::clone(&gate)));
    assert_eq!(app.buy("GET", "/premium/a", "", 1).await.status, 200);
    gate.reached_by(1).await;
    let (ledger, _files) = app.shutdown().await;
    assert_eq!(ledger.list(None, 10).await.unwrap()[0].state.name(), "settling");
    drop(gate);
}

#[tokio::test]
async fn a_slow_head_is_given_up() {
    let setup = Setup {
        limits: Limits { header_timeout: Duration::from_millis(100), ..Limits::STANDARD },
        ..Setup::default()
    };
    let app = TestApp::start(setup, |_| Script::json("{}")).await;
    for begun in ["", "G", "GET /premium/a HTT", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost:"] {
        let ended = tokio::time::timeout(Duration::from_secs(10), app.raw(begun.as_bytes())).await;
        let answer = ended.expect("the connection was closed");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    let body =
        "POST /flat HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf";
    let answer = app.raw(body.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(app.received(), 0);
}

#[tokio::test]
async fn a_service_beside_the_proxy_has_its_own_paths() {
    let mount = Mount {
        paths: vec![
            PathPattern::Exact("/verify".to_owned()),
            PathPattern::Prefix("/admin/".to_owned()),
        ],
        router: Router::new().route("/verify", post(async |body: String| body)),
    };
    let limits = Limits {
        header_timeout: Duration::from_millis(100),
        request_bytes_max: 1000,
        ..Limits::STANDARD
    };
    let setup = Setup { mounts: vec![mount], limits, ..Setup::default() };
    let app = TestApp::start(setup, |_| Script::json("{}")).await;
    for spelling in ["/verify", "/%76erify"] {
        let answer = app.ask("POST", spelling, "hello").await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "hello"), "{spelling}");
    }
    assert_eq!(app.ask("GET", "/admin/x", "").await.status, 404);
    // Within the bounds that bodies have everywhere.
    let slow =
        b"POST /verify HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf";
    let answer = tokio::time::timeout(Duration::from_secs(10), app.raw(slow)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let large = "x".repeat(limits.request_bytes_max + 1);
    app.ask("POST", "/verify", &large).await.assert_problem(413, "body_too_large");
    app.ask("GET", "/admin//x", "").await.assert_problem(400, "malformed_request");
    assert_eq!(app.received(), 0);
}
