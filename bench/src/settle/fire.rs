//! So many payments in flight for so long: each slot asks for one settlement after the other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::task::JoinSet;

use super::node::{Http, http};
use super::orders::Orders;

/// How long an answer is waited for: one that comes later is of no use to whoever serves a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Default)]
pub struct Fired {
    pub settled: usize,
    pub refused: usize,
    pub seconds: f64,
    /// Of those settled.
    pub micros: Vec<u64>,
    pub transactions: Vec<String>,
    /// The first refusal.
    pub why: Option<String>,
}

impl Fired {
    pub fn rate(&self) -> f64 {
        self.settled as f64 / self.seconds
    }

    pub fn absorb(&mut self, other: Self) {
        self.settled += other.settled;
        self.refused += other.refused;
        self.micros.extend(other.micros);
        self.transactions.extend(other.transactions);
        self.why = self.why.take().or(other.why);
    }
}

/// Asks the facilitator at `address` to settle, until `span` is over or the orders are used up. What was
/// begun is waited for.
pub async fn settle(
    address: &str,
    orders: Orders,
    in_flight: usize,
    span: Duration,
) -> Result<Fired> {
    let (http, url) = (http(), format!("http://{address}/settle"));
    let left = Arc::new(Mutex::new(orders.0));
    let begun = Instant::now();
    let mut slots = JoinSet::new();
    for _ in 0..in_flight {
        slots.spawn(slot(http.clone(), url.clone(), Arc::clone(&left), begun + span));
    }
    let mut fired = Fired::default();
    while let Some(slot) = slots.join_next().await {
        fired.absorb(slot??);
    }
    fired.seconds = begun.elapsed().as_secs_f64();
    Ok(fired)
}

async fn slot(
    http: Http,
    url: String,
    left: Arc<Mutex<Vec<Bytes>>>,
    end: Instant,
) -> Result<Fired> {
    let mut fired = Fired::default();
    while Instant::now() < end {
        let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(body) = next else { break };
        let begun = Instant::now();
        let asked = ask(&http, &url, body);
        let Ok(bytes) = tokio::time::timeout(PATIENCE, asked).await else {
            fired.refused += 1;
            fired.why = fired.why.take().or(Some(format!("no answer in {PATIENCE:?}")));
            continue;
        };
        let bytes = bytes?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match answer["transaction"].as_str().filter(|_| answer["success"] == true) {
            Some(transaction) => {
                fired.settled += 1;
                fired.micros.push(u64::try_from(begun.elapsed().as_micros())?);
                fired.transactions.push(transaction.to_owned());
            }
            None => {
                fired.refused += 1;
                let text = String::from_utf8_lossy(&bytes).chars().take(300).collect();
                fired.why = fired.why.take().or(Some(text));
            }
        }
    }
    Ok(fired)
}

async fn ask(http: &Http, url: &str, body: Bytes) -> Result<Bytes> {
    let request = Request::post(url).header("content-type", "application/json");
    let response = http.request(request.body(Full::new(body))?).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}
