//! The worker that makes captured payments final, and the way a request waits for its own.
//!
//! Every settlement goes through the ledger's queue: leased durably, tried, resolved durably. There
//! is no other path to the chain, so a payment cannot be settled from two places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farebox_chains::{Facilitator, Lookup, SettleError, says_used};
use farebox_protocol::wire::X402_VERSION;
use farebox_protocol::wire::{PaymentPayload, PaymentRequirements, Raw, SettleRequest};
use farebox_protocol::{Amount, PaymentId, Reason, Timestamp};
use farebox_store::{AnswerMark, Job, Ledger, Resolution, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::entropy::Entropy;

/// Settlements under way at one time. Each waits for about a block: with one every 2 s, these are some
/// 128 settlements a second. More would only wait in the nodes instead of here.
const IN_FLIGHT_MAX: usize = 256;
/// The first pause after a settlement that was not sent or not answered; doubles from there.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_mins(1);
/// From the last moment to send until no chain takes the authorisation any more, whatever its clock.
const EXPIRY_MARGIN: Duration = Duration::from_mins(2);
/// Why a settlement was not sent that nobody waits for.
const ABANDONED: &str = "settlement_abandoned";
/// How long the worker rests when the ledger cannot be read.
const LEDGER_REST: Duration = Duration::from_secs(1);
/// The first pause before an outcome is recorded again; doubles.
const RECORD_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Tries to record an outcome once the settler stops.
const RECORD_TRIES: u32 = 6;

/// What a request is told of its own settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The money moved.
    Landed {
        /// In this transaction.
        transaction: String,
        /// So much.
        charge: Amount,
    },
    /// It will not move.
    Rejected {
        /// The specified `errorReason`.
        reason: String,
    },
    /// Not known yet. Never to be treated as a failure.
    Pending,
}

/// Settles captured payments in the background, or while a request waits.
#[derive(Debug)]
pub struct Settler {
    ledger: Arc<dyn Ledger>,
    facilitator: Arc<dyn Facilitator>,
    clock: Arc<dyn Clock>,
    entropy: Arc<Entropy>,
    slots: Arc<Semaphore>,
    wake: Notify,
    /// Held by the worker from a lease until its tasks have begun, and while an outcome is recorded
    /// once more.
    leasing: tokio::sync::Mutex<()>,
    /// Outcomes that are being recorded; cancelled when the payment is leased again.
    recording: Mutex<HashMap<PaymentId, CancellationToken>>,
    tasks: TaskTracker,
    /// Cancelled when the worker has ended.
    retired: CancellationToken,
    waiting: Mutex<HashMap<PaymentId, oneshot::Sender<Settled>>>,
}

/// A request that waits for the settlement of its own payment. Dropped, it waits no longer.
#[derive(Debug)]
#[must_use]
pub struct Expected {
    settler: Arc<Settler>,
    id: PaymentId,
    receiver: oneshot::Receiver<Settled>,
}

impl Expected {
    /// Settles the payment, which is captured by now, ahead of the queue, and waits for it, at most
    /// `wait`. What was sent by then goes on; if it lands, the payment is owed back, because its
    /// answer was withheld. What was not sent by then is given back.
    pub async fn settle(mut self, wait: Duration) -> Settled {
        let clock = Arc::clone(&self.settler.clock);
        let deadline = clock.now().plus(wait);
        self.settler.start_one(self.id).await;
        let outcome = tokio::select! {
            biased;
            outcome = &mut self.receiver => outcome.ok(),
            () = clock.sleep_until(deadline) => {
                self.receiver.close();
                self.receiver.try_recv().ok()
            }
        };
        outcome.unwrap_or(Settled::Pending)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.receiver.close();
        let mut waiting = self.settler.waiting();
        // The payment may have been given back, and be held again for another request by now.
        if waiting.get(&self.id).is_some_and(oneshot::Sender::is_closed) {
            waiting.remove(&self.id);
        }
    }
}

impl Settler {
    /// A settler that runs its work on `tasks`; [`Settler::run`] has to be started besides.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        facilitator: Arc<dyn Facilitator>,
        clock: Arc<dyn Clock>,
        entropy: Arc<Entropy>,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            facilitator,
            clock,
            entropy,
            slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            wake: Notify::new(),
            leasing: tokio::sync::Mutex::default(),
            recording: Mutex::default(),
            tasks,
            retired: CancellationToken::new(),
            waiting: Mutex::default(),
        })
    }

    /// Tells the worker that something was captured.
    pub fn kick(&self) {
        self.wake.notify_one();
    }

    /// Announces that a request will wait for the settlement of its payment. To be called before
    /// the capture: from then on the worker may settle it at any moment, and what lands unheard is
    /// owed back.
    pub fn expect(self: &Arc<Self>, id: PaymentId) -> Expected {
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(id, sender);
        Expected { settler: Arc::clone(self), id, receiver }
    }

    async fn start_one(self: &Arc<Self>, id: PaymentId) {
        match self.ledger.lease_jobs(Some(id), 1, self.clock.now()).await {
            Ok(jobs) => {
                // Whoever waits has been admitted already and does not queue for a place again.
                for job in jobs {
                    self.start(job, None);
                }
            }
            Err(error) => {
                tracing::warn!(payment.id = %id, %error, "settlement could not be leased");
            }
        }
    }

    /// The worker: settles whatever is due until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let _retired = self.retired.clone().drop_guard();
        while !stop.is_cancelled() {
            let rest = self.start_due_jobs().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = self.clock.sleep_until(rest) => {}
            }
        }
    }

    /// Whether nothing runs on the settler's tasks and nothing is due.
    pub(crate) async fn is_at_rest(&self) -> Result<bool, StoreError> {
        // What is leased and not begun would be seen neither in the queue nor among the tasks.
        let _leasing = self.leasing.lock().await;
        if !self.tasks.is_empty() {
            return Ok(false);
        }
        let due = self.ledger.next_due().await?;
        Ok(due.is_none_or(|it| self.clock.now() < it))
    }

    /// Starts as many due settlements as there are free slots; returns when to look again.
    async fn start_due_jobs(self: &Arc<Self>) -> Timestamp {
        let now = self.clock.now();
        // Only the worker takes slots, so what is free stays free.
        let free = self.slots.available_permits();
        let leasing = self.leasing.lock().await;
        let started = match self.ledger.lease_jobs(None, free, now).await {
            Ok(jobs) => jobs.into_iter().map(|job| self.start(job, self.slot())).count(),
            Err(error) => {
                tracing::warn!(%error, "due settlements could not be read");
                return now.plus(LEDGER_REST);
            }
        };
        drop(leasing);
        if 0 < started {
            // There may be more; a finished settlement wakes the worker as well.
            return now.plus(Duration::from_millis(10));
        }
        match self.ledger.next_due().await {
            // All slots taken: one that ends will wake the worker.
            Ok(Some(_)) if free == 0 => now.plus(BACKOFF_MAX),
            Ok(Some(due)) => due.max(now.plus(Duration::from_millis(10))),
            Ok(None) => now.plus(BACKOFF_MAX),
            Err(_) => now.plus(LEDGER_REST),
        }
    }

    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    fn start(self: &Arc<Self>, job: Job, slot: Option<OwnedSemaphorePermit>) {
        if let Some(recording) = self.recording().remove(&job.terms.id) {
            recording.cancel();
        }
        let settler = Arc::clone(self);
        self.tasks.spawn(async move {
            settler.finish(job).await;
            drop(slot);
            settler.kick();
        });
    }

    async fn finish(&self, job: Job) {
        let id = job.terms.id;
        let resolution = self.attempt(&job).await;
        let now = self.clock.now();
        let leased_again = CancellationToken::new();
        self.recording().insert(id, leased_again.clone());
        let resolve = || self.ledger.resolve_job(id, resolution.clone(), now);
        let recorded = self.record(&leased_again, resolve).await;
        {
            let mut recording = self.recording();
            if !leased_again.is_cancelled() {
                recording.remove(&id);
            }
        }
        if let Err(error) = recorded {
            // Still leased: recovery at the next start looks it up.
            tracing::error!(payment.id = %id, %error, "settlement outcome could not be recorded");
            return;
        }
        tracing::info!(
            payment.id = %id,
            route = %job.terms.route,
            network = %job.terms.asset.network(),
            scheme = %job.terms.scheme,
            amount_units = %job.charge,
            outcome = ?resolution,
            "settlement"
        );
        let told = match &resolution {
            Resolution::Settled { transaction } => {
                Settled::Landed { transaction: transaction.clone(), charge: job.charge }
            }
            Resolution::Rejected { reason } => Settled::Rejected { reason: reason.clone() },
            // Whoever waits may as well wait for the next try.
            Resolution::NotSent { .. } | Resolution::Unknown { .. } => return,
        };
        let landed = matches!(told, Settled::Landed { .. });
        let heard = self.waiting().remove(&id).is_some_and(|it| it.send(told).is_ok());
        if landed && !heard && job.answer == AnswerMark::Withheld {
            let why = "settled_unanswered";
            let never = CancellationToken::new();
            let recorded = self.record(&never, || self.ledger.owe_refund(id, why, now)).await;
            if let Err(error) = recorded {
                tracing::error!(payment.id = %id, %error, "refund owed could not be recorded");
            }
        }
    }

    /// Records what happened, again while the ledger is away or its answer unknown: recording is
    /// idempotent, until the payment is leased again: then an earlier try had been carried out, and
    /// another would speak of the new lease. Once the settler stops, a few tries more.
    async fn record<T, F>(
        &self,
        leased_again: &CancellationToken,
        operation: impl Fn() -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = RECORD_PAUSE;
        let mut left = RECORD_TRIES;
        let mut leasing = None;
        loop {
            if leased_again.is_cancelled() {
                return Ok(());
            }
            let done = operation().await;
            drop(leasing);
            let error = match done {
                Ok(_) => return Ok(()),
                Err(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_))) => error,
                Err(error) => return Err(error),
            };
            let retired = self.retired.is_cancelled();
            if retired || self.tasks.is_closed() {
                left = left.saturating_sub(1);
                if left == 0 {
                    return Err(error);
                }
            }
            tracing::warn!(%error, "settlement outcome not recorded yet");
            tokio::select! {
                biased;
                () = self.clock.sleep_until(self.clock.now().plus(pause)) => {
                    pause = pause.saturating_mul(2).min(RECORD_PAUSE_MAX);
                }
                () = self.retired.cancelled(), if !retired => pause = RECORD_PAUSE,
            }
            leasing = Some(self.leasing.lock().await);
        }
    }

    async fn attempt(&self, job: &Job) -> Resolution {
        let request = match request(job) {
            Ok(request) => request,
            Err(error) => {
                // What was admitted cannot be read back: nothing can be settled with it.
                tracing::error!(payment.id = %job.terms.id, %error, "stored payment is unreadable");
                return Resolution::Rejected { reason: "invalid_payload".to_owned() };
            }
        };
        if job.may_have_been_sent {
            if let Some(known) = self.look_up(job, &request).await {
                return known;
            }
        } else if self.is_abandoned(job) {
            return Resolution::Rejected { reason: ABANDONED.to_owned() };
        }
        match self.facilitator.settle(&request, self.clock.now()).await {
            Ok(settlement) => Resolution::Settled { transaction: settlement.transaction },
            Err(SettleError::Rejected { reason, .. })
                if job.may_have_been_sent && says_used(&reason) =>
            {
                // By an earlier try of ours, for all we know: the chain has to say so.
                tracing::warn!(payment.id = %job.terms.id, "authorisation used, nobody knows by whom");
                Resolution::Unknown { transaction: None, retry_at: self.retry_at(job.attempts) }
            }
            Err(SettleError::Rejected { reason, message }) => {
                tracing::warn!(payment.id = %job.terms.id, %reason, message, "settlement rejected");
                Resolution::Rejected { reason: reason.to_string() }
            }
            Err(SettleError::NotServed { reason, message }) => {
                self.wait_for_configuration(job, &reason, &message)
            }
            Err(SettleError::NotSent(error)) => {
                tracing::warn!(payment.id = %job.terms.id, %error, "settlement not sent");
                Resolution::NotSent { retry_at: self.retry_at(job.attempts) }
            }
            Err(SettleError::Unknown { transaction }) => {
                Resolution::Unknown { transaction, retry_at: self.retry_at(job.attempts) }
            }
        }
    }

    /// What it takes to settle this payment was there when it was taken, and is not configured now.
    /// Whoever was served can be charged once it is there again, until the authorisation ends.
    fn wait_for_configuration(&self, job: &Job, reason: &Reason, message: &str) -> Resolution {
        let id = job.terms.id;
        // What may have been sent may have landed, which nobody can tell for now.
        if !job.may_have_been_sent && self.has_expired(job) {
            tracing::error!(payment.id = %id, %reason, message, "a payment outlived its configuration");
            return Resolution::Rejected { reason: reason.to_string() };
        }
        tracing::error!(payment.id = %id, %reason, message, "a payment waits for the configuration");
        Resolution::NotSent { retry_at: self.retry_at(job.attempts) }
    }

    /// What the chain says of a settlement that may have been sent, or `None` where sending (the
    /// same authorisation, which its nonce makes single-use) is the way to find out.
    async fn look_up(&self, job: &Job, request: &SettleRequest) -> Option<Resolution> {
        let retry_at = self.retry_at(job.attempts);
        match self.facilitator.lookup(request, self.clock.now()).await {
            Ok(Lookup::Landed(settlement)) => {
                Some(Resolution::Settled { transaction: settlement.transaction })
            }
            Ok(Lookup::Dead { reason }) => {
                Some(Resolution::Rejected { reason: reason.to_string() })
            }
            // The payer got nothing: the settlement is not sent again, but an earlier one may
            // still land, so the payment stays unknown until its authorisation expires.
            Ok(Lookup::Open) if job.answer == AnswerMark::Withheld => {
                Some(Resolution::Unknown { transaction: None, retry_at })
            }
            // Likewise where nobody can look; once it has expired, asking moves nothing.
            Ok(Lookup::CannotTell) if self.is_abandoned(job) && !self.has_expired(job) => {
                Some(Resolution::Unknown { transaction: None, retry_at })
            }
            Ok(Lookup::Open | Lookup::CannotTell) => None,
            Err(error) => {
                tracing::warn!(payment.id = %job.terms.id, %error, "settlement not looked up");
                Some(Resolution::Unknown { transaction: None, retry_at })
            }
        }
    }

    /// Nothing of the answer left and its request has gone: the payer would pay for nothing.
    fn is_abandoned(&self, job: &Job) -> bool {
        let id = job.terms.id;
        let is_awaited = self.waiting().get(&id).is_some_and(|it| !it.is_closed());
        job.answer == AnswerMark::Withheld && !is_awaited
    }

    /// Whether the authorisation has ended by any clock.
    fn has_expired(&self, job: &Job) -> bool {
        job.terms.settle_by.plus(EXPIRY_MARGIN) <= self.clock.now()
    }

    /// Exponential backoff, the second half of each pause random.
    fn retry_at(&self, attempts: u32) -> Timestamp {
        let factor = 1_u32.checked_shl(attempts.min(16)).unwrap_or(u32::MAX);
        let pause = BACKOFF_FIRST.saturating_mul(factor).min(BACKOFF_MAX);
        let half = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX) / 2;
        let jitter = self.entropy.below(half);
        self.clock.now().plus(Duration::from_millis(half.saturating_add(jitter)))
    }

    fn recording(&self) -> std::sync::MutexGuard<'_, HashMap<PaymentId, CancellationToken>> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<PaymentId, oneshot::Sender<Settled>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The facilitator's request: the client's payload as it came, our requirements at the charge.
fn request(job: &Job) -> Result<SettleRequest, serde_json::Error> {
    let payment_payload: Raw<PaymentPayload> = serde_json::from_str(&job.terms.payload)?;
    let mut payment_requirements: Raw<PaymentRequirements> =
        serde_json::from_str(&job.terms.requirements)?;
    if payment_requirements.value().amount != job.charge {
        let at_charge =
            PaymentRequirements { amount: job.charge, ..payment_requirements.value().clone() };
        payment_requirements = Raw::new(at_charge)?;
    }
    Ok(SettleRequest { x402_version: X402_VERSION, payment_payload, payment_requirements })
}
