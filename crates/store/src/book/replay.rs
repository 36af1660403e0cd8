//! What the journal tells, told again: each payment's life and every account, from nothing.

use farebox_billing::ledger::{Account, Books, Happening, Parties, Refund, Standing, book};
use farebox_billing::{Event, Payment};
use farebox_protocol::PaymentId;

use crate::book::entry::Entry;
use crate::port::AnswerMark;

/// A payment as the journal tells it.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) id: PaymentId,
    parties: Parties,
    pub(crate) generation: u64,
    pub(crate) reopened: u32,
    pub(crate) state: Option<Payment>,
    pub(crate) answer: AnswerMark,
    pub(crate) refund_owed: Option<String>,
}

impl Replay {
    pub(crate) fn new(id: PaymentId, parties: Parties) -> Self {
        Self {
            id,
            parties,
            generation: 0,
            reopened: 0,
            state: None,
            answer: AnswerMark::Withheld,
            refund_owed: None,
        }
    }

    /// One entry; what is wrong with it, if it cannot have happened. What it moves is booked.
    pub(crate) fn apply(&mut self, entry: &Entry, books: &mut Books) -> Result<(), String> {
        match entry {
            Entry::Admitted(limit) => {
                if !matches!(self.state, None | Some(Payment::Released { .. })) {
                    return Err("was held again before it was given back".to_owned());
                }
                self.generation = self.generation.saturating_add(1);
                self.reopened = 0;
                self.refund_owed = None;
                let limit = *limit;
                self.book(books, &Happening::Admitted { limit, exposure_limit: None })?;
                self.state = Some(Payment::Held { limit });
                self.answer = AnswerMark::Withheld;
            }
            Entry::Stepped(event) => {
                let before = self.state.clone().ok_or("changed before it was admitted")?;
                let next = before.on(event.clone()).map_err(|illegal| illegal.to_string())?;
                self.book(books, &Happening::Stepped(event))?;
                self.state = Some(next);
                if *event == Event::Reopened {
                    self.reopened = self.reopened.saturating_add(1);
                    self.refund_owed = None;
                }
            }
            // An announcement can be taken back; what was sent cannot.
            Entry::Answered(AnswerMark::Withheld) if self.answer == AnswerMark::Leaving => {
                self.answer = AnswerMark::Withheld;
            }
            Entry::Answered(mark) if *mark <= self.answer => {
                return Err("has a mark that fell".to_owned());
            }
            Entry::Answered(mark) => self.answer = *mark,
            Entry::RefundOwed(why) => {
                self.book(books, &Happening::RefundOwed)?;
                self.refund_owed = Some(why.clone());
            }
        }
        Ok(())
    }

    fn book(&self, books: &mut Books, happening: &Happening<'_>) -> Result<(), String> {
        for key in self.parties.accounts() {
            if books.account(&key).is_none() {
                books.load_account(key, Account::ZERO);
            }
        }
        let before = Standing {
            payment: self.id,
            generation: self.generation,
            reopened: self.reopened,
            state: self.state.as_ref(),
            refund: if self.refund_owed.is_some() { Refund::Owed } else { Refund::None },
        };
        book(books, &self.parties, &before, happening).map_err(|it| it.to_string())
    }
}
