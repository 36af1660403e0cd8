//! The facilitator over HTTP: `POST /verify`, `POST /settle`, `GET /supported` (x402 v2 §7, v1 §7).
//!
//! Servers of both protocol versions are served: a v1 request is turned into its v2 form, and the
//! answer back. A verdict looks the same in both.
//!
//! A payment that is refused is an answer like any other: HTTP 200 with `isValid: false` or
//! `success: false`, which is what the official servers read. Other statuses say that there is no
//! answer: 400 for a body that is not understood, 401 for a caller who is not known, 503 for a chain
//! that cannot be asked.

pub(crate) mod terms;

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
use http::{HeaderMap, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::terms::{Caller, FacilitatorTerms};
use crate::app::Mount;
use crate::body::Bodies;
use crate::clock::Clock;
use crate::config::{Limits, PathPattern};
use crate::problem::{Kind, Problem};
use crate::readiness::obstacles;
use crate::routes::{HEALTH, READY};
use crate::server::listening::{Answers, Listening};

/// The longest body that is read; payments are a few kilobytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// What a client is told to wait when the chain cannot be asked, in seconds.
const RETRY_AFTER_SECONDS: &str = "2";

const VERIFY: &str = "/verify";
const SETTLE: &str = "/settle";
const SUPPORTED: &str = "/supported";

/// What the endpoints are built from.
#[derive(Clone, Debug)]
pub struct FacilitatorParts {
    /// Who verifies and settles.
    pub facilitator: Arc<dyn Facilitator>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// For whom, and what.
    pub terms: Arc<FacilitatorTerms>,
}

/// The three endpoints, to be served alone or beside a gateway.
pub fn facilitator_router(parts: FacilitatorParts) -> Router {
    Router::new()
        .route(VERIFY, post(verify))
        .route(SETTLE, post(settle))
        .route(SUPPORTED, get(supported))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(parts)
}

/// Where the endpoints are; beside a gateway no route may shadow them.
pub fn facilitator_paths() -> Vec<PathPattern> {
    [VERIFY, SETTLE, SUPPORTED].map(|it| PathPattern::Exact(it.to_owned())).to_vec()
}

/// The three endpoints beside a gateway, on its port.
pub fn facilitator_mount(parts: FacilitatorParts) -> Mount {
    Mount { paths: facilitator_paths(), router: facilitator_router(parts) }
}

/// A facilitator that listens on a port of its own. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct FacilitatorServer {
    address: SocketAddr,
    listening: Listening,
    /// Cancelled when a shutdown is announced.
    leaving: CancellationToken,
    drain: Duration,
}

/// The endpoints, behind the bounds that the gateway has for its own.
#[derive(Clone, Debug)]
struct Alone {
    router: Router,
    limits: Limits,
    bodies: Arc<Bodies>,
}

impl Answers for Alone {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        let body = match self.bodies.read(&self.limits, &parts.headers, body).await {
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
    /// Listens at `address`; port 0 picks a free one. Of `limits` those of connections, of request
    /// bodies (which are short here in any case) and of a shutdown have a meaning.
    pub async fn start(
        address: SocketAddr,
        parts: FacilitatorParts,
        limits: Limits,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let leaving = CancellationToken::new();
        let (left, settles) = (leaving.clone(), Arc::clone(&parts.facilitator));
        let router = facilitator_router(parts)
            .route(HEALTH, get(|| async { StatusCode::NO_CONTENT }))
            .route(READY, get(async move || ready(&left, &*settles)));
        let request_bytes_max = limits.request_bytes_max.min(BODY_BYTES_MAX);
        let limits = Limits { request_bytes_max, ..limits };
        let alone = Alone { router, limits, bodies: Arc::new(Bodies::new()) };
        let listening = Listening::start(listener, alone, limits.into());
        Ok(Self { address, listening, leaving, drain: limits.drain })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Announces a shutdown: from now on `/readyz` says 503, while everything is served as before.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Takes no new requests and finishes the running ones within the configured time. A settlement
    /// that is cut off is on its way all the same; the same request finds it later.
    pub async fn shutdown(self) {
        self.leave();
        self.listening.stop();
        if tokio::time::timeout(self.drain, self.listening.ended()).await.is_err() {
            tracing::warn!("shutdown cut off what was running");
        }
        self.listening.abort();
        self.listening.ended().await;
    }
}

fn ready(leaving: &CancellationToken, facilitator: &dyn Facilitator) -> Response {
    if leaving.is_cancelled() {
        return Problem::new(Kind::ShuttingDown, "The facilitator is stopping.").into_response();
    }
    match obstacles(facilitator) {
        Ok(some) if some.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(some) => Json(json!({ "status": "ready", "obstacles": some })).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn verify(State(api): State<FacilitatorParts>, headers: HeaderMap, body: Bytes) -> Response {
    let caller = match api.terms.admit(&headers) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let request = match acceptable(&api, caller, &body) {
        Ok(asked) => asked.request,
        Err(refusal) => return refusal.answer("isValid", "invalidReason", "invalidMessage"),
    };
    match api.facilitator.verify(&request, api.clock.now()).await {
        Ok(verification) => Json(verify_response(&verification)).into_response(),
        Err(error) => {
            let seller = caller.name();
            tracing::warn!(seller, %error, source = ?error.source, "payment could not be verified");
            unavailable(Json(verify_failure_response(&error)))
        }
    }
}

async fn settle(State(api): State<FacilitatorParts>, headers: HeaderMap, body: Bytes) -> Response {
    let caller = match api.terms.admit(&headers) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let Asked { request, version } = match acceptable(&api, caller, &body) {
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
            let seller = caller.name();
            tracing::warn!(seller, %error, source = ?error.source, "payment could not be settled");
            unavailable(answer)
        }
        Ok(_)
        | Err(
            SettleError::Rejected { .. }
            | SettleError::NotServed { .. }
            | SettleError::Unknown { .. },
        ) => answer,
    }
}

/// What is asked, if it is understood and within the terms.
fn acceptable(api: &FacilitatorParts, caller: Caller<'_>, body: &[u8]) -> Result<Asked, Refusal> {
    let asked = parse(body)?;
    api.terms.judge(caller, &asked.request)?;
    Ok(asked)
}

async fn supported(State(api): State<FacilitatorParts>) -> Response {
    match api.facilitator.supported().await {
        Ok(supported) => Json(api.terms.limit(supported)).into_response(),
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

/// A body that is no request of these protocol versions, or one that is not for this caller.
struct Refusal {
    status: StatusCode,
    reason: Reason,
    message: String,
}

impl Refusal {
    /// A payment outside of the terms is refused like any other.
    fn of_terms(reason: Reason, message: String) -> Self {
        Self { status: StatusCode::OK, reason, message }
    }

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
