//! The journal: everything that ever happened to a payment, in the commit in which it happened.

use farebox_billing::{Event, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};
use rusqlite::{Connection, params};

use crate::port::AnswerMark;
use crate::sqlite::fault::Done;
use crate::sqlite::row::{amount, bad, id, millis};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Its funds were held, for the first time or again.
    Admitted(Amount),
    /// It took a step of its life cycle.
    Stepped(Event),
    /// So much of its answer may have left; `Withheld`: it turned out that nothing had.
    Answered(AnswerMark),
    /// It is owed back.
    RefundOwed(String),
}

/// Adds a line.
pub(super) fn append(
    connection: &Connection,
    payment: PaymentId,
    entry: &Entry,
    now: Timestamp,
) -> Done<()> {
    let (event, amount, detail) = entry.columns();
    let mut statement = connection.prepare_cached(
        "INSERT INTO journal (payment, at, event, amount, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let amount = amount.map(Amount::to_be_bytes);
    statement.execute(params![payment.as_bytes(), millis(now), event, amount, detail])?;
    Ok(())
}

impl Entry {
    fn columns(&self) -> (&'static str, Option<Amount>, Option<&str>) {
        match self {
            Self::Admitted(limit) => ("admitted", Some(*limit), None),
            Self::Stepped(event) => match event {
                Event::ServeBegan => ("serve_began", None, None),
                Event::Delivered(amount) => ("delivered", Some(*amount), None),
                Event::Priced(charge) => ("priced", Some(*charge), None),
                Event::SettlementBegan => ("settlement_began", None, None),
                Event::NotSent => ("not_sent", None, None),
                Event::Unanswered(transaction) => ("unanswered", None, transaction.as_deref()),
                Event::Confirmed(transaction) => ("confirmed", None, Some(transaction)),
                Event::Rejected(reason) => ("rejected", None, Some(reason)),
                Event::Abandoned(why) => ("abandoned", None, Some(why.as_str())),
                Event::Withdrawn(why) => ("withdrawn", None, Some(why.as_str())),
            },
            Self::Answered(AnswerMark::Sent) => ("answer_sent", None, None),
            Self::Answered(AnswerMark::Leaving) => ("answer_leaving", None, None),
            Self::Answered(AnswerMark::Withheld) => ("answer_withheld", None, None),
            Self::RefundOwed(why) => ("refund_owed", None, Some(why)),
        }
    }

    /// From a row with `payment`, `event`, `amount` and `detail`.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(PaymentId, Self)> {
        let units = || amount(row, "amount")?.ok_or_else(|| bad("amount"));
        let detail = || row.get::<_, String>("detail");
        let why = || Release::parse(&detail()?).ok_or_else(|| bad("detail"));
        let event = row.get_ref("event")?.as_str().map_err(|_| bad("event"))?;
        let entry = match event {
            "admitted" => Self::Admitted(units()?),
            "serve_began" => Self::Stepped(Event::ServeBegan),
            "delivered" => Self::Stepped(Event::Delivered(units()?)),
            "priced" => Self::Stepped(Event::Priced(units()?)),
            "settlement_began" => Self::Stepped(Event::SettlementBegan),
            "not_sent" => Self::Stepped(Event::NotSent),
            "unanswered" => Self::Stepped(Event::Unanswered(row.get("detail")?)),
            "confirmed" => Self::Stepped(Event::Confirmed(detail()?)),
            "rejected" => Self::Stepped(Event::Rejected(detail()?)),
            "abandoned" => Self::Stepped(Event::Abandoned(why()?)),
            "withdrawn" => Self::Stepped(Event::Withdrawn(why()?)),
            "answer_withheld" => Self::Answered(AnswerMark::Withheld),
            "answer_leaving" => Self::Answered(AnswerMark::Leaving),
            "answer_sent" => Self::Answered(AnswerMark::Sent),
            "refund_owed" => Self::RefundOwed(detail()?),
            _ => return Err(bad("event")),
        };
        Ok((id(row, "payment")?, entry))
    }
}
