//! The memory engine: the rules of the book over maps, for tests and for simulations of crashes.
//!
//! What survives is a [`MemoryDisk`]; a [`MemoryLedger`] is the process that has it open. Opening it
//! again is what a crash is: whoever had it before can change nothing any more, and what was not
//! flushed is forgotten. Every operation is applied whole or not at all, and [`Weather`] decides what
//! its caller hears of it.

mod tables;
pub(crate) mod weather;

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};

use self::tables::{Mark, Tables};
use self::weather::{Fair, Mishap, Operation, Weather};
use crate::book::audit::CheckReport;
use crate::book::holds::{self, Charge, HoldName};
use crate::book::unheard::{self, Evidence, Unheard};
use crate::book::{recovery, settlements, watches};
use crate::port::{
    Admit, Admitted, AnswerMark, CaptureFailed, Captured, Hold, Job, Ledger, Recovered, Resolution,
    StoreError, StoredPayment, Watch,
};

/// Where memory ledgers survive the ledgers. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct Disk {
    tables: Tables,
    /// What comes before is flushed.
    flushed: Mark,
    /// Counts the openings: who opened it earlier is fenced.
    opened: u64,
    /// Results of the present opening that reached nobody.
    unheard: Vec<Unheard>,
}

/// A ledger in memory.
#[derive(Debug)]
pub struct MemoryLedger {
    disk: MemoryDisk,
    opening: u64,
    weather: Arc<dyn Weather>,
}

/// Its ledger was closed, or somebody else has opened its disk since.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it is closed")]
struct Gone;

/// What was told to happen.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("told to fail: {0:?}")]
struct Told(Mishap);

impl Default for Disk {
    fn default() -> Self {
        let tables = Tables::default();
        Self { flushed: tables.mark(), tables, opened: 0, unheard: Vec::new() }
    }
}

impl MemoryDisk {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails: whoever had it open has it no more, and what was not flushed is forgotten.
    pub fn cut(&self) {
        let mut disk = self.lock();
        disk.opened = disk.opened.saturating_add(1);
        disk.unheard.clear();
        let flushed = disk.flushed;
        disk.tables.undo_to(flushed);
    }

    /// Every payment on it, in the order of admission, as the last operation has left it.
    pub fn payments(&self) -> Vec<StoredPayment> {
        self.lock().tables.list(None, usize::MAX)
    }

    /// Audits it: one settlement for each charge, and every row equal to what the journal says when
    /// it is replayed through the life cycle.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        self.lock().tables.check()
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::open(&MemoryDisk::default(), Arc::new(Fair))
    }
}

impl MemoryLedger {
    /// Opens a disk as a process does after a crash; see [`MemoryDisk::cut`]. Call
    /// [`Ledger::recover`] before anything else.
    pub fn open(disk: &MemoryDisk, weather: Arc<dyn Weather>) -> Self {
        disk.cut();
        let opening = disk.lock().opened;
        Self { disk: disk.clone(), opening, weather }
    }

    /// See [`MemoryDisk::check`].
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        self.disk.check()
    }

    /// One operation whose result can be asked for again.
    async fn write<T>(
        &self,
        (operation, payment): (Operation, Option<PaymentId>),
        work: impl FnOnce(&mut Tables) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
    {
        self.prove((operation, payment), unheard::none, work).await
    }

    /// One operation; if its result reaches nobody, what that alone would have proved is taken back.
    async fn prove<T>(
        &self,
        (operation, payment): (Operation, Option<PaymentId>),
        evidence: Evidence<T>,
        work: impl FnOnce(&mut Tables) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
    {
        let mishap = self.weather.before(operation, payment).await;
        match mishap {
            Mishap::Unavailable => return Err(StoreError::Unavailable(Told(mishap).into())),
            Mishap::UnknownBefore => return Err(StoreError::Unknown(Told(mishap).into())),
            Mishap::None | Mishap::UnknownAfter | Mishap::Unflushed => {}
        }
        let result = self.transact(mishap, work);
        let proved = result.as_ref().map(evidence).unwrap_or_default();
        let mut heard = Hearing { ledger: self, proved };
        self.weather.after(operation, payment).await;
        if mishap == Mishap::UnknownAfter {
            return Err(StoreError::Unknown(Told(mishap).into()));
        }
        heard.proved.clear();
        result
    }

    /// Applies an operation whole or not at all.
    fn transact<T>(
        &self,
        mishap: Mishap,
        work: impl FnOnce(&mut Tables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut disk = self.opened()?;
        let unheard = mem::take(&mut disk.unheard);
        let tables = &mut disk.tables;
        if !unheard.is_empty() {
            all_or_nothing(tables, |it| unheard::take_back(it, &unheard))?;
        }
        let result = all_or_nothing(tables, work);
        if mishap != Mishap::Unflushed {
            disk.flushed = disk.tables.flush();
        }
        result
    }

    /// A look at what is durable or about to be.
    async fn read<T>(
        &self,
        (operation, payment): (Operation, Option<PaymentId>),
        work: impl FnOnce(&Tables) -> T + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
    {
        let mishap = self.weather.before(operation, payment).await;
        let found = match mishap {
            Mishap::None | Mishap::Unflushed => work(&self.opened()?.tables),
            Mishap::Unavailable | Mishap::UnknownBefore | Mishap::UnknownAfter => {
                return Err(StoreError::Unavailable(Told(mishap).into()));
            }
        };
        self.weather.after(operation, payment).await;
        Ok(found)
    }

    /// The disk, if it is still this ledger's.
    fn opened(&self) -> Result<MutexGuard<'_, Disk>, StoreError> {
        let disk = self.disk.lock();
        if disk.opened == self.opening {
            return Ok(disk);
        }
        Err(StoreError::Unavailable(Gone.into()))
    }
}

fn all_or_nothing<T>(
    tables: &mut Tables,
    work: impl FnOnce(&mut Tables) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mark = tables.mark();
    let result = work(tables);
    if result.is_err() {
        tables.undo_to(mark);
    }
    result
}

/// Somebody waits for a result. If nobody does any more, what it proved is taken back with the next
/// operation.
struct Hearing<'a> {
    ledger: &'a MemoryLedger,
    proved: Vec<Unheard>,
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        if self.proved.is_empty() {
            return;
        }
        if let Ok(mut disk) = self.ledger.opened() {
            disk.unheard.append(&mut self.proved);
        }
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn admit(&self, admit: Admit) -> Result<Admitted, StoreError> {
        let what = (Operation::Admit, Some(admit.terms.id));
        self.prove(what, unheard::in_admitted, |it| holds::admit(it, &admit)).await
    }

    async fn begin_serve(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError> {
        let hold = HoldName::of(hold);
        let what = (Operation::BeginServe, Some(hold.id));
        self.write(what, |it| holds::begin_serve(it, hold, now)).await
    }

    async fn meter(
        &self,
        hold: &Hold,
        delivered: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let hold = HoldName::of(hold);
        let what = (Operation::Meter, Some(hold.id));
        self.write(what, |it| holds::meter(it, hold, delivered, now)).await
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
        let what = (Operation::Capture, Some(name.id));
        let done = self.write(what, |it| holds::capture(it, name, charge, now)).await;
        done.map_err(|source| CaptureFailed { hold, source })
    }

    async fn release(&self, hold: &Hold, why: Release, now: Timestamp) -> Result<(), StoreError> {
        let hold = HoldName::of(hold);
        let what = (Operation::Release, Some(hold.id));
        self.write(what, |it| holds::release(it, hold, why, now)).await
    }

    async fn withdraw(
        &self,
        hold: &Hold,
        why: Release,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        let hold = HoldName::of(hold);
        let what = (Operation::Withdraw, Some(hold.id));
        self.write(what, |it| holds::withdraw(it, hold, why, now)).await
    }

    async fn mark_answer(
        &self,
        id: PaymentId,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let what = (Operation::MarkAnswer, Some(id));
        self.write(what, |it| holds::mark_answer(it, id, mark, now)).await
    }

    async fn owe_refund(&self, id: PaymentId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        let what = (Operation::OweRefund, Some(id));
        self.write(what, |it| holds::owe_refund(it, id, why, now)).await
    }

    async fn lease_jobs(
        &self,
        only: Option<PaymentId>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        let what = (Operation::LeaseJobs, only);
        let work = |it: &mut Tables| settlements::lease(it, only, max, now);
        self.prove(what, unheard::in_leased, work).await
    }

    async fn resolve_job(
        &self,
        id: PaymentId,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        let what = (Operation::ResolveJob, Some(id));
        self.write(what, |it| settlements::resolve(it, id, &resolution, now)).await
    }

    async fn watch(&self, id: PaymentId, look_at: Option<Timestamp>) -> Result<(), StoreError> {
        self.write((Operation::Watch, Some(id)), |it| watches::watch(it, id, look_at)).await
    }

    async fn due_watches(&self, max: usize, now: Timestamp) -> Result<Vec<Watch>, StoreError> {
        self.read((Operation::DueWatches, None), |it| it.due_watches(max, now)).await
    }

    async fn reopen(
        &self,
        id: PaymentId,
        transaction: &str,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        let what = (Operation::Reopen, Some(id));
        self.write(what, |it| watches::reopen(it, id, transaction, now)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read((Operation::NextDue, None), Tables::next_due).await
    }

    async fn lookup(&self, id: PaymentId) -> Result<Option<StoredPayment>, StoreError> {
        self.read((Operation::Lookup, Some(id)), |it| it.lookup(id)).await
    }

    async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.read((Operation::List, after), |it| it.list(after, max)).await
    }

    async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        self.write((Operation::Recover, None), |it| recovery::recover(it, now)).await
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        let mut fresh = [0; 32];
        getrandom::fill(&mut fresh).map_err(|error| {
            let why = format!("the system gives no randomness: {error}");
            StoreError::Unavailable(why.into())
        })?;
        self.write((Operation::Secret, None), |it| Ok(it.secret(name, fresh))).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        if self.opened().is_ok() {
            let mut disk = self.disk.lock();
            disk.flushed = disk.tables.flush();
            disk.opened = disk.opened.saturating_add(1);
        }
        Ok(())
    }
}
