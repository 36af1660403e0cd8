//! The worker that makes captured payments final, and the way a request waits for its own.
//!
//! Every settlement goes through the ledger's queue: leased durably, tried, resolved durably. There
//! is no other path to the chain, so a payment cannot be settled from two places.

mod attempt;
mod watching;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farebox_billing::settlement::Verdict;
use farebox_chains::Facilitator;
use farebox_protocol::{Amount, PaymentId, Timestamp};
use farebox_store::{AnswerMark, Job, Ledger, Resolution, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::attempt::landing;
use crate::clock::Clock;
use crate::entropy::Entropy;

/// Settlements under way at one time. Each waits for about a block: with one every 2 s, these are some
/// 128 settlements a second. More would only wait in the nodes instead of here.
const IN_FLIGHT_MAX: usize = 256;
/// How long the worker rests at most.
const REST_MAX: Duration = Duration::from_mins(1);
/// And at least.
const REST_MIN: Duration = Duration::from_millis(10);
/// And while what is due is being looked at.
const REST_LOOKING: Duration = Duration::from_millis(250);
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
    /// Settled payments that are being looked at.
    looking: Mutex<HashSet<PaymentId>>,
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
            looking: Mutex::default(),
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
        if let Err(error) = self.start_due_looks().await {
            tracing::warn!(%error, "settlements that are not final could not be read");
            return now.plus(LEDGER_REST);
        }
        if 0 < started {
            // There may be more; a finished settlement wakes the worker as well.
            return now.plus(REST_MIN);
        }
        match self.ledger.next_due().await {
            // All slots taken: one that ends will wake the worker.
            Ok(Some(_)) if free == 0 => now.plus(REST_MAX),
            Ok(Some(due)) if self.looking().is_empty() => due.max(now.plus(REST_MIN)),
            Ok(Some(due)) => due.max(now.plus(REST_LOOKING)),
            Ok(None) => now.plus(REST_MAX),
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
        let verdict = self.attempt(&job).await;
        let now = self.clock.now();
        let leased_again = CancellationToken::new();
        self.recording().insert(id, leased_again.clone());
        let look_at = landing(&verdict).and_then(|it| it.look_at);
        let resolution = resolution(verdict);
        let resolve = || self.ledger.resolve_job(id, resolution.clone(), now);
        let watch = || self.ledger.watch(id, look_at);
        let mut recorded = Ok(());
        if look_at.is_some() {
            // Before it is settled: a crash in between leaves it to be looked up, and not unwatched.
            recorded = self.record(&leased_again, watch).await;
        }
        if recorded.is_ok() {
            recorded = self.record(&leased_again, resolve).await;
        }
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

    fn recording(&self) -> std::sync::MutexGuard<'_, HashMap<PaymentId, CancellationToken>> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looking(&self) -> std::sync::MutexGuard<'_, HashSet<PaymentId>> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<PaymentId, oneshot::Sender<Settled>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is recorded.
fn resolution(verdict: Verdict) -> Resolution {
    match verdict {
        Verdict::Settled(landing) => Resolution::Settled { transaction: landing.transaction },
        Verdict::Rejected { reason } => Resolution::Rejected { reason },
        Verdict::NotSent { retry_at } => Resolution::NotSent { retry_at },
        Verdict::Unknown { transaction, retry_at } => Resolution::Unknown { transaction, retry_at },
    }
}
