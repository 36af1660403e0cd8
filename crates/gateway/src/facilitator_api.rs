//! The facilitator over HTTP: `POST /verify`, `POST /settle`, `GET /supported` (x402 v2 §7, v1 §7).
//!
//! Servers of both protocol versions are served: a v1 request is turned into its v2 form, and the
//! answer back. A verdict looks the same in both.
//!
//! A payment that is refused is an answer like any other: HTTP 200 with `isValid: false` or
//! `success: false`, which is what the official servers read. Other statuses say that there is no
//! answer: 400 for a body that is not understood, 503 for a chain that cannot be asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use farebox_chains::{
    BadV1, Facilitator, SettleError, request_from_v1, settlement_response, settlement_to_v1,
    verify_failure_response, verify_response,
};
use farebox_protocol::Reason;
use farebox_protocol::wire::{VerifyRequest, X402_VERSION, v1};
use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use crate::app::Mount;
use crate::body::Bodies;
use crate::clock::Clock;
use crate::config::{Limits, PathPattern};
use crate::server::listening::{Answers, Listening};

/// The longest body that is read; payments are a few kilobytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// What a client is told to wait when the chain cannot be asked, in seconds.
const RETRY_AFTER_SECONDS: &str = "2";

#[derive(Clone, Debug)]
struct Api {
    facilitator: Arc<dyn Facilitator>,
    clock: Arc<dyn Clock>,
}

/// The three endpoints, to be served alone or beside a gateway.
pub fn facilitator_router(facilitator: Arc<dyn Facilitator>, clock: Arc<dyn Clock>) -> Router {
    Router::new()
        .route("/verify", post(verify))
        .route("/settle", post(settle))
        .route("/supported", get(supported))
        .route("/healthz", get(|| async { StatusCode::NO_CONTENT }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Api { facilitator, clock })
}

/// The three endpoints beside a gateway, on its port.
pub fn facilitator_mount(facilitator: Arc<dyn Facilitator>, clock: Arc<dyn Clock>) -> Mount {
    let paths = ["/verify", "/settle", "/supported"];
    Mount {
        paths: paths.map(|it| PathPattern::Exact(it.to_owned())).to_vec(),
        router: facilitator_router(facilitator, clock),
    }
}

/// A facilitator that listens on a port of its own. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct FacilitatorServer {
    address: SocketAddr,
    listening: Listening,
}

/// The endpoints, behind the bounds that the gateway has for its own.
#[derive(Clone, Debug)]
struct Alone {
    router: Router,
    bodies: Arc<Bodies>,
}

impl Answers for Alone {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        let limits = Limits { request_bytes_max: BODY_BYTES_MAX, ..Limits::STANDARD };
        let body = match self.bodies.read(&limits, &parts.headers, body).await {
            Ok(body) => Body::from(body),
            Err(problem) => return problem.into_response(),
        };
        match self.router.clone().oneshot(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl FacilitatorServer {
    /// Listens at `address`; port 0 picks a free one.
    pub async fn start(
        address: SocketAddr,
        facilitator: Arc<dyn Facilitator>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = facilitator_router(facilitator, clock);
        let alone = Alone { router, bodies: Arc::new(Bodies::new()) };
        let listening = Listening::start(listener, alone, Limits::STANDARD.into());
        Ok(Self { address, listening })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new requests and finishes the running ones, at most for `drain`. A settlement that
    /// is cut off is on its way all the same; the same request finds it later.
    pub async fn shutdown(self, drain: Duration) {
        self.listening.stop();
        if tokio::time::timeout(drain, self.listening.ended()).await.is_err() {
            tracing::warn!("shutdown cut off what was running");
        }
        self.listening.abort();
        self.listening.ended().await;
    }
}

async fn verify(State(api): State<Api>, body: Bytes) -> Response {
    let request = match parse(&body) {
        Ok(asked) => asked.request,
        Err(refusal) => return refusal.answer("isValid", "invalidReason", "invalidMessage"),
    };
    match api.facilitator.verify(&request, api.clock.now()).await {
        Ok(verification) => Json(verify_response(&verification)).into_response(),
        Err(error) => {
            tracing::warn!(%error, source = ?error.source, "payment could not be verified");
            unavailable(Json(verify_failure_response(&error)))
        }
    }
}

async fn settle(State(api): State<Api>, body: Bytes) -> Response {
    let Asked { request, version } = match parse(&body) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.answer("success", "errorReason", "errorMessage"),
    };
    let result = api.facilitator.settle(&request, api.clock.now()).await;
    let settlement = settlement_response(&request, &result);
    let answer = match version {
        Version::Two => Json(settlement).into_response(),
        Version::One => Json(settlement_to_v1(settlement)).into_response(),
    };
    match result {
        Err(SettleError::NotSent(error)) => {
            tracing::warn!(%error, source = ?error.source, "payment could not be settled");
            unavailable(answer)
        }
        Ok(_) | Err(SettleError::Rejected { .. } | SettleError::Unknown { .. }) => answer,
    }
}

async fn supported(State(api): State<Api>) -> Response {
    match api.facilitator.supported().await {
        Ok(supported) => Json(supported).into_response(),
        Err(error) => {
            tracing::warn!(%error, source = ?error.source, "supported kinds are not known");
            unavailable(Json(json!({ "error": error.to_string() })))
        }
    }
}

fn unavailable(answer: impl IntoResponse) -> Response {
    let retry = [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)];
    (StatusCode::SERVICE_UNAVAILABLE, retry, answer).into_response()
}

/// What is asked, in the form that facilitators work on.
struct Asked {
    request: VerifyRequest,
    version: Version,
}

/// The version of the protocol that is asked in, and answered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A body that is no request of these protocol versions.
struct Refusal {
    status: StatusCode,
    reason: Reason,
    message: String,
}

impl Refusal {
    /// In the form of the endpoint's own answers, so that a server can read the reason.
    fn answer(self, verdict: &str, reason: &str, message: &str) -> Response {
        let mut body = json!({ verdict: false, reason: self.reason, message: self.message });
        if let (true, Some(body)) = (verdict == "success", body.as_object_mut()) {
            body.insert("transaction".to_owned(), json!(""));
            body.insert("network".to_owned(), json!(""));
        }
        (self.status, Json(body)).into_response()
    }
}

fn parse(body: &[u8]) -> Result<Asked, Refusal> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        x402_version: u32,
    }
    // The version first: another version's body has another shape and deserves a better answer.
    let said: Said = serde_json::from_slice(body).map_err(malformed)?;
    match said.x402_version {
        X402_VERSION => {
            let request = serde_json::from_slice(body).map_err(malformed)?;
            Ok(Asked { request, version: Version::Two })
        }
        v1::X402_VERSION => {
            let request: v1::VerifyRequest = serde_json::from_slice(body).map_err(malformed)?;
            let request = request_from_v1(&request).map_err(untranslated)?;
            Ok(Asked { request, version: Version::One })
        }
        other => Err(Refusal {
            status: StatusCode::OK,
            reason: Reason::InvalidX402Version,
            message: format!("expected x402Version 2 or 1, found {other}"),
        }),
    }
}

fn malformed(error: serde_json::Error) -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        reason: Reason::InvalidPayload,
        message: format!("expected {{x402Version, paymentPayload, paymentRequirements}}: {error}"),
    }
}

/// A v1 payment that is understood and has no place here is refused like any other.
fn untranslated(error: BadV1) -> Refusal {
    Refusal { status: StatusCode::OK, reason: error.reason(), message: error.to_string() }
}
