//! A closed-loop load generator: so many connections, each with one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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
///
/// All connections are on one thread of their own, which costs the least for each request.
pub async fn fire(shot: &Shot, connections: usize, span: Duration) -> Result<Outcome> {
    let shot = shot.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(fire_here(&shot, connections, span))
    })
    .await?
}

async fn fire_here(shot: &Shot, connections: usize, span: Duration) -> Result<Outcome> {
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

/// One connection. The requests are the same bytes over and over and the answers are read by hand, so
/// that the generator costs as little as it can.
async fn connection(shot: Shot, stop: Arc<AtomicBool>) -> Result<Vec<u64>> {
    let mut stream = TcpStream::connect(&shot.address).await.context("connect")?;
    stream.set_nodelay(true)?;
    let mut request = format!(
        "{} {} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
        shot.method,
        shot.path,
        shot.address,
        shot.body.len()
    )
    .into_bytes();
    request.extend_from_slice(&shot.body);
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut micros = Vec::with_capacity(1 << 16);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        stream.write_all(&request).await?;
        let status = answer(&mut stream, &mut buffer).await?;
        micros.push(u64::try_from(begun.elapsed().as_micros())?);
        if status != shot.expected {
            bail!("{} {}: {status}, expected {}", shot.method, shot.path, shot.expected);
        }
    }
    Ok(micros)
}

/// Reads one answer that says its length; returns its status.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<StatusCode> {
    buffer.clear();
    let head = loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
    };
    let status = StatusCode::from_bytes(buffer.get(9..12).context("status")?)?;
    let length = memchr::memchr_iter(b'\n', &buffer[..head])
        .filter_map(|at| buffer[at + 1..head].split_at_checked(LENGTH.len()))
        .find(|(name, _)| name.eq_ignore_ascii_case(LENGTH))
        .context("the generator reads answers with a content-length alone")?
        .1;
    let end = memchr::memchr(b'\r', length).context("line")?;
    let length: usize = std::str::from_utf8(&length[..end])?.trim().parse()?;
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the answer broke off");
        }
    }
    Ok(status)
}

const LENGTH: &[u8] = b"content-length:";
