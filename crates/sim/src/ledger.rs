//! The ledger as the gateway gets it: the memory engine, with a flaw where one is to be found.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};
use farebox_store::{
    Admit, Admitted, AnswerMark, CaptureFailed, Captured, Hold, Job, Ledger, MemoryLedger,
    Recovered, Refusal, Resolution, StoreError, StoredPayment, Watch,
};

use crate::bug::Bug;
use crate::weather::WorldWeather;
use crate::world::World;

/// The ledger of one process.
#[derive(Debug)]
pub(crate) struct WorldLedger {
    world: Arc<World>,
    inner: MemoryLedger,
    /// Payments whose capture was tried.
    tried: Mutex<BTreeSet<PaymentId>>,
}

impl WorldLedger {
    pub(crate) fn open(world: &Arc<World>) -> Self {
        let inner = MemoryLedger::open(&world.disk, Arc::new(WorldWeather(Arc::clone(world))));
        Self { world: Arc::clone(world), inner, tried: Mutex::default() }
    }

    fn has(&self, bug: Bug) -> bool {
        self.world.bug == Some(bug)
    }

    /// What [`Bug::ReleasesWhileServing`] does from time to time.
    async fn reap(&self, now: Timestamp) {
        if self.has(Bug::ReleasesWhileServing) && self.world.luck(|it| it.percent(20)) {
            drop(self.inner.recover(now).await);
        }
    }

    /// Another payment for the ledger, which [`Bug::KeysByAttempt`] makes of one that it knows.
    async fn rename(&self, admit: &mut Admit) {
        if self.has(Bug::KeysByAttempt)
            && let Ok(Some(_)) = self.inner.lookup(admit.terms.id).await
        {
            let other = self.world.luck(crate::random::Random::bytes);
            admit.terms.id = PaymentId::from_bytes(other);
        }
    }
}

#[async_trait]
impl Ledger for WorldLedger {
    async fn admit(&self, mut admit: Admit) -> Result<Admitted, StoreError> {
        self.rename(&mut admit).await;
        if self.has(Bug::ForgetsNames) {
            admit.keys.clear();
        }
        let open = admit.terms.limit;
        match self.inner.admit(admit).await {
            Err(StoreError::Unknown(_)) if self.has(Bug::RefusesAfterUnknown) => {
                Ok(Admitted::Refused(Refusal::ExposureExceeded { open, limit: Amount::ZERO }))
            }
            admitted => admitted,
        }
    }

    async fn begin_serve(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError> {
        self.reap(now).await;
        match self.inner.begin_serve(hold, now).await {
            Err(_) if self.has(Bug::ServesWithoutBeginning) => Ok(()),
            begun => begun,
        }
    }

    async fn meter(
        &self,
        hold: &Hold,
        delivered: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.has(Bug::ForgetsCheckpoints) {
            return Ok(());
        }
        self.inner.meter(hold, delivered, now).await
    }

    async fn capture(
        &self,
        hold: Hold,
        mut charge: Amount,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<Captured, CaptureFailed> {
        let first = {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            tried.insert(hold.id())
        };
        if self.has(Bug::ChargesAgainOnRetry) && !first {
            charge = charge.checked_add(charge).map_or(charge, |it| it.min(hold.limit()));
        }
        self.inner.capture(hold, charge, mark, now).await
    }

    async fn release(&self, hold: &Hold, why: Release, now: Timestamp) -> Result<(), StoreError> {
        self.inner.release(hold, why, now).await
    }

    async fn withdraw(
        &self,
        hold: &Hold,
        why: Release,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.inner.withdraw(hold, why, now).await
    }

    async fn mark_answer(
        &self,
        id: PaymentId,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.inner.mark_answer(id, mark, now).await
    }

    async fn owe_refund(&self, id: PaymentId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        if self.has(Bug::ForgetsRefunds) {
            return Ok(());
        }
        self.inner.owe_refund(id, why, now).await
    }

    async fn lease_jobs(
        &self,
        only: Option<PaymentId>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        let mut jobs = self.inner.lease_jobs(only, max, now).await?;
        if self.has(Bug::LosesOutboxRows) && self.world.luck(|it| it.percent(25)) {
            jobs.pop();
        }
        Ok(jobs)
    }

    async fn resolve_job(
        &self,
        id: PaymentId,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.inner.resolve_job(id, resolution, now).await
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
        let found = self.inner.lookup(id).await?;
        let is_forgotten =
            |it: &StoredPayment| self.has(Bug::KeysByAttempt) && it.state.name() != "serving";
        Ok(found.filter(|it| !is_forgotten(it)))
    }

    async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.inner.list(after, max).await
    }

    async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        let recovered = self.inner.recover(now).await?;
        if self.has(Bug::RecoveryAssumesSettled) {
            let jobs = self.inner.lease_jobs(None, usize::MAX, now).await;
            for job in jobs.unwrap_or_default() {
                let transaction = "0xassumed".to_owned();
                let settled = Resolution::Settled { transaction };
                drop(self.inner.resolve_job(job.terms.id, settled, now).await);
            }
        }
        Ok(recovered)
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        // The same for the same seed, so that all that is signed with it is.
        let _durable = self.inner.secret(name).await?;
        Ok(self.world.secret(name))
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
