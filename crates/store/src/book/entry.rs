//! The journal's lines: everything that ever happened to a payment, in the commit in which it
//! happened.

use farebox_billing::{Event, Release};
use farebox_protocol::Amount;

use crate::port::AnswerMark;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Its funds were held, for the first time or again.
    Admitted(Amount),
    /// It took a step of its life cycle.
    Stepped(Event),
    /// So much of its answer may have left; `Withheld`: it turned out that nothing had.
    Answered(AnswerMark),
    /// It is owed back.
    RefundOwed(String),
}

/// A line as every engine keeps it: a word, and what the word needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) event: &'a str,
    pub(crate) amount: Option<Amount>,
    pub(crate) detail: Option<&'a str>,
}

/// The column whose value has no known meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadColumn(pub(crate) &'static str);

impl Entry {
    /// What is kept of it.
    pub(crate) fn line(&self) -> Line<'_> {
        let (event, amount, detail) = match self {
            Self::Admitted(limit) => ("admitted", Some(*limit), None),
            Self::Stepped(event) => match event {
                Event::ServeBegan => ("serve_began", None, None),
                Event::Delivered(amount) => ("delivered", Some(*amount), None),
                Event::Priced(charge) => ("priced", Some(*charge), None),
                Event::SettlementBegan => ("settlement_began", None, None),
                Event::NotSent => ("not_sent", None, None),
                Event::Unanswered(transaction) => ("unanswered", None, transaction.as_deref()),
                Event::Confirmed(transaction) => ("confirmed", None, Some(transaction.as_str())),
                Event::Rejected(reason) => ("rejected", None, Some(reason.as_str())),
                Event::Abandoned(why) => ("abandoned", None, Some(why.as_str())),
                Event::Withdrawn(why) => ("withdrawn", None, Some(why.as_str())),
                Event::Reopened => ("reopened", None, None),
            },
            Self::Answered(AnswerMark::Sent) => ("answer_sent", None, None),
            Self::Answered(AnswerMark::Leaving) => ("answer_leaving", None, None),
            Self::Answered(AnswerMark::Withheld) => ("answer_withheld", None, None),
            Self::RefundOwed(why) => ("refund_owed", None, Some(why.as_str())),
        };
        Line { event, amount, detail }
    }

    /// From what was kept.
    pub(crate) fn read(line: Line<'_>) -> Result<Self, BadColumn> {
        let units = || line.amount.ok_or(BadColumn("amount"));
        let detail = || line.detail.map(str::to_owned).ok_or(BadColumn("detail"));
        let why = || line.detail.and_then(Release::parse).ok_or(BadColumn("detail"));
        Ok(match line.event {
            "admitted" => Self::Admitted(units()?),
            "serve_began" => Self::Stepped(Event::ServeBegan),
            "delivered" => Self::Stepped(Event::Delivered(units()?)),
            "priced" => Self::Stepped(Event::Priced(units()?)),
            "settlement_began" => Self::Stepped(Event::SettlementBegan),
            "not_sent" => Self::Stepped(Event::NotSent),
            "unanswered" => Self::Stepped(Event::Unanswered(line.detail.map(str::to_owned))),
            "confirmed" => Self::Stepped(Event::Confirmed(detail()?)),
            "rejected" => Self::Stepped(Event::Rejected(detail()?)),
            "abandoned" => Self::Stepped(Event::Abandoned(why()?)),
            "withdrawn" => Self::Stepped(Event::Withdrawn(why()?)),
            "reopened" => Self::Stepped(Event::Reopened),
            "answer_withheld" => Self::Answered(AnswerMark::Withheld),
            "answer_leaving" => Self::Answered(AnswerMark::Leaving),
            "answer_sent" => Self::Answered(AnswerMark::Sent),
            "refund_owed" => Self::RefundOwed(detail()?),
            _ => return Err(BadColumn("event")),
        })
    }
}
