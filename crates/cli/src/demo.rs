//! The demo: a whole economy in one process, offline, and the proof that its sums add up.
//!
//! It runs on what everybody else runs on: a configuration file, the gateway behind `serve`, the
//! client behind `pay`. Only the chain and the model are small ones.

mod chain;
mod model;
mod narrator;
mod report;
mod scenario;
mod stage;

pub(crate) use self::narrator::Narrator;
pub(crate) use self::report::Report;
pub(crate) use self::stage::{Place, Stage};

use crate::failure::Failure;

/// Plays the scenario on a stage and draws up the report.
pub(crate) async fn play(stage: &Stage, narrator: &Narrator<'_>) -> Result<Report, Failure> {
    let before = stage.balances().await?;
    let steps = scenario::run(stage, narrator).await?;
    narrator.say("waiting until every settlement is on chain …");
    let payments = stage.settled_payments().await?;
    let after = stage.balances().await?;
    // What was signed and not charged is free in the agent's books once the chain has shown it.
    stage.agent.reconcile().await;
    report::draw_up(stage, steps, &payments, (before, after), narrator.elapsed()).await
}
