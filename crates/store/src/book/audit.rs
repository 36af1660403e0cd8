//! What every engine is audited by: the rows must be what the journal tells, replayed through the life
//! cycle, and each payment must stand where its settlement does.

use std::collections::BTreeMap;
use std::fmt;

use farebox_billing::Payment;
use farebox_billing::ledger::{Account, AccountKey, Books, trial_balance};
use farebox_protocol::{Amount, Asset, OutOfRange, PaymentId};

use crate::book::holds::charged;
use crate::book::record::Record;
use crate::book::replay::Replay;
use crate::book::settlements::{Settlement, Status};

/// Problems that are named; the rest is counted.
const MAX_NAMED: usize = 100;

/// What a check found. `payments` and `entries` say how much was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Payments whose journal was replayed.
    pub payments: u64,
    /// Entries of the journal.
    pub entries: u64,
    /// Accounts that were held against it.
    pub accounts: u64,
    /// What stands where.
    pub totals: Vec<Total>,
    /// What is wrong, at most a hundred of it; empty is what one wants to see.
    pub problems: Vec<Problem>,
    /// How much is wrong in all.
    pub problem_count: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0
    }

    pub(crate) fn report(&mut self, payment: Option<PaymentId>, what: impl Into<String>) {
        self.problem_count = self.problem_count.saturating_add(1);
        if self.problems.len() < MAX_NAMED {
            self.problems.push(Problem { payment, what: what.into() });
        }
    }
}

/// All payments of one asset in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// Of which asset.
    pub asset: Asset,
    /// [`Payment::name`] of the state.
    pub state: &'static str,
    /// How many.
    pub payments: u64,
    /// Σ of what they hold (before the capture) or charge (after it), in atomic units; nothing for
    /// released ones.
    pub units: Amount,
    /// How many of them are owed back.
    pub refunds_owed: u64,
    /// Σ of what is owed back, in atomic units.
    pub refund_units: Amount,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// With which payment, if it is about one.
    pub payment: Option<PaymentId>,
    /// What it is, for a person.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payment {
            Some(id) => write!(f, "{id}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Holds a payment's row against what the journal tells of it.
pub(crate) fn compare(told: &Replay, row: Option<&Record>, report: &mut CheckReport) {
    report.payments = report.payments.saturating_add(1);
    let Some(row) = row else {
        report.report(Some(told.id), "is in the journal alone");
        return;
    };
    if Some(&row.state) != told.state.as_ref() {
        let what = format!("the row says {:?}, the journal {:?}", row.state, told.state);
        report.report(Some(told.id), what);
    }
    let rest = (row.generation, row.reopened, row.answer, &row.refund_owed);
    let journal = (told.generation, told.reopened, told.answer, &told.refund_owed);
    if rest != journal {
        let what = format!("the row says {rest:?}, the journal {journal:?}");
        report.report(Some(told.id), what);
    }
}

/// Holds every account against what the journal comes to, and debits against credits.
pub(crate) fn check_accounts(
    kept: &BTreeMap<AccountKey, Account>,
    books: &Books,
    report: &mut CheckReport,
) {
    let told: BTreeMap<&AccountKey, &Account> = books.accounts().collect();
    report.accounts = u64::try_from(kept.len()).unwrap_or(u64::MAX);
    for (key, account) in kept {
        let told = told.get(key).copied().copied().unwrap_or(Account::ZERO);
        if *account != told {
            report
                .report(None, format!("the account {key} says {account:?}, the journal {told:?}"));
        }
    }
    for (key, account) in told {
        if *account != Account::ZERO && !kept.contains_key(key) {
            report.report(None, format!("the account {key} is in the journal alone: {account:?}"));
        }
    }
    match trial_balance(kept) {
        Ok(sums) => {
            for (asset, sum) in sums.iter().filter(|it| !it.1.is_even()) {
                report.report(None, format!("the accounts of {asset} are uneven: {sum:?}"));
            }
        }
        Err(error) => report.report(None, format!("the accounts cannot be added up: {error}")),
    }
}

/// What is wrong between a payment and the settlement of its present hold, if anything is: a charge
/// and its settlement are there together, and stand together.
pub(crate) fn disagreement(row: &Record, settlement: Option<&Settlement>) -> Option<&'static str> {
    let Some(settlement) = settlement else {
        let without = charged(&row.state).is_some();
        return without.then_some("charged without exactly one settlement in the queue");
    };
    let expected = match row.state {
        Payment::Held { .. } | Payment::Serving { .. } => {
            return Some("has a settlement in the queue without a charge");
        }
        Payment::Settling { .. } => Status::Leased,
        Payment::Captured { .. } | Payment::Unknown { .. } => Status::Queued,
        Payment::Settled { .. } | Payment::Released { .. } | Payment::Lost { .. } => Status::Done,
    };
    (settlement.status != expected).then_some("stands elsewhere than its settlement")
}

/// Sums by asset and state, row by row.
#[derive(Debug, Default)]
pub(crate) struct Totals(BTreeMap<(Asset, &'static str), Total>);

impl Totals {
    pub(crate) fn add(&mut self, row: &Record) -> Result<(), OutOfRange> {
        let units = match &row.state {
            Payment::Held { limit } | Payment::Serving { limit, .. } => *limit,
            Payment::Captured { charge }
            | Payment::Settling { charge }
            | Payment::Unknown { charge, .. }
            | Payment::Settled { charge, .. }
            | Payment::Lost { charge, .. } => *charge,
            Payment::Released { .. } => Amount::ZERO,
        };
        let asset = row.parties.asset().clone();
        let state = row.state.name();
        let total = self.0.entry((asset.clone(), state)).or_insert_with(|| Total {
            asset,
            state,
            payments: 0,
            units: Amount::ZERO,
            refunds_owed: 0,
            refund_units: Amount::ZERO,
        });
        total.payments = total.payments.saturating_add(1);
        total.units = total.units.checked_add(units)?;
        if row.refund_owed.is_some() {
            total.refunds_owed = total.refunds_owed.saturating_add(1);
            total.refund_units = total.refund_units.checked_add(units)?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Vec<Total> {
        self.0.into_values().collect()
    }
}
