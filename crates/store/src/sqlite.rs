//! The SQLite engine: one file, one writer thread, every answer durable.
//!
//! Writes go to one thread that commits what has queued ([`writer`]); reads go to a few threads
//! with read-only connections ([`reader`]). The life cycle is [`farebox_billing::Payment::on`]; the
//! rules around it are in [`crate::book`], the file is in [`open`].

mod accounts;
mod audit_key;
mod ballast;
pub(crate) mod check;
pub(crate) mod copy;
mod fault;
pub(crate) mod file;
mod mark;
pub(crate) mod open;
pub(crate) mod quarantine;
mod reader;
mod rows;
mod seals;
mod transactions;
#[cfg(test)]
mod withdrawals;
mod work;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use farebox_billing::audit::{Head, Trust, Verified, Wrong};
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};
use rusqlite::{OptionalExtension, params};
use tokio::sync::oneshot;

use crate::book::audit::{CheckReport, Total};
use crate::book::holds::{self, Charge, HoldName};
use crate::book::{recovery, settlements, unheard, watches};
use crate::port::{
    Admit, Admitted, AnswerMark, CaptureFailed, Captured, Hold, Intake, Job, Ledger, Quarantine,
    Recovered, Resolution, StoreError, StoredPayment, Watch,
};
use crate::sqlite::ballast::Ballast;
use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::open::OpenError;
use crate::sqlite::reader::{ConnectReadOnly, Readers};
use crate::sqlite::rows::Rows;
use crate::sqlite::work::Asked;
use crate::sqlite::writer::{Batching, Beside, Writer};

/// How a ledger file is used. The defaults are good; tests and benchmarks differ.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// The most operations in one commit.
    pub max_batch: usize,
    /// How long the writer waits for company after the first operation of a batch. Nothing by
    /// default: while one batch is being forced to the disk, the next one gathers anyway.
    pub linger: Duration,
    /// Operations that may queue before callers wait for a place.
    pub queue: usize,
    /// Threads that read.
    pub readers: usize,
    /// Bytes that are set aside beside the file, and given up when the disk is full so that what is
    /// held can be captured and settled; none by default.
    pub ballast: u64,
    /// What the log is forced to the disk for.
    pub synchronous: Synchronous,
}

/// When the log is forced to the disk. The port's promise holds with [`Synchronous::Full`] alone; the
/// others are there so that tests can show that they would notice, and measurements what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// Before each answer.
    Full,
    /// Now and then: a power cut loses what was acknowledged last.
    Normal,
    /// Never: a power cut loses anything, or all.
    Off,
}

impl Synchronous {
    fn apply(self, connection: &rusqlite::Connection) -> rusqlite::Result<()> {
        let word = match self {
            // Every connection is made so.
            Self::Full => return Ok(()),
            Self::Normal => "normal",
            Self::Off => "off",
        };
        connection.pragma_update(None, "synchronous", word)
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            max_batch: 256,
            linger: Duration::ZERO,
            queue: 1024,
            readers: 2,
            ballast: 0,
            synchronous: Synchronous::Full,
        }
    }
}

/// How much the writer has done since the ledger was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterCounts {
    /// Operations in commits that held.
    pub operations: u64,
    /// Those commits; far fewer than operations under load.
    pub commits: u64,
}

/// Why a journal is not verified.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Something is wrong with it: keep it as it is, and let a person look.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// It cannot be read: see there.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A ledger in one SQLite file.
///
/// Dropping it writes what is queued and waits for that; [`Ledger::close`] does so without blocking
/// the thread.
#[derive(Debug)]
pub struct SqliteLedger {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
    quarantine: Mutex<Option<Quarantine>>,
}

impl SqliteLedger {
    /// Opens the ledger at `path`, or makes it there; its directory must exist. No other process
    /// can open it until this one closes it or ends. Needs no runtime. Call [`Ledger::recover`]
    /// before anything else.
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, OpenError> {
        let opened = open::open(path.as_ref())?;
        let (path, synchronous) = (opened.path, options.synchronous);
        let not_set = |source| OpenError::Sqlite { path: path.clone(), source };
        synchronous.apply(&opened.connection).map_err(not_set)?;
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let connect: ConnectReadOnly = {
            let path = path.clone();
            Arc::new(move || open::connect_read_only(&path))
        };
        let readers = Readers::start(&connect, options.readers, options.queue).map_err(failed)?;
        let reconnect = {
            let path = path.clone();
            Box::new(move || {
                let connection = open::reconnect(&path)?;
                synchronous.apply(&connection)?;
                Ok(connection)
            })
        };
        let batching =
            Batching { queue: options.queue, max: options.max_batch, linger: options.linger };
        let quarantine = quarantine::current(&opened.connection)
            .map_err(|fault| open::sqlite_error(&path, fault.into_sqlite()))?;
        let beside =
            Beside { mark: Some(opened.mark), ballast: Ballast::of(&path, options.ballast) };
        let guard = opened.lock;
        let writer =
            Writer::start((opened.connection, reconnect), beside, guard, batching, opened.sealer);
        let writer = writer.map_err(failed)?;
        Ok(Self { writer, readers, path, quarantine: Mutex::new(quarantine) })
    }

    /// The file, by its full name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the ledger has given up after repeated failures to commit; for ever if it never
    /// does. The process should then end, so that its supervisor starts it anew.
    pub async fn failed(&self) {
        self.writer.failed().await;
    }

    /// Audits the file: SQLite's own checks, one settlement for each charge, and every row equal to
    /// what the journal says when it is replayed through the life cycle. Reads all of it, on a
    /// thread and a connection of its own, as of one moment; the ledger goes on meanwhile.
    pub async fn check(&self) -> Result<CheckReport, StoreError> {
        self.on_own_thread(check::check).await
    }

    /// Sums by asset and state. Reads every payment, on a thread of its own.
    pub async fn totals(&self) -> Result<Vec<Total>, StoreError> {
        self.on_own_thread(check::totals).await
    }

    /// Verifies every line of the journal against its seals, and those against what is trusted. Reads
    /// all of it, as [`SqliteLedger::check`] does.
    pub async fn audit(&self, trust: Trust) -> Result<Verified, AuditError> {
        let verified = self.on_own_thread(move |it| seals::verify(it, trust)).await?;
        Ok(verified?)
    }

    /// The head of the journal, to be kept elsewhere; none before its first line.
    pub async fn head(&self) -> Result<Option<Head>, StoreError> {
        self.readers.query(seals::head).await
    }

    /// For what takes long: it must not stand before the short queries.
    async fn on_own_thread<T: Send + 'static>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.is_certain()?;
        let path = self.path.clone();
        let (reply, answer) = oneshot::channel();
        let work = move || {
            let connection = open::connect_read_only(&path).map_err(Fault::from);
            let result = connection.and_then(|it| query(&it)).map_err(Fault::into_store_error);
            // Whoever asked may have stopped waiting.
            drop(reply.send(result));
        };
        let started = thread::Builder::new().name("ledger-audit".to_owned()).spawn(work);
        started.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        answer.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
    }

    /// Nobody is told what may turn out otherwise after a crash.
    fn is_certain(&self) -> Result<(), StoreError> {
        if self.writer.is_in_doubt() {
            return Err(StoreError::Unavailable("its last commit is in doubt".into()));
        }
        Ok(())
    }

    fn quarantine(&self) -> MutexGuard<'_, Option<Quarantine>> {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much the writer has done.
    pub fn writer_counts(&self) -> WriterCounts {
        let (operations, commits) = self.writer.counts();
        WriterCounts { operations, commits }
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    fn intake(&self) -> Intake {
        if let Some(quarantine) = *self.quarantine() {
            return Intake::Quarantined(quarantine);
        }
        if self.writer.is_full() { Intake::Full } else { Intake::Open }
    }

    async fn admit(&self, admit: Admit) -> Result<Admitted, StoreError> {
        let intake = self.intake();
        if intake != Intake::Open {
            return Err(StoreError::Unavailable(intake.to_string().into()));
        }
        let work = move |it: &mut Rows<'_>| holds::admit(it, &admit);
        self.writer.call(Asked::proving(work, unheard::in_admitted)).await
    }

    async fn begin_serve(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError> {
        let hold = HoldName::of(hold);
        self.writer.call(Asked::new(move |it| holds::begin_serve(it, hold, now))).await
    }

    async fn meter(
        &self,
        hold: &Hold,
        delivered: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let hold = HoldName::of(hold);
        self.writer.call(Asked::new(move |it| holds::meter(it, hold, delivered, now))).await
    }

    async fn capture(
        &self,
        hold: Hold,
        charge: Amount,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<Captured, CaptureFailed> {
        let name = HoldName::of(&hold);
        let charge = Charge { units: charge, mark };
        let done = self.writer.call(Asked::new(move |it| holds::capture(it, name, charge, now)));
        done.await.map_err(|source| CaptureFailed { hold, source })
    }

    async fn release(&self, hold: &Hold, why: Release, now: Timestamp) -> Result<(), StoreError> {
        let hold = HoldName::of(hold);
        self.writer.call(Asked::new(move |it| holds::release(it, hold, why, now))).await
    }

    async fn withdraw(
        &self,
        hold: &Hold,
        why: Release,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        let hold = HoldName::of(hold);
        self.writer.call(Asked::new(move |it| holds::withdraw(it, hold, why, now))).await
    }

    async fn mark_answer(
        &self,
        id: PaymentId,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer.call(Asked::new(move |it| holds::mark_answer(it, id, mark, now))).await
    }

    async fn owe_refund(&self, id: PaymentId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        let why = why.to_owned();
        self.writer.call(Asked::new(move |it| holds::owe_refund(it, id, &why, now))).await
    }

    async fn lease_jobs(
        &self,
        only: Option<PaymentId>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        let work = move |it: &mut Rows<'_>| settlements::lease(it, only, max, now);
        self.writer.call(Asked::proving(work, unheard::in_leased)).await
    }

    async fn resolve_job(
        &self,
        id: PaymentId,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        let work = move |it: &mut Rows<'_>| settlements::resolve(it, id, &resolution, now);
        self.writer.call(Asked::new(work)).await
    }

    async fn watch(&self, id: PaymentId, look_at: Option<Timestamp>) -> Result<(), StoreError> {
        self.writer.call(Asked::new(move |it| watches::watch(it, id, look_at))).await
    }

    async fn due_watches(&self, max: usize, now: Timestamp) -> Result<Vec<Watch>, StoreError> {
        let far = now.plus(settlements::PAUSE_MAX);
        let due = move |it: &rusqlite::Connection| {
            Ok(rows::watched(it, (now, far), max)?.into_iter().filter_map(watches::of).collect())
        };
        self.readers.query(due).await
    }

    async fn reopen(
        &self,
        id: PaymentId,
        transaction: &str,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        let transaction = transaction.to_owned();
        let work = move |it: &mut Rows<'_>| watches::reopen(it, id, &transaction, now);
        self.writer.call(Asked::new(work)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.is_certain()?;
        self.readers.query(rows::next_due).await
    }

    async fn lookup(&self, id: PaymentId) -> Result<Option<StoredPayment>, StoreError> {
        self.is_certain()?;
        self.readers.query(move |it| rows::find_stored(it, id)).await
    }

    async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.is_certain()?;
        self.readers.query(move |it| list(it, after, max)).await
    }

    async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        let work = move |it: &mut Rows<'_>| {
            quarantine::begin(it.connection, now)?;
            let recovered = recovery::recover(it, now)?;
            Ok((recovered, quarantine::current(it.connection)?))
        };
        let (recovered, quarantine) = self.writer.call(Asked::new(work)).await?;
        *self.quarantine() = quarantine;
        Ok(recovered)
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        let name = name.to_owned();
        self.writer.call(Asked::new(move |it| secret(it.connection, &name))).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        self.writer.close().await
    }
}

/// See [`Ledger::list`]. A payment that is not there is nobody's predecessor.
fn list(
    connection: &rusqlite::Connection,
    after: Option<PaymentId>,
    max: usize,
) -> Done<Vec<StoredPayment>> {
    let start = match after {
        None => 0,
        Some(id) => {
            let mut statement =
                connection.prepare_cached("SELECT seq FROM payments WHERE id = ?1")?;
            let seq: Option<i64> =
                statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
            let Some(seq) = seq else { return Ok(Vec::new()) };
            seq
        }
    };
    let mut statement = connection.prepare_cached(include_str!("sqlite/sql/list.sql"))?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![start, limit], rows::read_stored)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// See [`Ledger::secret`].
fn secret(connection: &rusqlite::Connection, name: &str) -> Done<[u8; 32]> {
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|error| {
        let why = format!("the system gives no randomness: {error}");
        Fault::Store(StoreError::Unavailable(why.into()))
    })?;
    connection
        .prepare_cached("INSERT INTO secrets (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![name, fresh])?;
    let mut statement = connection.prepare_cached("SELECT value FROM secrets WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0))?)
}
