//! A closed-loop load generator: so many connections, each with one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What every connection repeats.
#[derive(Clone, Debug)]
pub struct Shot {
    pub address: String,
    pub method: String,
    pub path: String,
    pub body: Bytes,
    pub expected: StatusCode,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub requests: usize,
    pub seconds: f64,
    /// Sorted, in microseconds.
    pub micros: Vec<u64>,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    pub fn percentile(&self, percent: usize) -> u64 {
        let last = self.micros.len().saturating_sub(1);
        self.micros.get(last * percent / 100).copied().unwrap_or(0)
    }
}

/// Fires `shot` over `connections` for `span`. An answer with another status is an error: a fast
/// refusal must not look like speed.
pub async fn fire(shot: &Shot, connections: usize, span: Duration) -> Result<Outcome> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for _ in 0..connections {
        tasks.spawn(connection(shot.clone(), Arc::clone(&stop)));
    }
    tokio::time::sleep(span).await;
    stop.store(true, Ordering::Relaxed);
    let mut outcome = Outcome::default();
    while let Some(done) = tasks.join_next().await {
        outcome.micros.extend(done??);
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome.requests = outcome.micros.len();
    outcome.micros.sort_unstable();
    Ok(outcome)
}

async fn connection(shot: Shot, stop: Arc<AtomicBool>) -> Result<Vec<u64>> {
    let stream = TcpStream::connect(&shot.address).await.context("connect")?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut micros = Vec::with_capacity(1 << 16);
    while !stop.load(Ordering::Relaxed) {
        let request = Request::builder()
            .method(shot.method.as_str())
            .uri(&shot.path)
            .header("host", &shot.address)
            .header("content-type", "application/json")
            .body(Full::new(shot.body.clone()))?;
        let begun = Instant::now();
        let response = sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        micros.push(u64::try_from(begun.elapsed().as_micros())?);
        if status != shot.expected {
            bail!("{} {}: {status}, expected {}", shot.method, shot.path, shot.expected);
        }
    }
    driver.abort();
    Ok(micros)
}
