//! One payment after the other, in all the ways that end.
//!
//! It works as the gateway does: nothing leaves before its hold and its checkpoint are durable, a
//! settlement that may have been sent is looked up on the chain first, and an unknown outcome is
//! looked up in the ledger before anything else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use farebox_billing::{Payment, Release};
use farebox_protocol::{Digest, PaymentId, Timestamp};
use farebox_store::{
    Admit, Admitted, AnswerMark, Hold, Job, Ledger, Refusal, RequestKey, Resolution, SettleMode,
    StoreError, StoredPayment, Terms,
};
use tokio::sync::Notify;

use crate::crash::event::{Event, What};
use crate::crash::history::{charge, ended};
use crate::crash::load::Conduct;
use crate::support::{at, payment_id, terms, units};

/// What waits for its request is due so much later than the rest, so that the request gets it.
const WAITED_FOR_MILLIS: u64 = 200_000;
/// An operation is tried so often while the ledger is unavailable.
const TRIES: u32 = 20;
/// Payments that settle in one go.
const JOBS: usize = 16;
/// The payer that may not have more than this open.
pub(super) const CAPPED_PAYER: &str = "0x3333333333333333333333333333333333333333";
pub(super) const CAPPED_UNITS: u128 = 450;

/// The ledger gives no good answer any more; whoever works on it stops.
#[derive(Debug)]
pub(super) struct GaveUp;

type Done<T = ()> = Result<T, GaveUp>;

/// How a payment goes, told by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    ReleasedWhileHeld,
    ReleasedWhileServing,
    /// Metered, and taken back before anything left.
    Withdrawn,
    Stream,
    /// The answer waits for its settlement.
    Withheld,
    /// The answer does not wait.
    Background,
    /// The work waits for the settlement.
    Before,
}

fn plan(number: u64) -> Plan {
    match number % 8 {
        0 => Plan::ReleasedWhileHeld,
        2 => Plan::Withheld,
        3 => Plan::Before,
        4 => Plan::Background,
        5 => Plan::ReleasedWhileServing,
        6 => Plan::Withdrawn,
        _ => Plan::Stream,
    }
}

/// The name of a payment's transaction of that nonce.
pub(super) fn transaction(number: u64, nonce: u64) -> String {
    format!("0x{number:x}-{nonce}")
}

/// What a payer calls the request of some payments.
pub(super) fn key(number: u64) -> Option<RequestKey> {
    let digest = |what: &str| Digest::of(format!("{what} {number}").as_bytes());
    let key = RequestKey { name: digest("name"), request: digest("request") };
    matches!(number % 8, 1 | 2).then_some(key)
}

/// Whether the chain refuses a payment's settlement, if it is asked at the first try.
pub(super) fn is_rejected(number: u64) -> bool {
    number % 19 == 5
}

/// The number of a payment.
pub(super) fn number(id: PaymentId) -> u64 {
    u64::from_be_bytes(id.as_bytes()[24..].try_into().unwrap())
}

/// Everything a child knows.
#[derive(Debug)]
pub(super) struct Worker {
    ledger: Arc<dyn Ledger>,
    now: u64,
    conduct: Conduct,
    /// Payment and nonce of what has landed.
    chain: Mutex<BTreeMap<u64, u64>>,
    captured: Notify,
}

impl Worker {
    pub(super) fn new(
        ledger: Arc<dyn Ledger>,
        now: u64,
        conduct: Conduct,
        chain: &[(u64, u64)],
    ) -> Self {
        let chain = Mutex::new(chain.iter().copied().collect());
        Self { ledger, now, conduct, chain, captured: Notify::new() }
    }

    fn at(&self, millis: u64) -> Timestamp {
        at(self.now + millis)
    }

    pub(super) async fn recover(&self) -> Done {
        if self.conduct == Conduct::EndsUnsure {
            // Whoever reads keeps the log open, as in a gateway that has been up for a while.
            drop(self.ledger.lookup(payment_id(0)).await);
        }
        let recovered = async || self.ledger.recover(self.at(0)).await.map(drop);
        // Asked again, it changes nothing.
        self.insist(0, recovered, |_| false).await?;
        Event::say(0, What::Recovered);
        Ok(())
    }

    /// Waits until there may be something to settle.
    pub(super) async fn captured(&self) {
        self.captured.notified().await;
    }

    /// Sells an answer; sometimes two requests come with one payment.
    pub(super) async fn sell(&self, number: u64) -> Done {
        if plan(number) == Plan::Stream && number.is_multiple_of(3) {
            let (one, other) = tokio::join!(self.answer(number), self.answer(number));
            return one.and(other);
        }
        self.answer(number).await
    }

    async fn answer(&self, number: u64) -> Done {
        let plan = plan(number);
        if plan == Plan::Stream && self.conduct == Conduct::ServesFirst {
            Event::say(number, What::Left);
            Event::say(number, What::Chunk(10));
        }
        let Some(hold) = self.admit(number, plan).await? else { return Ok(()) };
        if !matches!(plan, Plan::Before | Plan::ReleasedWhileHeld) {
            let begun = async || self.ledger.begin_serve(&hold, self.at(2)).await;
            let is_serving = |it: &_| matches!(it, Payment::Serving { .. });
            self.insist(number, begun, |it| is_serving(&it.state)).await?;
            Event::say(number, What::Serving);
        }
        match plan {
            Plan::ReleasedWhileHeld | Plan::ReleasedWhileServing => {
                self.release(number, hold).await
            }
            Plan::Withdrawn => self.withdraw(number, hold).await,
            Plan::Stream => self.stream(number, hold).await,
            Plan::Background => {
                self.capture(number, hold, 60, AnswerMark::Leaving).await?;
                Self::leave(number, 60);
                self.sent(number).await
            }
            Plan::Withheld | Plan::Before => {
                self.capture(number, hold, 60, AnswerMark::Withheld).await?;
                if !self.settle_own(number).await? {
                    return Ok(());
                }
                if plan == Plan::Before && number.is_multiple_of(3) {
                    return self.owe(number).await;
                }
                Self::leave(number, 60);
                self.sent(number).await
            }
        }
    }

    async fn admit(&self, number: u64, plan: Plan) -> Done<Option<Hold>> {
        Event::say(number, What::Asked);
        let settle = match plan {
            Plan::Before => SettleMode::Before,
            Plan::Background => SettleMode::Background,
            Plan::ReleasedWhileHeld
            | Plan::ReleasedWhileServing
            | Plan::Withdrawn
            | Plan::Stream
            | Plan::Withheld => SettleMode::After,
        };
        let mut admit = Admit {
            terms: terms(number, settle),
            keys: key(number).into_iter().collect(),
            exposure_limit: None,
            now: self.at(1),
        };
        if number.is_multiple_of(13) {
            admit.exposure_limit = Some(units(CAPPED_UNITS));
            admit.terms = Terms { payer: CAPPED_PAYER.to_owned(), ..admit.terms };
        }
        for _ in 0..TRIES {
            match self.ledger.admit(admit.clone()).await {
                Ok(Admitted::New(hold)) => {
                    Event::say(number, What::Held);
                    return Ok(Some(hold));
                }
                Ok(Admitted::Refused(refusal)) => {
                    let used = matches!(refusal, Refusal::AlreadyUsed { .. });
                    Event::say(number, if used { What::Used } else { What::Refused });
                    return Ok(None);
                }
                // Told that it is unknown, the hold is given back by itself.
                Err(error) => {
                    Self::trouble(number, &error)?;
                    self.may_end(number, &error).await?;
                }
            }
        }
        Err(GaveUp)
    }

    async fn release(&self, number: u64, hold: Hold) -> Done {
        let why = Release::UpstreamFailed;
        let released = async || self.ledger.release(&hold, why, self.at(3)).await;
        self.insist(number, released, |it| it.state == Payment::Released { why }).await?;
        Event::say(number, What::Released);
        Ok(())
    }

    async fn withdraw(&self, number: u64, hold: Hold) -> Done {
        let why = Release::UpstreamFailed;
        // Nobody is told of this checkpoint, so that it may be forgotten.
        let metered = async || self.ledger.meter(&hold, units(10), self.at(3)).await;
        self.insist(number, metered, |_| false).await?;
        let withdrawn = async || self.ledger.withdraw(&hold, why, self.at(3)).await.map(drop);
        self.insist(number, withdrawn, |it| it.state == Payment::Released { why }).await?;
        Event::say(number, What::Released);
        Ok(())
    }

    /// The work that was paid for before has failed.
    async fn owe(&self, number: u64) -> Done {
        let id = payment_id(number);
        let owed = async || self.ledger.owe_refund(id, "upstream_failed", self.at(9)).await;
        self.insist(number, owed, |it| it.refund_owed.is_some()).await?;
        Event::say(number, What::Owed);
        Ok(())
    }

    async fn stream(&self, number: u64, hold: Hold) -> Done {
        for upto in [10, 20, 30] {
            let delivered = units(upto.into());
            let metered = async || self.ledger.meter(&hold, delivered, self.at(4)).await;
            let is_metered =
                |it: &_| matches!(it, Payment::Serving { delivered: it, .. } if *it == delivered);
            self.insist(number, metered, |it| is_metered(&it.state)).await?;
            Event::say(number, What::Metered(upto));
            if upto == 10 && self.conduct != Conduct::ServesFirst {
                Event::say(number, What::Left);
            }
            Event::say(number, What::Chunk(upto));
        }
        self.capture(number, hold, 30 + number % 31, AnswerMark::Leaving).await?;
        self.sent(number).await
    }

    async fn capture(&self, number: u64, hold: Hold, amount: u64, mark: AnswerMark) -> Done {
        let mut hold = Some(hold);
        let due = if mark == AnswerMark::Withheld { WAITED_FOR_MILLIS } else { 5 };
        for _ in 0..TRIES {
            let Some(held) = hold.take() else { return Err(GaveUp) };
            let failed =
                match self.ledger.capture(held, units(amount.into()), mark, self.at(due)).await {
                    Ok(captured) => {
                        assert_eq!(captured.charge(), units(amount.into()));
                        self.say_captured(number, amount, mark);
                        return Ok(());
                    }
                    Err(failed) => failed,
                };
            Self::trouble(number, &failed.source)?;
            self.may_end(number, &failed.source).await?;
            if matches!(failed.source, StoreError::Unknown(_))
                && charge(&self.look_up(number).await?.state).is_some()
            {
                self.say_captured(number, amount, mark);
                return Ok(());
            }
            hold = Some(failed.hold);
        }
        Err(GaveUp)
    }

    fn say_captured(&self, number: u64, amount: u64, mark: AnswerMark) {
        match mark {
            AnswerMark::Withheld => Event::say(number, What::Withheld(amount)),
            AnswerMark::Leaving | AnswerMark::Sent => {
                Event::say(number, What::Captured(amount));
                self.captured.notify_one();
            }
        }
    }

    /// The whole answer leaves.
    fn leave(number: u64, worth: u64) {
        Event::say(number, What::Left);
        Event::say(number, What::Chunk(worth));
    }

    async fn sent(&self, number: u64) -> Done {
        let (id, mark) = (payment_id(number), AnswerMark::Sent);
        let marked = async || self.ledger.mark_answer(id, mark, self.at(6)).await;
        self.insist(number, marked, |it| it.answer == mark).await?;
        Event::say(number, What::Sent);
        Ok(())
    }

    /// Settles what its own request waits for; whether the money has moved.
    async fn settle_own(&self, number: u64) -> Done<bool> {
        if let Some(job) = self.lease(number, Some(number)).await?.pop() {
            return self.settle(job).await;
        }
        Event::say(number, What::Trouble("wrong: its own settlement is not due".to_owned()));
        Err(GaveUp)
    }

    /// Settles all that is due.
    pub(super) async fn settle_due(&self) -> Done {
        loop {
            let jobs = self.lease(0, None).await?;
            if jobs.is_empty() {
                return Ok(());
            }
            for job in jobs {
                self.settle(job).await?;
            }
        }
    }

    async fn lease(&self, number: u64, only: Option<u64>) -> Done<Vec<Job>> {
        for _ in 0..TRIES {
            match self.ledger.lease_jobs(only.map(payment_id), JOBS, self.at(7)).await {
                Ok(jobs) => return Ok(jobs),
                // Told that it is unknown, they are queued again by themselves.
                Err(error) => Self::trouble(number, &error)?,
            }
        }
        Err(GaveUp)
    }

    async fn settle(&self, job: Job) -> Done<bool> {
        let number = number(job.terms.id);
        let landed = self.chain.lock().unwrap().get(&number).copied();
        let first = job.attempts == 0;
        if let Some(nonce) = landed
            && self.conduct != Conduct::Resigns
        {
            if !job.may_have_been_sent {
                Event::say(number, What::Trouble("wrong: sent, and nobody knows".to_owned()));
            }
            return self.resolve(number, settled(number, nonce)).await;
        }
        if first && number % 17 == 3 {
            return self.resolve(number, Resolution::NotSent { retry_at: self.at(7) }).await;
        }
        if first && is_rejected(number) {
            return self.resolve(number, Resolution::Rejected { reason: "no".to_owned() }).await;
        }
        // The same bytes each time, unless this is the bug that signs anew.
        let nonce = if self.conduct == Conduct::Resigns { 1 + u64::from(job.attempts) } else { 1 };
        Event::say(number, What::Broadcast(nonce));
        self.chain.lock().unwrap().insert(number, nonce);
        if first && number % 5 == 1 {
            let transaction = Some(transaction(number, nonce));
            let unsure = Resolution::Unknown { transaction, retry_at: self.at(7) };
            return self.resolve(number, unsure).await;
        }
        self.resolve(number, settled(number, nonce)).await
    }

    /// Records what became of a settlement; whether the money has moved.
    async fn resolve(&self, number: u64, how: Resolution) -> Done<bool> {
        let id = payment_id(number);
        let resolved =
            async || self.ledger.resolve_job(id, how.clone(), self.at(8)).await.map(drop);
        let is_resolved = |state: &_| match &how {
            Resolution::Settled { .. } => matches!(state, Payment::Settled { .. }),
            Resolution::Rejected { .. } => ended(state),
            Resolution::NotSent { .. } => matches!(state, Payment::Captured { .. }),
            Resolution::Unknown { .. } => matches!(state, Payment::Unknown { .. }),
        };
        self.insist(number, resolved, |it| is_resolved(&it.state)).await?;
        match &how {
            Resolution::Settled { transaction } => {
                let nonce = transaction.rsplit('-').next().unwrap().parse().unwrap();
                Event::say(number, What::Settled(nonce));
            }
            Resolution::Rejected { .. } => Event::say(number, What::Rejected),
            // Due again, for whoever settles next.
            Resolution::NotSent { .. } | Resolution::Unknown { .. } => self.captured.notify_one(),
        }
        Ok(matches!(how, Resolution::Settled { .. }))
    }

    /// Does it until it is done: again if it was certainly not, after a look if nobody knows.
    async fn insist(
        &self,
        number: u64,
        operation: impl AsyncFn() -> Result<(), StoreError>,
        is_done: impl Fn(&StoredPayment) -> bool,
    ) -> Done {
        for _ in 0..TRIES {
            let Err(error) = operation().await else { return Ok(()) };
            Self::trouble(number, &error)?;
            self.may_end(number, &error).await?;
            if matches!(error, StoreError::Unknown(_)) && number != 0 {
                let stored = self.look_up(number).await?;
                if is_done(&stored) {
                    return Ok(());
                }
            }
        }
        Err(GaveUp)
    }

    /// Looks up what an unknown outcome was and ends, if it is to do that.
    async fn may_end(&self, number: u64, error: &StoreError) -> Done {
        if self.conduct != Conduct::EndsUnsure || !matches!(error, StoreError::Unknown(_)) {
            return Ok(());
        }
        // While the ledger cannot say, nobody is told anything.
        for _ in 0..TRIES {
            if let Ok(found) = self.ledger.lookup(payment_id(number)).await {
                let state = found.map(|it| it.state);
                Event::say(number, What::Seen(format!("{state:?}")));
                break;
            }
        }
        std::process::abort()
    }

    async fn look_up(&self, number: u64) -> Done<StoredPayment> {
        for _ in 0..TRIES {
            match self.ledger.lookup(payment_id(number)).await {
                Ok(Some(stored)) => return Ok(stored),
                Ok(None) => break,
                Err(error) => Self::trouble(number, &error)?,
            }
        }
        Err(GaveUp)
    }

    /// Says what is wrong. What no disk can be blamed for is not tried again.
    fn trouble(number: u64, error: &StoreError) -> Done {
        let (kind, outcome) = match error {
            StoreError::Unavailable(_) => ("unavailable", Ok(())),
            StoreError::Unknown(_) => ("unknown", Ok(())),
            StoreError::Fenced(_) | StoreError::Illegal(_) | StoreError::Corrupt(_) => {
                ("wrong", Err(GaveUp))
            }
        };
        Event::say(number, What::Trouble(format!("{kind}: {error}")));
        outcome
    }
}

fn settled(number: u64, nonce: u64) -> Resolution {
    Resolution::Settled { transaction: transaction(number, nonce) }
}
