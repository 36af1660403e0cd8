//! Double entry: nothing is in one account that did not come out of another.
//!
//! An engine loads the accounts and transfers that a batch touches into [`Books`], calls [`post`], and
//! writes what [`Books::take_changes`] gives back, in one commit. The rules are here once; an engine
//! only stores. What happens to a payment becomes transfers by [`transfers_of`], for the engine and for
//! the audit alike. The chart of accounts is ADR 0015.

mod account;
mod book;
mod books;
mod life;
mod transfer;

use farebox_protocol::{Amount, Asset};

use crate::ledger::account::Side;
pub use crate::ledger::account::{Account, AccountKey, AccountName, BadAccountName};
pub use crate::ledger::book::{NotBooked, book};
use crate::ledger::books::change;
pub use crate::ledger::books::{Books, Changes, Mark, trial_balance};
pub use crate::ledger::life::{
    Happening, Impossible, Parties, Refund, Standing, open_hold, transfers_of,
};
pub use crate::ledger::transfer::{
    Action, Fate, Guard, Legs, Recorded, Step, Transfer, TransferId,
};

/// What became of one transfer of a batch. Nothing changes but by [`Outcome::Applied`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It is booked.
    Applied,
    /// It was booked before, under the same id and with the same content: the answer is the same.
    Exists,
    /// Something else was booked under its id.
    ExistsDifferent,
    /// More would be posted than is pending.
    ExceedsPending {
        /// What is pending.
        pending: Amount,
    },
    /// The transfer to be posted or voided is not in the books.
    PendingNotFound,
    /// The transfer to be posted or voided never was pending.
    NotPending,
    /// The transfer to be posted or voided was posted.
    AlreadyPosted,
    /// The transfer to be posted or voided was voided.
    AlreadyVoided,
    /// Too much would be at risk.
    WouldExceed {
        /// What is at risk without it.
        open: Amount,
        /// What may be.
        limit: Amount,
    },
    /// It goes from an account to itself.
    SameAccount,
    /// It moves nothing. To post nothing is to void; what costs nothing needs no transfer.
    ZeroAmount,
    /// A side would leave the range of [`Amount`].
    Overflow,
}

/// The books contradict themselves, or what was asked for was not loaded: nothing of the batch may be
/// committed, and a person has to look. The books are as they were before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An account that a transfer names was not loaded: with zeros its row would be overwritten.
    #[error("the account {0} was not loaded")]
    NotLoaded(AccountKey),
    /// An account has less pending than its pending transfers say.
    #[error("the account {0} has less pending than its transfers")]
    PendingMissing(AccountKey),
    /// A posted side fell, or a pending one without a post or a void.
    #[error("a side of the account {0} fell")]
    Fell(AccountKey),
    /// Debits and credits did not grow by what was transferred.
    #[error("the debits and credits of {0} did not change by what was transferred")]
    Uneven(Asset),
}

/// Books a batch in its order; a later transfer sees the earlier ones. Each is booked whole or not at
/// all, and says which.
///
/// A refusal is not remembered: the same transfer may be booked later. After the batch the accounts are
/// held against a second sum of what was booked, in release builds too; that is returned and no panic,
/// because the caller has a transaction to roll back and callers of its own to answer.
pub fn post(books: &mut Books, batch: &[Transfer]) -> Result<Vec<Outcome>, Broken> {
    let mark = books.begin();
    let outcomes = batch.iter().map(|it| apply(books, it)).collect::<Result<Vec<_>, _>>();
    let checked = outcomes.and_then(|outcomes| {
        check(books, mark, batch.iter().zip(&outcomes))?;
        Ok(outcomes)
    });
    checked.inspect_err(|_| books.undo_to(mark))
}

/// Books one transfer.
fn apply(books: &mut Books, transfer: &Transfer) -> Result<Outcome, Broken> {
    let Transfer { id, action } = transfer;
    if let Some(recorded) = books.transfer(id) {
        let same = recorded.action.does_the_same_as(action);
        return Ok(if same { Outcome::Exists } else { Outcome::ExistsDifferent });
    }
    let (outcome, fate) = match action {
        Action::Pend { legs, amount, guard } => {
            (pend(books, legs, *amount, guard.as_ref())?, Fate::Open)
        }
        Action::Move { legs, amount } => {
            (enter(books, legs, *amount, |side| side.add(*amount).ok())?, Fate::Done)
        }
        Action::Post { amount, .. } if amount.is_zero() => return Ok(Outcome::ZeroAmount),
        Action::Post { pending, amount } => (resolve(books, pending, Some(*amount))?, Fate::Done),
        Action::Void { pending } => (resolve(books, pending, None)?, Fate::Done),
    };
    if outcome == Outcome::Applied {
        books.record(*id, action.clone(), fate);
    }
    Ok(outcome)
}

fn pend(
    books: &mut Books,
    legs: &Legs,
    amount: Amount,
    guard: Option<&Guard>,
) -> Result<Outcome, Broken> {
    if let Some(Guard { limit, beside }) = guard {
        let debit = loaded(books, &legs.asset, &legs.debit)?.exposure();
        let beside = loaded(books, &legs.asset, beside)?.exposure();
        let open = debit.checked_add(beside).unwrap_or(Amount::MAX);
        if !open.checked_add(amount).is_ok_and(|it| it <= *limit) {
            return Ok(Outcome::WouldExceed { open, limit: *limit });
        }
    }
    enter(books, legs, amount, |side| side.hold(amount).ok())
}

/// The same on the debits of one account and the credits of another.
fn enter(
    books: &mut Books,
    legs: &Legs,
    amount: Amount,
    grown: impl Fn(Side) -> Option<Side>,
) -> Result<Outcome, Broken> {
    if amount.is_zero() {
        return Ok(Outcome::ZeroAmount);
    }
    if legs.debit == legs.credit {
        return Ok(Outcome::SameAccount);
    }
    let debit = *loaded(books, &legs.asset, &legs.debit)?;
    let credit = *loaded(books, &legs.asset, &legs.credit)?;
    let (Some(debits), Some(credits)) = (grown(debit.debits()), grown(credit.credits())) else {
        return Ok(Outcome::Overflow);
    };
    write(books, legs.debit_key(), debit.with_debits(debits))?;
    write(books, legs.credit_key(), credit.with_credits(credits))?;
    Ok(Outcome::Applied)
}

/// Ends a pending transfer: `posted` of it is posted, and the rest voided.
fn resolve(
    books: &mut Books,
    pending: &TransferId,
    posted: Option<Amount>,
) -> Result<Outcome, Broken> {
    let Some(recorded) = books.transfer(pending) else { return Ok(Outcome::PendingNotFound) };
    let Action::Pend { legs, amount, guard: _ } = &recorded.action else {
        return Ok(Outcome::NotPending);
    };
    match recorded.fate {
        Fate::Open => {}
        Fate::Posted(_) => return Ok(Outcome::AlreadyPosted),
        Fate::Voided => return Ok(Outcome::AlreadyVoided),
        Fate::Done => return Ok(Outcome::NotPending),
    }
    let amount = *amount;
    let units = posted.unwrap_or(Amount::ZERO);
    if amount < units {
        return Ok(Outcome::ExceedsPending { pending: amount });
    }
    let (debit_key, credit_key) = (legs.debit_key(), legs.credit_key());
    let debit = *loaded(books, &legs.asset, &legs.debit)?;
    let credit = *loaded(books, &legs.asset, &legs.credit)?;
    // It fitted when it was set aside, so only books that contradict themselves fail here.
    let Ok(debits) = debit.debits().resolve(amount, units) else {
        return Err(Broken::PendingMissing(debit_key));
    };
    let Ok(credits) = credit.credits().resolve(amount, units) else {
        return Err(Broken::PendingMissing(credit_key));
    };
    write(books, debit_key, debit.with_debits(debits))?;
    write(books, credit_key, credit.with_credits(credits))?;
    books.resolve(*pending, posted.map_or(Fate::Voided, Fate::Posted));
    Ok(Outcome::Applied)
}

fn loaded<'a>(books: &'a Books, asset: &Asset, name: &AccountName) -> Result<&'a Account, Broken> {
    let missing = || AccountKey { asset: asset.clone(), name: name.clone() };
    books.of(asset, name).ok_or_else(|| Broken::NotLoaded(missing()))
}

fn write(books: &mut Books, key: AccountKey, account: Account) -> Result<(), Broken> {
    let missing = key.clone();
    books.set_account(key, account).ok_or(Broken::NotLoaded(missing))
}

/// By how much one side of the accounts of an asset has grown, round the end of the range: it may sum
/// over more than fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Growth {
    pending: u128,
    posted: u128,
}

impl Growth {
    fn add(&mut self, pending: u128, posted: u128) {
        self.pending = self.pending.wrapping_add(pending);
        self.posted = self.posted.wrapping_add(posted);
    }
}

/// What a batch did to the accounts of one asset: by its transfers, and by the accounts themselves.
#[derive(Debug)]
struct Tally<'a> {
    asset: &'a Asset,
    transferred: Growth,
    debits: Growth,
    credits: Growth,
}

/// The tally of an asset; a batch has one or two.
fn tally<'a, 'b>(tallies: &'b mut Vec<Tally<'a>>, asset: &'a Asset) -> Option<&'b mut Tally<'a>> {
    let at = tallies.iter().position(|it| it.asset == asset).unwrap_or_else(|| {
        let none = Growth::default();
        tallies.push(Tally { asset, transferred: none, debits: none, credits: none });
        tallies.len().saturating_sub(1)
    });
    tallies.get_mut(at)
}

/// The sum of what was booked must be what the accounts have grown by, on both sides.
fn check<'a>(
    books: &'a Books,
    mark: Mark,
    booked: impl Iterator<Item = (&'a Transfer, &'a Outcome)>,
) -> Result<(), Broken> {
    let mut tallies = Vec::new();
    let mut resolved = false;
    for (transfer, _) in booked.filter(|it| *it.1 == Outcome::Applied) {
        let (ended, legs, pending, posted) = match &transfer.action {
            Action::Pend { legs, amount, guard: _ } => (None, Some(legs), amount.units(), 0),
            Action::Move { legs, amount } => (None, Some(legs), 0, amount.units()),
            Action::Post { pending, amount } => (Some(pending), None, 0, amount.units()),
            Action::Void { pending } => (Some(pending), None, 0, 0),
        };
        let ended = ended.and_then(|it| books.transfer(it)).map(|it| &it.action);
        let (legs, pending) = match ended {
            Some(Action::Pend { legs, amount, guard: _ }) => {
                resolved = true;
                (Some(legs), pending.wrapping_sub(amount.units()))
            }
            Some(Action::Move { .. } | Action::Post { .. } | Action::Void { .. }) | None => {
                (legs, pending)
            }
        };
        if let Some(tally) = legs.and_then(|it| tally(&mut tallies, &it.asset)) {
            tally.transferred.add(pending, posted);
        }
    }
    for (key, before, now) in books.changed_since(mark) {
        let fell = now.debits_posted < before.debits_posted
            || now.credits_posted < before.credits_posted
            || !resolved
                && (now.debits_pending < before.debits_pending
                    || now.credits_pending < before.credits_pending);
        if fell {
            return Err(Broken::Fell(key.clone()));
        }
        if let Some(tally) = tally(&mut tallies, &key.asset) {
            let debits = change(before.debits_pending, now.debits_pending);
            tally.debits.add(debits, change(before.debits_posted, now.debits_posted));
            let credits = change(before.credits_pending, now.credits_pending);
            tally.credits.add(credits, change(before.credits_posted, now.credits_posted));
        }
    }
    let even = |it: &&Tally<'_>| it.debits == it.transferred && it.credits == it.transferred;
    match tallies.iter().find(|it| !even(it)) {
        Some(uneven) => Err(Broken::Uneven(uneven.asset.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
