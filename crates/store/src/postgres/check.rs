//! The ledger's own audit: what the rows say must be what the journal tells.

use std::collections::BTreeMap;
use std::pin::pin;

use farebox_billing::ledger::{Account, AccountKey, Books};
use farebox_protocol::PaymentId;
use futures_util::TryStreamExt as _;
use tokio_postgres::{Client, IsolationLevel, RowStream, Transaction};

use crate::book::audit::{self, CheckReport, Totals, disagreement};
use crate::book::record::Record;
use crate::book::replay::Replay;
use crate::book::settlements::Status;
use crate::postgres::fault::Trouble;
use crate::postgres::rows;

const NO_PARAMETERS: [i64; 0] = [];

/// Checks the whole database as of one moment, while it goes on being written.
pub(super) async fn check(client: &mut Client) -> Result<CheckReport, Trouble> {
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let snapshot = snapshot.read_only(true).start().await?;
    let mut report = CheckReport::default();
    check_settlements(&snapshot, &mut report).await?;
    check_numbers(&snapshot, &mut report).await?;
    check_journal(&snapshot, &mut report).await?;
    snapshot.commit().await?;
    Ok(report)
}

async fn stream(snapshot: &Transaction<'_>, sql: &str) -> Result<RowStream, Trouble> {
    Ok(snapshot.query_raw(sql, NO_PARAMETERS).await?)
}

/// Each payment beside the settlements of its holds.
async fn check_settlements(
    snapshot: &Transaction<'_>,
    report: &mut CheckReport,
) -> Result<(), Trouble> {
    let sql = "SELECT p.*, o.status, o.due_at, o.attempts, o.may_have_been_sent, o.outcome,
                      o.transaction AS outbox_transaction, o.created_at, o.watch_at,
                      o.payment IS NOT NULL AS is_settled,
                      EXISTS (SELECT 1 FROM terms AS t WHERE t.seq = p.seq) AS has_terms,
                      EXISTS (SELECT 1 FROM outbox AS old
                               WHERE old.payment = p.id AND old.generation <> p.generation
                                 AND old.status <> 'done') AS has_earlier
                 FROM payments AS p
                 LEFT JOIN outbox AS o ON o.payment = p.id AND o.generation = p.generation";
    let mut totals = Totals::default();
    let mut found = pin!(stream(snapshot, sql).await?);
    while let Some(row) = found.try_next().await? {
        let record = rows::record(&row)?.record;
        let id = Some(record.id);
        if !rows::get::<bool>(&row, "has_terms")? {
            report.report(id, "has no terms");
        }
        if rows::get::<bool>(&row, "has_earlier")? {
            report.report(id, "has an unfinished settlement of an earlier hold");
        }
        let settlement = if rows::get(&row, "is_settled")? {
            Some(rows::settlement(&row, "id", "outbox_transaction")?)
        } else {
            None
        };
        if let Some(what) = disagreement(&record, settlement.as_ref()) {
            report.report(id, what);
        }
        let leased_and_done =
            settlement.is_some_and(|it| it.status == Status::Leased && it.outcome.is_some());
        if leased_and_done {
            report.report(id, "has an outcome and is still being settled");
        }
        if totals.add(&record).is_err() {
            report.report(id, "is more than can be added up");
        }
    }
    report.totals = totals.finish();
    Ok(())
}

/// Nobody's journal has gaps, and each ends where its node believes.
async fn check_numbers(
    snapshot: &Transaction<'_>,
    report: &mut CheckReport,
) -> Result<(), Trouble> {
    let sql = "SELECT node, coalesce(min(j.seq), 1) = 1
                            AND coalesce(max(j.seq), 0) = count(j.seq)
                            AND coalesce(max(j.seq), 0) = coalesce(max(n.journal_seq), -1) AS is_whole
                 FROM journal AS j FULL JOIN nodes AS n USING (node)
                GROUP BY node";
    let mut found = pin!(stream(snapshot, sql).await?);
    while let Some(row) = found.try_next().await? {
        if !rows::get::<bool>(&row, "is_whole")? {
            let node: &str = rows::get(&row, "node")?;
            report.report(None, format!("the journal of the node `{node}` has gaps"));
        }
    }
    Ok(())
}

/// Replays the journal of each payment through the life cycle, and all of it onto the accounts.
async fn check_journal(
    snapshot: &Transaction<'_>,
    report: &mut CheckReport,
) -> Result<(), Trouble> {
    let sql = "SELECT p.*, j.payment, j.event, j.amount, j.detail
                 FROM journal AS j LEFT JOIN payments AS p ON p.id = j.payment
                ORDER BY j.payment, j.place";
    let mut books = Books::new();
    let mut current: Option<(Record, Replay)> = None;
    let mut found = pin!(stream(snapshot, sql).await?);
    while let Some(row) = found.try_next().await? {
        report.entries = report.entries.saturating_add(1);
        let (id, entry) = rows::entry(&row)?;
        if rows::get::<Option<&[u8]>>(&row, "id")?.is_none() {
            report.report(Some(id), "is in the journal alone");
            continue;
        }
        if let Some((record, told)) = current.take_if(|it| it.0.id != id) {
            audit::compare(&told, Some(&record), report);
        }
        let (_, replay) = match &mut current {
            Some(current) => current,
            None => current.insert(begin(id, rows::record(&row)?.record)),
        };
        if let Err(what) = replay.apply(&entry, &mut books) {
            report.report(Some(id), what);
        }
        // Nothing looks back at what was booked, so it need not be kept.
        books.forget_transfers();
        drop(books.take_changes());
    }
    if let Some((record, told)) = current {
        audit::compare(&told, Some(&record), report);
    }
    let row = snapshot.query_one("SELECT count(*) AS number FROM payments", &[]).await?;
    let payments = rows::unsigned(&row, "number")?;
    if payments != report.payments {
        let journalled = report.payments;
        report.report(None, format!("{payments} payments, of which {journalled} are journalled"));
    }
    let kept = accounts(snapshot, report).await?;
    audit::check_accounts(&kept, &books, report);
    Ok(())
}

fn begin(id: PaymentId, record: Record) -> (Record, Replay) {
    let replay = Replay::new(id, record.parties.clone());
    (record, replay)
}

/// Every account, its rows of all nodes taken together.
async fn accounts(
    snapshot: &Transaction<'_>,
    report: &mut CheckReport,
) -> Result<BTreeMap<AccountKey, Account>, Trouble> {
    let mut accounts: BTreeMap<AccountKey, Account> = BTreeMap::new();
    let mut found = pin!(stream(snapshot, "SELECT * FROM accounts").await?);
    while let Some(row) = found.try_next().await? {
        let (key, part) = rows::account(&row)?;
        let sum = accounts.entry(key.clone()).or_insert(Account::ZERO);
        match sum.plus(&part) {
            Ok(more) => *sum = more,
            Err(_) => {
                report.report(None, format!("the account {key} is more than can be added up"));
            }
        }
    }
    Ok(accounts)
}
