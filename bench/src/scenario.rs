//! What is compared with what.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use http::StatusCode;

use crate::farebox::{self, Cores, Server};
use crate::load::{self, Outcome, Shot};
use crate::verify;

/// How a run is made.
pub struct Plan {
    pub seconds: u64,
    pub rounds: usize,
    pub farebox: PathBuf,
    pub placement: Placement,
    pub settle: crate::settle::Mode,
}

/// Where `unpaid` and `proxy` run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The server on a core of its own; what it takes for a request is then what counts.
    Apart,
    /// Everything everywhere: the generator takes from what it measures.
    Shared,
}

/// How many connections there are at a time.
const CONNECTIONS: [usize; 3] = [1, 16, 64];

/// Runs the named scenarios, or all.
pub async fn run(plan: &Plan, names: &[String]) -> Result<()> {
    let known = ["unpaid", "proxy", "verify", "paid", "settle", "ledger"];
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
    if wanted("ledger") {
        crate::ledger::run(plan).await?;
    }
    if wanted("settle") {
        crate::settle::run(plan, &plan.settle).await?;
    }
    Ok(())
}

/// One side of a comparison.
struct Side<'a> {
    server: &'a Server,
    shot: Shot,
}

/// A run against one side, and the processor time that it took there.
struct Measured {
    outcome: Outcome,
    processor: Duration,
}

impl Measured {
    fn micros_a_request(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.outcome.requests as f64
    }

    fn busy_percent(&self) -> f64 {
        self.processor.as_secs_f64() * 1e2 / self.outcome.seconds
    }
}

impl Side<'_> {
    async fn fire(&self, connections: usize, span: Duration) -> Result<Measured> {
        let before = self.server.processor_time()?;
        let outcome = load::fire(&self.shot, connections, span).await?;
        Ok(Measured { outcome, processor: self.server.processor_time()? - before })
    }
}

/// One shot at either side, over and over, A B A B: both see the same weather.
async fn duel(plan: &Plan, sides: [&Side<'_>; 2], connections: usize) -> Result<[Measured; 2]> {
    let span = Duration::from_secs(plan.seconds);
    for side in sides {
        side.fire(connections, Duration::from_millis(500)).await?;
    }
    let mut measured = [Vec::new(), Vec::new()];
    for _ in 0..plan.rounds {
        for (side, runs) in sides.iter().zip(&mut measured) {
            runs.push(side.fire(connections, span).await?);
        }
    }
    Ok(measured.map(median))
}

fn median(mut runs: Vec<Measured>) -> Measured {
    runs.sort_by(|a, b| a.outcome.rate().total_cmp(&b.outcome.rate()));
    runs.swap_remove(runs.len() / 2)
}

fn report(name: &str, baseline: &str, goal: f64, [ours, theirs]: &[Measured; 2]) {
    let side = |it: &Measured| {
        format!(
            "{:.0}/s (p50 {} µs, p99 {} µs; processor {:.1} µs a request, {:.0} % of a core)",
            it.outcome.rate(),
            it.outcome.percentile(50),
            it.outcome.percentile(99),
            it.micros_a_request(),
            it.busy_percent(),
        )
    };
    println!(
        "{name}: {}; {baseline}: {}; ratio {:.2}, goal {goal:.2}",
        side(ours),
        side(theirs),
        ours.outcome.rate() / theirs.outcome.rate(),
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

/// Where the server under test runs, and where the rest.
async fn take_places(plan: &Plan) -> Result<(Cores, Cores)> {
    Ok(match plan.placement {
        Placement::Shared => (Cores::All, Cores::All),
        Placement::Apart => {
            Cores::Others.enter().await?;
            (Cores::First, Cores::Others)
        }
    })
}

async fn leave_places(plan: &Plan) -> Result<()> {
    match plan.placement {
        Placement::Shared => Ok(()),
        Placement::Apart => Cores::All.enter().await,
    }
}

async fn unpaid(plan: &Plan) -> Result<()> {
    let (tested, rest) = take_places(plan).await?;
    let upstream = farebox::role(rest, &["upstream"]).await?;
    let facilitator = farebox::role(rest, &["facilitator"]).await?;
    let url = format!("http://{}", facilitator.address);
    let theirs = farebox::role(tested, &["x402-axum", &url]).await?;
    let ours = farebox::seller(tested, &plan.farebox, &upstream.address, "after").await?;
    let shot = |server| get(server, "/premium/report", StatusCode::PAYMENT_REQUIRED);
    let a = Side { server: &ours.gateway, shot: shot(&ours.gateway) };
    let b = Side { server: &theirs, shot: shot(&theirs) };
    for connections in CONNECTIONS {
        let measured = duel(plan, [&a, &b], connections).await?;
        report(&format!("unpaid 402, {connections} conn"), "x402-axum 2.0.2", 1.3, &measured);
    }
    leave_places(plan).await
}

async fn proxy(plan: &Plan) -> Result<()> {
    let (tested, rest) = take_places(plan).await?;
    let upstream = farebox::role(rest, &["upstream"]).await?;
    let theirs = farebox::role(tested, &["hyper-proxy", &upstream.address]).await?;
    let ours = farebox::seller(tested, &plan.farebox, &upstream.address, "after").await?;
    let shot = |server| get(server, "/free/file", StatusCode::OK);
    let a = Side { server: &ours.gateway, shot: shot(&ours.gateway) };
    let b = Side { server: &theirs, shot: shot(&theirs) };
    for connections in CONNECTIONS {
        let measured = duel(plan, [&a, &b], connections).await?;
        report(&format!("proxy, {connections} conn"), "hyper proxy", 0.9, &measured);
    }
    leave_places(plan).await
}
