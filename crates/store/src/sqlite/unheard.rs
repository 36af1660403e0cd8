//! Results that are the only evidence of something and reached nobody.
//!
//! A caller may stop waiting, and the writer itself may have to say that an outcome is unknown. If a
//! hold was made then, or a settlement handed out, nobody is left to resolve it, and it would stand
//! until the next start. So the writer takes it back.

use farebox_billing::{Event, Payment, Release};
use farebox_protocol::PaymentId;
use rusqlite::Connection;

use crate::port::{Admitted, Job};
use crate::sqlite::fault::Done;
use crate::sqlite::holds::HoldName;
use crate::sqlite::row::find;
use crate::sqlite::settlements;

/// What somebody would have had to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unheard {
    /// A hold that cannot have been served.
    Hold(HoldName),
    /// A settlement that cannot have been sent.
    Lease {
        /// Of which payment.
        id: PaymentId,
        /// Which of its tries.
        attempts: u32,
    },
}

/// What a result is the only evidence of.
pub(super) type Evidence<T> = fn(&T) -> Vec<Unheard>;

/// Nothing: the result can be asked for again.
pub(super) fn none<T>(_: &T) -> Vec<Unheard> {
    Vec::new()
}

/// The hold in an answer to [`crate::Ledger::admit`].
pub(super) fn in_admitted(admitted: &Admitted) -> Vec<Unheard> {
    match admitted {
        Admitted::New(hold) => vec![Unheard::Hold(HoldName::of(hold))],
        Admitted::Refused(_) => Vec::new(),
    }
}

/// The leases in an answer to [`crate::Ledger::lease_jobs`].
#[expect(clippy::ptr_arg, reason = "an `Evidence` takes the result as it is, a vector")]
pub(super) fn in_leased(jobs: &Vec<Job>) -> Vec<Unheard> {
    let lease = |job: &Job| Unheard::Lease { id: job.terms.id, attempts: job.attempts };
    jobs.iter().map(lease).collect()
}

/// Takes back what is still as the lost result had it; what was never committed is not there.
pub(super) fn take_back(connection: &Connection, all: &[Unheard]) -> Done<()> {
    for unheard in all {
        match *unheard {
            Unheard::Hold(hold) => release(connection, hold)?,
            Unheard::Lease { id, attempts } => unlease(connection, id, attempts)?,
        }
    }
    Ok(())
}

fn release(connection: &Connection, hold: HoldName) -> Done<()> {
    let Some(mut row) = find(connection, hold.id)? else { return Ok(()) };
    if row.generation == hold.generation && matches!(row.state, Payment::Held { .. }) {
        let when = row.changed_at;
        row.step(connection, Event::Abandoned(Release::NothingOwed), when)?;
        row.save(connection)?;
    }
    Ok(())
}

fn unlease(connection: &Connection, id: PaymentId, attempts: u32) -> Done<()> {
    let Some(mut row) = find(connection, id)? else { return Ok(()) };
    if matches!(row.state, Payment::Settling { .. })
        && settlements::unlease(connection, &row, attempts)?
    {
        let when = row.changed_at;
        row.step(connection, Event::NotSent, when)?;
        row.save(connection)?;
    }
    Ok(())
}
