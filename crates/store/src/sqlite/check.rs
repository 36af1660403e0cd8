//! The ledger's own audit: what the rows say must be what the journal tells.

use std::collections::BTreeMap;
use std::fmt;

use farebox_billing::Payment;
use farebox_billing::ledger::{Account, AccountKey, Books, trial_balance};
use farebox_protocol::{Amount, Asset, OutOfRange, PaymentId};
use rusqlite::Connection;

use crate::book::record::Record;
use crate::book::replay::Replay;
use crate::port::StoreError;
use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::{accounts, rows};

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

    fn report(&mut self, payment: Option<PaymentId>, what: impl Into<String>) {
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

/// Each rule that one query checks: the query finds what breaks it.
const RULES: [(&str, &str); 5] = [
    (
        "has no terms",
        "SELECT id FROM payments AS p WHERE NOT EXISTS
            (SELECT 1 FROM terms AS t WHERE t.seq = p.seq)",
    ),
    (
        "charged without exactly one settlement in the queue",
        "SELECT id FROM payments AS p WHERE charge IS NOT NULL AND 1 <>
            (SELECT count(*) FROM outbox AS o
              WHERE o.payment = p.id AND o.generation = p.generation)",
    ),
    (
        "has a settlement in the queue without a charge",
        "SELECT id FROM payments AS p WHERE state IN ('held', 'serving') AND EXISTS
            (SELECT 1 FROM outbox AS o
              WHERE o.payment = p.id AND o.generation = p.generation)",
    ),
    (
        "stands elsewhere than its settlement",
        "SELECT id FROM payments AS p JOIN outbox AS o
             ON o.payment = p.id AND o.generation = p.generation
          WHERE o.status <> CASE WHEN p.state = 'settling' THEN 'leased'
                                 WHEN p.state IN ('captured', 'unknown') THEN 'queued'
                                 ELSE 'done' END",
    ),
    (
        "has an unfinished settlement of an earlier hold",
        "SELECT id FROM payments AS p JOIN outbox AS o ON o.payment = p.id
          WHERE o.generation <> p.generation AND o.status <> 'done'",
    ),
];

/// Checks the whole file as of one moment, while it goes on being written.
pub(super) fn check(connection: &Connection) -> Done<CheckReport> {
    connection.execute_batch("BEGIN")?;
    let report = check_snapshot(connection);
    connection.execute_batch("COMMIT")?;
    report
}

fn check_snapshot(connection: &Connection) -> Done<CheckReport> {
    let mut report = CheckReport::default();
    check_file(connection, &mut report)?;
    for (what, sql) in RULES {
        let mut statement = connection.prepare(sql)?;
        for id in statement.query_map([], |it| rows::id(it, "id"))? {
            report.report(Some(id?), what);
        }
    }
    check_journal(connection, &mut report)?;
    report.totals = totals(connection)?;
    Ok(report)
}

/// SQLite's own view: pages, indexes, constraints, references.
fn check_file(connection: &Connection, report: &mut CheckReport) -> Done<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    for line in statement.query_map([], |it| it.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            report.report(None, line);
        }
    }
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    for table in statement.query_map([], |it| it.get::<_, String>(0))? {
        report.report(None, format!("a row of `{}` refers to no payment", table?));
    }
    let (first, last, entries): (Option<i64>, Option<i64>, i64) =
        connection.query_row("SELECT min(seq), max(seq), count(*) FROM journal", [], |it| {
            Ok((it.get(0)?, it.get(1)?, it.get(2)?))
        })?;
    if first.is_some_and(|it| it != 1) || last.is_some_and(|it| it != entries) {
        report.report(None, "the journal has gaps");
    }
    Ok(())
}

/// Replays the journal of each payment through the life cycle, and all of it onto the accounts.
fn check_journal(connection: &Connection, report: &mut CheckReport) -> Done<()> {
    let books = replay(connection, &mut |step| match step {
        Step::Entry(problem) => {
            report.entries = report.entries.saturating_add(1);
            if let Some((id, what)) = problem {
                report.report(Some(id), what);
            }
            Ok(())
        }
        Step::Payment(told) => compare(connection, &told, report),
    })?;
    let rows: i64 = connection.query_row("SELECT count(*) FROM payments", [], |it| it.get(0))?;
    if u64::try_from(rows) != Ok(report.payments) {
        report
            .report(None, format!("{rows} payments, of which {} are journalled", report.payments));
    }
    check_accounts(connection, &books, report)
}

/// What a replay comes by.
enum Step {
    /// An entry, and what is wrong with it.
    Entry(Option<(PaymentId, String)>),
    /// The last entry of a payment.
    Payment(Box<Replay>),
}

/// Walks through the journal, payment by payment; what it comes to on every account.
fn replay(connection: &Connection, visit: &mut dyn FnMut(Step) -> Done<()>) -> Done<Books> {
    // No column that came after the accounts: a file without them is filled by this.
    let sql = "SELECT j.payment, j.event, j.amount, j.detail,
                      p.network, p.asset, p.payer, t.pay_to, t.route
                 FROM journal AS j
                 JOIN payments AS p ON p.id = j.payment
                 JOIN terms AS t ON t.seq = p.seq
                ORDER BY j.payment, j.seq";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut books = Books::new();
    let mut current: Option<Replay> = None;
    while let Some(row) = rows.next()? {
        let (id, entry) = rows::read_entry(row)?;
        if let Some(finished) = current.take_if(|it| it.id != id) {
            visit(Step::Payment(Box::new(finished)))?;
        }
        let replay = match &mut current {
            Some(replay) => replay,
            None => current.insert(Replay::new(id, rows::parties(row)?)),
        };
        let problem = replay.apply(&entry, &mut books).err().map(|what| (id, what));
        // Nothing looks back at what was booked, so it need not be kept.
        books.forget_transfers();
        drop(books.take_changes());
        visit(Step::Entry(problem))?;
    }
    if let Some(last) = current {
        visit(Step::Payment(Box::new(last)))?;
    }
    Ok(books)
}

/// Fills the accounts of a file that had none.
pub(super) fn fill_accounts(connection: &Connection) -> Done<()> {
    let books = replay(connection, &mut |step| match step {
        Step::Entry(Some((id, what))) => {
            Err(Fault::Store(StoreError::Corrupt(format!("{id}: {what}"))))
        }
        Step::Entry(None) | Step::Payment(_) => Ok(()),
    })?;
    accounts::keep_all(connection, &books)?;
    Ok(())
}

/// Holds a payment's row against what the journal tells of it.
fn compare(connection: &Connection, told: &Replay, report: &mut CheckReport) -> Done<()> {
    report.payments = report.payments.saturating_add(1);
    let Some(row) = rows::find(connection, told.id)? else {
        report.report(Some(told.id), "is in the journal alone");
        return Ok(());
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
    Ok(())
}

/// Holds every account against what the journal comes to, and debits against credits.
fn check_accounts(connection: &Connection, books: &Books, report: &mut CheckReport) -> Done<()> {
    let kept: BTreeMap<AccountKey, Account> = accounts::all(connection)?.into_iter().collect();
    let told: BTreeMap<&AccountKey, &Account> = books.accounts().collect();
    report.accounts = u64::try_from(kept.len()).unwrap_or(u64::MAX);
    for (key, account) in &kept {
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
    match trial_balance(&kept) {
        Ok(sums) => {
            for (asset, sum) in sums.iter().filter(|it| !it.1.is_even()) {
                report.report(None, format!("the accounts of {asset} are uneven: {sum:?}"));
            }
        }
        Err(error) => report.report(None, format!("the accounts cannot be added up: {error}")),
    }
    Ok(())
}

/// Sums by asset and state.
pub(super) fn totals(connection: &Connection) -> Done<Vec<Total>> {
    let mut totals = BTreeMap::new();
    let mut statement = connection.prepare(rows::SELECT)?;
    let mut found = statement.query([])?;
    while let Some(it) = found.next()? {
        let row = rows::read_record(it)?;
        let asset = row.parties.asset().clone();
        let state = row.state.name();
        let total = totals.entry((asset.clone(), state)).or_insert_with(|| Total {
            asset,
            state,
            payments: 0,
            units: Amount::ZERO,
            refunds_owed: 0,
            refund_units: Amount::ZERO,
        });
        add(total, &row).map_err(|it| Fault::corrupt(format!("a total: {it}")))?;
    }
    Ok(totals.into_values().collect())
}

fn add(total: &mut Total, row: &Record) -> Result<(), OutOfRange> {
    let units = match &row.state {
        Payment::Held { limit } | Payment::Serving { limit, .. } => *limit,
        Payment::Captured { charge }
        | Payment::Settling { charge }
        | Payment::Unknown { charge, .. }
        | Payment::Settled { charge, .. }
        | Payment::Lost { charge, .. } => *charge,
        Payment::Released { .. } => Amount::ZERO,
    };
    total.payments = total.payments.saturating_add(1);
    total.units = total.units.checked_add(units)?;
    if row.refund_owed.is_some() {
        total.refunds_owed = total.refunds_owed.saturating_add(1);
        total.refund_units = total.refund_units.checked_add(units)?;
    }
    Ok(())
}
