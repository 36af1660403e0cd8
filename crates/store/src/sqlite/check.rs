//! The ledger's own audit: what the rows say must be what the journal tells.

use farebox_billing::audit::Trust;
use farebox_billing::ledger::Books;
use farebox_protocol::PaymentId;
use rusqlite::Connection;

use crate::book::audit::{self, CheckReport, Total, Totals};
use crate::book::replay::Replay;
use crate::port::StoreError;
use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::{accounts, rows, seals};

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
    // Whose seals they are is a question for those who know the key.
    if let Err(wrong) = seals::verify_snapshot(connection, Trust::default())? {
        report.report(None, wrong.to_string());
    }
    report.totals = totals(connection)?;
    Ok(report)
}

/// The part of a check that holds for every schema.
pub(super) fn check_file_alone(connection: &Connection) -> Done<CheckReport> {
    let mut report = CheckReport::default();
    check_file(connection, &mut report)?;
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
        Step::Payment(told) => {
            audit::compare(&told, rows::find(connection, told.id)?.as_ref(), report);
            Ok(())
        }
    })?;
    let rows: i64 = connection.query_row("SELECT count(*) FROM payments", [], |it| it.get(0))?;
    if u64::try_from(rows) != Ok(report.payments) {
        report
            .report(None, format!("{rows} payments, of which {} are journalled", report.payments));
    }
    let kept = accounts::all(connection)?.into_iter().collect();
    audit::check_accounts(&kept, &books, report);
    Ok(())
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

/// Sums by asset and state.
pub(super) fn totals(connection: &Connection) -> Done<Vec<Total>> {
    let mut totals = Totals::default();
    let mut statement = connection.prepare(rows::SELECT)?;
    let mut found = statement.query([])?;
    while let Some(it) = found.next()? {
        let row = rows::read_record(it)?;
        totals.add(&row).map_err(|it| Fault::corrupt(format!("a total: {it}")))?;
    }
    Ok(totals.finish())
}
