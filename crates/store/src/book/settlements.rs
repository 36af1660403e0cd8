//! The second half of a payment's life: the queue of settlements and what becomes of them.

use std::time::Duration;

use farebox_billing::{Event, Payment, Release};
use farebox_protocol::{PaymentId, Timestamp};

use crate::book::record::{Record, Waits};
use crate::book::{Done, Shelf, corrupt, existing, stored};
use crate::port::{AnswerMark, Job, Resolution};

/// The reason under which a settled payment is owed back that nobody can answer any more.
pub(crate) const UNANSWERED: &str = "settled_unanswered";

/// What is to become of a captured payment on its chain.
#[derive(Clone, Debug)]
pub(crate) struct Settlement {
    pub(crate) payment: PaymentId,
    pub(crate) generation: u64,
    pub(crate) status: Status,
    pub(crate) due_at: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) may_have_been_sent: bool,
    pub(crate) transaction: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) created_at: Timestamp,
    /// When to look whether the chain still has it; `None` where nobody has to.
    pub(crate) watch_at: Option<Timestamp>,
}

/// Where a settlement stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It waits for its time.
    Queued,
    /// A worker of this process has it.
    Leased,
    /// It has an outcome.
    Done,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Done => "done",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Queued, Self::Leased, Self::Done].into_iter().find(|it| it.as_str() == text)
    }
}

/// Queues the settlement of a captured payment, due at once.
pub(crate) fn queue<S: Shelf + ?Sized>(shelf: &mut S, row: &Record, now: Timestamp) -> Done<S, ()> {
    shelf.queue(&Settlement {
        payment: row.id,
        generation: row.generation,
        status: Status::Queued,
        due_at: now,
        attempts: 0,
        may_have_been_sent: false,
        transaction: None,
        outcome: None,
        created_at: now,
        watch_at: None,
    })
}

/// The settlement of a payment's current capture, if it was ever captured.
fn of<S: Shelf + ?Sized>(shelf: &mut S, row: &Record) -> Done<S, Option<Settlement>> {
    shelf.settlement(row.id, row.generation)
}

/// The settlement that every captured payment has.
fn existing_of<S: Shelf + ?Sized>(shelf: &mut S, row: &Record) -> Done<S, Settlement> {
    of(shelf, row)?.ok_or_else(|| corrupt(format!("{} was captured without a settlement", row.id)))
}

impl Settlement {
    fn end<S: Shelf + ?Sized>(&mut self, shelf: &mut S, outcome: &str) -> Done<S, ()> {
        self.status = Status::Done;
        self.outcome = Some(outcome.to_owned());
        shelf.save_settlement(self)
    }

    fn queue_again<S: Shelf + ?Sized>(&mut self, shelf: &mut S, due_at: Timestamp) -> Done<S, ()> {
        self.status = Status::Queued;
        self.due_at = due_at;
        self.watch_at = None;
        self.attempts = self.attempts.saturating_add(1);
        shelf.save_settlement(self)
    }
}

/// Whether a captured row's settlement may have reached the chain in an earlier try.
pub(crate) fn may_have_been_sent<S: Shelf + ?Sized>(shelf: &mut S, row: &Record) -> Done<S, bool> {
    Ok(existing_of(shelf, row)?.may_have_been_sent)
}

/// Ends the settlement of a payment that is given back; `outcome` says why.
pub(crate) fn end<S: Shelf + ?Sized>(shelf: &mut S, row: &Record, outcome: &str) -> Done<S, ()> {
    existing_of(shelf, row)?.end(shelf, outcome)
}

/// See [`crate::Ledger::lease_jobs`].
pub(crate) fn lease<S: Shelf + ?Sized>(
    shelf: &mut S,
    only: Option<PaymentId>,
    max: usize,
    now: Timestamp,
) -> Done<S, Vec<Job>> {
    let due = match only {
        Some(id) => due_of(shelf, id, now)?,
        None => shelf.due(now, now.plus(PAUSE_MAX), max)?,
    };
    let mut jobs = Vec::new();
    for settlement in due.into_iter().take(max) {
        let id = settlement.payment;
        match lease_one(shelf, settlement, now) {
            Ok(job) => jobs.push(job),
            // Refused before anything was written. One row that contradicts itself is for a person
            // to look at and no reason to settle nothing.
            Err(fault) => match S::contradiction(&fault) {
                Some(error) => {
                    tracing::error!(payment.id = %id, %error, "settlement cannot be leased");
                }
                None => return Err(fault),
            },
        }
    }
    Ok(jobs)
}

/// No pause between two tries is as long: what is due later was queued by a clock that has been set
/// back since, and is due now.
pub(crate) const PAUSE_MAX: Duration = Duration::from_mins(5);

/// A first try is due for whoever waits for it whatever the clock did since the capture.
fn due_of<S: Shelf + ?Sized>(
    shelf: &mut S,
    id: PaymentId,
    now: Timestamp,
) -> Done<S, Vec<Settlement>> {
    let Some(row) = shelf.record(id)? else { return Ok(Vec::new()) };
    let settlement = of(shelf, &row)?;
    let is_due =
        |it: &Settlement| it.status == Status::Queued && (it.due_at <= now || it.attempts == 0);
    Ok(settlement.into_iter().filter(is_due).collect())
}

fn lease_one<S: Shelf + ?Sized>(shelf: &mut S, mut it: Settlement, now: Timestamp) -> Done<S, Job> {
    let mut row = existing(shelf, it.payment)?;
    if row.generation != it.generation {
        return Err(corrupt(format!("{} has a settlement of an earlier hold", row.id)));
    }
    row.step(shelf, Event::SettlementBegan, now)?;
    shelf.save(&row)?;
    it.status = Status::Leased;
    shelf.save_settlement(&it)?;
    let Payment::Settling { charge } = row.state else {
        return Err(corrupt(format!("{} is not settling", row.id)));
    };
    Ok(Job {
        terms: stored(shelf, row.id)?.terms,
        charge,
        attempts: it.attempts,
        may_have_been_sent: it.may_have_been_sent,
        transaction: it.transaction,
        answer: row.answer,
    })
}

/// See [`crate::Ledger::resolve_job`].
pub(crate) fn resolve<S: Shelf + ?Sized>(
    shelf: &mut S,
    id: PaymentId,
    resolution: &Resolution,
    now: Timestamp,
) -> Done<S, Payment> {
    let mut row = existing(shelf, id)?;
    let Some(mut settlement) = of(shelf, &row)? else {
        // The life cycle knows the event that cannot happen here.
        let refused = row.state.on(event_of(resolution));
        return Ok(refused?);
    };
    if is_repeated(&row.state, &settlement, resolution) {
        return Ok(row.state);
    }
    match resolution {
        Resolution::Settled { transaction } => {
            row.step(shelf, Event::Confirmed(transaction.clone()), now)?;
            if row.waits == Waits::InVain {
                row.owe(shelf, UNANSWERED, now)?;
            }
            settlement.end(shelf, transaction)?;
        }
        Resolution::Rejected { reason } => {
            reject(shelf, &mut row, reason, now)?;
            settlement.watch_at = None;
            settlement.end(shelf, reason)?;
        }
        Resolution::NotSent { retry_at } => {
            row.step(shelf, Event::NotSent, now)?;
            settlement.queue_again(shelf, *retry_at)?;
        }
        Resolution::Unknown { transaction, retry_at } => {
            settlement.may_have_been_sent = true;
            // A name once heard is not forgotten.
            settlement.transaction = transaction.clone().or(settlement.transaction);
            let name = settlement.transaction.clone();
            row.step(shelf, Event::Unanswered(name), now)?;
            settlement.queue_again(shelf, *retry_at)?;
        }
    }
    shelf.save(&row)?;
    Ok(row.state)
}

/// Lost if a byte may have left, given back if none did.
fn reject<S: Shelf + ?Sized>(
    shelf: &mut S,
    row: &mut Record,
    reason: &str,
    now: Timestamp,
) -> Done<S, ()> {
    let rejected = Event::Rejected(reason.to_owned());
    if AnswerMark::Leaving <= row.answer {
        return row.step(shelf, rejected, now);
    }
    // Only where it could also be lost: a settlement must have begun.
    let checked: Result<Payment, _> = row.state.clone().on(rejected);
    drop(checked?);
    row.waits = Waits::No;
    row.step(shelf, Event::Abandoned(Release::SettlementRejected), now)
}

fn event_of(resolution: &Resolution) -> Event {
    match resolution {
        Resolution::Settled { transaction } => Event::Confirmed(transaction.clone()),
        Resolution::Rejected { reason } => Event::Rejected(reason.clone()),
        Resolution::NotSent { .. } => Event::NotSent,
        Resolution::Unknown { transaction, .. } => Event::Unanswered(transaction.clone()),
    }
}

/// Whether this very resolution was applied before.
fn is_repeated(state: &Payment, settlement: &Settlement, resolution: &Resolution) -> bool {
    let queued_for = |at: &Timestamp| {
        settlement.status == Status::Queued && settlement.due_at == *at && settlement.attempts != 0
    };
    match (state, resolution) {
        (Payment::Settled { transaction, .. }, Resolution::Settled { transaction: again }) => {
            transaction == again
        }
        (Payment::Lost { .. } | Payment::Released { .. }, Resolution::Rejected { reason }) => {
            settlement.outcome.as_ref() == Some(reason)
        }
        (Payment::Captured { .. }, Resolution::NotSent { retry_at })
        | (Payment::Unknown { .. }, Resolution::Unknown { retry_at, .. }) => queued_for(retry_at),
        (_, _) => false,
    }
}

/// Queues a lease of that try again as if it had never been given; whether there was one.
pub(crate) fn unlease<S: Shelf + ?Sized>(
    shelf: &mut S,
    row: &Record,
    attempts: u32,
) -> Done<S, bool> {
    let mut settlement = existing_of(shelf, row)?;
    if settlement.status != Status::Leased || settlement.attempts != attempts {
        return Ok(false);
    }
    settlement.status = Status::Queued;
    shelf.save_settlement(&settlement)?;
    Ok(true)
}

/// What a crash leaves of a lease: it may have been sent, and is due to be looked up.
pub(crate) fn recover_lease<S: Shelf + ?Sized>(
    shelf: &mut S,
    row: &mut Record,
    now: Timestamp,
) -> Done<S, ()> {
    let mut settlement = existing_of(shelf, row)?;
    settlement.may_have_been_sent = true;
    let name = settlement.transaction.clone();
    row.step(shelf, Event::Unanswered(name), now)?;
    settlement.queue_again(shelf, now)
}
