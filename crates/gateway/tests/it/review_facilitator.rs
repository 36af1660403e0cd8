//! The facilitator on a port of its own has the gateway's bounds on slow and many clients.

use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::{FacilitatorParts, FacilitatorServer, Limits, SystemClock};
use farebox_testkit::facilitator::FakeFacilitator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::app::token;
use crate::facilitator_api::trusting;

const HALF_A_HEAD: &[u8] = b"POST /verify HTTP/1.1\r\nhost: a\r\n";
const HALF_A_BODY: &[u8] = b"POST /verify HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{";

async fn within(limits: Limits) -> FacilitatorServer {
    let facilitator = FakeFacilitator::new(token());
    let (clock, terms) = (Arc::new(SystemClock), Arc::new(trusting()));
    let parts = FacilitatorParts { facilitator, clock, terms };
    FacilitatorServer::start("127.0.0.1:0".parse().unwrap(), parts, limits).await.unwrap()
}

async fn say(server: &FacilitatorServer, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// What it says before it hangs up.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    drop(tokio::time::timeout(Duration::from_secs(15), read).await.unwrap());
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a32_a_request_that_does_not_come_is_not_waited_for() {
    let server = within(Limits::STANDARD).await;
    let (head, body) = tokio::join!(say(&server, HALF_A_HEAD), say(&server, HALF_A_BODY));
    let (head, body) = tokio::join!(rest(head), rest(body));
    assert!(!head.contains(" 200 "), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_leaves_no_connection_behind() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::STANDARD };
    let server = within(limits).await;
    let streams = [say(&server, HALF_A_BODY).await, say(&server, HALF_A_BODY).await];
    server.shutdown().await;
    for stream in streams {
        assert_eq!(rest(stream).await, "");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let server = within(Limits::STANDARD).await;
    let head = b"POST /settle HTTP/1.1\r\nhost: a\r\ncontent-length: 65537\r\n\r\n";
    let answer = rest(say(&server, head).await).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    server.shutdown().await;
}

/// What `[limits]` says holds here, too.
#[tokio::test]
async fn a_body_over_a_smaller_limit_is_refused() {
    let server = within(Limits { request_bytes_max: 1_024, ..Limits::STANDARD }).await;
    let head = b"POST /settle HTTP/1.1\r\nhost: a\r\ncontent-length: 1025\r\n\r\n";
    let answer = rest(say(&server, head).await).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_is_announced_before_it_begins() {
    let server = within(Limits::STANDARD).await;
    let ready = b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let supported = b"GET /supported HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert!(rest(say(&server, ready).await).await.starts_with("HTTP/1.1 204 "));
    server.leave();
    let answer = rest(say(&server, ready).await).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("shutting_down"), "{answer}");
    assert!(rest(say(&server, supported).await).await.starts_with("HTTP/1.1 200 "));
    server.shutdown().await;
}
