//! One happening, from its transfers to their outcomes: what an operation of the ledger calls.

use farebox_protocol::Amount;

use crate::ledger::books::Books;
use crate::ledger::life::{Happening, Impossible, Parties, Standing, open_hold, transfers_of};
use crate::ledger::transfer::TransferId;
use crate::ledger::{Broken, Outcome, post};

/// Why something that happened is not in the books. They are as they were before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBooked {
    /// The payer has too much open: refuse the payment.
    #[error("{open} units are open, and {limit} may be with this hold")]
    WouldExceed {
        /// What is open without this hold.
        open: Amount,
        /// What may be with it.
        limit: Amount,
    },
    /// A transfer contradicts what the books have: a person has to look.
    #[error("the transfer {id} is refused: {outcome:?}")]
    Refused {
        /// Which one.
        id: TransferId,
        /// Why.
        outcome: Outcome,
    },
    /// It cannot happen to a payment that stands there.
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// The books contradict themselves.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Books what happens to a payment: all of it or nothing. Booked again, it changes nothing.
///
/// [`Parties::accounts`] must be loaded. What is pending of the payment is taken from where it stands,
/// if the books do not have it.
pub fn book(
    books: &mut Books,
    parties: &Parties,
    before: &Standing<'_>,
    happening: &Happening<'_>,
) -> Result<(), NotBooked> {
    let transfers = transfers_of(parties, before, happening)?;
    if transfers.is_empty() {
        return Ok(());
    }
    if let Some((id, hold)) = open_hold(parties, before)
        && books.transfer(&id).is_none()
    {
        books.load_transfer(id, hold);
    }
    let mark = books.mark();
    let outcomes = post(books, &transfers)?;
    let refused = transfers.iter().zip(&outcomes).find_map(|(transfer, outcome)| match *outcome {
        Outcome::Applied | Outcome::Exists => None,
        Outcome::WouldExceed { open, limit } => Some(NotBooked::WouldExceed { open, limit }),
        Outcome::ExistsDifferent
        | Outcome::ExceedsPending { .. }
        | Outcome::PendingNotFound
        | Outcome::NotPending
        | Outcome::AlreadyPosted
        | Outcome::AlreadyVoided
        | Outcome::SameAccount
        | Outcome::ZeroAmount
        | Outcome::Overflow => Some(NotBooked::Refused { id: transfer.id, outcome: *outcome }),
    });
    match refused {
        Some(refused) => {
            books.undo_to(mark);
            Err(refused)
        }
        None => Ok(()),
    }
}
