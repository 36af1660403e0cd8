//! The first half of a payment's life: from the hold to the capture or the release.

use farebox_billing::{Event, Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};
use rusqlite::{Connection, params};

use crate::port::{
    Admit, Admitted, AnswerMark, Captured, Hold, Refusal, SettleMode, StoreError, Terms,
};
use crate::sqlite::fault::Done;
use crate::sqlite::journal::{self, Entry};
use crate::sqlite::row::{Row, Waits, amount, bad, existing, find, stored};
use crate::sqlite::settlements;

/// A hold's row and generation without the evidence: the writer itself resolves with it what
/// nobody is left to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HoldName {
    pub(super) id: PaymentId,
    pub(super) generation: u64,
}

impl HoldName {
    pub(super) fn of(hold: &Hold) -> Self {
        Self { id: hold.id(), generation: hold.generation() }
    }
}

/// See [`crate::Ledger::admit`].
pub(super) fn admit(connection: &Connection, admit: &Admit) -> Done<Admitted> {
    let terms = &admit.terms;
    let earlier = find(connection, terms.id)?;
    let (generation, admitted_at) = match earlier {
        None => (1, admit.now),
        Some(row) if may_be_held_again(&row, terms) => {
            (row.generation.saturating_add(1), row.admitted_at)
        }
        Some(row) => return Ok(Admitted::Refused(refusal(connection, &row, terms)?)),
    };
    if let Some(limit) = admit.exposure_limit {
        let open = exposure(connection, terms)?;
        if !open.checked_add(terms.limit).is_ok_and(|it| it <= limit) {
            return Ok(Admitted::Refused(Refusal::ExposureExceeded { open, limit }));
        }
    }
    let row = Row {
        id: terms.id,
        fingerprint: terms.fingerprint,
        settle: terms.settle,
        generation,
        state: Payment::Held { limit: terms.limit },
        answer: AnswerMark::Withheld,
        waits: Waits::No,
        refund_owed: None,
        admitted_at,
        changed_at: admit.now,
    };
    row.hold(connection, terms)?;
    journal::append(connection, terms.id, &Entry::Admitted(terms.limit), admit.now)?;
    Ok(Admitted::New(Hold::new(terms.id, terms.limit, generation)))
}

fn may_be_held_again(row: &Row, terms: &Terms) -> bool {
    matches!(row.state, Payment::Released { .. }) && row.fingerprint == terms.fingerprint
}

fn refusal(connection: &Connection, row: &Row, terms: &Terms) -> Done<Refusal> {
    let same_request = row.fingerprint == terms.fingerprint;
    if same_request && is_held(&row.state) {
        return Ok(Refusal::InProgress);
    }
    let payment = Box::new(stored(connection, row.id)?);
    Ok(Refusal::AlreadyUsed { same_request, payment })
}

/// Σ open and lost of a payer in an asset; saturates, which no limit admits.
fn exposure(connection: &Connection, terms: &Terms) -> Done<Amount> {
    let mut statement = connection.prepare_cached(include_str!("sql/exposure.sql"))?;
    let network = terms.asset.network().as_str();
    let mut rows = statement.query(params![terms.payer, network, terms.asset.address()])?;
    let mut total = Amount::ZERO;
    while let Some(row) = rows.next()? {
        let exposed = amount(row, "exposed_units")?.ok_or_else(|| bad("exposed_units"))?;
        total = total.checked_add(exposed).unwrap_or(Amount::MAX);
    }
    Ok(total)
}

/// Whether a hold can be current in that state.
fn is_held(state: &Payment) -> bool {
    matches!(state, Payment::Held { .. } | Payment::Serving { .. })
}

/// The row that a hold is evidence of, unless somebody else has resolved it.
fn current(connection: &Connection, hold: HoldName) -> Done<Row> {
    let row = existing(connection, hold.id)?;
    if row.generation == hold.generation && is_held(&row.state) {
        return Ok(row);
    }
    Err(StoreError::Fenced(hold.id).into())
}

/// See [`crate::Ledger::begin_serve`].
pub(super) fn begin_serve(connection: &Connection, hold: HoldName, now: Timestamp) -> Done<()> {
    let mut row = current(connection, hold)?;
    row.step(connection, Event::ServeBegan, now)?;
    row.save(connection)
}

/// See [`crate::Ledger::meter`].
pub(super) fn meter(
    connection: &Connection,
    hold: HoldName,
    delivered: Amount,
    now: Timestamp,
) -> Done<()> {
    let mut row = current(connection, hold)?;
    let unchanged = matches!(row.state, Payment::Serving { delivered: it, .. } if it == delivered);
    if unchanged {
        return Ok(());
    }
    row.step(connection, Event::Delivered(delivered), now)?;
    row.save(connection)
}

/// What a capture is asked to book.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charge {
    pub(super) units: Amount,
    pub(super) mark: AnswerMark,
}

/// See [`crate::Ledger::capture`]. Asked again with the same hold and charge, because the first
/// answer was lost, it answers the same.
pub(super) fn capture(
    connection: &Connection,
    hold: HoldName,
    charge: Charge,
    now: Timestamp,
) -> Done<Captured> {
    let row = existing(connection, hold.id)?;
    if row.generation == hold.generation && charged(&row.state) == Some(charge.units) {
        return Ok(Captured::new(hold.id, charge.units));
    }
    let row = current(connection, hold)?;
    if matches!(row.state, Payment::Held { .. }) && row.settle != SettleMode::Before {
        // Nothing is owed for an upstream that was never called.
        let event = Box::new(Event::Priced(charge.units));
        return Err(farebox_billing::Illegal { state: Box::new(row.state), event }.into());
    }
    capture_row(connection, row, charge, now)
}

/// Books a charge and queues its settlement, in the commit that both share.
pub(super) fn capture_row(
    connection: &Connection,
    mut row: Row,
    charge: Charge,
    now: Timestamp,
) -> Done<Captured> {
    // Whatever the caller believes, a checkpoint says that something may have left.
    let had_left = matches!(row.state, Payment::Serving { delivered, .. } if !delivered.is_zero());
    let mark = if had_left { charge.mark.max(AnswerMark::Leaving) } else { charge.mark };
    row.step(connection, Event::Priced(charge.units), now)?;
    row.mark(connection, mark, now)?;
    if mark == AnswerMark::Withheld {
        row.waits = Waits::ForSettlement;
    }
    row.save(connection)?;
    settlements::queue(connection, &row, now)?;
    Ok(Captured::new(row.id, charge.units))
}

/// What was charged, in every state that follows a capture.
fn charged(state: &Payment) -> Option<Amount> {
    match state {
        Payment::Captured { charge }
        | Payment::Settling { charge }
        | Payment::Unknown { charge, .. }
        | Payment::Settled { charge, .. }
        | Payment::Lost { charge, .. } => Some(*charge),
        Payment::Held { .. } | Payment::Serving { .. } | Payment::Released { .. } => None,
    }
}

/// See [`crate::Ledger::release`]. Asked again for the same reason, it answers the same.
pub(super) fn release(
    connection: &Connection,
    hold: HoldName,
    why: Release,
    now: Timestamp,
) -> Done<()> {
    let row = existing(connection, hold.id)?;
    if row.generation == hold.generation && row.state == (Payment::Released { why }) {
        return Ok(());
    }
    let mut row = current(connection, hold)?;
    row.step(connection, Event::Abandoned(why), now)?;
    row.save(connection)
}

/// See [`crate::Ledger::withdraw`]. Asked again, it answers the same.
pub(super) fn withdraw(
    connection: &Connection,
    hold: HoldName,
    why: Release,
    now: Timestamp,
) -> Done<Payment> {
    let mut row = existing(connection, hold.id)?;
    if row.generation != hold.generation {
        return Err(StoreError::Fenced(hold.id).into());
    }
    if row.answer == AnswerMark::Sent {
        let event = Box::new(Event::Withdrawn(why));
        return Err(farebox_billing::Illegal { state: Box::new(row.state), event }.into());
    }
    match row.state {
        Payment::Released { .. } => return Ok(row.state),
        Payment::Held { .. } | Payment::Serving { .. } => {}
        Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. }
        | Payment::Settled { .. }
        | Payment::Lost { .. } => row.unmark(connection, now)?,
    }
    match row.state {
        Payment::Captured { .. } if !settlements::may_have_been_sent(connection, &row)? => {
            settlements::end(connection, &row, why.as_str())?;
            give_back(connection, &mut row, why, now)?;
        }
        // It may land yet: then it is owed back, because its request is gone.
        Payment::Captured { .. } | Payment::Settling { .. } | Payment::Unknown { .. } => {
            row.waits = Waits::InVain;
        }
        Payment::Settled { .. } => row.owe(connection, settlements::UNANSWERED, now)?,
        Payment::Lost { .. } => {
            give_back(connection, &mut row, Release::SettlementRejected, now)?;
        }
        Payment::Held { .. } | Payment::Serving { .. } | Payment::Released { .. } => {
            give_back(connection, &mut row, why, now)?;
        }
    }
    row.save(connection)?;
    Ok(row.state)
}

fn give_back(connection: &Connection, row: &mut Row, why: Release, now: Timestamp) -> Done<()> {
    row.waits = Waits::No;
    row.step(connection, Event::Withdrawn(why), now)
}

/// See [`crate::Ledger::mark_answer`]. A payment that is not captured, or was given back, has no
/// answer that may leave: fenced.
pub(super) fn mark_answer(
    connection: &Connection,
    id: PaymentId,
    mark: AnswerMark,
    now: Timestamp,
) -> Done<()> {
    let mut row = existing(connection, id)?;
    if charged(&row.state).is_none() {
        return Err(StoreError::Fenced(id).into());
    }
    if mark <= row.answer {
        return Ok(());
    }
    row.mark(connection, mark, now)?;
    row.save(connection)
}

/// See [`crate::Ledger::owe_refund`]. Only what was settled can be owed back: fenced otherwise.
pub(super) fn owe_refund(
    connection: &Connection,
    id: PaymentId,
    why: &str,
    now: Timestamp,
) -> Done<()> {
    let mut row = existing(connection, id)?;
    if !matches!(row.state, Payment::Settled { .. }) {
        return Err(StoreError::Fenced(id).into());
    }
    row.owe(connection, why, now)?;
    row.save(connection)
}

#[cfg(test)]
mod tests;
