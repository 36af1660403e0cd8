//! What a payment adds: 100 paid requests a second on the clock, settled in the background.
//!
//! Offers are fetched and signed ahead of time; measured is the paid request itself, against the same
//! request to the upstream directly, in the same run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use farebox_chains::{AuthorizationWindow, EvmKey, sign_exact};
use farebox_protocol::wire::{Object, PaymentPayload, PaymentRequired};
use farebox_protocol::{Timestamp, bound_nonce, header};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::farebox::{self, Cores};
use crate::scenario::Plan;

const PER_SECOND: u32 = 100;

type Http = Client<HttpConnector, Full<Bytes>>;

/// Prints the percentiles of both sides and what the payment added.
pub async fn run(plan: &Plan) -> Result<()> {
    let upstream = farebox::role(Cores::All, &["upstream"]).await?;
    let seller =
        farebox::seller(Cores::All, &plan.farebox, &upstream.address, "background").await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http: Http = Client::builder(TokioExecutor::new()).build(connector);
    let count = usize::try_from(plan.seconds)? * plan.rounds * PER_SECOND as usize;
    let mut paid = Vec::with_capacity(count);
    for index in 0..count {
        let url = format!("http://{}/premium/{index}", seller.gateway.address);
        paid.push((url.clone(), Some(sign(&http, &url).await?)));
    }
    let direct = (0..count).map(|it| (format!("http://{}/{it}", upstream.address), None)).collect();
    let without = on_the_clock(&http, direct).await?;
    let with = on_the_clock(&http, paid).await?;
    println!(
        "paid at {PER_SECOND}/s, settle background, {count} requests: p50 {:.2} ms, p99 {:.2} ms; \
         upstream directly: p50 {:.2} ms, p99 {:.2} ms; added p99 {:.2} ms, goal < 20",
        at(&with, 50),
        at(&with, 99),
        at(&without, 50),
        at(&without, 99),
        at(&with, 99) - at(&without, 99),
    );
    drop(seller.chain);
    Ok(())
}

fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len() - 1) * percent / 100).copied().unwrap_or(f64::NAN)
}

/// Sends each request at its own time, whether or not the ones before are answered.
async fn on_the_clock(http: &Http, shots: Vec<(String, Option<String>)>) -> Result<Vec<f64>> {
    let begun = tokio::time::Instant::now() + Duration::from_millis(100);
    let mut tasks = tokio::task::JoinSet::new();
    for (index, (url, payment)) in shots.into_iter().enumerate() {
        let http = http.clone();
        let due = begun + Duration::from_secs(1) * u32::try_from(index)? / PER_SECOND;
        tasks.spawn(async move {
            tokio::time::sleep_until(due).await;
            let begun = Instant::now();
            let (status, _) = send(&http, &url, payment.as_deref()).await?;
            ensure!(status == StatusCode::OK, "{url}: {status}");
            Ok::<_, anyhow::Error>(begun.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut millis = Vec::new();
    while let Some(done) = tasks.join_next().await {
        millis.push(done??);
    }
    millis.sort_by(f64::total_cmp);
    Ok(millis)
}

async fn send(http: &Http, url: &str, payment: Option<&str>) -> Result<(StatusCode, HeaderMap)> {
    let mut request = Request::builder().uri(url);
    if let Some(payment) = payment {
        request = request.header(header::PAYMENT_SIGNATURE, payment);
    }
    let (parts, body) = http.request(request.body(Full::default())?).await?.into_parts();
    body.collect().await?;
    Ok((parts.status, parts.headers))
}

async fn sign(http: &Http, url: &str) -> Result<String> {
    let (status, headers) = send(http, url, None).await?;
    ensure!(status == StatusCode::PAYMENT_REQUIRED, "{url}: {status}");
    let offer = headers.get(header::PAYMENT_REQUIRED).context("no offer")?;
    let required = header::decode::<PaymentRequired>(offer.as_bytes())?;
    let accepted = required.value().accepts.first().context("no offer")?.clone();
    let quote = accepted.extra.get("quote").and_then(|it| it.as_str()).context("no quote")?;
    let nonce = bound_nonce(quote);
    let now = x402_types::timestamp::UnixTimestamp::now().as_secs();
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: Timestamp::from_seconds(now + accepted.max_timeout_seconds),
    };
    let key = EvmKey::from_hex(farebox::KEYS[1])?;
    let payload = sign_exact(&key, &accepted, window, nonce)?;
    Ok(header::encode(&PaymentPayload {
        x402_version: 2,
        payload,
        resource: Some(required.value().resource.clone()),
        accepted,
        extensions: None,
        rest: Object::new(),
    })?)
}
