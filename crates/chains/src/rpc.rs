//! A small JSON-RPC client for EVM nodes: batches, bounds, failover, and errors that say whether a
//! request may have been carried out.
//!
//! Several endpoints of one network are asked in turn, the one that answered last first. Reads go
//! on to the next endpoint on any failure of transport. Sending a signed transaction is repeatable
//! too, because its bytes are the same everywhere.

mod answer;
mod error;
mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

pub(crate) use self::answer::{
    Log, Receipt, Transaction, garbage, one_word, quantity, word, words,
};
pub(crate) use self::error::{NodeError, RpcError};
pub(crate) use self::send::Sent;

/// The longest wait for a TCP and TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest wait for a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The most calls that go into one HTTP body; public nodes take at least so many.
pub(crate) const BATCH_MAX: usize = 50;

/// How often the endpoints are gone through where connections break off: one that was kept open for
/// too long is found out by using it.
const ROUNDS: usize = 2;

/// One call: a method and its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) params: Value,
}

/// What a node said to one call.
pub(crate) type Answer = Result<Value, NodeError>;

/// The endpoints of one network.
#[derive(Clone, Debug)]
pub(crate) struct RpcClient {
    http: reqwest::Client,
    endpoints: Arc<[Endpoint]>,
    preferred: Arc<AtomicUsize>,
}

/// One endpoint; logs and errors show its host only, because paths carry API keys.
#[derive(Clone)]
struct Endpoint {
    url: Url,
    host: Arc<str>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)
    }
}

impl Call {
    pub(crate) fn new(method: &'static str, params: Value) -> Self {
        Self { method, params }
    }
}

impl RpcClient {
    /// A client of these endpoints, best first.
    pub(crate) fn new(http: reqwest::Client, urls: &[Url]) -> Self {
        let endpoint = |url: &Url| Endpoint { url: url.clone(), host: host_of(url) };
        let endpoints = urls.iter().map(endpoint).collect();
        Self { http, endpoints, preferred: Arc::new(AtomicUsize::new(0)) }
    }

    /// The hosts that are asked, for messages.
    pub(crate) fn hosts(&self) -> String {
        self.endpoints.iter().map(|it| &*it.host).collect::<Vec<_>>().join(", ")
    }

    /// One client for each endpoint alone, for the start-up check.
    pub(crate) fn apart(&self) -> Vec<Self> {
        let alone = |it: &Endpoint| Self {
            http: self.http.clone(),
            endpoints: [it.clone()].into(),
            preferred: Arc::default(),
        };
        self.endpoints.iter().map(alone).collect()
    }

    /// One read.
    pub(crate) async fn call(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<Value, RpcError> {
        let answers = self.batch(&[Call::new(method, params)]).await?;
        match answers.into_iter().next() {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(RpcError::Node { method, error }),
            None => Err(RpcError::NoEndpoint),
        }
    }

    /// Several reads, in one HTTP body for every [`BATCH_MAX`]; the answers come in the calls' order.
    pub(crate) async fn batch(&self, calls: &[Call]) -> Result<Vec<Answer>, RpcError> {
        let mut last = RpcError::NoEndpoint;
        for _ in 0..ROUNDS {
            for (index, endpoint) in self.in_turn() {
                match self.batch_at(endpoint, calls).await {
                    Ok(answers) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answers);
                    }
                    Err(error) => last = error,
                }
            }
            if !last.is_broken_off() {
                break;
            }
        }
        Err(last)
    }

    /// The endpoints, beginning with the one that answered last.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        let first = self.preferred.load(Ordering::Relaxed);
        let indexed = || self.endpoints.iter().enumerate();
        indexed().skip(first).chain(indexed().take(first))
    }

    async fn batch_at(&self, endpoint: &Endpoint, calls: &[Call]) -> Result<Vec<Answer>, RpcError> {
        let mut answers = Vec::with_capacity(calls.len());
        for chunk in calls.chunks(BATCH_MAX) {
            match chunk {
                [only] => answers.push(self.single_at(endpoint, only).await?),
                several => answers.extend(self.chunk_at(endpoint, several).await?),
            }
        }
        Ok(answers)
    }

    async fn single_at(&self, endpoint: &Endpoint, call: &Call) -> Result<Answer, RpcError> {
        let body = self.post(endpoint, &request_of(0, call)).await?;
        let reply: Reply = parse(endpoint, &body)?;
        Ok(reply.answer())
    }

    async fn chunk_at(&self, endpoint: &Endpoint, calls: &[Call]) -> Result<Vec<Answer>, RpcError> {
        let requests = calls.iter().enumerate().map(|(id, call)| request_of(id, call));
        let body = self.post(endpoint, &Value::Array(requests.collect())).await?;
        if serde_json::from_slice::<Reply>(&body).is_ok_and(|it| it.refuses_batches()) {
            let alone = calls.iter().map(|call| self.single_at(endpoint, call));
            return try_join_all(alone).await;
        }
        let mut answers: Vec<Option<Answer>> = vec![None; calls.len()];
        for reply in parse::<Vec<Reply>>(endpoint, &body)? {
            let place = reply.id.as_u64().and_then(|it| usize::try_from(it).ok());
            if let Some(slot) = place.and_then(|it| answers.get_mut(it)) {
                *slot = Some(reply.answer());
            }
        }
        let complete: Option<Vec<Answer>> = answers.into_iter().collect();
        complete.ok_or_else(|| endpoint.garbage("a batch with answers missing"))
    }

    /// One HTTP exchange; the body of an answer within bounds.
    async fn post(&self, endpoint: &Endpoint, body: &Value) -> Result<Vec<u8>, RpcError> {
        let request = self.http.post(endpoint.url.clone());
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        let mut response = request.send().await.map_err(|error| endpoint.failed(error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| endpoint.failed(error))? {
            if ANSWER_BYTES_MAX < bytes.len().saturating_add(chunk.len()) {
                return Err(endpoint.garbage("more than 8 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        // Nodes answer JSON-RPC errors with all kinds of status; only what is not JSON is judged by it.
        if status.is_success() || serde_json::from_slice::<Vec<Reply>>(&bytes).is_ok() {
            return Ok(bytes);
        }
        match serde_json::from_slice::<Reply>(&bytes) {
            Ok(reply) if reply.error.is_some() => Ok(bytes),
            _ => {
                Err(RpcError::Status { host: Arc::clone(&endpoint.host), status: status.as_u16() })
            }
        }
    }
}

/// The HTTP client for nodes and facilitators: bounded in time, follows no redirect.
pub(crate) fn http_client(answer_timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(answer_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(Duration::from_mins(1))
        .user_agent(concat!("farebox/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// The HTTP client for nodes.
pub(crate) fn node_client() -> Result<reqwest::Client, reqwest::Error> {
    http_client(ANSWER_TIMEOUT)
}

/// Host and port, and nothing of the path.
pub(crate) fn host_of(url: &Url) -> Arc<str> {
    let host = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| host.into(), |port| format!("{host}:{port}").into())
}

impl Endpoint {
    fn failed(&self, error: reqwest::Error) -> RpcError {
        let host = Arc::clone(&self.host);
        let source = Arc::new(error.without_url());
        if source.is_connect() {
            RpcError::Unreachable { host, source }
        } else {
            RpcError::NoAnswer { host, source }
        }
    }

    fn garbage(&self, what: &'static str) -> RpcError {
        RpcError::Garbage { host: Arc::clone(&self.host), what }
    }
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<NodeError>,
}

impl Reply {
    /// Whether a node answers a batch by saying that it takes none.
    fn refuses_batches(&self) -> bool {
        let invalid_request = -32_600;
        self.error.as_ref().is_some_and(|it| {
            it.code == invalid_request || it.message.to_ascii_lowercase().contains("batch")
        })
    }

    fn answer(self) -> Answer {
        self.error.map_or(Ok(self.result), Err)
    }
}

fn request_of(id: usize, call: &Call) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": call.method, "params": call.params})
}

fn parse<T: for<'de> Deserialize<'de>>(endpoint: &Endpoint, body: &[u8]) -> Result<T, RpcError> {
    serde_json::from_slice(body).map_err(|_| endpoint.garbage("something that is not JSON-RPC"))
}
