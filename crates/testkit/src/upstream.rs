//! A scripted upstream on a real socket: says what it is told to, and remembers what it was asked.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::gate::Gate;

/// What the upstream was asked.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// Path and query, as they came.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What the upstream says.
#[derive(Clone, Debug)]
pub struct Script {
    /// The status.
    pub status: StatusCode,
    /// Headers besides those of HTTP itself.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, part by part.
    pub parts: Vec<Part>,
}

/// A part of a body.
#[derive(Clone, Debug)]
pub enum Part {
    /// These bytes.
    Bytes(Bytes),
    /// Nothing, until the gate opens.
    Wait(Arc<Gate>),
    /// The connection breaks.
    Break,
}

/// The upstream's decision.
type Decide = Arc<dyn Fn(&Received) -> Script + Send + Sync>;

/// A running upstream. Dropping it stops it.
pub struct FakeUpstream {
    address: SocketAddr,
    shared: Shared,
    _stop: DropGuard,
}

#[derive(Clone)]
struct Shared {
    decide: Decide,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Script {
    /// A JSON answer.
    pub fn json(body: &str) -> Self {
        Self::new(StatusCode::OK, "application/json", vec![Part::text(body)])
    }

    /// An answer of server-sent events.
    pub fn events(parts: Vec<Part>) -> Self {
        Self::new(StatusCode::OK, "text/event-stream", parts)
    }

    /// Any answer.
    pub fn new(status: StatusCode, content_type: &'static str, parts: Vec<Part>) -> Self {
        let kind = (http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status, headers: vec![kind], parts }
    }

    /// With another header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        self
    }
}

impl Part {
    /// These bytes.
    pub fn text(text: &str) -> Self {
        Self::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for FakeUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeUpstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FakeUpstream {
    /// Listens on a free port of this machine.
    pub async fn start(
        decide: impl Fn(&Received) -> Script + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Shared { decide: Arc::new(decide), received: Arc::default() };
        let stop = CancellationToken::new();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let stopped = stop.clone().cancelled_owned();
        TaskTracker::new().spawn(async move {
            drop(axum::serve(listener, router).with_graceful_shutdown(stopped).await);
        });
        Ok(Self { address, shared, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let received = Received {
        method: parts.method,
        target: parts.uri.to_string(),
        headers: parts.headers,
        body,
    };
    let script = (shared.decide)(&received);
    shared.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    let Script { status, headers, parts } = script;
    let mut response = Response::new(body_of(parts));
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    response
}

fn body_of(parts: Vec<Part>) -> Body {
    if let [Part::Bytes(bytes)] = parts.as_slice() {
        return Body::from(bytes.clone());
    }
    let frames = stream::iter(parts).filter_map(|part| async {
        match part {
            Part::Bytes(bytes) => Some(Ok::<_, std::io::Error>(bytes)),
            Part::Wait(gate) => {
                gate.pass().await;
                None
            }
            Part::Break => Some(Err(std::io::Error::other("told to break"))),
        }
    });
    Body::from_stream(frames)
}
