//! A ledger that fails where it is told to, before or after it did what it was asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};
use farebox_store::{
    Admit, Admitted, AnswerMark, CaptureFailed, Captured, Hold, Intake, Job, Ledger, Recovered,
    Resolution, SqliteLedger, StoreError, StoredPayment, Watch,
};

/// Operations that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Lookup,
    Admit,
    BeginServe,
    Meter,
    Capture,
    Release,
    Withdraw,
    MarkAnswer,
    OweRefund,
    Lease,
    Resolve,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not applied, and known not to be.
    Unavailable,
    /// Not applied, which nobody knows.
    UnknownBefore,
    /// Applied, which nobody knows.
    UnknownAfter,
}

/// What fails how many more times, and whether new payments are taken.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<HashMap<Operation, VecDeque<(Fault, u32)>>>, Mutex<Option<Intake>>);

impl Faults {
    pub(crate) fn set_intake(&self, intake: Intake) {
        *self.1.lock().unwrap() = Some(intake);
    }

    pub(crate) fn set(&self, operation: Operation, fault: Fault, times: u32) {
        self.0.lock().unwrap().insert(operation, VecDeque::from([(fault, times)]));
    }

    pub(crate) fn set_then(&self, operation: Operation, first: (Fault, u32), then: (Fault, u32)) {
        self.0.lock().unwrap().insert(operation, VecDeque::from([first, then]));
    }

    fn take(&self, operation: Operation) -> Option<Fault> {
        let mut faults = self.0.lock().unwrap();
        let queue = faults.get_mut(&operation)?;
        while queue.front()?.1 == 0 {
            queue.pop_front();
        }
        let (fault, times) = queue.front_mut()?;
        *times = times.checked_sub(1)?;
        Some(*fault)
    }
}

/// Passes everything on to a real ledger, but for the faults.
#[derive(Debug)]
pub(crate) struct FaultyLedger {
    inner: Arc<SqliteLedger>,
    faults: Arc<Faults>,
}

impl FaultyLedger {
    pub(crate) fn new(inner: Arc<SqliteLedger>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    async fn with<T>(
        &self,
        operation: Operation,
        apply: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.faults.take(operation) {
            None => apply.await,
            Some(Fault::UnknownAfter) => {
                apply.await?;
                Err(error(Fault::UnknownAfter))
            }
            Some(fault) => Err(error(fault)),
        }
    }
}

fn error(fault: Fault) -> StoreError {
    let cause = "told to fail".into();
    match fault {
        Fault::Unavailable => StoreError::Unavailable(cause),
        Fault::UnknownBefore | Fault::UnknownAfter => StoreError::Unknown(cause),
    }
}

#[async_trait]
impl Ledger for FaultyLedger {
    async fn admit(&self, admit: Admit) -> Result<Admitted, StoreError> {
        self.with(Operation::Admit, self.inner.admit(admit)).await
    }

    async fn begin_serve(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError> {
        self.with(Operation::BeginServe, self.inner.begin_serve(hold, now)).await
    }

    async fn meter(
        &self,
        hold: &Hold,
        delivered: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.with(Operation::Meter, self.inner.meter(hold, delivered, now)).await
    }

    async fn capture(
        &self,
        hold: Hold,
        charge: Amount,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<Captured, CaptureFailed> {
        match self.faults.take(Operation::Capture) {
            None => self.inner.capture(hold, charge, mark, now).await,
            // Only a ledger gives the hold of a captured payment back. What recovery makes of a
            // checkpoint is a capture as `Leaving`, and the hold stays here.
            Some(Fault::UnknownAfter) if mark == AnswerMark::Leaving => {
                self.inner.meter(&hold, charge, now).await.unwrap();
                assert_eq!(self.inner.recover(now).await.unwrap().captured, 1);
                Err(CaptureFailed { hold, source: error(Fault::UnknownAfter) })
            }
            Some(fault) => Err(CaptureFailed { hold, source: error(fault) }),
        }
    }

    async fn release(&self, hold: &Hold, why: Release, now: Timestamp) -> Result<(), StoreError> {
        self.with(Operation::Release, self.inner.release(hold, why, now)).await
    }

    async fn withdraw(
        &self,
        hold: &Hold,
        why: Release,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.with(Operation::Withdraw, self.inner.withdraw(hold, why, now)).await
    }

    async fn mark_answer(
        &self,
        id: PaymentId,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.with(Operation::MarkAnswer, self.inner.mark_answer(id, mark, now)).await
    }

    async fn owe_refund(&self, id: PaymentId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        self.with(Operation::OweRefund, self.inner.owe_refund(id, why, now)).await
    }

    async fn lease_jobs(
        &self,
        only: Option<PaymentId>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        self.with(Operation::Lease, self.inner.lease_jobs(only, max, now)).await
    }

    async fn resolve_job(
        &self,
        id: PaymentId,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.with(Operation::Resolve, self.inner.resolve_job(id, resolution, now)).await
    }

    async fn watch(&self, id: PaymentId, look_at: Option<Timestamp>) -> Result<(), StoreError> {
        self.inner.watch(id, look_at).await
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
        self.inner.reopen(id, transaction, now).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.next_due().await
    }

    async fn lookup(&self, id: PaymentId) -> Result<Option<StoredPayment>, StoreError> {
        self.with(Operation::Lookup, self.inner.lookup(id)).await
    }

    async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.inner.list(after, max).await
    }

    async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        self.inner.recover(now).await
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        self.inner.secret(name).await
    }

    fn intake(&self) -> Intake {
        self.faults.1.lock().unwrap().unwrap_or_else(|| self.inner.intake())
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
