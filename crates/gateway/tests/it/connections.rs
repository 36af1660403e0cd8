//! Connections that give nothing, take nothing, or are too many (attack A32).

use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::Limits;
use farebox_testkit::facilitator::OnVerify;
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Script};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::app::{Setup, TestApp, chat};
use crate::faults::{Fault, Operation};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);
const PATH: &str = "/v1/chat/completions";
const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hel\"}}]}\n\n";
/// Something free that needs nobody.
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n";

async fn app(limits: Limits) -> TestApp {
    TestApp::start(Setup { limits, ..Setup::default() }, |_| Script::json("{}")).await
}

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.address()).await.unwrap()
}

/// Whether a request is answered on this connection.
async fn is_served(stream: &mut TcpStream) -> bool {
    if stream.write_all(HEALTH).await.is_err() {
        return false;
    }
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(LONG, stream.read(&mut answer)).await.unwrap();
    let length = read.unwrap_or_default();
    answer[..length].starts_with(b"HTTP/1.1 200")
}

/// Reads until the other end closes.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    // An end or a reset: both are one.
    drop(closed.unwrap());
    answer
}

#[tokio::test]
async fn a_connection_may_rest_between_requests_for_longer_than_a_head_may_take() {
    let app = app(Limits { header_timeout: SHORT, ..Limits::STANDARD }).await;
    let mut stream = connect(&app).await;
    for _ in 0..2 {
        assert!(is_served(&mut stream).await);
        // Longer than the bound, on purpose: nothing happens that could be waited for.
        tokio::time::sleep(SHORT * 2).await;
    }
    // A head that has begun is another matter, on an old connection as on a new one.
    assert!(is_served(&mut stream).await);
    stream.write_all(b"GET /healthz HT").await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let limits = Limits { keep_alive: SHORT, write_timeout: SHORT, ..Limits::STANDARD };
    let app = app(limits).await;
    let mut http1 = connect(&app).await;
    assert!(is_served(&mut http1).await);
    assert!(until_closed(&mut http1).await.is_empty());
    let mut http2 = connect(&app).await;
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let said = until_closed(&mut http2).await;
    assert!(!said.starts_with(b"HTTP/1.1"), "{said:?}");
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped_and_charged() {
    let limits = Limits { write_timeout: SHORT, ..Setup::default().limits };
    let setup = Setup { limits, idle_timeout: LONG, ..Setup::default() };
    let parts: Vec<Part> = (0..20_000).map(|_| Part::text(&EVENT.repeat(20))).collect();
    let app = TestApp::start(setup, move |_| {
        let mut parts = parts.clone();
        parts.push(Part::text("data: [DONE]\n\n"));
        Script::events(parts)
    })
    .await;
    let payment = app.quote("POST", PATH, &chat(true), 1).await;
    let mut stream = connect(&app).await;
    let body = chat(true);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: h\r\npayment-signature: {payment}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    app.until_states(&["settled"]).await;
    let seen = until_closed(&mut stream).await;
    assert!(seen.starts_with(b"HTTP/1.1 200"), "it was being served");
    assert!(!seen.ends_with(b"0\r\n\r\n"), "an answer that was cut must not look whole");
}

#[tokio::test]
async fn a32_no_address_takes_the_places_of_all() {
    let app = app(Limits { connections_per_address_max: 2, ..Limits::STANDARD }).await;
    let (mut one, mut two) = (connect(&app).await, connect(&app).await);
    assert!(is_served(&mut one).await && is_served(&mut two).await);
    let mut three = connect(&app).await;
    assert!(!is_served(&mut three).await);
    drop(one);
    let freed = async {
        while !is_served(&mut connect(&app).await).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, freed).await.unwrap();
    assert!(is_served(&mut two).await);
}

#[tokio::test]
async fn a32_connections_above_the_bound_wait_for_a_place() {
    let app = app(Limits { connections_max: 2, ..Limits::STANDARD }).await;
    let (mut one, mut two) = (connect(&app).await, connect(&app).await);
    assert!(is_served(&mut one).await && is_served(&mut two).await);
    let mut three = connect(&app).await;
    let early = tokio::time::timeout(SHORT, is_served(&mut three)).await;
    assert!(early.is_err(), "it was served beside the two: {early:?}");
    drop(one);
    let mut answer = vec![0; 4096];
    let length = tokio::time::timeout(LONG, three.read(&mut answer)).await.unwrap().unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
}

/// The ledger and the chain are away, and nobody who has not paid notices.
#[tokio::test]
async fn a32_a_flood_without_payment_costs_neither_ledger_nor_chain() {
    let setup = Setup::default();
    for operation in [Operation::Lookup, Operation::Admit, Operation::Lease] {
        setup.faults.set(operation, Fault::Unavailable, u32::MAX);
    }
    let app = TestApp::start(setup, |_| Script::json("{}")).await;
    app.facilitator.on_verify(OnVerify::Unreachable);
    let body = chat(false);
    let answers = join_all((0..500).map(|_| app.ask("POST", PATH, &body))).await;
    assert!(answers.iter().all(|it| it.status == 402 && !it.required().accepts.is_empty()));
    assert_eq!((app.facilitator.verifications(), app.received()), (0, 0));
    assert!(app.payments().await.is_empty());
}

#[tokio::test]
async fn a32_few_signatures_are_checked_at_a_time() {
    const PLACES: usize = 128;
    let app = TestApp::answering(Script::json("{}")).await;
    let gate = Arc::new(Gate::default());
    app.facilitator.on_verify(OnVerify::Wait(Arc::clone(&gate)));
    let mut payments = Vec::new();
    for nonce in 0..140 {
        payments.push(app.quote("GET", "/premium/a", "", nonce).await);
    }
    let mut answers: FuturesUnordered<_> =
        payments.iter().map(|it| app.pay("GET", "/premium/a", "", it)).collect();
    for _ in PLACES..payments.len() {
        // Those without a place give up on it in time.
        let answer = answers.next().await.unwrap();
        answer.assert_problem(503, "unavailable");
        assert!(!answer.header("retry-after").is_empty());
    }
    assert_eq!(app.facilitator.verifications(), 128);
    gate.open();
    while let Some(answer) = answers.next().await {
        assert_ne!(answer.status, 503, "{answer:?}");
    }
}
