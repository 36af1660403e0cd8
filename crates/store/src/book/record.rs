//! A payment as the rules see it: what can change of it, and what decides how.

use farebox_billing::{Event, Payment};
use farebox_protocol::{Asset, Digest, PaymentId, Timestamp};

use crate::book::entry::Entry;
use crate::book::{Done, Shelf};
use crate::port::{AnswerMark, SettleMode, Terms};

/// A payment without the bulk of its terms.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: PaymentId,
    pub(crate) fingerprint: Digest,
    /// How often it was held.
    pub(crate) generation: u64,
    pub(crate) settle: SettleMode,
    pub(crate) parties: Parties,
    pub(crate) state: Payment,
    pub(crate) answer: AnswerMark,
    pub(crate) waits: Waits,
    pub(crate) refund_owed: Option<String>,
    pub(crate) admitted_at: Timestamp,
    pub(crate) changed_at: Timestamp,
}

/// Between whom the money moves, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parties {
    pub(crate) asset: Asset,
    pub(crate) payer: String,
    pub(crate) pay_to: String,
    pub(crate) route: String,
}

impl Parties {
    pub(crate) fn of(terms: &Terms) -> Self {
        Self {
            asset: terms.asset.clone(),
            payer: terms.payer.clone(),
            pay_to: terms.pay_to.clone(),
            route: terms.route.clone(),
        }
    }
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
        self.state = self.state.clone().on(event.clone())?;
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
        self.refund_owed = Some(why.to_owned());
        self.changed_at = now;
        shelf.append(self.id, &Entry::RefundOwed(why.to_owned()), now)
    }
}
