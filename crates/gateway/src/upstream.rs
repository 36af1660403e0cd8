//! The client side of the proxy: one pooled connection set, bodies passed as they are.
//!
//! No redirects are followed, nothing is decompressed, nothing is retried after a byte was sent.

mod headers;
mod idle;

use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use secrecy::ExposeSecret as _;

pub(crate) use self::idle::{Broken, IdleTimeout};
use crate::config::{ApiKey, Upstream};
use crate::target::Target;

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_mins(1);
/// Unused connections that are kept for one upstream.
const POOL_SIZE: usize = 256;

/// Talks to upstreams.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamClient {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

/// What is asked of an upstream; the body goes with it.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The client's method.
    pub(crate) method: Method,
    /// The normalised target.
    pub(crate) target: Target,
    /// The client's headers as they came.
    pub(crate) headers: HeaderMap,
    /// The body to send.
    pub(crate) body: Body,
}

/// An answer whose body gives up on an upstream that falls silent.
pub(crate) type Answer = Response<IdleTimeout<Incoming>>;

/// Why there is no answer. Nothing was charged for it, whichever it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The configured address and this target make no URL.
    #[error("the upstream's address cannot be asked for this target")]
    Address(#[source] http::Error),
    /// It could not be reached, or broke off before the head of an answer.
    #[error("the upstream could not be asked")]
    Failed(#[source] ClientError),
    /// No head of an answer in time.
    #[error("the upstream did not answer in time")]
    Timeout,
}

impl UpstreamClient {
    /// A client with an empty pool. Upstreams are trusted by the web's roots.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_SIZE)
            .build(connector);
        Ok(Self { client })
    }

    /// Asks and waits for the head of the answer. Its headers are cleaned for the client.
    pub(crate) async fn ask(&self, upstream: &Upstream, ask: Ask) -> Result<Answer, UpstreamError> {
        let request = request(upstream, ask).map_err(UpstreamError::Address)?;
        let head = tokio::time::timeout(upstream.head_timeout, self.client.request(request));
        let response =
            head.await.map_err(|_| UpstreamError::Timeout)?.map_err(UpstreamError::Failed)?;
        let (mut parts, body) = response.into_parts();
        headers::towards_client(&mut parts.headers);
        // The upstream's HTTP version and extensions say nothing to our client.
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        Ok(Response::from_parts(parts, IdleTimeout::new(body, upstream.idle_timeout)))
    }
}

/// The upstream's request: the client's, without what must not cross.
fn request(upstream: &Upstream, ask: Ask) -> Result<Request<Body>, http::Error> {
    let base = &upstream.url;
    let authority: Authority = base
        .port()
        .map_or_else(
            || base.host_str().unwrap_or_default().to_owned(),
            |port| format!("{}:{port}", base.host_str().unwrap_or_default()),
        )
        .try_into()?;
    let scheme: Scheme = base.scheme().try_into()?;
    let target = ask
        .target
        .behind(base.path())
        .map_or_else(|| http::uri::PathAndQuery::try_from(String::new()), Ok)?;
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build()?;
    let mut request = Request::new(ask.body);
    *request.method_mut() = ask.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = ask.headers;
    headers::towards_upstream(request.headers_mut());
    if let Some(key) = &upstream.api_key {
        let (name, mut value) = credential(key)?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn credential(key: &ApiKey) -> Result<(HeaderName, HeaderValue), http::Error> {
    Ok(match key {
        ApiKey::Bearer(key) => {
            let value = format!("Bearer {}", key.expose_secret());
            (AUTHORIZATION, HeaderValue::from_str(&value)?)
        }
        ApiKey::Header { name, key } => (name.clone(), HeaderValue::from_str(key.expose_secret())?),
    })
}
