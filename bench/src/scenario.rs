//! What is compared with what.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use http::StatusCode;

use crate::farebox::{self, Server};
use crate::load::{self, Outcome, Shot};
use crate::verify;

/// How a run is made.
pub struct Plan {
    pub seconds: u64,
    pub rounds: usize,
    pub farebox: PathBuf,
    pub settle: crate::settle::Mode,
}

/// Runs the named scenarios, or all.
pub async fn run(plan: &Plan, names: &[String]) -> Result<()> {
    let known = ["unpaid", "proxy", "verify", "paid", "settle"];
    for name in names {
        if !known.contains(&name.as_str()) {
            bail!("unknown scenario `{name}`; known are {}", known.join(", "));
        }
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|it| it == name);
    if wanted("unpaid") {
        unpaid(plan).await?;
    }
    if wanted("proxy") {
        proxy(plan).await?;
    }
    if wanted("verify") {
        verify::run(plan.rounds)?;
    }
    if wanted("paid") {
        crate::paid::run(plan).await?;
    }
    if wanted("settle") {
        crate::settle::run(plan, &plan.settle).await?;
    }
    Ok(())
}

/// One shot at either side, over and over, A B A B: both see the same weather.
async fn duel(plan: &Plan, a: &Shot, b: &Shot, connections: usize) -> Result<(Outcome, Outcome)> {
    let span = Duration::from_secs(plan.seconds);
    load::fire(a, connections, Duration::from_millis(500)).await?;
    load::fire(b, connections, Duration::from_millis(500)).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        ours.push(load::fire(a, connections, span).await?);
        theirs.push(load::fire(b, connections, span).await?);
    }
    Ok((median(ours), median(theirs)))
}

fn median(mut outcomes: Vec<Outcome>) -> Outcome {
    outcomes.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    outcomes.swap_remove(outcomes.len() / 2)
}

fn report(name: &str, baseline: &str, goal: f64, ours: &Outcome, theirs: &Outcome) {
    println!(
        "{name}: {:.0}/s (p50 {} µs, p99 {} µs); {baseline}: {:.0}/s (p50 {} µs, p99 {} µs); \
         ratio {:.2}, goal {goal:.2}",
        ours.rate(),
        ours.percentile(50),
        ours.percentile(99),
        theirs.rate(),
        theirs.percentile(50),
        theirs.percentile(99),
        ours.rate() / theirs.rate(),
    );
}

fn get(server: &Server, path: &str, expected: StatusCode) -> Shot {
    Shot {
        address: server.address.clone(),
        method: "GET".to_owned(),
        path: path.to_owned(),
        body: Bytes::new(),
        expected,
    }
}

async fn unpaid(plan: &Plan) -> Result<()> {
    let upstream = farebox::role(&["upstream"]).await?;
    let facilitator = farebox::role(&["facilitator"]).await?;
    let url = format!("http://{}", facilitator.address);
    let theirs = farebox::role(&["x402-axum", &url]).await?;
    let ours = farebox::seller(&plan.farebox, &upstream.address, "after").await?;
    let a = get(&ours.gateway, "/premium/report", StatusCode::PAYMENT_REQUIRED);
    let b = get(&theirs, "/premium/report", StatusCode::PAYMENT_REQUIRED);
    for connections in [1, 16, 64] {
        let (ours, theirs) = duel(plan, &a, &b, connections).await?;
        report(&format!("unpaid 402, {connections} conn"), "x402-axum 2.0.2", 1.3, &ours, &theirs);
    }
    Ok(())
}

async fn proxy(plan: &Plan) -> Result<()> {
    let upstream = farebox::role(&["upstream"]).await?;
    let theirs = farebox::role(&["hyper-proxy", &upstream.address]).await?;
    let ours = farebox::seller(&plan.farebox, &upstream.address, "after").await?;
    let a = get(&ours.gateway, "/free/file", StatusCode::OK);
    let b = get(&theirs, "/free/file", StatusCode::OK);
    for connections in [1, 16, 64] {
        let (ours, theirs) = duel(plan, &a, &b, connections).await?;
        report(&format!("proxy, {connections} conn"), "hyper proxy", 0.9, &ours, &theirs);
    }
    Ok(())
}
