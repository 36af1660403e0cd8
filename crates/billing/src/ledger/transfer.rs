//! Transfers: what moves between accounts, under a name that its maker gives it.

use std::fmt;

use farebox_protocol::{Amount, Asset, PaymentId};

use crate::ledger::account::{AccountKey, AccountName};

/// Names a transfer for ever. It is made from what happens and not drawn at random, so that whoever
/// asks again after an unknown outcome asks with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId {
    /// Of which payment.
    pub payment: PaymentId,
    /// Of which hold of it: a released payment can be held again.
    pub generation: u64,
    /// How often a reorganisation of the chain had reopened it.
    pub reopened: u32,
    /// Which step of its life; each is taken once for each time it was reopened.
    pub step: Step,
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.payment, self.generation, self.reopened, self.step.as_str())
    }
}

/// A step of a payment's life that moves something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The hold.
    Hold,
    /// The end of the hold: the charge is posted and the rest voided, or all is voided.
    Resolve,
    /// The charge was seen on chain.
    Settle,
    /// The charge never will be.
    Lose,
    /// The charge is given back before it was paid.
    GiveBack,
    /// The charge was paid and is owed back.
    OweRefund,
    /// What was owed back was paid back on chain.
    PayRefund,
    /// The chain forgot the payment.
    Reopen,
    /// The chain forgot it, so that nothing is owed back any more.
    CancelRefund,
}

impl Step {
    /// Every step with its stored name.
    const NAMES: [(Self, &'static str); 9] = [
        (Self::Hold, "hold"),
        (Self::Resolve, "resolve"),
        (Self::Settle, "settle"),
        (Self::Lose, "lose"),
        (Self::GiveBack, "give_back"),
        (Self::OweRefund, "owe_refund"),
        (Self::PayRefund, "pay_refund"),
        (Self::Reopen, "reopen"),
        (Self::CancelRefund, "cancel_refund"),
    ];

    /// The stored and displayed name.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|it| it.0 == self).map_or("", |it| it.1)
    }

    /// The step of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|it| it.1 == text).map(|it| it.0)
    }
}

/// A request to move something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Its name. A name that is in the books already is never booked a second time.
    pub id: TransferId,
    /// What it does.
    pub action: Action,
}

/// What a transfer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets an amount aside on the pending sides, to be posted or voided later.
    Pend {
        /// Between which accounts.
        legs: Legs,
        /// The most that can be posted.
        amount: Amount,
        /// On which condition; none: on none.
        guard: Option<Guard>,
    },
    /// Ends a pending transfer: so much of it is posted, and the rest is voided.
    Post {
        /// The pending one.
        pending: TransferId,
        /// At most its amount.
        amount: Amount,
    },
    /// Ends a pending transfer without moving anything.
    Void {
        /// The pending one.
        pending: TransferId,
    },
    /// Moves an amount at once.
    Move {
        /// Between which accounts.
        legs: Legs,
        /// How much.
        amount: Amount,
    },
}

/// From where to where. Both accounts are of one asset: a transfer between two cannot be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Legs {
    /// Of what.
    pub asset: Asset,
    /// Whose debits grow.
    pub debit: AccountName,
    /// Whose credits grow.
    pub credit: AccountName,
}

impl Legs {
    /// The debited account.
    pub fn debit_key(&self) -> AccountKey {
        AccountKey { asset: self.asset.clone(), name: self.debit.clone() }
    }

    /// The credited account.
    pub fn credit_key(&self) -> AccountKey {
        AccountKey { asset: self.asset.clone(), name: self.credit.clone() }
    }
}

/// Lets a pending transfer pass only while little enough is at risk: [`crate::ledger::Account::exposure`]
/// of the debited account and of the one beside it, this amount included, is at most the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The most at risk, in atomic units.
    pub limit: Amount,
    /// What counts as well: what the same payer was served and never paid.
    pub beside: AccountName,
}

/// A transfer that is in the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What it did.
    pub action: Action,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Pending: neither posted nor voided.
    Open,
    /// Was pending; so much of it was posted and the rest voided.
    Posted(Amount),
    /// Was pending; nothing of it was posted.
    Voided,
    /// Was never pending: done when it was booked.
    Done,
}

impl Action {
    /// The accounts that the books must have for it, beside those of the pending transfer that it
    /// ends: debit, credit, and what a guard counts.
    pub fn accounts(&self) -> impl Iterator<Item = AccountKey> + use<> {
        let keys = match self {
            Self::Pend { legs, guard, .. } => {
                let beside = guard.as_ref().map(|it| it.beside.clone());
                let asset = legs.asset.clone();
                let beside = beside.map(|name| AccountKey { asset, name });
                [Some(legs.debit_key()), Some(legs.credit_key()), beside]
            }
            Self::Move { legs, .. } => [Some(legs.debit_key()), Some(legs.credit_key()), None],
            Self::Post { .. } | Self::Void { .. } => [None, None, None],
        };
        keys.into_iter().flatten()
    }

    /// Whether this does the same. A guard is a condition of being booked and not part of what is.
    pub(super) fn does_the_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Pend { legs, amount, guard: _ },
                Self::Pend { legs: legs_of_other, amount: amount_of_other, guard: _ },
            ) => legs == legs_of_other && amount == amount_of_other,
            (one, other) => one == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name() {
        for (step, name) in Step::NAMES {
            assert_eq!((Step::parse(name), step.as_str()), (Some(step), name));
        }
    }
}
