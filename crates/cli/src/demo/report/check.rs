//! What must be equal: the ledger, the chain and the agent tell the same story, to the last unit.

use farebox_protocol::Amount;
use serde::Serialize;

use super::super::scenario::{End, Step};
use super::super::stage::Stage;
use super::{Movement, Movements, Row};
use crate::failure::Failure;

/// Two numbers that must be equal.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    /// What is compared, in words.
    pub(super) what: &'static str,
    /// In atomic units, wei, or a count.
    pub(super) expected: String,
    /// Likewise.
    pub(super) found: String,
    /// Whether they are equal.
    pub(super) holds: bool,
}

impl Check {
    fn equal<T: PartialEq + ToString>(what: &'static str, expected: T, found: T) -> Self {
        let holds = expected == found;
        Self { what, expected: expected.to_string(), found: found.to_string(), holds }
    }

    /// Whether they are equal.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }
}

/// Compares everything with everything.
pub(super) async fn all(
    stage: &Stage,
    steps: &[Step],
    payments: &[Row],
    balances: &Movements,
) -> Result<Vec<Check>, Failure> {
    let settled: Vec<&Row> = payments.iter().filter(|it| it.transaction.is_some()).collect();
    let charged = sum(payments.iter().map(|it| it.charged))?;
    let settled_sum = sum(settled.iter().map(|it| it.charged))?;
    let bought = steps.iter().filter(|it| it.end == End::Bought).count();
    let as_meant = steps.iter().filter(|it| it.end == it.expected).count();
    let mut fees = Vec::new();
    for transaction in settled.iter().filter_map(|it| it.transaction.as_deref()) {
        fees.push(Amount::from_units(stage.chain.fee(transaction).await?));
    }
    let mut transactions: Vec<&str> =
        settled.iter().filter_map(|it| it.transaction.as_deref()).collect();
    transactions.sort_unstable();
    transactions.dedup();
    let audit = stage.ledger.check().await;
    let audit =
        audit.map_err(|error| Failure::new("the ledger could not be audited").because(error))?;
    let agent = stage.agent.standing().spent.micros();
    let gas = [balances.payer_wei.before, balances.payer_wei.after];
    Ok(vec![
        Check::equal("steps that ended as they were meant to", steps.len(), as_meant),
        Check::equal("what was charged is settled on chain", charged, settled_sum),
        Check::equal("the payer paid what was charged", charged, paid(&balances.payer)?),
        Check::equal("the seller got what was charged", charged, received(&balances.seller)?),
        Check::equal("the agent's own books say the same", charged, Amount::from_units(agent)),
        Check::equal("the payer owned no money for gas", Amount::ZERO, sum(gas)?),
        Check::equal("one settlement for each purchase", bought, settled.len()),
        Check::equal("each in a transaction of its own", settled.len(), transactions.len()),
        Check::equal(
            "the settler paid the gas of those transactions and no more",
            sum(fees)?,
            paid(&balances.settler_wei)?,
        ),
        Check::equal("faults found by the audit of the ledger", 0, audit.problems.len()),
    ])
}

fn sum(amounts: impl IntoIterator<Item = Amount>) -> Result<Amount, Failure> {
    amounts
        .into_iter()
        .try_fold(Amount::ZERO, Amount::checked_add)
        .map_err(|error| Failure::new("the sums of the demo cannot be written").because(error))
}

fn paid(movement: &Movement<Amount>) -> Result<Amount, Failure> {
    difference(movement.before, movement.after)
}

fn received(movement: &Movement<Amount>) -> Result<Amount, Failure> {
    difference(movement.after, movement.before)
}

fn difference(more: Amount, less: Amount) -> Result<Amount, Failure> {
    more.checked_sub(less)
        .map_err(|error| Failure::new("a balance moved in the wrong direction").because(error))
}
