//! Puts in order what a crash left behind.

use farebox_billing::{Event, Payment, Release};
use farebox_protocol::Timestamp;

use crate::book::holds::{self, Charge};
use crate::book::record::{Record, Waits};
use crate::book::{Done, Shelf, settlements};
use crate::port::{AnswerMark, Recovered};

/// See [`crate::Ledger::recover`]. One commit: a crash in the middle leaves what was there before.
pub(crate) fn recover<S: Shelf + ?Sized>(shelf: &mut S, now: Timestamp) -> Done<S, Recovered> {
    let mut recovered = Recovered::default();
    for row in shelf.open_records()? {
        recover_open(shelf, row, &mut recovered, now)?;
    }
    for mut row in shelf.unanswered_records()? {
        row.owe(shelf, settlements::UNANSWERED, now)?;
        shelf.save(&row)?;
        recovered.refunds_owed = recovered.refunds_owed.saturating_add(1);
    }
    Ok(recovered)
}

fn recover_open<S: Shelf + ?Sized>(
    shelf: &mut S,
    mut row: Record,
    recovered: &mut Recovered,
    now: Timestamp,
) -> Done<S, ()> {
    match row.state.clone() {
        Payment::Serving { delivered, .. } if !delivered.is_zero() => {
            let charge = Charge { units: delivered, mark: AnswerMark::Leaving };
            // The evidence is for a request, and there is none.
            drop(holds::capture_row(shelf, row, charge, now)?);
            recovered.captured = recovered.captured.saturating_add(1);
            return Ok(());
        }
        Payment::Held { .. } | Payment::Serving { .. } => {
            row.step(shelf, Event::Abandoned(Release::Crashed), now)?;
            recovered.released = recovered.released.saturating_add(1);
        }
        Payment::Captured { .. } => {
            let sent = settlements::may_have_been_sent(shelf, &row)?;
            if row.answer == AnswerMark::Withheld && !sent {
                row.waits = Waits::No;
                settlements::end(shelf, &row, Release::Crashed.as_str())?;
                row.step(shelf, Event::Abandoned(Release::Crashed), now)?;
                recovered.released = recovered.released.saturating_add(1);
            }
        }
        Payment::Settling { .. } => {
            settlements::recover_lease(shelf, &mut row, now)?;
            recovered.to_reconcile = recovered.to_reconcile.saturating_add(1);
        }
        Payment::Unknown { .. }
        | Payment::Settled { .. }
        | Payment::Released { .. }
        | Payment::Lost { .. } => {}
    }
    if row.waits == Waits::ForSettlement {
        // Whoever waited with the answer has gone with the process.
        row.waits = Waits::InVain;
    }
    shelf.save(&row)
}
