//! Settlements a second: our facilitator, x402-rs' and the official TypeScript one on the same anvil,
//! beside a ceiling: the same transfers signed beforehand and handed to the node as fast as it takes
//! them.
//!
//! Blocks are mined with each transaction. With blocks on a clock every side would mostly wait for the
//! clock and 64 in flight could never be more than 64 a block; mined at once, what is measured is the
//! work that a side makes itself and its node do, and that a batch saves. `--block-time` puts the node
//! on a clock for those who want to see that too.

mod ceiling;
mod fire;
mod node;
mod orders;
mod profile;
mod sides;
pub mod x402_rs;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use self::ceiling::Ceiling;
use self::fire::Fired;
use self::node::{Node, Rpc};
use self::orders::Orders;
use self::sides::{Kind, Side};
use crate::scenario::Plan;

/// How many payments are on their way at a time.
const IN_FLIGHT: [usize; 3] = [1, 16, 64];
/// No side is expected to settle more in a second; so many are signed beforehand.
const RATE_MAX: u64 = 1_500;
/// The first round, which does not count.
const WARM_UP: (Duration, usize) = (Duration::from_millis(500), 750);
/// Unbatched, at 64 in flight: the least share of the ceiling.
const GOAL_SHARE: f64 = 0.5;
/// Batched, at 64 in flight: how many times the ceiling, and the most gas for each that one costs alone.
const GOAL_BATCHED: (f64, f64) = (3.0, 0.55);

/// What can be chosen.
#[derive(Clone, Debug, Default)]
pub struct Mode {
    /// Lines of our facilitator's `[network]` section that make it batch; measured beside the unbatched.
    pub batching: Option<String>,
    /// Seconds from block to block; each transaction makes one otherwise.
    pub block_time: Option<u64>,
    /// Whether only our facilitator and the ceiling are measured.
    pub alone: bool,
}

/// One side's sums over all rounds at one number in flight.
#[derive(Default)]
struct Sum {
    rates: Vec<f64>,
    micros: Vec<u64>,
    settled: usize,
    refused: usize,
    lost: u128,
    transactions: BTreeSet<String>,
    why: Option<String>,
}

impl Sum {
    fn add(&mut self, fired: Fired, moved: u128) {
        self.rates.push(fired.rate());
        self.settled += fired.settled;
        self.refused += fired.refused;
        // Said to be settled and not moved, or moved and said not to be.
        self.lost += (fired.settled as u128).abs_diff(moved);
        self.micros.extend(fired.micros);
        self.transactions.extend(fired.transactions);
        self.why = self.why.take().or(fired.why);
    }

    fn percentile(&mut self, percent: usize) -> f64 {
        self.micros.sort_unstable();
        let last = self.micros.len().saturating_sub(1);
        self.micros.get(last * percent / 100).copied().unwrap_or(0) as f64 / 1e3
    }
}

/// Prints one row for each side and number in flight, and what our facilitator asks its node for.
pub async fn run(plan: &Plan, mode: &Mode) -> Result<()> {
    let node = Node::start(mode.block_time).await?;
    let rpc = &node.rpc;
    orders::fund(rpc).await?;
    let mut kinds = vec![Kind::Farebox { batching: None }];
    if mode.batching.is_some() {
        kinds.push(Kind::Farebox { batching: mode.batching.clone() });
    }
    if !mode.alone {
        kinds.extend([Kind::X402Rs, Kind::TypeScript]);
    }
    let mut sides = Vec::new();
    for (index, kind) in kinds.into_iter().enumerate() {
        sides.push(Side::start(kind, index, &plan.farebox, rpc, rpc.url()).await?);
    }
    let mut ceiling = Ceiling::new(rpc, sides.len()).await?;
    let row = |in_flight| Row::new(in_flight, sides.len());
    let mut rows: Vec<Row> = IN_FLIGHT.into_iter().map(row).collect();
    for row in &mut rows {
        let (span, count) = WARM_UP;
        at(rpc, &sides, &mut ceiling, &mut Row::new(row.in_flight, sides.len()), span, count)
            .await?;
    }
    let span = Duration::from_secs(plan.seconds);
    let count = usize::try_from(plan.seconds * RATE_MAX)?;
    for _ in 0..plan.rounds {
        for row in &mut rows {
            at(rpc, &sides, &mut ceiling, row, span, count).await?;
        }
    }
    report(rpc, &sides, rows).await?;
    profile::run(plan, rpc, sides.len() + 1, mode).await
}

/// All sums at one number in flight.
struct Row {
    in_flight: usize,
    top: Sum,
    sums: Vec<Sum>,
}

impl Row {
    fn new(in_flight: usize, sides: usize) -> Self {
        let sums = (0..sides).map(|_| Sum::default()).collect();
        Self { in_flight, top: Sum::default(), sums }
    }
}

/// The ceiling and every side, once.
async fn at(
    rpc: &Rpc,
    sides: &[Side],
    ceiling: &mut Ceiling,
    row: &mut Row,
    span: Duration,
    count: usize,
) -> Result<()> {
    let (fired, moved) = ceiling.fire(rpc, row.in_flight, count, span).await?;
    row.top.add(fired, moved);
    for (side, sum) in sides.iter().zip(&mut row.sums) {
        let orders = Orders::sign(count, side.pay_to)?;
        let before = rpc.tokens_of(side.pay_to).await?;
        let fired = fire::settle(&side.address, orders, row.in_flight, span).await?;
        let moved = rpc.tokens_of(side.pay_to).await?.saturating_sub(before);
        sum.add(fired, moved / orders::AMOUNT);
    }
    Ok(())
}

/// Ratios are to the best ceiling of the same round, whatever it had in flight: with few nobody keeps the
/// node busy, and with many anvil itself becomes slower. Of the rounds' ratios the median counts.
async fn report(rpc: &Rpc, sides: &[Side], rows: Vec<Row>) -> Result<()> {
    let rounds = rows.iter().map(|it| it.top.rates.len()).min().unwrap_or(0);
    let best: Vec<f64> = (0..rounds)
        .map(|round| rows.iter().map(|it| it.top.rates[round]).fold(0.0, f64::max))
        .collect();
    for Row { in_flight, mut top, sums } in rows {
        ensure!(top.lost == 0, "the ceiling itself lost {} payments", top.lost);
        let alone = rpc.gas(&top.transactions).await? as f64 / top.settled.max(1) as f64;
        println!(
            "settle, {in_flight} in flight: pre-signed ceiling {:.0}/s (p50 {:.1} ms), {alone:.0} gas \
             a payment",
            median(&top.rates),
            top.percentile(50)
        );
        for (side, mut sum) in sides.iter().zip(sums) {
            let gas = rpc.gas(&sum.transactions).await? as f64 / sum.settled.max(1) as f64;
            let shares: Vec<f64> =
                sum.rates.iter().zip(&best).map(|(it, best)| it / best).collect();
            let name = side.kind.name();
            println!(
                "settle, {in_flight} in flight: {name}: {:.0}/s (p50 {:.1} ms, p99 {:.1} ms), {} \
                 settled, {} refused, {} lost, {gas:.0} gas a payment, {:.2} of the best ceiling{}",
                median(&sum.rates),
                sum.percentile(50),
                sum.percentile(99),
                sum.settled,
                sum.refused,
                sum.lost,
                median(&shares),
                goal(&side.kind, in_flight, gas / alone),
            );
            if let Some(why) = &sum.why {
                println!("    first refusal of {name}: {why}");
            }
            if side.kind.is_ours() {
                ensure!(sum.lost == 0 && sum.refused == 0, "{name} must lose none");
            }
        }
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn goal(kind: &Kind, in_flight: usize, gas: f64) -> String {
    match (kind, in_flight) {
        (Kind::Farebox { batching: None }, 64) => format!(", goal {GOAL_SHARE:.2}"),
        (Kind::Farebox { batching: Some(_) }, 64) => {
            let (share, part) = GOAL_BATCHED;
            format!(", goal {share:.2}; {gas:.2} of the gas alone, goal {part:.2}")
        }
        _ => String::new(),
    }
}
