//! What an export consists of: named columns, whose names and order programs rely on.

use farebox_billing::{Payment, Receipt};
use farebox_protocol::{Amount, Asset, Timestamp};
use farebox_store::{AnswerMark, JournalLine, Listed};
use serde_json::{Map, Value};

use super::tokens::Tokens;
use crate::moment;

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// There is none.
    Nothing,
    /// As it is.
    Text(String),
    /// Whole atomic units.
    Units(Amount),
    /// A number that every program can hold.
    Count(u64),
}

impl Cell {
    /// As UTC.
    pub(super) fn time(at: Timestamp) -> Self {
        Self::Text(moment::text(at))
    }

    /// Perhaps a text.
    pub(super) fn text(text: Option<&str>) -> Self {
        text.map_or(Self::Nothing, |it| Self::Text(it.to_owned()))
    }

    fn units(amount: Option<Amount>) -> Self {
        amount.map_or(Self::Nothing, Self::Units)
    }

    fn decimals(asset: &Asset, tokens: &Tokens) -> Self {
        tokens.decimals(asset).map_or(Self::Nothing, |it| Self::Count(it.into()))
    }

    fn json(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Text(text) => text.as_str().into(),
            Self::Units(amount) => amount.to_string().into(),
            Self::Count(number) => (*number).into(),
        }
    }

    /// As RFC 4180 has it. Somebody else chose the words of some texts, and a spreadsheet runs what
    /// begins like a formula: such a text gets an apostrophe before it.
    fn csv(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Units(amount) => amount.to_string(),
            Self::Count(number) => number.to_string(),
            Self::Text(text) => {
                let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
                let text = if formula { format!("'{text}") } else { text.clone() };
                if text.contains(['"', ',', '\n', '\r']) {
                    format!("\"{}\"", text.replace('"', "\"\""))
                } else {
                    text
                }
            }
        }
    }
}

/// The columns of payments. Only to be added to, at the end.
pub(super) const PAYMENTS: [&str; 21] = [
    "payment",
    "admitted_at",
    "changed_at",
    "state",
    "route",
    "scheme",
    "network",
    "asset",
    "decimals",
    "payer",
    "pay_to",
    "limit_units",
    "charge_units",
    "transaction",
    "reason",
    "refund_owed",
    "answer",
    "settle",
    "settle_by",
    "settle_attempts",
    "price_version",
];

/// A payment in [`PAYMENTS`].
pub(super) fn of_payment(listed: &Listed, tokens: &Tokens) -> [Cell; PAYMENTS.len()] {
    let Listed { payment, attempts } = listed;
    let terms = &payment.terms;
    let (transaction, reason) = ends(&payment.state);
    [
        Cell::Text(terms.id.to_string()),
        Cell::time(payment.admitted_at),
        Cell::time(payment.changed_at),
        Cell::Text(payment.state.name().to_owned()),
        Cell::Text(terms.route.clone()),
        Cell::Text(terms.scheme.clone()),
        Cell::Text(terms.asset.network().to_string()),
        Cell::Text(terms.asset.address().to_owned()),
        Cell::decimals(&terms.asset, tokens),
        Cell::Text(terms.payer.clone()),
        Cell::Text(terms.pay_to.clone()),
        Cell::Units(terms.limit),
        Cell::units(charge(&payment.state)),
        Cell::text(transaction),
        Cell::text(reason),
        Cell::text(payment.refund_owed.as_deref()),
        Cell::Text(mark_in_words(payment.answer).to_owned()),
        Cell::Text(terms.settle.as_str().to_owned()),
        Cell::time(terms.settle_by),
        attempts.map_or(Cell::Nothing, |it| Cell::Count(it.into())),
        Cell::Text(terms.price_version.clone()),
    ]
}

/// The columns of the journal. Only to be added to, at the end.
pub(super) const JOURNAL: [&str; 9] =
    ["seq", "at", "payment", "event", "network", "asset", "decimals", "amount_units", "detail"];

/// A line of the journal in [`JOURNAL`].
pub(super) fn of_line(line: &JournalLine, tokens: &Tokens) -> [Cell; JOURNAL.len()] {
    [
        Cell::Count(line.seq),
        Cell::time(line.at),
        Cell::Text(line.payment.to_string()),
        Cell::Text(line.event.clone()),
        Cell::Text(line.asset.network().to_string()),
        Cell::Text(line.asset.address().to_owned()),
        Cell::decimals(&line.asset, tokens),
        Cell::units(line.amount),
        Cell::text(line.detail.as_deref()),
    ]
}

/// A row as a JSON object.
pub(super) fn object(names: &[&str], cells: &[Cell]) -> Map<String, Value> {
    names.iter().zip(cells).map(|(name, cell)| ((*name).to_owned(), cell.json())).collect()
}

/// A row as a line of CSV, without its end.
pub(super) fn line(cells: &[Cell]) -> String {
    cells.iter().map(Cell::csv).collect::<Vec<_>>().join(",")
}

/// What is owed or paid, once it is known.
pub(super) fn charge(state: &Payment) -> Option<Amount> {
    match state {
        Payment::Held { .. } | Payment::Serving { .. } => None,
        Payment::Released { .. } => Some(Amount::ZERO),
        Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. }
        | Payment::Settled { .. }
        | Payment::Lost { .. } => Some(Receipt::charged_by(state)),
    }
}

/// The transaction and the reason that a state carries.
pub(super) fn ends(state: &Payment) -> (Option<&str>, Option<&str>) {
    match state {
        Payment::Settled { transaction, .. } => (Some(transaction), None),
        Payment::Unknown { transaction, .. } => (transaction.as_deref(), None),
        Payment::Released { why } => (None, Some(why.as_str())),
        Payment::Lost { reason, .. } => (None, Some(reason)),
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Captured { .. }
        | Payment::Settling { .. } => (None, None),
    }
}

/// What of an answer may have left.
pub(super) fn mark_in_words(mark: AnswerMark) -> &'static str {
    match mark {
        AnswerMark::Withheld => "withheld",
        AnswerMark::Leaving => "leaving",
        AnswerMark::Sent => "sent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(Cell::Text(text.to_owned()).csv(), expected);
    }

    #[test]
    fn csv_is_quoted_and_runs_nothing() {
        check("plain", "plain");
        check("a,b", "\"a,b\"");
        check("say \"no\"", "\"say \"\"no\"\"\"");
        check("two\nlines", "\"two\nlines\"");
        check("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\"");
        for start in ["+", "-", "@", "\t"] {
            check(&format!("{start}1"), &format!("'{start}1"));
        }
        assert_eq!(Cell::Nothing.csv(), "");
        assert_eq!(Cell::Units(Amount::MAX).csv(), u128::MAX.to_string());
        assert_eq!(line(&[Cell::Count(1), Cell::Nothing, Cell::Text("x".to_owned())]), "1,,x");
    }

    #[test]
    fn json_keeps_every_digit() {
        let row = object(&["a", "b"], &[Cell::Units(Amount::MAX), Cell::Nothing]);
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, format!("{{\"a\":\"{}\",\"b\":null}}", u128::MAX));
    }
}
