//! The second half of a payment's life: the queue of settlements and what becomes of them.

use std::time::Duration;

use farebox_billing::{Event, Payment, Release};
use farebox_protocol::{PaymentId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::port::{AnswerMark, Job, Resolution, StoreError};
use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::row::{Row, Waits, bad, count, existing, id, millis, stored, time, unsigned};

/// The reason under which a settled payment is owed back that nobody can answer any more.
pub(super) const UNANSWERED: &str = "settled_unanswered";

/// A row of `outbox`.
#[derive(Clone, Debug)]
pub(super) struct Settlement {
    payment: PaymentId,
    generation: u64,
    status: Status,
    due_at: Timestamp,
    attempts: u32,
    may_have_been_sent: bool,
    transaction: Option<String>,
    outcome: Option<String>,
}

/// Where a settlement stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It waits for its time.
    Queued,
    /// A worker of this process has it.
    Leased,
    /// It has an outcome.
    Done,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Done => "done",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Queued, Self::Leased, Self::Done].into_iter().find(|it| it.as_str() == text)
    }
}

/// Queues the settlement of a captured row, due at once.
pub(super) fn queue(connection: &Connection, row: &Row, now: Timestamp) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO outbox
             (payment, generation, status, due_at, attempts, may_have_been_sent, created_at)
         VALUES (?1, ?2, 'queued', ?3, 0, 0, ?3)",
    )?;
    statement.execute(params![row.id.as_bytes(), count(row.generation), millis(now)])?;
    Ok(())
}

/// The settlement of a row's current capture, if it was ever captured.
pub(super) fn of(connection: &Connection, row: &Row) -> Done<Option<Settlement>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM outbox WHERE payment = ?1 AND generation = ?2")?;
    let key = params![row.id.as_bytes(), count(row.generation)];
    Ok(statement.query_row(key, Settlement::read).optional()?)
}

/// The settlement that every captured row has.
fn existing_of(connection: &Connection, row: &Row) -> Done<Settlement> {
    of(connection, row)?
        .ok_or_else(|| Fault::corrupt(format!("{} was captured without a settlement", row.id)))
}

impl Settlement {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let status = row.get_ref("status")?.as_str().map_err(|_| bad("status"))?;
        let attempts = unsigned(row, "attempts")?;
        Ok(Self {
            payment: id(row, "payment")?,
            generation: unsigned(row, "generation")?,
            status: Status::parse(status).ok_or_else(|| bad("status"))?,
            due_at: time(row, "due_at")?,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            may_have_been_sent: row.get("may_have_been_sent")?,
            transaction: row.get("transaction")?,
            outcome: row.get("outcome")?,
        })
    }

    fn save(&self, connection: &Connection) -> Done<()> {
        let mut statement = connection.prepare_cached(
            "UPDATE outbox
                SET status = ?3, due_at = ?4, attempts = ?5, may_have_been_sent = ?6,
                    \"transaction\" = ?7, outcome = ?8
              WHERE payment = ?1 AND generation = ?2",
        )?;
        statement.execute(params![
            self.payment.as_bytes(),
            count(self.generation),
            self.status.as_str(),
            millis(self.due_at),
            self.attempts,
            self.may_have_been_sent,
            self.transaction,
            self.outcome,
        ])?;
        Ok(())
    }

    fn end(&mut self, connection: &Connection, outcome: &str) -> Done<()> {
        self.status = Status::Done;
        self.outcome = Some(outcome.to_owned());
        self.save(connection)
    }

    fn queue_again(&mut self, connection: &Connection, due_at: Timestamp) -> Done<()> {
        self.status = Status::Queued;
        self.due_at = due_at;
        self.attempts = self.attempts.saturating_add(1);
        self.save(connection)
    }
}

/// Whether a captured row's settlement may have reached the chain in an earlier try.
pub(super) fn may_have_been_sent(connection: &Connection, row: &Row) -> Done<bool> {
    Ok(existing_of(connection, row)?.may_have_been_sent)
}

/// Ends the settlement of a payment that is given back; `outcome` says why.
pub(super) fn end(connection: &Connection, row: &Row, outcome: &str) -> Done<()> {
    existing_of(connection, row)?.end(connection, outcome)
}

/// See [`crate::Ledger::lease_jobs`].
pub(super) fn lease(
    connection: &Connection,
    only: Option<PaymentId>,
    max: usize,
    now: Timestamp,
) -> Done<Vec<Job>> {
    let due = match only {
        Some(id) => due_of(connection, id, now)?,
        None => due(connection, max, now)?,
    };
    let mut jobs = Vec::new();
    for settlement in due.into_iter().take(max) {
        let id = settlement.payment;
        match lease_one(connection, settlement, now) {
            Ok(job) => jobs.push(job),
            // Refused before anything was written. One row that contradicts itself is for a person
            // to look at and no reason to settle nothing.
            Err(Fault::Store(error @ (StoreError::Corrupt(_) | StoreError::Illegal(_)))) => {
                tracing::error!(payment.id = %id, %error, "settlement cannot be leased");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(jobs)
}

/// No pause between two tries is as long: what is due later was queued by a clock that has been set
/// back since, and is due now.
const PAUSE_MAX: Duration = Duration::from_mins(5);

fn due(connection: &Connection, max: usize, now: Timestamp) -> Done<Vec<Settlement>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM outbox WHERE status = 'queued' AND (due_at <= ?1 OR ?2 < due_at)
          ORDER BY due_at LIMIT ?3",
    )?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let far = millis(now.plus(PAUSE_MAX));
    let rows = statement.query_map(params![millis(now), far, limit], Settlement::read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A first try is due for whoever waits for it whatever the clock did since the capture.
fn due_of(connection: &Connection, id: PaymentId, now: Timestamp) -> Done<Vec<Settlement>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM outbox
          WHERE payment = ?1 AND status = 'queued' AND (due_at <= ?2 OR attempts = 0)",
    )?;
    let rows = statement.query_map(params![id.as_bytes(), millis(now)], Settlement::read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn lease_one(connection: &Connection, mut it: Settlement, now: Timestamp) -> Done<Job> {
    let mut row = existing(connection, it.payment)?;
    if row.generation != it.generation {
        return Err(Fault::corrupt(format!("{} has a settlement of an earlier hold", row.id)));
    }
    row.step(connection, Event::SettlementBegan, now)?;
    row.save(connection)?;
    it.status = Status::Leased;
    it.save(connection)?;
    let Payment::Settling { charge } = row.state else {
        return Err(Fault::corrupt(format!("{} is not settling", row.id)));
    };
    Ok(Job {
        terms: stored(connection, row.id)?.terms,
        charge,
        attempts: it.attempts,
        may_have_been_sent: it.may_have_been_sent,
        transaction: it.transaction,
        answer: row.answer,
    })
}

/// See [`crate::Ledger::resolve_job`].
pub(super) fn resolve(
    connection: &Connection,
    id: PaymentId,
    resolution: &Resolution,
    now: Timestamp,
) -> Done<Payment> {
    let mut row = existing(connection, id)?;
    let Some(mut settlement) = of(connection, &row)? else {
        // The life cycle knows the event that cannot happen here.
        let refused = row.state.on(event_of(resolution));
        return Ok(refused?);
    };
    if is_repeated(&row.state, &settlement, resolution) {
        return Ok(row.state);
    }
    match resolution {
        Resolution::Settled { transaction } => {
            row.step(connection, Event::Confirmed(transaction.clone()), now)?;
            if row.waits == Waits::InVain {
                row.owe(connection, UNANSWERED, now)?;
            }
            settlement.end(connection, transaction)?;
        }
        Resolution::Rejected { reason } => {
            reject(connection, &mut row, reason, now)?;
            settlement.end(connection, reason)?;
        }
        Resolution::NotSent { retry_at } => {
            row.step(connection, Event::NotSent, now)?;
            settlement.queue_again(connection, *retry_at)?;
        }
        Resolution::Unknown { transaction, retry_at } => {
            settlement.may_have_been_sent = true;
            // A name once heard is not forgotten.
            settlement.transaction = transaction.clone().or(settlement.transaction);
            let name = settlement.transaction.clone();
            row.step(connection, Event::Unanswered(name), now)?;
            settlement.queue_again(connection, *retry_at)?;
        }
    }
    row.save(connection)?;
    Ok(row.state)
}

/// Lost if a byte may have left, given back if none did.
fn reject(connection: &Connection, row: &mut Row, reason: &str, now: Timestamp) -> Done<()> {
    let rejected = Event::Rejected(reason.to_owned());
    if AnswerMark::Leaving <= row.answer {
        return row.step(connection, rejected, now);
    }
    // Only where it could also be lost: a settlement must have begun.
    let checked: Result<Payment, _> = row.state.clone().on(rejected);
    drop(checked?);
    row.waits = Waits::No;
    row.step(connection, Event::Abandoned(Release::SettlementRejected), now)
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
pub(super) fn unlease(connection: &Connection, row: &Row, attempts: u32) -> Done<bool> {
    let mut settlement = existing_of(connection, row)?;
    if settlement.status != Status::Leased || settlement.attempts != attempts {
        return Ok(false);
    }
    settlement.status = Status::Queued;
    settlement.save(connection)?;
    Ok(true)
}

/// What a crash leaves of a lease: it may have been sent, and is due to be looked up.
pub(super) fn recover_lease(connection: &Connection, row: &mut Row, now: Timestamp) -> Done<()> {
    let mut settlement = existing_of(connection, row)?;
    settlement.may_have_been_sent = true;
    let name = settlement.transaction.clone();
    row.step(connection, Event::Unanswered(name), now)?;
    settlement.queue_again(connection, now)
}

/// See [`crate::Ledger::next_due`].
pub(super) fn next_due(connection: &Connection) -> Done<Option<Timestamp>> {
    let mut statement = connection.prepare_cached(
        "SELECT due_at FROM outbox WHERE status = 'queued' ORDER BY due_at LIMIT 1",
    )?;
    Ok(statement.query_row([], |row| time(row, "due_at")).optional()?)
}
