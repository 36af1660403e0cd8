//! A seller that follows a script, one line per request, and remembers what it was sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub(crate) const NETWORK: &str = "eip155:84532";
pub(crate) const ASSET: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
pub(crate) const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
pub(crate) const TRANSACTION: &str =
    "0xa7227545fdf08b8326e0d1290123ab278f47b25910dbe239b8a9a6d8c019f32c";

/// One line of the script.
#[derive(Clone)]
pub(crate) enum Line {
    /// Answers so.
    Answer(Answer),
    /// Reads the request whole, then closes the connection without a word.
    HangUp,
    /// Answers so, once nobody else can connect any more.
    Last(Answer),
    /// Never answers.
    Silence,
    /// Answers with what the request's own payment gives, for example a fitting receipt.
    From(fn(&Seen) -> Answer),
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    chunks: Vec<Bytes>,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), chunks: vec![Bytes::from_static(b"answer")] }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn chunks(mut self, chunks: &[&str]) -> Self {
        self.chunks = chunks.iter().map(|it| Bytes::copy_from_slice(it.as_bytes())).collect();
        self
    }
}

/// A request as the seller saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    /// `PAYMENT-SIGNATURE` or `X-PAYMENT` as it came.
    pub(crate) payment: Option<String>,
    /// `Idempotency-Key`.
    pub(crate) key: Option<String>,
}

impl Seen {
    /// The payment, decoded.
    pub(crate) fn payload(&self) -> Value {
        let bytes = BASE64_STANDARD.decode(self.payment.as_ref().unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }
}

/// The running seller; stops when dropped.
pub(crate) struct Seller {
    pub(crate) address: SocketAddr,
    state: Arc<Play>,
    _stop: DropGuard,
}

struct Play {
    script: Mutex<VecDeque<Line>>,
    seen: Mutex<Vec<Seen>>,
    close: CancellationToken,
    closed: CancellationToken,
}

impl Seller {
    pub(crate) async fn start(script: Vec<Line>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Play {
            script: Mutex::new(script.into()),
            seen: Mutex::default(),
            close: CancellationToken::new(),
            closed: CancellationToken::new(),
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let serving = serve(listener, Arc::clone(&state), stop.clone(), tasks.clone());
        tasks.spawn(serving);
        Self { address, state, _stop: stop.drop_guard() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/chat/completions?x=1", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How many lines were not needed.
    pub(crate) fn left(&self) -> usize {
        self.state.script.lock().unwrap().len()
    }

    /// The payments that came, each as the very bytes of its header.
    pub(crate) fn payments(&self) -> Vec<String> {
        self.seen().into_iter().filter_map(|it| it.payment).collect()
    }
}

async fn serve(
    listener: TcpListener,
    state: Arc<Play>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = state.close.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, _) = accepted.unwrap();
        let (state, stop) = (Arc::clone(&state), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(stream, state) => {}
            }
        });
    }
    drop(listener);
    state.closed.cancel();
}

/// One request a connection, so that a hang-up is just that.
async fn connection(stream: TcpStream, state: Arc<Play>) {
    let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
        let state = Arc::clone(&state);
        async move { play(State(state), request.map(Body::new)).await }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.keep_alive(false);
    // A script that hangs up ends the connection with an error: that is its purpose.
    drop(http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await);
}

#[derive(Debug, thiserror::Error)]
#[error("the script hangs up")]
struct HangsUp;

async fn play(State(state): State<Arc<Play>>, request: Request) -> Result<Response, HangsUp> {
    let (parts, body) = request.into_parts();
    let payment = parts.headers.get("payment-signature").or(parts.headers.get("x-payment"));
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        payment: payment.map(|it| it.to_str().unwrap().to_owned()),
        key: parts.headers.get("idempotency-key").map(|it| it.to_str().unwrap().to_owned()),
        body: to_bytes(body, 1 << 20).await.unwrap().to_vec(),
    };
    state.seen.lock().unwrap().push(seen.clone());
    let line = state.script.lock().unwrap().pop_front();
    let answer = match line {
        Some(Line::Answer(answer)) => answer,
        Some(Line::From(make)) => make(&seen),
        Some(Line::HangUp) => return Err(HangsUp),
        Some(Line::Silence) => std::future::pending().await,
        Some(Line::Last(answer)) => {
            state.close.cancel();
            state.closed.cancelled().await;
            answer
        }
        None => Answer::new(599).chunks(&["the script has ended"]),
    };
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let chunks = answer.chunks.into_iter().map(Ok::<_, HangsUp>);
    Ok(response.body(Body::from_stream(futures_util::stream::iter(chunks))).unwrap())
}

/// A seller that drops every connection on arrival, before reading a byte.
pub(crate) async fn read_and_reset(mut stream: TcpStream) {
    let mut byte = [0];
    drop(stream.read(&mut byte).await);
    drop(stream.shutdown().await);
}

pub(crate) fn base64(value: &Value) -> String {
    BASE64_STANDARD.encode(value.to_string())
}

/// An honest offer of 10 000 units: one cent.
pub(crate) fn offer() -> Value {
    json!({
        "scheme": "exact", "network": NETWORK, "amount": "10000", "asset": ASSET, "payTo": PAY_TO,
        "maxTimeoutSeconds": 60, "extra": { "name": "USDC", "version": "2" },
    })
}

/// The same with a quote seal, as Farebox gateways make it.
pub(crate) fn quoted_offer() -> Value {
    let mut offer = offer();
    offer["extra"]["quote"] = json!("1.1800000000.v1.0000000000000001.00");
    offer
}

/// A 402 with these offers.
pub(crate) fn demand(accepts: &[Value]) -> Line {
    Line::Answer(Answer::new(402).header("PAYMENT-REQUIRED", required(accepts, "Payment required")))
}

pub(crate) fn required(accepts: &[Value], error: &str) -> String {
    base64(&json!({
        "x402Version": 2,
        "error": error,
        "resource": { "url": "https://seller.example/v1/chat/completions", "seller": "field" },
        "accepts": accepts,
        "extensions": { "bazaar": { "info": 1 } },
    }))
}

/// 200 with the receipt that `change` made of a true one.
pub(crate) fn paid(seen: &Seen, change: impl FnOnce(&mut Value)) -> Answer {
    let payload = seen.payload();
    let mut receipt = json!({
        "success": true,
        "payer": payload["payload"]["authorization"]["from"],
        "transaction": TRANSACTION,
        "network": NETWORK,
    });
    change(&mut receipt);
    Answer::new(200).header("PAYMENT-RESPONSE", base64(&receipt))
}

/// 200 with a true receipt.
pub(crate) fn honest() -> Line {
    Line::From(|seen| paid(seen, |_| ()))
}

/// An answer of that status and nothing else.
pub(crate) fn status(status: u16) -> Line {
    Line::Answer(Answer::new(status))
}
