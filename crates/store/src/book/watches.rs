//! Settled payments that the chain can still take back: when they are looked at again, and what becomes of
//! one that it did take back.

use farebox_billing::{Event, Payment};
use farebox_protocol::{PaymentId, Timestamp};

use crate::book::record::{Record, Waits};
use crate::book::settlements::{Settlement, Status};
use crate::book::{Done, Shelf, corrupt, existing};
use crate::port::{StoreError, StoredPayment, Watch};

/// See [`crate::Ledger::watch`].
pub(crate) fn watch<S: Shelf + ?Sized>(
    shelf: &mut S,
    id: PaymentId,
    look_at: Option<Timestamp>,
) -> Done<S, ()> {
    let row = existing(shelf, id)?;
    let mut settlement = settlement_of(shelf, &row)?;
    if !matches!(row.state, Payment::Settling { .. } | Payment::Settled { .. }) {
        return Err(StoreError::Fenced(id).into());
    }
    settlement.watch_at = look_at;
    shelf.save_settlement(&settlement)
}

/// What has to be looked at of a payment that is watched. One that is still being settled is not to be
/// looked at yet.
pub(crate) fn of(payment: StoredPayment) -> Option<Watch> {
    match payment.state {
        Payment::Settled { charge, transaction } => {
            Some(Watch { terms: payment.terms, charge, transaction })
        }
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. }
        | Payment::Released { .. }
        | Payment::Lost { .. } => None,
    }
}

/// See [`crate::Ledger::reopen`].
pub(crate) fn reopen<S: Shelf + ?Sized>(
    shelf: &mut S,
    id: PaymentId,
    transaction: &str,
    now: Timestamp,
) -> Done<S, Payment> {
    let mut row = existing(shelf, id)?;
    let is_it = matches!(&row.state, Payment::Settled { transaction: it, .. } if it == transaction);
    if !is_it {
        return Ok(row.state);
    }
    let mut settlement = settlement_of(shelf, &row)?;
    row.step(shelf, Event::Reopened, now)?;
    row.reopened = row.reopened.saturating_add(1);
    if row.refund_owed.take().is_some() {
        // What was not paid is not owed back; if it is paid after all, it is again.
        row.waits = Waits::InVain;
    }
    settlement.status = Status::Queued;
    settlement.due_at = now;
    settlement.attempts = settlement.attempts.saturating_add(1);
    settlement.may_have_been_sent = true;
    settlement.transaction = Some(transaction.to_owned());
    settlement.outcome = None;
    settlement.watch_at = None;
    shelf.save_settlement(&settlement)?;
    shelf.save(&row)?;
    Ok(row.state)
}

fn settlement_of<S: Shelf + ?Sized>(shelf: &mut S, row: &Record) -> Done<S, Settlement> {
    shelf
        .settlement(row.id, row.generation)?
        .ok_or_else(|| corrupt(format!("{} has no settlement to be watched", row.id)))
}
