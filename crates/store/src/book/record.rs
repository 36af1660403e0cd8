//! A payment as the rules see it: what can change of it, and what decides how.

use farebox_billing::ledger::{Happening, Parties, Refund, Standing, book};
use farebox_billing::{Event, Payment};
use farebox_protocol::{Digest, PaymentId, Timestamp};

use crate::book::entry::Entry;
use crate::book::{Done, Shelf, corrupt};
use crate::port::{AnswerMark, SettleMode, Terms};

/// A payment without the bulk of its terms.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: PaymentId,
    pub(crate) fingerprint: Digest,
    /// How often it was held.
    pub(crate) generation: u64,
    /// How often a reorganisation of the chain has reopened this hold's settlement.
    pub(crate) reopened: u32,
    pub(crate) settle: SettleMode,
    pub(crate) parties: Parties,
    pub(crate) state: Payment,
    pub(crate) answer: AnswerMark,
    pub(crate) waits: Waits,
    pub(crate) refund_owed: Option<String>,
    pub(crate) admitted_at: Timestamp,
    pub(crate) changed_at: Timestamp,
}

/// Whether an answer was captured before any of it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// No: it had begun to leave, or all of it has left since.
    No,
    /// A request waits with it for the settlement.
    ForSettlement,
    /// The request is gone: if the settlement succeeds, the payer gets nothing for it.
    InVain,
}

impl Waits {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::ForSettlement => "for_settlement",
            Self::InVain => "in_vain",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::No, Self::ForSettlement, Self::InVain].into_iter().find(|it| it.as_str() == text)
    }
}

impl Record {
    /// Takes one step of the life cycle, and journals it.
    pub(crate) fn step<S: Shelf + ?Sized>(
        &mut self,
        shelf: &mut S,
        event: Event,
        now: Timestamp,
    ) -> Done<S, ()> {
        let next = self.state.clone().on(event.clone())?;
        self.book(shelf, &Happening::Stepped(&event))?;
        self.state = next;
        self.changed_at = now;
        shelf.append(self.id, &Entry::Stepped(event), now)
    }

    /// Raises the mark; it never falls but by [`Record::unmark`].
    pub(crate) fn mark<S: Shelf + ?Sized>(
        &mut self,
        shelf: &mut S,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Done<S, ()> {
        if mark <= self.answer {
            return Ok(());
        }
        self.answer = mark;
        self.changed_at = now;
        if mark == AnswerMark::Sent {
            self.waits = Waits::No;
        }
        shelf.append(self.id, &Entry::Answered(mark), now)
    }

    /// Takes back what was announced: nothing of the answer has left, and nothing will.
    pub(crate) fn unmark<S: Shelf + ?Sized>(
        &mut self,
        shelf: &mut S,
        now: Timestamp,
    ) -> Done<S, ()> {
        if self.answer == AnswerMark::Withheld {
            return Ok(());
        }
        self.answer = AnswerMark::Withheld;
        self.changed_at = now;
        shelf.append(self.id, &Entry::Answered(AnswerMark::Withheld), now)
    }

    /// Books that it is owed back; the first reason stands.
    pub(crate) fn owe<S: Shelf + ?Sized>(
        &mut self,
        shelf: &mut S,
        why: &str,
        now: Timestamp,
    ) -> Done<S, ()> {
        self.waits = Waits::No;
        if self.refund_owed.is_some() {
            return Ok(());
        }
        self.book(shelf, &Happening::RefundOwed)?;
        self.refund_owed = Some(why.to_owned());
        self.changed_at = now;
        shelf.append(self.id, &Entry::RefundOwed(why.to_owned()), now)
    }

    /// Moves what it moves between the accounts; `self` is as it was before.
    fn book<S: Shelf + ?Sized>(&self, shelf: &mut S, happening: &Happening<'_>) -> Done<S, ()> {
        let books = shelf.books(&self.parties)?;
        let booked = book(books, &self.parties, &self.standing(), happening);
        booked.map_err(|error| corrupt(format!("{}: {error}", self.id)))
    }

    /// Where it stands, for the accounts.
    pub(crate) fn standing(&self) -> Standing<'_> {
        Standing {
            payment: self.id,
            generation: self.generation,
            reopened: self.reopened,
            state: Some(&self.state),
            refund: if self.refund_owed.is_some() { Refund::Owed } else { Refund::None },
        }
    }
}

/// The parties of a payment with these terms.
pub(crate) fn parties(terms: &Terms) -> Parties {
    Parties::new(terms.asset.clone(), &terms.payer, &terms.pay_to, &terms.route)
}
