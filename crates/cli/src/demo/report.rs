//! What was quoted, charged and settled, and whether it adds up.

mod check;
mod text;

use std::time::Duration;

use farebox_billing::Payment;
use farebox_protocol::{Amount, Network, PaymentId};
use farebox_store::StoredPayment;
use serde::Serialize;

use self::check::Check;
use super::scenario::Step;
use super::stage::{BLOCK_TIME, BUDGET, Balances, Stage};
use crate::failure::Failure;

/// Everything that the demo has to show; the JSON of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    network: Network,
    /// The token's address; amounts are atomic units of it.
    asset: String,
    decimals: u8,
    block_time_ms: u64,
    /// Dollars.
    budget: String,
    steps: Vec<Step>,
    /// Of the ledger, in the order of their admission.
    payments: Vec<Row>,
    balances: Movements,
    /// What must be equal, and whether it is.
    checks: Vec<Check>,
    /// Whether every step ended as it was meant to and every check holds.
    adds_up: bool,
    /// Where the ledger and the configuration are, if they were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_at: Option<String>,
    milliseconds: u64,
}

impl Report {
    /// Whether every step ended as it was meant to and every check holds.
    pub(crate) fn adds_up(&self) -> bool {
        self.adds_up
    }
}

/// A payment as the ledger has it at the end.
#[derive(Debug, Serialize)]
struct Row {
    id: PaymentId,
    route: String,
    scheme: String,
    quoted: Amount,
    charged: Amount,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<String>,
}

impl From<&StoredPayment> for Row {
    fn from(stored: &StoredPayment) -> Self {
        let (charged, transaction) = match &stored.state {
            Payment::Settled { charge, transaction } => (*charge, Some(transaction.clone())),
            Payment::Captured { charge }
            | Payment::Settling { charge }
            | Payment::Unknown { charge, .. }
            | Payment::Lost { charge, .. } => (*charge, None),
            Payment::Held { .. } | Payment::Serving { .. } | Payment::Released { .. } => {
                (Amount::ZERO, None)
            }
        };
        Self {
            id: stored.terms.id,
            route: stored.terms.route.clone(),
            scheme: stored.terms.scheme.clone(),
            quoted: stored.terms.limit,
            charged,
            state: stored.state.name(),
            transaction,
        }
    }
}

/// Balances on chain before the first purchase and after the last settlement.
#[derive(Debug, Serialize)]
struct Movements {
    payer: Movement<Amount>,
    payer_wei: Movement<Amount>,
    seller: Movement<Amount>,
    settler_wei: Movement<Amount>,
}

/// One account's.
#[derive(Debug, Serialize)]
struct Movement<T> {
    address: String,
    before: T,
    after: T,
}

/// Puts together what happened and what the chain says of it.
pub(super) async fn draw_up(
    stage: &Stage,
    steps: Vec<Step>,
    stored: &[StoredPayment],
    (before, after): (Balances, Balances),
    elapsed: Duration,
) -> Result<Report, Failure> {
    let payments: Vec<Row> = stored.iter().map(Row::from).collect();
    let balances = movements(stage, before, after);
    let checks = check::all(stage, &steps, &payments, &balances).await?;
    let adds_up = checks.iter().all(Check::holds);
    let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
    Ok(Report {
        network: Network::eip155(84_532),
        asset: stage.token.to_string(),
        decimals: 6,
        block_time_ms: millis(BLOCK_TIME),
        budget: BUDGET.to_string(),
        steps,
        payments,
        balances,
        checks,
        adds_up,
        kept_at: stage.kept_at().map(|it| it.display().to_string()),
        milliseconds: millis(elapsed),
    })
}

fn movements(stage: &Stage, before: Balances, after: Balances) -> Movements {
    let people = stage.people;
    Movements {
        payer: Movement {
            address: people.payer.to_string(),
            before: before.payer,
            after: after.payer,
        },
        payer_wei: Movement {
            address: people.payer.to_string(),
            before: Amount::from_units(before.payer_wei),
            after: Amount::from_units(after.payer_wei),
        },
        seller: Movement {
            address: people.seller.to_string(),
            before: before.seller,
            after: after.seller,
        },
        settler_wei: Movement {
            address: people.settler.to_string(),
            before: Amount::from_units(before.settler_wei),
            after: Amount::from_units(after.settler_wei),
        },
    }
}
