//! Callers who are told `Unknown` and do what the port says: the same again with the same evidence;
//! where that is no answer, a look.

use async_trait::async_trait;
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};
use farebox_store::{
    Admit, Admitted, AnswerMark, CaptureFailed, Captured, Hold, Job, Ledger, Recovered, Resolution,
    StoreError, StoredPayment, Watch,
};

/// A ledger as its callers end up seeing it.
#[derive(Debug)]
pub(crate) struct Resolute<L>(L);

impl<L: Ledger> Resolute<L> {
    pub(crate) fn new(inner: L) -> Self {
        Self(inner)
    }

    pub(crate) fn inner(&self) -> &L {
        &self.0
    }

    async fn is_serving(&self, hold: &Hold) -> Result<bool, StoreError> {
        let found = self.0.lookup(hold.id()).await?;
        Ok(found.is_some_and(|it| matches!(it.state, Payment::Serving { .. })))
    }
}

/// Until somebody knows.
async fn again<T, F>(operation: impl Fn() -> F + Send + Sync) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>> + Send,
{
    loop {
        match operation().await {
            Err(StoreError::Unknown(_)) => {}
            known => return known,
        }
    }
}

#[async_trait]
impl<L: Ledger> Ledger for Resolute<L> {
    async fn admit(&self, admit: Admit) -> Result<Admitted, StoreError> {
        again(|| self.0.admit(admit.clone())).await
    }

    async fn begin_serve(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError> {
        // Who has begun before may not begin again, and must be told so.
        let is_first = !self.is_serving(hold).await?;
        let mut unknown = false;
        loop {
            match self.0.begin_serve(hold, now).await {
                Err(StoreError::Unknown(_)) => unknown = true,
                // Said again, it cannot begin a second time; whether it began, the payment tells. It
                // cannot be somebody else's: that would be fenced.
                Err(StoreError::Illegal(_)) if unknown && is_first => {
                    assert!(self.is_serving(hold).await?);
                    return Ok(());
                }
                known => return known,
            }
        }
    }

    async fn meter(
        &self,
        hold: &Hold,
        delivered: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        again(|| self.0.meter(hold, delivered, now)).await
    }

    async fn capture(
        &self,
        mut hold: Hold,
        charge: Amount,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<Captured, CaptureFailed> {
        loop {
            match self.0.capture(hold, charge, mark, now).await {
                Err(CaptureFailed { hold: same, source: StoreError::Unknown(_) }) => hold = same,
                known => return known,
            }
        }
    }

    async fn release(&self, hold: &Hold, why: Release, now: Timestamp) -> Result<(), StoreError> {
        again(|| self.0.release(hold, why, now)).await
    }

    async fn withdraw(
        &self,
        hold: &Hold,
        why: Release,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        again(|| self.0.withdraw(hold, why, now)).await
    }

    async fn mark_answer(
        &self,
        id: PaymentId,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        again(|| self.0.mark_answer(id, mark, now)).await
    }

    async fn owe_refund(&self, id: PaymentId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        again(|| self.0.owe_refund(id, why, now)).await
    }

    async fn lease_jobs(
        &self,
        only: Option<PaymentId>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        again(|| self.0.lease_jobs(only, max, now)).await
    }

    async fn resolve_job(
        &self,
        id: PaymentId,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        again(|| self.0.resolve_job(id, resolution.clone(), now)).await
    }

    async fn watch(&self, id: PaymentId, look_at: Option<Timestamp>) -> Result<(), StoreError> {
        again(|| self.0.watch(id, look_at)).await
    }

    async fn due_watches(&self, max: usize, now: Timestamp) -> Result<Vec<Watch>, StoreError> {
        self.0.due_watches(max, now).await
    }

    async fn reopen(
        &self,
        id: PaymentId,
        transaction: &str,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        again(|| self.0.reopen(id, transaction, now)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.0.next_due().await
    }

    async fn lookup(&self, id: PaymentId) -> Result<Option<StoredPayment>, StoreError> {
        self.0.lookup(id).await
    }

    async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.0.list(after, max).await
    }

    async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        again(|| self.0.recover(now)).await
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        again(|| self.0.secret(name)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.0.close().await
    }
}
