//! The one thread that writes: whatever has queued becomes one commit.
//!
//! Forcing a commit to the disk costs the same for one operation as for two hundred, so the writer
//! takes what is waiting, runs each operation in a savepoint of its own, commits once, and only
//! then answers. While it commits, the next batch queues by itself; nobody waits for a timer.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use farebox_billing::audit::Tip;
use farebox_billing::ledger::Books;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::book::unheard::{self, Unheard};
use crate::port::StoreError;
use crate::sqlite::accounts;
use crate::sqlite::ballast::{Ballast, Room};
use crate::sqlite::fault::{Done, Fault, is_full};
use crate::sqlite::mark::Mark;
use crate::sqlite::open;
use crate::sqlite::quarantine;
use crate::sqlite::rows::Rows;
use crate::sqlite::seals::Sealer;
use crate::sqlite::work::{Asked, End, Pending, Work};
use crate::waiting::Waiting;

/// After so many failed commits in a row the ledger is closed for good.
const MAX_FAILURES: u32 = 3;

/// Accounts that are kept in memory; beyond that all are forgotten, and read again as they are needed.
const BOOKS_MAX: usize = 100_000;

/// Makes a fresh connection to the same file.
pub(super) type Connect = Box<dyn FnMut() -> rusqlite::Result<Connection> + Send>;

/// What the thread is told.
enum Message {
    Work(Box<dyn Work>),
    /// Look at what is unheard.
    Wake,
    Close(oneshot::Sender<()>),
}

/// How the writer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Closed,
    Failed,
}

/// What stands beside the file and goes with it.
#[derive(Debug)]
pub(super) struct Beside {
    /// How far the journal has come; none in tests that need none.
    pub(super) mark: Option<Mark>,
    /// Room for what was promised.
    pub(super) ballast: Ballast,
}

impl Beside {
    /// Whether the ballast is there, made now if it fits. One that cannot be had for another reason
    /// keeps nobody from paying.
    fn has_room(&self) -> bool {
        match self.ballast.make() {
            Ok(Room::Enough) => true,
            Ok(Room::None) => false,
            Err(error) => {
                tracing::warn!(%error, "no room can be set aside beside the ledger");
                true
            }
        }
    }
}

/// What the thread and its callers share.
#[derive(Debug)]
struct Shared {
    /// Whether there is no room for new payments.
    full: AtomicBool,
    operations: AtomicU64,
    commits: AtomicU64,
    /// Results that reached nobody.
    unheard: Mutex<Vec<Unheard>>,
    /// Nobody knows yet whether the last commit will be there after a crash.
    in_doubt: AtomicBool,
    standing: watch::Sender<Standing>,
}

impl Shared {
    fn adopt(&self, unheard: Vec<Unheard>) {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner).extend(unheard);
    }

    fn take_unheard(&self) -> Vec<Unheard> {
        mem::take(&mut *self.unheard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batching {
    /// Operations that may wait before callers do.
    pub(super) queue: usize,
    /// Operations of one commit.
    pub(super) max: usize,
    /// How long to wait for company after the first operation; nothing by default.
    pub(super) linger: Duration,
}

/// The callers' end of the writer. Dropping it waits until the queue is written.
#[derive(Debug)]
pub(super) struct Writer {
    sender: Option<mpsc::Sender<Message>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. `guard` is dropped when the file is closed for good.
    pub(super) fn start(
        (connection, connect): (Connection, Connect),
        beside: Beside,
        guard: impl Send + 'static,
        batching: Batching,
        sealer: Sealer,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(batching.queue.max(1));
        let shared = Arc::new(Shared {
            full: AtomicBool::new(!beside.has_room()),
            operations: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            unheard: Mutex::new(Vec::new()),
            in_doubt: AtomicBool::new(false),
            standing: watch::Sender::new(Standing::Open),
        });
        let engine = Engine {
            receiver,
            shared: Arc::clone(&shared),
            connection: Some(connection),
            connect,
            beside,
            books: Books::new(),
            sealer,
            batching,
            failures: 0,
            closers: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || engine.run(guard))?;
        Ok(Self { sender: Some(sender), shared, thread: Some(thread) })
    }

    /// Runs an operation and waits until it is durable. If the caller stops waiting, the operation
    /// happens all the same, but what its result alone would have proved is taken back.
    pub(super) async fn call<T, F>(&self, asked: Asked<T, F>) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Rows<'_>) -> Done<T> + Send + 'static,
    {
        let closed = || StoreError::Unavailable(Gone.into());
        let sender = self.sender.as_ref().ok_or_else(closed)?;
        let evidence = asked.evidence;
        let (reply, answer) = oneshot::channel();
        let pending: Box<dyn Work> = Box::new(Pending::new(asked, reply));
        sender.send(Message::Work(pending)).await.map_err(|_| closed())?;
        let pass_on = |unheard: Vec<Unheard>| {
            if !unheard.is_empty() {
                self.shared.adopt(unheard);
                // If there is no room, then the writer is about to look anyway.
                drop(sender.try_send(Message::Wake));
            }
        };
        Waiting::new(answer, evidence, pass_on).answer().await
    }

    /// Writes what is queued and closes the file.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (reply, closed) = oneshot::channel();
        if let Some(sender) = &self.sender
            && sender.send(Message::Close(reply)).await.is_ok()
            && closed.await.is_ok()
        {
            return Ok(());
        }
        match self.standing() {
            Standing::Open | Standing::Closed => Ok(()),
            Standing::Failed => Err(StoreError::Unavailable(Gone.into())),
        }
    }

    /// Waits until the writer has given up; for ever if it never does.
    pub(super) async fn failed(&self) {
        let mut standing = self.shared.standing.subscribe();
        if standing.wait_for(|it| *it == Standing::Failed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether what is read may turn out otherwise: a commit has failed, and the disk may have it
    /// all the same.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.shared.in_doubt.load(Ordering::Acquire)
    }

    pub(super) fn standing(&self) -> Standing {
        *self.shared.standing.borrow()
    }

    /// Whether there is no room for new payments. To ask is also to have it looked at: it ends by
    /// itself.
    pub(super) fn is_full(&self) -> bool {
        let full = self.shared.full.load(Ordering::Acquire);
        if full && let Some(sender) = &self.sender {
            // A writer that is busy will be asked again.
            drop(sender.try_send(Message::Wake));
        }
        full
    }

    /// Operations run, and commits that they took.
    pub(super) fn counts(&self) -> (u64, u64) {
        let operations = self.shared.operations.load(Ordering::Relaxed);
        (operations, self.shared.commits.load(Ordering::Relaxed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The ledger was closed, or has given up after repeated failures.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it is closed")]
pub(super) struct Gone;

/// The thread's side.
struct Engine {
    receiver: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    connection: Option<Connection>,
    connect: Connect,
    beside: Beside,
    /// The accounts that were touched lately, as they are in the file.
    books: Books,
    sealer: Sealer,
    batching: Batching,
    failures: u32,
    closers: Vec<oneshot::Sender<()>>,
}

impl Engine {
    fn run(mut self, guard: impl Send) {
        while let Some(batch) = self.next_batch() {
            self.write(batch);
            if MAX_FAILURES <= self.failures {
                tracing::error!(failures = self.failures, "the ledger is closed for good");
                self.shared.standing.send_replace(Standing::Failed);
                self.refuse_the_rest();
                break;
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err((_, error)) = connection.close()
        {
            tracing::warn!(%error, "the ledger did not close cleanly; recovery will read its log");
        }
        drop(guard);
        self.shared.standing.send_if_modified(|it| {
            let open = *it == Standing::Open;
            if open {
                *it = Standing::Closed;
            }
            open
        });
        for closer in self.closers {
            // Whoever asked may have stopped waiting.
            closer.send(()).ok();
        }
    }

    /// Waits for an operation and takes those that queued behind it; `None` at the end.
    fn next_batch(&mut self) -> Option<Vec<Box<dyn Work>>> {
        let mut batch = Vec::new();
        let first = self.receiver.blocking_recv()?;
        self.sort(first, &mut batch);
        if !self.batching.linger.is_zero() && !batch.is_empty() {
            thread::sleep(self.batching.linger);
        }
        while batch.len() < self.batching.max {
            let Ok(message) = self.receiver.try_recv() else { break };
            self.sort(message, &mut batch);
        }
        self.look_for_room();
        Some(batch)
    }

    /// After the disk was full: whether the ballast fits again.
    fn look_for_room(&self) {
        if self.shared.full.load(Ordering::Acquire) && self.beside.has_room() {
            tracing::info!("there is room for new payments again");
            self.shared.full.store(false, Ordering::Release);
        }
    }

    fn sort(&mut self, message: Message, batch: &mut Vec<Box<dyn Work>>) {
        match message {
            Message::Work(work) => batch.push(work),
            Message::Wake => {}
            Message::Close(closer) => {
                // What was accepted is still written; nothing new is accepted.
                self.receiver.close();
                self.closers.push(closer);
            }
        }
    }

    /// One batch; and if it left something without an owner, then that at once.
    fn write(&mut self, batch: Vec<Box<dyn Work>>) {
        if matches!(self.write_once(batch), End::Committed) {
            self.write_once(Vec::new());
        }
    }

    /// Takes back what is unheard, runs the batch, commits, answers.
    fn write_once(&mut self, mut batch: Vec<Box<dyn Work>>) -> End {
        let unheard = self.shared.take_unheard();
        if unheard.is_empty() {
            return self.write_batch(batch);
        }
        let (reply, mut answer) = oneshot::channel();
        let all = unheard.clone();
        let asked = Asked::new(move |it: &mut Rows<'_>| unheard::take_back(it, &all));
        batch.insert(0, Box::new(Pending::new(asked, reply)));
        let end = self.write_batch(batch);
        if !matches!(answer.try_recv(), Ok(Ok(()))) {
            // It goes with the next batch.
            self.shared.adopt(unheard);
        }
        end
    }

    /// Runs, commits, answers.
    fn write_batch(&mut self, mut batch: Vec<Box<dyn Work>>) -> End {
        if batch.is_empty() {
            return End::Committed;
        }
        let end = self.commit(&mut batch);
        match &end {
            End::Committed => {
                self.failures = 0;
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                let ran = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                self.shared.operations.fetch_add(ran, Ordering::Relaxed);
            }
            End::NotApplied(error) | End::Unknown(error) => {
                tracing::error!(%error, operations = batch.len(), "a ledger commit failed");
                self.after_failure(error);
            }
        }
        if matches!(end, End::Unknown(_)) {
            self.shared.in_doubt.store(true, Ordering::Release);
            if let Err(error) = connected(&mut self.connection, &mut self.connect, &self.shared) {
                tracing::error!(%error, "nobody knows what the ledger will be after a crash");
            }
        }
        for work in batch {
            self.shared.adopt(work.answer(&end));
        }
        end
    }

    /// Keeps what room there is for what was promised. Without a ballast there is none to keep: then
    /// every operation finds out for itself.
    fn give_up_ballast(&self) {
        if !self.beside.ballast.is_wanted() {
            return;
        }
        match self.beside.ballast.release() {
            Ok(true) => {
                tracing::warn!("the ballast was given up, so that what is held can be finished");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the ballast cannot be given up"),
        }
        if !self.shared.full.swap(true, Ordering::AcqRel) {
            tracing::error!("the disk is full: no new payments are taken until there is room");
        }
    }

    fn after_failure(&mut self, error: &rusqlite::Error) {
        self.books = Books::new();
        self.sealer.forget();
        if is_full(error) {
            self.give_up_ballast();
            // Nothing is broken: it goes on when there is room, which a new connection would need
            // as well.
            self.connection.take_if(|it| !is_rolled_back(it));
        } else {
            self.failures = self.failures.saturating_add(1);
            // What SQLite or the kernel still believe of this file is not to be trusted.
            self.connection = None;
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Work>]) -> End {
        let connection = match connected(&mut self.connection, &mut self.connect, &self.shared) {
            Ok(connection) => connection,
            Err(error) => return End::NotApplied(Arc::new(error)),
        };
        let mut rows = Rows { connection, books: &mut self.books };
        let tip = match run_all(&mut rows, batch, &self.sealer) {
            Ok(tip) => tip,
            // The transaction is rolled back after the failure.
            Err(error) => return End::NotApplied(Arc::new(error)),
        };
        let mark = self.beside.mark.as_ref();
        let reached = mark.and_then(|it| Some((it, quarantine::journal_end(connection).ok()?)));
        match connection.prepare_cached("COMMIT").and_then(|mut it| it.execute([])) {
            Ok(_) => {
                self.sealer.went_on(tip);
                if let Some((mark, journal)) = reached {
                    mark.reach(journal);
                }
                self.books.forget_transfers();
                if BOOKS_MAX < self.books.accounts().count() {
                    self.books = Books::new();
                }
                End::Committed
            }
            // Its last page found no room, so the log does not end with a commit.
            Err(error) if is_full(&error) => End::NotApplied(Arc::new(error)),
            Err(error) => End::Unknown(Arc::new(error)),
        }
    }

    /// After the last failure: nobody is left waiting.
    fn refuse_the_rest(&mut self) {
        self.receiver.close();
        let end = End::NotApplied(Arc::new(rusqlite::Error::InvalidQuery));
        while let Ok(message) = self.receiver.try_recv() {
            match message {
                Message::Work(work) => drop(work.answer(&end)),
                Message::Wake => {}
                Message::Close(closer) => self.closers.push(closer),
            }
        }
    }
}

/// A connection on which nothing is in doubt: the one there is, or a new one.
fn connected<'a>(
    kept: &'a mut Option<Connection>,
    connect: &mut Connect,
    shared: &Shared,
) -> rusqlite::Result<&'a Connection> {
    if let Some(connection) = kept.take() {
        return Ok(kept.insert(connection));
    }
    let fresh = connect()?;
    if shared.in_doubt.load(Ordering::Acquire) {
        open::settle_doubt(&fresh)?;
        shared.in_doubt.store(false, Ordering::Release);
    }
    Ok(kept.insert(fresh))
}

/// Whether nothing is left of a failed transaction.
fn is_rolled_back(connection: &Connection) -> bool {
    connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok()
}

/// Runs a batch inside one transaction and seals what it has journalled. On error none of it is applied.
fn run_all(
    rows: &mut Rows<'_>,
    batch: &mut [Box<dyn Work>],
    sealer: &Sealer,
) -> rusqlite::Result<Tip> {
    rows.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    batch.iter_mut().try_for_each(|work| work.run(rows))?;
    accounts::keep(rows.connection, rows.books)?;
    sealer.seal(rows.connection).map_err(Fault::into_sqlite)
}

#[cfg(test)]
mod tests;
