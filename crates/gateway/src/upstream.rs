//! The client side of the proxy: one pooled connection set, bodies passed as they are.
//!
//! No redirects are followed, nothing is decompressed, nothing is retried after a byte was sent.

mod dial;
mod headers;
mod idle;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version, uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self as client, Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use secrecy::ExposeSecret as _;

pub use self::dial::Dial;
use self::dial::Dialler;
pub(crate) use self::idle::{Broken, IdleTimeout};
use crate::config::{ApiKey, Upstream};
use crate::routes::LiveRoute;
use crate::target::Target;

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_mins(1);
/// Unused connections that are kept for one upstream.
const POOL_SIZE: usize = 256;

/// Talks to upstreams.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamClient(Transport);

/// How it gets there.
#[derive(Clone, Debug)]
enum Transport {
    Net(Client<HttpsConnector<HttpConnector>, Body>),
    InProcess(Client<Dialler, Body>),
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
        Ok(Self(Transport::Net(builder().build(connector))))
    }

    /// A client whose connections somebody else opens.
    pub(crate) fn dialling(dial: Arc<dyn Dial>) -> Self {
        Self(Transport::InProcess(builder().build(Dialler(dial))))
    }

    /// Asks and waits for the head of the answer. Its headers are cleaned for the client.
    pub(crate) async fn ask(&self, route: &LiveRoute, ask: Ask) -> Result<Answer, UpstreamError> {
        let upstream = &route.config.upstream;
        let request = route.origin.request(ask).map_err(UpstreamError::Address)?;
        let response = match &self.0 {
            Transport::Net(client) => client.request(request),
            Transport::InProcess(client) => client.request(request),
        };
        let head = tokio::time::timeout(upstream.head_timeout, response);
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

fn builder() -> client::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE);
    builder
}

/// Where an upstream is and what it knows us by, worked out at the start.
#[derive(Debug)]
pub(crate) struct Origin {
    scheme: Scheme,
    authority: Authority,
    /// Request paths come behind it.
    path: String,
    credential: Option<(HeaderName, HeaderValue)>,
}

impl Origin {
    /// Of an upstream as it is configured.
    pub(crate) fn of(upstream: &Upstream) -> Result<Self, http::Error> {
        let base = &upstream.url;
        let host = base.host_str().unwrap_or_default();
        let authority =
            base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self {
            scheme: base.scheme().try_into()?,
            authority: authority.try_into()?,
            path: base.path().to_owned(),
            credential: upstream.api_key.as_ref().map(credential).transpose()?,
        })
    }

    /// The upstream's request: the client's, without what must not cross.
    fn request(&self, ask: Ask) -> Result<Request<Body>, http::Error> {
        let behind = ask.target.behind(&self.path);
        let mut uri = uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(behind.map_or_else(|| PathAndQuery::try_from(""), Ok)?);
        let mut request = Request::new(ask.body);
        *request.method_mut() = ask.method;
        *request.uri_mut() = Uri::from_parts(uri)?;
        *request.headers_mut() = ask.headers;
        headers::towards_upstream(request.headers_mut());
        if let Some((name, value)) = &self.credential {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

fn credential(key: &ApiKey) -> Result<(HeaderName, HeaderValue), http::Error> {
    let (name, mut value) = match key {
        ApiKey::Bearer(key) => {
            let value = format!("Bearer {}", key.expose_secret());
            (AUTHORIZATION, HeaderValue::from_str(&value)?)
        }
        ApiKey::Header { name, key } => (name.clone(), HeaderValue::from_str(key.expose_secret())?),
    };
    value.set_sensitive(true);
    Ok((name, value))
}
