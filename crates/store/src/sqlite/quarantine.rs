//! Is this file what was promised on its behalf, or an older one that was restored?
//!
//! A backup carries its quarantine within. A file that was put back by other means is found out by
//! the mark beside it ([`crate::sqlite::mark`]). Either way no payment is taken until somebody has
//! accepted what may be forgotten; docs/operations.md says what that is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use farebox_protocol::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::port::{Quarantine, QuarantineReason, StoreError};
use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::mark::{LedgerId, Mark, Reached};
use crate::sqlite::open::{self, OpenError};
use crate::sqlite::rows;

/// No authorisation that a lost file may have admitted lives longer after the loss: the longest
/// window that a configuration can ask payers for, and what clocks may differ by.
const FORGOTTEN_LIVE: Duration = Duration::from_mins(65);

/// The file's own words for the reasons.
const REASONS: [(QuarantineReason, &str); 4] = [
    (QuarantineReason::Backup, "backup"),
    (QuarantineReason::Behind, "behind"),
    (QuarantineReason::Stranger, "stranger"),
    (QuarantineReason::Unmarked, "unmarked"),
];

fn word(reason: QuarantineReason) -> &'static str {
    REASONS.iter().find(|it| it.0 == reason).map_or("unmarked", |it| it.1)
}

/// Why a restored ledger was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It cannot be opened, or a gateway runs on it: stop that one.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is in no quarantine: there is nothing to do.
    #[error("the ledger {path} is not in quarantine")]
    NotQuarantined {
        /// The file.
        path: PathBuf,
    },
    /// No gateway has run on it yet, so nothing was looked up: start one, and let it.
    #[error("no gateway has looked up yet what the ledger {path} may have forgotten")]
    NotLookedUp {
        /// The file.
        path: PathBuf,
    },
    /// A payment that it has forgotten may still be presented again: wait, or accept that.
    #[error("a payment that the ledger {path} has forgotten could still be presented again")]
    TooEarly {
        /// The file.
        path: PathBuf,
        /// Not any more from then on.
        safe_from: Timestamp,
    },
    /// It cannot be written.
    #[error("the ledger {path} cannot be written")]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// What to do about payments that a restored ledger has forgotten and that are still alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Wait until there are none.
    Wait,
    /// Accept that each could be served once more.
    Accept,
}

/// What was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The quarantine that has ended.
    pub quarantine: Quarantine,
    /// Settlements of which it is still not known whether they landed; the gateway goes on with them.
    pub unsettled: u64,
}

/// Ends the quarantine of a ledger that no process has open.
pub fn accept_restored(
    path: &Path,
    forgotten: Forgotten,
    now: Timestamp,
) -> Result<Accepted, AcceptError> {
    let opened = open::open(path)?;
    let (path, connection) = (opened.path, opened.connection);
    let failed =
        |fault: Fault| AcceptError::Store { path: path.clone(), source: fault.into_store_error() };
    let Some(quarantine) = current(&connection).map_err(failed)? else {
        return Err(AcceptError::NotQuarantined { path });
    };
    let Some(safe_from) = quarantine.safe_from else {
        return Err(AcceptError::NotLookedUp { path });
    };
    if now < safe_from && forgotten == Forgotten::Wait {
        return Err(AcceptError::TooEarly { path, safe_from });
    }
    let end = || -> Done<u64> {
        connection.execute(
            "UPDATE quarantines SET ended_at = ?1 WHERE ended_at IS NULL",
            [rows::millis(now)],
        )?;
        let sql = "SELECT count(*) AS number FROM outbox WHERE status <> 'done'";
        Ok(connection.query_row(sql, [], |row| rows::unsigned(row, "number"))?)
    };
    let unsettled = end().map_err(failed)?;
    Ok(Accepted { quarantine, unsettled })
}

/// The quarantine that a file is in, if it is in one.
pub(super) fn current(connection: &Connection) -> Done<Option<Quarantine>> {
    let sql = "SELECT * FROM quarantines WHERE ended_at IS NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([], |row| {
        let text: String = row.get("reason")?;
        let reason = REASONS.iter().find(|it| it.1 == text);
        let time = |column| -> rusqlite::Result<Option<Timestamp>> {
            if row.get_ref(column)? == rusqlite::types::ValueRef::Null {
                return Ok(None);
            }
            rows::time(row, column).map(Some)
        };
        Ok(Quarantine {
            reason: reason.ok_or_else(|| rows::bad("reason"))?.0,
            copied_at: time("copied_at")?,
            safe_from: time("began_at")?.map(|it| it.plus(FORGOTTEN_LIVE)),
        })
    });
    Ok(found.optional()?)
}

/// Judges a file by the mark beside it, puts it under quarantine if it must be, and sets the mark.
pub(super) fn judge(path: &Path, connection: &Connection) -> Result<Mark, OpenError> {
    let io = |source| open::io_error(path, source);
    let fault = |it: Fault| open::sqlite_error(path, it.into_sqlite());
    let mark = crate::sqlite::mark::read(path).map_err(io)?;
    let identity = identity(connection).map_err(fault)?;
    let journal = journal_end(connection).map_err(|it| open::sqlite_error(path, it))?;
    let reason = match (identity, mark) {
        (_, Some(mark)) if journal < mark.journal => Some(QuarantineReason::Behind),
        (Some(ledger), Some(mark)) if ledger != mark.ledger => Some(QuarantineReason::Stranger),
        (Some(_), None) => Some(QuarantineReason::Unmarked),
        // A new one, or one that had no identity before.
        (None, _) | (Some(_), Some(_)) => None,
    };
    let ledger = match (identity, mark) {
        (Some(ledger), _) => ledger,
        // A crash came between the mark and the identity.
        (None, Some(mark)) if reason.is_none() => mark.ledger,
        (None, _) => fresh_id().map_err(io)?,
    };
    let begin = || -> Done<()> {
        let sql = "INSERT INTO quarantines (reason) VALUES (?1) ON CONFLICT DO NOTHING";
        if let Some(reason) = reason {
            connection.execute(sql, [word(reason)])?;
        }
        Ok(())
    };
    // The quarantine before the mark is set back, and the mark before the identity: whatever a crash
    // comes between, the next start judges as this one does.
    begin().map_err(fault)?;
    let set = Mark::set(path, Reached { ledger, journal }).map_err(io)?;
    if identity.is_none() {
        let sql = "INSERT INTO identity (only, ledger) VALUES (1, ?1)";
        let kept = connection.execute(sql, [ledger.to_be_bytes()]);
        kept.map_err(|it| open::sqlite_error(path, it))?;
    }
    Ok(set)
}

/// Marks a copy as what it is.
pub(super) fn mark_copy(connection: &Connection, now: Option<Timestamp>) -> rusqlite::Result<()> {
    let sql = "INSERT INTO quarantines (reason, copied_at) VALUES ('backup', ?1)
               ON CONFLICT DO NOTHING";
    connection.execute(sql, [now.map(rows::millis)]).map(drop)
}

/// A gateway begins to run on the file. If it is in quarantine, every settlement that is not done may
/// have been sent by the file that was lost: it is looked up before anything else is done with it.
pub(super) fn begin(connection: &Connection, now: Timestamp) -> Done<()> {
    if current(connection)?.is_none() {
        return Ok(());
    }
    connection.execute(
        "UPDATE quarantines SET began_at = ?1 WHERE ended_at IS NULL AND began_at IS NULL",
        params![rows::millis(now)],
    )?;
    connection.execute("UPDATE outbox SET may_have_been_sent = 1 WHERE status <> 'done'", [])?;
    Ok(())
}

/// The last line of the journal, 0 if there is none.
pub(super) fn journal_end(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(seq), 0) AS seq FROM journal";
    connection.prepare_cached(sql)?.query_row([], |row| rows::unsigned(row, "seq"))
}

fn identity(connection: &Connection) -> Done<Option<LedgerId>> {
    let sql = "SELECT ledger FROM identity";
    let found: Option<[u8; 16]> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    Ok(found.map(LedgerId::from_be_bytes))
}

fn fresh_id() -> std::io::Result<LedgerId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(LedgerId::from_be_bytes(bytes))
}
