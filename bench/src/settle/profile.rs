//! What a facilitator asks its node for: HTTP exchanges and calls a payment, counted by a proxy between
//! the two. The proxy costs time, so nothing is timed here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::net::TcpListener;

use super::node::{Http, Rpc, http};
use super::orders::Orders;
use super::sides::{Kind, Side};
use super::{Mode, fire};
use crate::scenario::Plan;

const ORDERS: usize = 400;

#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

#[derive(Clone)]
struct Proxy {
    http: Http,
    url: String,
    counts: Counts,
}

/// Prints a row for our facilitator, unbatched and batched where that is asked for, at 1 and 64 in
/// flight. `index`: the first account that no side uses.
pub async fn run(plan: &Plan, rpc: &Rpc, index: usize, mode: &Mode) -> Result<()> {
    let mut kinds = vec![Kind::Farebox { batching: None }];
    kinds.extend(mode.batching.clone().map(|it| Kind::Farebox { batching: Some(it) }));
    for (offset, kind) in kinds.into_iter().enumerate() {
        let counts = Counts::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let proxy = Proxy { http: http(), url: rpc.url().to_owned(), counts: counts.clone() };
        let app = axum::Router::new().fallback(forward).with_state(proxy);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let side = Side::start(kind, index + offset, &plan.farebox, rpc, &url).await?;
        for in_flight in [1, 64] {
            let orders = Orders::sign(ORDERS, side.pay_to)?;
            counts.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let fired =
                fire::settle(&side.address, orders, in_flight, Duration::from_secs(5)).await?;
            let counted = counts.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let each = |count: &u64| *count as f64 / fired.settled.max(1) as f64;
            let row: Vec<String> =
                counted.iter().map(|(name, count)| format!("{name} {:.2}", each(count))).collect();
            println!("{}, {in_flight} in flight, a payment: {}", side.kind.name(), row.join(", "));
        }
        serving.abort();
    }
    Ok(())
}

async fn forward(State(proxy): State<Proxy>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let call: Value = serde_json::from_slice(&body).unwrap_or_default();
    let calls = call.as_array().cloned().unwrap_or_else(|| vec![call]);
    {
        let mut counts = proxy.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry("exchanges".to_owned()).or_default() += 1;
        for call in calls {
            let method = call["method"].as_str().unwrap_or("?").to_owned();
            *counts.entry(method).or_default() += 1;
        }
    }
    let bad = |_| StatusCode::BAD_GATEWAY;
    let request = Request::post(&proxy.url).header("content-type", "application/json");
    let request = request.body(Full::new(body)).map_err(|_| StatusCode::BAD_GATEWAY)?;
    let response = proxy.http.request(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(response.into_body().collect().await.map_err(bad)?.to_bytes().to_vec())
}
