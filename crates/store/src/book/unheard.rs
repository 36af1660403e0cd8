//! Results that are the only evidence of something and reached nobody.
//!
//! A caller may stop waiting, and the writer itself may have to say that an outcome is unknown. If a
//! hold was made then, or a settlement handed out, nobody is left to resolve it, and it would stand
//! until the next start. So the writer takes it back.

use farebox_billing::{Event, Payment, Release};
use farebox_protocol::PaymentId;

use crate::book::holds::HoldName;
use crate::book::{Done, Shelf, settlements};
use crate::port::{Admitted, Job};

/// What somebody would have had to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unheard {
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

impl Unheard {
    /// Of which payment.
    pub(crate) fn payment(&self) -> PaymentId {
        match self {
            Self::Hold(hold) => hold.id,
            Self::Lease { id, .. } => *id,
        }
    }
}

/// What a result is the only evidence of.
pub(crate) type Evidence<T> = fn(&T) -> Vec<Unheard>;

/// Nothing: the result can be asked for again.
pub(crate) fn none<T>(_: &T) -> Vec<Unheard> {
    Vec::new()
}

/// The hold in an answer to [`crate::Ledger::admit`].
pub(crate) fn in_admitted(admitted: &Admitted) -> Vec<Unheard> {
    match admitted {
        Admitted::New(hold) => vec![Unheard::Hold(HoldName::of(hold))],
        Admitted::Refused(_) => Vec::new(),
    }
}

/// The leases in an answer to [`crate::Ledger::lease_jobs`].
#[expect(clippy::ptr_arg, reason = "an `Evidence` takes the result as it is, a vector")]
pub(crate) fn in_leased(jobs: &Vec<Job>) -> Vec<Unheard> {
    let lease = |job: &Job| Unheard::Lease { id: job.terms.id, attempts: job.attempts };
    jobs.iter().map(lease).collect()
}

/// Takes back what is still as the lost result had it; what was never committed is not there.
pub(crate) fn take_back<S: Shelf + ?Sized>(shelf: &mut S, all: &[Unheard]) -> Done<S, ()> {
    for unheard in all {
        match *unheard {
            Unheard::Hold(hold) => release(shelf, hold)?,
            Unheard::Lease { id, attempts } => unlease(shelf, id, attempts)?,
        }
    }
    Ok(())
}

fn release<S: Shelf + ?Sized>(shelf: &mut S, hold: HoldName) -> Done<S, ()> {
    let Some(mut row) = shelf.record(hold.id)? else { return Ok(()) };
    if row.generation == hold.generation && matches!(row.state, Payment::Held { .. }) {
        let when = row.changed_at;
        row.step(shelf, Event::Abandoned(Release::NothingOwed), when)?;
        shelf.save(&row)?;
    }
    Ok(())
}

fn unlease<S: Shelf + ?Sized>(shelf: &mut S, id: PaymentId, attempts: u32) -> Done<S, ()> {
    let Some(mut row) = shelf.record(id)? else { return Ok(()) };
    if matches!(row.state, Payment::Settling { .. }) && settlements::unlease(shelf, &row, attempts)?
    {
        let when = row.changed_at;
        row.step(shelf, Event::NotSent, when)?;
        shelf.save(&row)?;
    }
    Ok(())
}
