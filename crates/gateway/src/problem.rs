//! The only place that turns an error into HTTP: RFC 9457 problem details.
//!
//! A problem has a public text, which the client reads, and an internal source, which only the log
//! sees. Its body also has an `error` member, the one thing that the OpenAI SDKs show to people.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use farebox_billing::Format;
use farebox_protocol::wire::v1;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

/// The header by which OpenAI SDKs are told not to repeat a request, and so not to pay again.
pub(crate) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// What answers depend on besides the URL.
pub(crate) const VARY_VALUE: HeaderValue =
    HeaderValue::from_static("PAYMENT-SIGNATURE, X-PAYMENT, Authorization");
/// No answer that was paid for, and no demand to pay, may be kept by a cache (attack A17).
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store");

/// What went wrong, by what the client can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request is not understood.
    MalformedRequest,
    /// The payment header is not understood.
    MalformedPayment,
    /// A way to pay that is not redeemed here, or several at once.
    UnsupportedPayment,
    /// The caller is not one that is known here.
    Unauthorized,
    /// Pay, or pay differently.
    PaymentRequired,
    /// The payer must let Permit2 spend the token, and did not sign for that either.
    AllowanceRequired,
    /// No such path here.
    NoSuchRoute,
    /// The route does not sell the model.
    ModelNotFound,
    /// The path exists with other methods.
    MethodNotAllowed,
    /// The client was too slow.
    RequestTimeout,
    /// This payment is being worked on.
    PaymentInProgress,
    /// This payment was used.
    PaymentAlreadyUsed,
    /// The request was paid for before, by another payment, and its answer is not kept.
    AlreadyAnswered,
    /// The idempotency key belongs to another request.
    KeyReused,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The request has no price.
    NoPrice,
    /// Too many or too large headers.
    HeadersTooLarge,
    /// A bug here.
    Internal,
    /// The upstream failed; nothing was charged.
    UpstreamFailed,
    /// The upstream took too long; nothing was charged.
    UpstreamTimeout,
    /// The upstream failed after the payment was settled: it is owed back.
    RefundOwed,
    /// Something that is needed cannot be asked right now; nothing was taken.
    Unavailable,
    /// The payment was taken and nobody knows yet whether it settled.
    SettlementPending,
    /// The server is stopping.
    ShuttingDown,
}

/// Whether a client that repeats the request with a fresh payment does itself harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PayAgain {
    /// Nothing was taken: whatever the client's habits are.
    Harmless,
    /// Money was or may have been taken.
    Harmful,
}

impl Kind {
    /// One row each: status, code, title, and what repeating does.
    fn row(self) -> (StatusCode, &'static str, &'static str, PayAgain) {
        use PayAgain::{Harmful, Harmless};
        use StatusCode as S;
        match self {
            Self::MalformedRequest => {
                (S::BAD_REQUEST, "malformed_request", "Malformed request", Harmless)
            }
            Self::MalformedPayment => {
                (S::BAD_REQUEST, "malformed_payment", "Malformed payment", Harmless)
            }
            Self::UnsupportedPayment => {
                (S::BAD_REQUEST, "unsupported_payment", "Unsupported payment", Harmless)
            }
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "Unauthorized", Harmless),
            Self::PaymentRequired => {
                (S::PAYMENT_REQUIRED, "payment_required", "Payment required", Harmless)
            }
            Self::AllowanceRequired => {
                (S::PRECONDITION_FAILED, "allowance_required", "Allowance required", Harmless)
            }
            Self::NoSuchRoute => (S::NOT_FOUND, "no_such_route", "No such route", Harmless),
            Self::ModelNotFound => (S::NOT_FOUND, "model_not_found", "Model not found", Harmless),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", Harmless)
            }
            Self::RequestTimeout => {
                (S::REQUEST_TIMEOUT, "request_timeout", "Request timeout", Harmless)
            }
            Self::PaymentInProgress => {
                (S::CONFLICT, "payment_in_progress", "Payment in progress", Harmful)
            }
            Self::PaymentAlreadyUsed => {
                (S::CONFLICT, "payment_already_used", "Payment already used", Harmful)
            }
            Self::AlreadyAnswered => (S::CONFLICT, "already_answered", "Already answered", Harmful),
            Self::KeyReused => {
                (S::CONFLICT, "idempotency_key_reused", "Idempotency key reused", Harmful)
            }
            Self::BodyTooLarge => {
                (S::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large", Harmless)
            }
            Self::NoPrice => (S::UNPROCESSABLE_ENTITY, "no_price", "No price", Harmless),
            Self::HeadersTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                "Request header fields too large",
                Harmless,
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error", Harmful),
            Self::UpstreamFailed => {
                (S::BAD_GATEWAY, "upstream_failed", "Upstream failed", Harmless)
            }
            Self::UpstreamTimeout => {
                (S::GATEWAY_TIMEOUT, "upstream_timeout", "Upstream timeout", Harmless)
            }
            Self::RefundOwed => (S::BAD_GATEWAY, "refund_owed", "Refund owed", Harmful),
            Self::Unavailable => {
                (S::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable", Harmless)
            }
            Self::SettlementPending => {
                (S::SERVICE_UNAVAILABLE, "settlement_pending", "Settlement pending", Harmful)
            }
            Self::ShuttingDown => {
                (S::SERVICE_UNAVAILABLE, "shutting_down", "Shutting down", Harmless)
            }
        }
    }

    /// The machine-readable name.
    pub(crate) fn code(self) -> &'static str {
        self.row().1
    }

    /// `error.type` for OpenAI's SDKs: where OpenAI itself has the error, its word for it.
    fn openai_type(self) -> &'static str {
        if self == Self::ModelNotFound { "invalid_request_error" } else { self.code() }
    }
}

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    detail: Cow<'static, str>,
    /// The x402 reason, where there is one.
    reason: Option<String>,
    members: Map<String, Value>,
    /// The offers as x402 v1 has them, as JSON.
    accepts: Option<String>,
    dialect: Dialect,
    headers: HeaderMap,
    harmful: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem with what the client is told of it.
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let (_, _, _, again) = kind.row();
        Self(Box::new(Parts {
            kind,
            detail: detail.into(),
            reason: None,
            members: Map::new(),
            accepts: None,
            dialect: Dialect::OpenAi,
            headers: HeaderMap::new(),
            harmful: again == PayAgain::Harmful,
            source: None,
        }))
    }

    /// What kind it is.
    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The x402 reason, or else the code.
    pub(crate) fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or(self.0.kind.code())
    }

    /// With the specified x402 reason.
    pub(crate) fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    /// With what only the log may see.
    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// In the words of the clients of a format.
    pub(crate) fn told_to_clients_of(mut self, format: Format) -> Self {
        self.0.dialect = match format {
            Format::AnthropicMessages => Dialect::Anthropic,
            Format::OpenAiChat
            | Format::OpenAiCompletions
            | Format::OpenAiEmbeddings
            | Format::OpenAiResponses
            | Format::Opaque => Dialect::OpenAi,
        };
        self
    }

    /// With another member in the body.
    pub(crate) fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// With offers for v1 clients, a JSON array; shown where payment is asked for.
    pub(crate) fn with_accepts(mut self, accepts: String) -> Self {
        self.0.accepts = Some(accepts);
        self
    }

    /// What the answer's head will say besides.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.0.headers
    }

    /// With another header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Not before then.
    pub(crate) fn retry_after(self, pause: Duration) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(pause.as_secs().max(1)))
    }

    /// These methods exist.
    pub(crate) fn allow(self, methods: &str) -> Self {
        match HeaderValue::from_str(methods) {
            Ok(value) => self.with_header(ALLOW, value),
            Err(_) => self,
        }
    }

    /// Money may have been taken: the client must not pay for this again by itself.
    pub(crate) fn never_pay_again(mut self) -> Self {
        self.0.harmful = true;
        self
    }

    /// Whoever repeats this very request gets what it has paid for, and pays no more.
    pub(crate) fn safe_to_repeat(mut self) -> Self {
        self.0.harmful = false;
        self
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        self.log();
        self.prepare().into_response()
    }

    /// The answer, to be given any number of times; nothing is logged.
    pub(crate) fn prepare(self) -> Prepared {
        let (status, code, title, _) = self.0.kind.row();
        let mut body = Map::new();
        body.insert("type".to_owned(), format!("urn:farebox:problem:{code}").into());
        body.insert("title".to_owned(), title.into());
        body.insert("status".to_owned(), status.as_u16().into());
        body.insert("detail".to_owned(), self.0.detail.as_ref().into());
        if let Some(reason) = &self.0.reason {
            body.insert("reason".to_owned(), reason.as_str().into());
        }
        if status == StatusCode::PAYMENT_REQUIRED {
            // The v1 object; its `accepts` comes last.
            body.insert("x402Version".to_owned(), v1::X402_VERSION.into());
            body.insert("error".to_owned(), self.reason().into());
        } else {
            body.insert("error".to_owned(), self.error(status));
        }
        let told = self.0.dialect.content_type(status);
        if told == JSON {
            // Where RFC 9457 has its type, these clients look for this word.
            body.insert("type".to_owned(), "error".into());
            body.insert("code".to_owned(), code.into());
        }
        body.extend(self.0.members);
        if status == StatusCode::PAYMENT_REQUIRED {
            body.insert("accepts".to_owned(), Value::Array(Vec::new()));
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, told);
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(VARY, VARY_VALUE);
        if self.0.harmful {
            headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        headers.extend(self.0.headers);
        let prepared = Prepared { status, headers, body: Value::Object(body).to_string().into() };
        match &self.0.accepts {
            Some(accepts) => prepared.with_accepts(accepts),
            None => prepared,
        }
    }

    /// What the SDKs of the format show to people.
    fn error(&self, status: StatusCode) -> Value {
        match self.0.dialect {
            Dialect::OpenAi => json!({
                "message": self.0.detail,
                "type": self.0.kind.openai_type(),
                "code": self.reason(),
            }),
            Dialect::Anthropic => {
                json!({ "type": anthropic_type(status), "message": self.0.detail })
            }
        }
    }

    fn log(&self) {
        let Some(source) = &self.0.source else { return };
        let (status, code, _, _) = self.0.kind.row();
        if status.is_server_error() {
            tracing::error!(code, source = %Chain(source.as_ref()), "request failed");
        } else {
            tracing::debug!(code, source = %Chain(source.as_ref()), "request refused");
        }
    }
}

/// Whose SDKs read the `error` member of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Anthropic,
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Dialect {
    /// A demand to pay is the same for all: x402 clients read it before any SDK does.
    fn content_type(self, status: StatusCode) -> HeaderValue {
        match self {
            Self::Anthropic if status != StatusCode::PAYMENT_REQUIRED => JSON,
            Self::Anthropic | Self::OpenAi => PROBLEM_JSON,
        }
    }
}

/// The word that the Anthropic API has for errors of this status.
fn anthropic_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "request_too_large"
        }
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        _ if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    }
}

/// A problem in its final form.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Prepared {
    /// Where offers for v1 clients go.
    const NO_OFFERS: &[u8] = b"[]}";

    /// With these offers for v1 clients, a JSON array, in place of none. Other problems than
    /// [`Kind::PaymentRequired`] have no place for them.
    pub(crate) fn with_accepts(&self, accepts: &str) -> Self {
        let Self { status, headers, body } = self.clone();
        let body = match body.strip_suffix(Self::NO_OFFERS) {
            Some(open) if status == StatusCode::PAYMENT_REQUIRED => {
                [open, accepts.as_bytes(), b"}"].concat().into()
            }
            Some(_) | None => body,
        };
        Self { status, headers, body }
    }

    /// What the answer's head says.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// As the last answer on an HTTP/1.1 connection, byte by byte; `line` is one more header.
    pub(crate) fn into_last_http1(self, line: &str) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", self.status.as_u16()).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        if !line.is_empty() {
            bytes.extend([line.as_bytes(), b"\r\n"].concat());
        }
        let length = self.body.len();
        bytes.extend(format!("content-length: {length}\r\nconnection: close\r\n\r\n").bytes());
        bytes.extend(self.body);
        bytes
    }

    /// As an answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// An error and its causes on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn parts(problem: Problem) -> (http::response::Parts, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn the_public_text_is_told_and_the_source_is_not() {
        let problem = Problem::new(Kind::Unavailable, "The ledger is away.")
            .caused_by(std::io::Error::other("secret path"))
            .retry_after(Duration::from_secs(3));
        let (parts, body) = parts(problem).await;
        assert_eq!(parts.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(parts.headers["retry-after"], "3");
        assert_eq!(parts.headers["content-type"], "application/problem+json");
        assert_eq!(body["detail"], "The ledger is away.");
        assert_eq!(body["error"]["message"], "The ledger is away.");
        assert!(!body.to_string().contains("secret"));
        assert!(!parts.headers.contains_key(X_SHOULD_RETRY));
    }

    #[tokio::test]
    async fn a17_no_error_may_be_cached_and_none_makes_an_sdk_pay_twice() {
        for (kind, harmful) in [
            (Kind::PaymentRequired, false),
            (Kind::PaymentInProgress, true),
            (Kind::PaymentAlreadyUsed, true),
            (Kind::SettlementPending, true),
            (Kind::RefundOwed, true),
            (Kind::UpstreamFailed, false),
        ] {
            let (parts, _) = parts(Problem::new(kind, "x")).await;
            assert_eq!(parts.headers["cache-control"], "private, no-store");
            assert_eq!(parts.headers["vary"], "PAYMENT-SIGNATURE, X-PAYMENT, Authorization");
            assert_eq!(parts.headers.contains_key(X_SHOULD_RETRY), harmful, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn anthropic_clients_are_told_in_their_words() {
        for (kind, status, word) in [
            (Kind::MalformedRequest, 400, "invalid_request_error"),
            (Kind::PaymentAlreadyUsed, 409, "invalid_request_error"),
            (Kind::BodyTooLarge, 413, "request_too_large"),
            (Kind::UpstreamFailed, 502, "api_error"),
            (Kind::Unavailable, 503, "overloaded_error"),
            (Kind::UpstreamTimeout, 504, "timeout_error"),
        ] {
            let problem = Problem::new(kind, "No.").told_to_clients_of(Format::AnthropicMessages);
            let (parts, body) = parts(problem).await;
            assert_eq!(parts.status, status);
            assert_eq!(parts.headers["content-type"], "application/json");
            assert_eq!(body["type"], "error");
            assert_eq!(body["error"], json!({ "type": word, "message": "No." }));
            assert_eq!((&body["code"], &body["detail"]), (&json!(kind.code()), &json!("No.")));
        }
        let problem = Problem::new(Kind::PaymentRequired, "Pay.").with_reason("insufficient_funds");
        let (parts, body) = parts(problem.told_to_clients_of(Format::AnthropicMessages)).await;
        assert_eq!(parts.headers["content-type"], "application/problem+json");
        assert_eq!(body["error"], "insufficient_funds");
    }

    #[tokio::test]
    async fn a_402_is_a_v1_object_with_the_offers_that_there_are() {
        let problem = Problem::new(Kind::PaymentRequired, "Pay.").with_reason("insufficient_funds");
        let (_, body) = parts(problem.with_member("more", "[]}")).await;
        assert_eq!(body["x402Version"], 1);
        assert_eq!(body["error"], "insufficient_funds");
        assert_eq!(body["accepts"], json!([]));
        let offers = || "[{\"a\":1},2]".to_owned();
        let problem = Problem::new(Kind::PaymentRequired, "Pay.").with_accepts(offers());
        let (_, body) = parts(problem).await;
        assert_eq!(body["accepts"], json!([{ "a": 1 }, 2]));
        assert_eq!(body["detail"], "Pay.");
        let other = Problem::new(Kind::MalformedPayment, "[]}").with_accepts(offers());
        let (_, body) = parts(other).await;
        assert_eq!(body.get("accepts"), None);
    }
}
