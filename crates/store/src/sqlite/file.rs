//! A ledger file looked at from outside: beside the gateway that writes it, or when none runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farebox_billing::Payment;
use farebox_billing::audit::{Head, PublicKey, Trust, Verified};
use farebox_billing::ledger::{Account, AccountKey, Books};
use farebox_protocol::{PaymentId, Timestamp};
use rusqlite::{Connection, OptionalExtension, named_params, params};

use crate::book::audit::{CheckReport, Total};
use crate::book::replay::Replay;
use crate::port::{Quarantine, StoreError};
use crate::sqlite::AuditError;
use crate::sqlite::accounts;
use crate::sqlite::audit_key;
use crate::sqlite::check;
use crate::sqlite::copy::{self, Backup, BackupError, Verify};
use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::open::{self, OpenError};
use crate::sqlite::quarantine;
use crate::sqlite::rows;
use crate::sqlite::seals;
use crate::view::{JournalLine, Listed, Order, SettlementView, Story, Which};

/// Lines of the journal with the assets of their payments.
const LINES: &str = "SELECT j.*, p.network, p.asset
                       FROM journal AS j JOIN payments AS p ON p.id = j.payment";

/// A ledger's file, open for reading alone.
///
/// A process that serves from the same file goes on undisturbed: readers and its writer do not wait
/// for each other. Every call sees the file as of one moment; two calls may see two.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    connection: Connection,
}

impl LedgerFile {
    /// Opens the file, which must have the schema of this Farebox.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        // Not opened to find out: closing it again would end SQLite's locks of this process.
        let regular = fs::metadata(path).and_then(|it| {
            if it.is_file() { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
        });
        let canonical = regular.and_then(|()| fs::canonicalize(path));
        let path = canonical.map_err(|source| open::io_error(path, source))?;
        let connection = open::connect_read_only(&path);
        let connection = connection.map_err(|it| open::sqlite_error(&path, it))?;
        open::identify_current(&path, &connection)?;
        Ok(Self { path, connection })
    }

    /// The file, by its full name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// At most `max` payments after `after`, in that order. A payment that is not there has none
    /// after it.
    pub fn payments(
        &self,
        which: &Which,
        order: Order,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.as_of_one_moment(|it| payments(it, which, order, (after, max)))
    }

    /// Everything about one payment.
    pub fn story(&self, id: PaymentId) -> Result<Option<Story>, StoreError> {
        self.as_of_one_moment(|it| story(it, id))
    }

    /// At most `max` lines of the journal after the line `after`; 0 is before the first.
    pub fn journal(&self, after: u64, max: usize) -> Result<Vec<JournalLine>, StoreError> {
        self.as_of_one_moment(|it| journal(it, after, max))
    }

    /// Every account, by asset and name.
    pub fn accounts(&self) -> Result<Vec<(AccountKey, Account)>, StoreError> {
        self.as_of_one_moment(accounts::all)
    }

    /// See [`crate::SqliteLedger::totals`].
    pub fn totals(&self) -> Result<Vec<Total>, StoreError> {
        self.as_of_one_moment(check::totals)
    }

    /// See [`crate::SqliteLedger::check`].
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        check::check(&self.connection).map_err(Fault::into_store_error)
    }

    /// See [`crate::SqliteLedger::audit`].
    pub fn audit(&self, trust: Trust) -> Result<Verified, AuditError> {
        let verified = seals::verify(&self.connection, trust);
        Ok(verified.map_err(Fault::into_store_error)??)
    }

    /// See [`crate::SqliteLedger::head`].
    pub fn head(&self) -> Result<Option<Head>, StoreError> {
        seals::head(&self.connection).map_err(Fault::into_store_error)
    }

    /// The public half of the key beside the ledger, if that is there.
    pub fn audit_key(&self) -> io::Result<Option<PublicKey>> {
        Ok(audit_key::load(&self.path)?.map(|it| it.public()))
    }

    /// The quarantine that a gateway on this file would be in; a backup is in one.
    pub fn quarantine(&self) -> Result<Option<Quarantine>, StoreError> {
        self.as_of_one_moment(quarantine::current)
    }

    /// Copies the ledger, as it is at this moment, to a file that is not there yet; whoever writes the
    /// ledger goes on. When this returns, the copy is on the disk and was checked like a ledger. It
    /// knows that it is a copy: a gateway that is started on it takes no payment until that was
    /// accepted ([`crate::accept_restored`]).
    pub fn backup(&self, to: impl AsRef<Path>, now: Timestamp) -> Result<Backup, BackupError> {
        let to = to.as_ref();
        let writes = open::connect_to_copy(&self.path);
        let writes = writes.map_err(|error| BackupError::Store {
            path: self.path.clone(),
            source: Fault::from(error).into_store_error(),
        })?;
        copy::copy(&writes, to, Verify::Books, Some(now))
    }

    fn as_of_one_moment<T>(
        &self,
        query: impl FnOnce(&Connection) -> Done<T>,
    ) -> Result<T, StoreError> {
        let result = (|| {
            let transaction = self.connection.unchecked_transaction()?;
            let found = query(&transaction)?;
            transaction.commit()?;
            Ok(found)
        })();
        result.map_err(Fault::into_store_error)
    }
}

fn payments(
    connection: &Connection,
    which: &Which,
    order: Order,
    (after, max): (Option<PaymentId>, usize),
) -> Done<Vec<Listed>> {
    let start = match after {
        None => None,
        Some(id) => {
            let sql = "SELECT seq FROM payments WHERE id = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let seq: Option<i64> =
                statement.query_row([id.as_bytes()], |it| it.get(0)).optional()?;
            if seq.is_none() {
                return Ok(Vec::new());
            }
            seq
        }
    };
    let sql = match order {
        Order::OldestFirst => include_str!("sql/payments_oldest_first.sql"),
        Order::NewestFirst => include_str!("sql/payments_newest_first.sql"),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let values = named_params! {
        ":start": start,
        ":state": which.state,
        ":payer": which.payer,
        ":route": which.route,
        ":since": which.since.map(rows::millis),
        ":until": which.until.map(rows::millis),
        ":max": i64::try_from(max).unwrap_or(i64::MAX),
    };
    let found = statement.query_map(values, |row| {
        let attempts: Option<u32> = row.get("attempts")?;
        Ok(Listed { payment: rows::read_stored(row)?, attempts })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn story(connection: &Connection, id: PaymentId) -> Done<Option<Story>> {
    let Some(payment) = rows::find_stored(connection, id)? else { return Ok(None) };
    let Some(record) = rows::find(connection, id)? else { return Ok(None) };
    let mut statement =
        connection.prepare_cached("SELECT * FROM outbox WHERE payment = ?1 ORDER BY generation")?;
    let settlements = statement.query_map([id.as_bytes()], |row| {
        let it = rows::read_settlement(row)?;
        Ok(SettlementView {
            generation: it.generation,
            status: it.status.as_str().to_owned(),
            due_at: it.due_at,
            attempts: it.attempts,
            may_have_been_sent: it.may_have_been_sent,
            transaction: it.transaction,
            outcome: it.outcome,
            created_at: it.created_at,
        })
    })?;
    let settlements = settlements.collect::<Result<_, _>>()?;
    let mut statement =
        connection.prepare_cached(&format!("{LINES} WHERE payment = ?1 ORDER BY j.seq"))?;
    let mut replay = Replay::new(id, record.parties);
    let mut books = Books::new();
    let mut journal = Vec::new();
    let mut found = statement.query([id.as_bytes()])?;
    while let Some(row) = found.next()? {
        let mut line = read_line(row)?;
        // A line that cannot have happened leaves the rest without states; the check names it.
        let (_, entry) = rows::read_entry(row)?;
        drop(replay.apply(&entry, &mut books));
        line.state = replay.state.as_ref().map(Payment::name);
        journal.push(line);
    }
    Ok(Some(Story { payment, generation: record.generation, settlements, journal }))
}

fn journal(connection: &Connection, after: u64, max: usize) -> Done<Vec<JournalLine>> {
    let sql = format!("{LINES} WHERE ?1 < j.seq ORDER BY j.seq LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let lines = statement.query_map(params![rows::count(after), limit], read_line)?;
    Ok(lines.collect::<Result<_, _>>()?)
}

fn read_line(row: &rusqlite::Row<'_>) -> rusqlite::Result<JournalLine> {
    Ok(JournalLine {
        seq: rows::unsigned(row, "seq")?,
        at: rows::time(row, "at")?,
        payment: rows::id(row, "payment")?,
        asset: rows::asset(row)?,
        event: row.get("event")?,
        amount: rows::amount(row, "amount")?,
        detail: row.get("detail")?,
        state: None,
    })
}
