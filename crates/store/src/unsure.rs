//! A ledger that does not always know what it did: for the tests of engines and of their callers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};

use crate::port::{
    Admit, Admitted, AnswerMark, CaptureFailed, Captured, Hold, Intake, Job, Ledger, Recovered,
    Resolution, StoreError, StoredPayment, Watch,
};

/// Passes everything on, but answers some operations with [`StoreError::Unknown`], before or after
/// they are applied. Which ones, a seed decides. What the port says of a caller who is told so holds
/// here, too: holds and leases that nobody heard of are taken back.
#[derive(Debug)]
pub struct Unsure<L> {
    inner: L,
    /// `SplitMix64` (Steele, Lea, Flood 2014).
    random: Mutex<u64>,
    one_in: u64,
    doubts: AtomicU64,
}

/// When nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    Never,
    Before,
    After,
}

/// What was told to happen.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("told not to know")]
struct Told;

fn unknown() -> StoreError {
    StoreError::Unknown(Told.into())
}

impl<L: Ledger> Unsure<L> {
    /// Unsure of one operation in `one_in`, of each with the same chance; of none where it is 0.
    pub fn new(inner: L, seed: u64, one_in: u64) -> Self {
        Self { inner, random: Mutex::new(seed), one_in, doubts: AtomicU64::new(0) }
    }

    /// The ledger behind it.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    /// How often it did not know.
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    fn doubt(&self) -> Doubt {
        let mut state = self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        if (mixed >> 1).checked_rem(self.one_in) != Some(0) {
            return Doubt::Never;
        }
        self.doubts.fetch_add(1, Ordering::Relaxed);
        if mixed & 1 == 0 { Doubt::Before } else { Doubt::After }
    }

    async fn with<T>(
        &self,
        apply: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
    {
        match self.doubt() {
            Doubt::Never => apply.await,
            Doubt::Before => Err(unknown()),
            Doubt::After => {
                drop(apply.await);
                Err(unknown())
            }
        }
    }
}

#[async_trait]
impl<L: Ledger> Ledger for Unsure<L> {
    async fn admit(&self, admit: Admit) -> Result<Admitted, StoreError> {
        let now = admit.now;
        match self.doubt() {
            Doubt::Never => return self.inner.admit(admit).await,
            Doubt::Before => {}
            Doubt::After => {
                if let Ok(Admitted::New(hold)) = self.inner.admit(admit).await {
                    self.inner.release(&hold, Release::NothingOwed, now).await?;
                }
            }
        }
        Err(unknown())
    }

    async fn begin_serve(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError> {
        self.with(self.inner.begin_serve(hold, now)).await
    }

    async fn meter(
        &self,
        hold: &Hold,
        delivered: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.with(self.inner.meter(hold, delivered, now)).await
    }

    async fn capture(
        &self,
        hold: Hold,
        charge: Amount,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<Captured, CaptureFailed> {
        match self.doubt() {
            Doubt::Never => self.inner.capture(hold, charge, mark, now).await,
            Doubt::Before => Err(CaptureFailed { hold, source: unknown() }),
            Doubt::After => {
                let same = Hold::new(hold.id(), hold.limit(), hold.generation());
                drop(self.inner.capture(hold, charge, mark, now).await);
                Err(CaptureFailed { hold: same, source: unknown() })
            }
        }
    }

    async fn release(&self, hold: &Hold, why: Release, now: Timestamp) -> Result<(), StoreError> {
        self.with(self.inner.release(hold, why, now)).await
    }

    async fn withdraw(
        &self,
        hold: &Hold,
        why: Release,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.with(self.inner.withdraw(hold, why, now)).await
    }

    async fn mark_answer(
        &self,
        id: PaymentId,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.with(self.inner.mark_answer(id, mark, now)).await
    }

    async fn owe_refund(&self, id: PaymentId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        self.with(self.inner.owe_refund(id, why, now)).await
    }

    async fn lease_jobs(
        &self,
        only: Option<PaymentId>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        // Leased and queued again by itself is what was never leased.
        match self.doubt() {
            Doubt::Never => self.inner.lease_jobs(only, max, now).await,
            Doubt::Before | Doubt::After => Err(unknown()),
        }
    }

    async fn resolve_job(
        &self,
        id: PaymentId,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.with(self.inner.resolve_job(id, resolution, now)).await
    }

    async fn watch(&self, id: PaymentId, look_at: Option<Timestamp>) -> Result<(), StoreError> {
        self.with(self.inner.watch(id, look_at)).await
    }

    async fn due_watches(&self, max: usize, now: Timestamp) -> Result<Vec<Watch>, StoreError> {
        self.inner.due_watches(max, now).await
    }

    async fn reopen(
        &self,
        id: PaymentId,
        transaction: &str,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.with(self.inner.reopen(id, transaction, now)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.next_due().await
    }

    async fn lookup(&self, id: PaymentId) -> Result<Option<StoredPayment>, StoreError> {
        self.inner.lookup(id).await
    }

    async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.inner.list(after, max).await
    }

    async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        // Before it alone: what it did cannot be told a second time.
        match self.doubt() {
            Doubt::Never => self.inner.recover(now).await,
            Doubt::Before | Doubt::After => Err(unknown()),
        }
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        self.with(self.inner.secret(name)).await
    }

    fn intake(&self) -> Intake {
        self.inner.intake()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
