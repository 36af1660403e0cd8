//! The first half of a payment's life: from the hold to the capture or the release.

use farebox_billing::ledger::{Happening, NotBooked, Refund, Standing, book};
use farebox_billing::{Event, Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};

use crate::book::entry::Entry;
use crate::book::record::{Record, Waits, parties};
use crate::book::{Done, Shelf, corrupt, existing, settlements, stored};
use crate::port::{
    Admit, Admitted, AnswerMark, Captured, Hold, Refusal, SettleMode, StoreError, Terms,
};

/// A hold's row and generation without the evidence: the writer itself resolves with it what
/// nobody is left to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldName {
    pub(crate) id: PaymentId,
    pub(crate) generation: u64,
}

impl HoldName {
    pub(crate) fn of(hold: &Hold) -> Self {
        Self { id: hold.id(), generation: hold.generation() }
    }
}

/// See [`crate::Ledger::admit`].
pub(crate) fn admit<S: Shelf + ?Sized>(shelf: &mut S, admit: &Admit) -> Done<S, Admitted> {
    let terms = &admit.terms;
    let earlier = shelf.record(terms.id)?;
    let (generation, admitted_at) = match &earlier {
        None => (1, admit.now),
        Some(row) if may_be_held_again(row, terms) => {
            (row.generation.saturating_add(1), row.admitted_at)
        }
        Some(row) => return Ok(Admitted::Refused(refusal(shelf, row, terms)?)),
    };
    if let Some(refusal) = key_used(shelf, admit)? {
        return Ok(Admitted::Refused(refusal));
    }
    // The accounts of a payment are for ever those that it was first admitted with.
    let parties = earlier.as_ref().map_or_else(|| parties(terms), |it| it.parties.clone());
    let before = Standing {
        payment: terms.id,
        generation,
        reopened: 0,
        state: earlier.as_ref().map(|it| &it.state),
        refund: Refund::None,
    };
    let happening =
        Happening::Admitted { limit: terms.limit, exposure_limit: admit.exposure_limit };
    match book(shelf.books(&parties)?, &parties, &before, &happening) {
        Ok(()) => {}
        Err(NotBooked::WouldExceed { open, limit }) => {
            return Ok(Admitted::Refused(Refusal::ExposureExceeded { open, limit }));
        }
        Err(error) => return Err(corrupt(format!("{}: {error}", terms.id))),
    }
    let row = Record {
        id: terms.id,
        fingerprint: terms.fingerprint,
        settle: terms.settle,
        parties,
        generation,
        reopened: 0,
        state: Payment::Held { limit: terms.limit },
        answer: AnswerMark::Withheld,
        waits: Waits::No,
        refund_owed: None,
        admitted_at,
        changed_at: admit.now,
    };
    shelf.hold(&row, terms)?;
    for key in &admit.keys {
        shelf.bind(key, terms.id)?;
    }
    shelf.append(terms.id, &Entry::Admitted(terms.limit), admit.now)?;
    Ok(Admitted::New(Hold::new(terms.id, terms.limit, generation)))
}

fn may_be_held_again(row: &Record, terms: &Terms) -> bool {
    matches!(row.state, Payment::Released { .. }) && row.fingerprint == terms.fingerprint
}

/// Why the request's keys admit no hold, if they do not: one names another request, or belongs to a
/// payment that may have cost something.
fn key_used<S: Shelf + ?Sized>(shelf: &mut S, admit: &Admit) -> Done<S, Option<Refusal>> {
    for key in &admit.keys {
        let Some(bound) = shelf.bound(key.name)? else { continue };
        let same_request = bound.request == key.request;
        let row = existing(shelf, bound.payment)?;
        let free = row.id == admit.terms.id || matches!(row.state, Payment::Released { .. });
        if !(same_request && free) {
            let payment = Box::new(stored(shelf, row.id)?);
            return Ok(Some(Refusal::KeyUsed { same_request, payment }));
        }
    }
    Ok(None)
}

fn refusal<S: Shelf + ?Sized>(shelf: &mut S, row: &Record, terms: &Terms) -> Done<S, Refusal> {
    let same_request = row.fingerprint == terms.fingerprint;
    if same_request && is_held(&row.state) {
        return Ok(Refusal::InProgress);
    }
    let payment = Box::new(stored(shelf, row.id)?);
    Ok(Refusal::AlreadyUsed { same_request, payment })
}

/// Whether a hold can be current in that state.
fn is_held(state: &Payment) -> bool {
    matches!(state, Payment::Held { .. } | Payment::Serving { .. })
}

/// The row that a hold is evidence of, unless somebody else has resolved it.
fn current<S: Shelf + ?Sized>(shelf: &mut S, hold: HoldName) -> Done<S, Record> {
    let row = existing(shelf, hold.id)?;
    if row.generation == hold.generation && is_held(&row.state) {
        return Ok(row);
    }
    Err(StoreError::Fenced(hold.id).into())
}

/// See [`crate::Ledger::begin_serve`].
pub(crate) fn begin_serve<S: Shelf + ?Sized>(
    shelf: &mut S,
    hold: HoldName,
    now: Timestamp,
) -> Done<S, ()> {
    let mut row = current(shelf, hold)?;
    row.step(shelf, Event::ServeBegan, now)?;
    shelf.save(&row)
}

/// See [`crate::Ledger::meter`].
pub(crate) fn meter<S: Shelf + ?Sized>(
    shelf: &mut S,
    hold: HoldName,
    delivered: Amount,
    now: Timestamp,
) -> Done<S, ()> {
    let mut row = current(shelf, hold)?;
    let unchanged = matches!(row.state, Payment::Serving { delivered: it, .. } if it == delivered);
    if unchanged {
        return Ok(());
    }
    row.step(shelf, Event::Delivered(delivered), now)?;
    shelf.save(&row)
}

/// What a capture is asked to book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    pub(crate) units: Amount,
    pub(crate) mark: AnswerMark,
}

/// See [`crate::Ledger::capture`]. Asked again with the same hold and charge, because the first
/// answer was lost, it answers the same.
pub(crate) fn capture<S: Shelf + ?Sized>(
    shelf: &mut S,
    hold: HoldName,
    charge: Charge,
    now: Timestamp,
) -> Done<S, Captured> {
    let row = existing(shelf, hold.id)?;
    if row.generation == hold.generation && charged(&row.state) == Some(charge.units) {
        return Ok(Captured::new(hold.id, charge.units));
    }
    let row = current(shelf, hold)?;
    if matches!(row.state, Payment::Held { .. }) && row.settle != SettleMode::Before {
        // Nothing is owed for an upstream that was never called.
        let event = Box::new(Event::Priced(charge.units));
        return Err(farebox_billing::Illegal { state: Box::new(row.state), event }.into());
    }
    capture_row(shelf, row, charge, now)
}

/// Books a charge and queues its settlement, in the commit that both share.
pub(crate) fn capture_row<S: Shelf + ?Sized>(
    shelf: &mut S,
    mut row: Record,
    charge: Charge,
    now: Timestamp,
) -> Done<S, Captured> {
    // Whatever the caller believes, a checkpoint says that something may have left.
    let had_left = matches!(row.state, Payment::Serving { delivered, .. } if !delivered.is_zero());
    let mark = if had_left { charge.mark.max(AnswerMark::Leaving) } else { charge.mark };
    row.step(shelf, Event::Priced(charge.units), now)?;
    row.mark(shelf, mark, now)?;
    if mark == AnswerMark::Withheld {
        row.waits = Waits::ForSettlement;
    }
    shelf.save(&row)?;
    settlements::queue(shelf, &row, now)?;
    Ok(Captured::new(row.id, charge.units))
}

/// What was charged, in every state that follows a capture.
pub(crate) fn charged(state: &Payment) -> Option<Amount> {
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
pub(crate) fn release<S: Shelf + ?Sized>(
    shelf: &mut S,
    hold: HoldName,
    why: Release,
    now: Timestamp,
) -> Done<S, ()> {
    let row = existing(shelf, hold.id)?;
    if row.generation == hold.generation && row.state == (Payment::Released { why }) {
        return Ok(());
    }
    let mut row = current(shelf, hold)?;
    row.step(shelf, Event::Abandoned(why), now)?;
    shelf.save(&row)
}

/// See [`crate::Ledger::withdraw`]. Asked again, it answers the same.
pub(crate) fn withdraw<S: Shelf + ?Sized>(
    shelf: &mut S,
    hold: HoldName,
    why: Release,
    now: Timestamp,
) -> Done<S, Payment> {
    let mut row = existing(shelf, hold.id)?;
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
        | Payment::Lost { .. } => row.unmark(shelf, now)?,
    }
    match row.state {
        Payment::Captured { .. } if !settlements::may_have_been_sent(shelf, &row)? => {
            settlements::end(shelf, &row, why.as_str())?;
            give_back(shelf, &mut row, why, now)?;
        }
        // It may land yet: then it is owed back, because its request is gone.
        Payment::Captured { .. } | Payment::Settling { .. } | Payment::Unknown { .. } => {
            row.waits = Waits::InVain;
        }
        Payment::Settled { .. } => row.owe(shelf, settlements::UNANSWERED, now)?,
        Payment::Lost { .. } => {
            give_back(shelf, &mut row, Release::SettlementRejected, now)?;
        }
        Payment::Held { .. } | Payment::Serving { .. } | Payment::Released { .. } => {
            give_back(shelf, &mut row, why, now)?;
        }
    }
    shelf.save(&row)?;
    Ok(row.state)
}

fn give_back<S: Shelf + ?Sized>(
    shelf: &mut S,
    row: &mut Record,
    why: Release,
    now: Timestamp,
) -> Done<S, ()> {
    row.waits = Waits::No;
    row.step(shelf, Event::Withdrawn(why), now)
}

/// See [`crate::Ledger::mark_answer`]. A payment that is not captured, or was given back, has no
/// answer that may leave: fenced.
pub(crate) fn mark_answer<S: Shelf + ?Sized>(
    shelf: &mut S,
    id: PaymentId,
    mark: AnswerMark,
    now: Timestamp,
) -> Done<S, ()> {
    let mut row = existing(shelf, id)?;
    if charged(&row.state).is_none() {
        return Err(StoreError::Fenced(id).into());
    }
    if mark <= row.answer {
        return Ok(());
    }
    row.mark(shelf, mark, now)?;
    shelf.save(&row)
}

/// See [`crate::Ledger::owe_refund`]. Only what was settled can be owed back: fenced otherwise.
pub(crate) fn owe_refund<S: Shelf + ?Sized>(
    shelf: &mut S,
    id: PaymentId,
    why: &str,
    now: Timestamp,
) -> Done<S, ()> {
    let mut row = existing(shelf, id)?;
    if !matches!(row.state, Payment::Settled { .. }) {
        return Err(StoreError::Fenced(id).into());
    }
    row.owe(shelf, why, now)?;
    shelf.save(&row)
}
