//! Puts in order what a crash left behind.

use farebox_billing::{Event, Payment, Release};
use farebox_protocol::Timestamp;
use rusqlite::Connection;

use crate::port::{AnswerMark, Recovered};
use crate::sqlite::fault::Done;
use crate::sqlite::holds::{self, Charge};
use crate::sqlite::row::{Row, Waits};
use crate::sqlite::settlements;

/// See [`crate::Ledger::recover`]. One commit: a crash in the middle leaves what was there before.
pub(super) fn recover(connection: &Connection, now: Timestamp) -> Done<Recovered> {
    let mut recovered = Recovered::default();
    let open = "SELECT * FROM payments
                 WHERE state IN ('held', 'serving', 'captured', 'settling', 'unknown')";
    for row in select(connection, open)? {
        recover_open(connection, row, &mut recovered, now)?;
    }
    let unanswered = "SELECT * FROM payments WHERE state = 'settled' AND answer_waits <> 'no'";
    for mut row in select(connection, unanswered)? {
        row.owe(connection, settlements::UNANSWERED, now)?;
        row.save(connection)?;
        recovered.refunds_owed = recovered.refunds_owed.saturating_add(1);
    }
    Ok(recovered)
}

/// All rows at once: what is open is bounded by what is served at a time, and the rows change
/// while they are walked.
fn select(connection: &Connection, sql: &str) -> Done<Vec<Row>> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], Row::read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn recover_open(
    connection: &Connection,
    mut row: Row,
    recovered: &mut Recovered,
    now: Timestamp,
) -> Done<()> {
    match row.state.clone() {
        Payment::Serving { delivered, .. } if !delivered.is_zero() => {
            let charge = Charge { units: delivered, mark: AnswerMark::Leaving };
            // The evidence is for a request, and there is none.
            drop(holds::capture_row(connection, row, charge, now)?);
            recovered.captured = recovered.captured.saturating_add(1);
            return Ok(());
        }
        Payment::Held { .. } | Payment::Serving { .. } => {
            row.step(connection, Event::Abandoned(Release::Crashed), now)?;
            recovered.released = recovered.released.saturating_add(1);
        }
        Payment::Captured { .. } => {
            let sent = settlements::may_have_been_sent(connection, &row)?;
            if row.answer == AnswerMark::Withheld && !sent {
                row.waits = Waits::No;
                settlements::end(connection, &row, Release::Crashed.as_str())?;
                row.step(connection, Event::Abandoned(Release::Crashed), now)?;
                recovered.released = recovered.released.saturating_add(1);
            }
        }
        Payment::Settling { .. } => {
            settlements::recover_lease(connection, &mut row, now)?;
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
    row.save(connection)
}
