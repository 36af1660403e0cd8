//! The facilitator on a port of its own has the gateway's bounds on slow and many clients.

use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::{FacilitatorServer, SystemClock};
use farebox_testkit::facilitator::FakeFacilitator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::app::token;

const HALF_A_HEAD: &[u8] = b"POST /verify HTTP/1.1\r\nhost: a\r\n";
const HALF_A_BODY: &[u8] = b"POST /verify HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{";

async fn start() -> FacilitatorServer {
    let facilitator = FakeFacilitator::new(token());
    let address = "127.0.0.1:0".parse().unwrap();
    FacilitatorServer::start(address, facilitator, Arc::new(SystemClock)).await.unwrap()
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
    let server = start().await;
    let (head, body) = tokio::join!(say(&server, HALF_A_HEAD), say(&server, HALF_A_BODY));
    let (head, body) = tokio::join!(rest(head), rest(body));
    assert!(!head.contains(" 200 "), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    server.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_shutdown_leaves_no_connection_behind() {
    let server = start().await;
    let streams = [say(&server, HALF_A_BODY).await, say(&server, HALF_A_BODY).await];
    server.shutdown(Duration::from_millis(50)).await;
    for stream in streams {
        assert_eq!(rest(stream).await, "");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let server = start().await;
    let head = b"POST /settle HTTP/1.1\r\nhost: a\r\ncontent-length: 65537\r\n\r\n";
    let answer = rest(say(&server, head).await).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    server.shutdown(Duration::from_secs(5)).await;
}
