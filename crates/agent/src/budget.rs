//! What may still be spent: a cap per payment and one in total, counted when something is signed.
//!
//! A signature that has left this machine is money, whatever its receiver says of it. So an amount
//! is reserved before it is signed and leaves the budget again only because it was never sent, or
//! because the chain shows that it can be charged no more, or where the [policy](crate::Disclaimers)
//! trusts a receiver that disclaims it, once it has expired.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use farebox_protocol::Timestamp;

use crate::usd::Usd;

/// The two caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most that one payment may be.
    pub per_payment: Usd,
    /// The most that all payments together may be.
    pub total: Usd,
}

/// Why an amount is not within the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// More than one payment may be.
    #[error("{asked} is over the cap of {cap} per payment")]
    PerPayment {
        /// What was asked.
        asked: Usd,
        /// The cap.
        cap: Usd,
    },
    /// More than is left.
    #[error("{asked} is over the {left} left of the budget of {cap}")]
    Total {
        /// What was asked.
        asked: Usd,
        /// What is neither spent nor reserved.
        left: Usd,
        /// The cap.
        cap: Usd,
    },
}

/// Proof that an amount is set aside. Settled or released, once; dropped, it stays reserved, which
/// is right for an outcome that nobody knows.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    number: u64,
    amount: Usd,
}

impl Reservation {
    /// What is set aside.
    pub fn amount(&self) -> Usd {
        self.amount
    }
}

/// The charge is more than what was reserved. The reservation comes back: it still counts.
#[derive(Debug, thiserror::Error)]
#[error("a charge of {charge} exceeds the {} reserved for it", reservation.amount())]
pub struct ExceedsReservation {
    /// What was said to be charged.
    pub charge: Usd,
    /// Still reserved.
    pub reservation: Reservation,
}

/// How a budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What was charged.
    pub spent: Usd,
    /// What is signed for and may yet be charged, or may have been without our knowing.
    pub reserved: Usd,
    /// What may still be signed for.
    pub left: Usd,
}

/// The arithmetic, without locks or clocks.
#[derive(Clone, Debug)]
pub struct Budget {
    limits: Limits,
    spent: Usd,
    /// Reserved for good.
    kept: Usd,
    open: BTreeMap<u64, Open>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    amount: Usd,
    /// Disclaimed by a receiver that is trusted: cannot be charged from here on.
    lapses_at: Option<Timestamp>,
}

impl Budget {
    /// A budget of which nothing is spent.
    pub fn new(limits: Limits) -> Self {
        Self { limits, spent: Usd::ZERO, kept: Usd::ZERO, open: BTreeMap::new(), next: 0 }
    }

    /// Sets `amount` aside, or says which cap it breaks.
    pub fn reserve(&mut self, amount: Usd, now: Timestamp) -> Result<Reservation, OverBudget> {
        self.open.retain(|_, it| it.lapses_at.is_none_or(|at| now < at));
        let Limits { per_payment, total } = self.limits;
        if per_payment < amount {
            return Err(OverBudget::PerPayment { asked: amount, cap: per_payment });
        }
        let left = self.standing().left;
        if left < amount {
            return Err(OverBudget::Total { asked: amount, left, cap: total });
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(number, Open { amount, lapses_at: None });
        Ok(Reservation { number, amount })
    }

    /// Books what was charged and gives the rest back.
    pub fn settle(
        &mut self,
        reservation: Reservation,
        charge: Usd,
    ) -> Result<(), ExceedsReservation> {
        if reservation.amount < charge {
            return Err(ExceedsReservation { charge, reservation });
        }
        if self.open.remove(&reservation.number).is_some() {
            self.spent = self.spent.saturating_add(charge);
        }
        Ok(())
    }

    /// Books what was charged, and leaves the rest reserved: more may be charged yet.
    pub fn settle_part(
        &mut self,
        reservation: Reservation,
        charge: Usd,
    ) -> Result<Reservation, ExceedsReservation> {
        let Reservation { number, amount } = reservation;
        if amount < charge {
            return Err(ExceedsReservation { charge, reservation });
        }
        let rest = amount.saturating_sub(charge);
        if let Some(open) = self.open.get_mut(&number) {
            open.amount = rest;
            self.spent = self.spent.saturating_add(charge);
        }
        Ok(Reservation { number, amount: rest })
    }

    /// Gives back what certainly was not and cannot be charged.
    pub fn release(&mut self, reservation: Reservation) {
        self.open.remove(&reservation.number);
    }

    /// Leaves it reserved for good: nobody here can tell whether it was charged.
    pub fn keep(&mut self, reservation: Reservation) {
        self.open.remove(&reservation.number);
        self.kept = self.kept.saturating_add(reservation.amount);
    }

    /// Gives back at `expiry` what its receiver says was not charged and is trusted in: until then
    /// the signature is good for a charge all the same.
    pub fn release_at(&mut self, reservation: Reservation, expiry: Timestamp) {
        if let Some(open) = self.open.get_mut(&reservation.number) {
            open.lapses_at = Some(expiry);
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let reserved = self.open.values().fold(self.kept, |sum, it| sum.saturating_add(it.amount));
        let taken = self.spent.saturating_add(reserved);
        Standing { spent: self.spent, reserved, left: self.limits.total.saturating_sub(taken) }
    }
}

/// A budget that many requests draw on at once.
#[derive(Debug)]
pub struct SharedBudget(Mutex<Budget>);

impl SharedBudget {
    /// A shared budget.
    pub fn new(budget: Budget) -> Self {
        Self(Mutex::new(budget))
    }

    /// [`Budget::reserve`].
    pub fn reserve(&self, amount: Usd, now: Timestamp) -> Result<Reservation, OverBudget> {
        self.lock().reserve(amount, now)
    }

    /// [`Budget::settle`].
    pub fn settle(&self, reservation: Reservation, charge: Usd) -> Result<(), ExceedsReservation> {
        self.lock().settle(reservation, charge)
    }

    /// [`Budget::settle_part`].
    pub fn settle_part(
        &self,
        reservation: Reservation,
        charge: Usd,
    ) -> Result<Reservation, ExceedsReservation> {
        self.lock().settle_part(reservation, charge)
    }

    /// [`Budget::release`].
    pub fn release(&self, reservation: Reservation) {
        self.lock().release(reservation);
    }

    /// [`Budget::keep`].
    pub fn keep(&self, reservation: Reservation) {
        self.lock().keep(reservation);
    }

    /// [`Budget::release_at`].
    pub fn release_at(&self, reservation: Reservation, expiry: Timestamp) {
        self.lock().release_at(reservation, expiry);
    }

    /// [`Budget::standing`].
    pub fn standing(&self) -> Standing {
        self.lock().standing()
    }

    fn lock(&self) -> MutexGuard<'_, Budget> {
        // Every change is one whole assignment, so a poisoned budget is still a true one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
