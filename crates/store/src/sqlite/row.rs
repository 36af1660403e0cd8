//! Payments as rows: the only place that turns one into the other.

use std::str::FromStr;

use farebox_billing::{Event, Payment, Release};
use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, named_params};

use crate::port::{AnswerMark, SettleMode, StoredPayment, Terms};
use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::journal::{self, Entry};

/// What can change of a payment, and what decides how: a row of `payments` without its terms.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: PaymentId,
    pub(super) fingerprint: Digest,
    pub(super) generation: u64,
    pub(super) settle: SettleMode,
    pub(super) state: Payment,
    pub(super) answer: AnswerMark,
    pub(super) waits: Waits,
    pub(super) refund_owed: Option<String>,
    pub(super) admitted_at: Timestamp,
    pub(super) changed_at: Timestamp,
}

/// Whether an answer was captured before any of it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// No: it had begun to leave, or all of it has left since.
    No,
    /// A request waits with it for the settlement.
    ForSettlement,
    /// The request is gone: if the settlement succeeds, the payer gets nothing for it.
    InVain,
}

impl Waits {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::ForSettlement => "for_settlement",
            Self::InVain => "in_vain",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::No, Self::ForSettlement, Self::InVain].into_iter().find(|it| it.as_str() == text)
    }
}

/// The stored name of a mark.
pub(super) fn mark_name(mark: AnswerMark) -> &'static str {
    match mark {
        AnswerMark::Withheld => "withheld",
        AnswerMark::Leaving => "leaving",
        AnswerMark::Sent => "sent",
    }
}

fn parse_mark(text: &str) -> Option<AnswerMark> {
    [AnswerMark::Withheld, AnswerMark::Leaving, AnswerMark::Sent]
        .into_iter()
        .find(|it| mark_name(*it) == text)
}

/// Milliseconds as SQLite has them; saturates in the year 292 million.
pub(super) fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.millis()).unwrap_or(i64::MAX)
}

/// A count as SQLite has it.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A time from a column.
pub(super) fn time(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    unsigned(row, column).map(Timestamp::from_millis)
}

/// A number that is never negative from a column.
pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| bad(column))
}

/// An id from a column.
pub(super) fn id(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<PaymentId> {
    row.get(column).map(PaymentId::from_bytes)
}

/// An amount from a column.
pub(super) fn amount(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<Amount>> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(Amount::from_be_bytes))
}

/// The error for a value that no code of ours can have written.
pub(super) fn bad(column: &str) -> rusqlite::Error {
    let why = format!("column `{column}` holds a value of no known meaning");
    rusqlite::Error::FromSqlConversionFailure(0, Type::Null, why.into())
}

fn word<T>(
    row: &rusqlite::Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|_| bad(column))?;
    parse(text).ok_or_else(|| bad(column))
}

/// The row of a payment, if there is one.
pub(super) fn find(connection: &Connection, id: PaymentId) -> Done<Option<Row>> {
    let mut statement = connection.prepare_cached("SELECT * FROM payments WHERE id = ?1")?;
    Ok(statement.query_row([id.as_bytes()], Row::read).optional()?)
}

/// The row of a payment that the caller holds evidence of: without it, the ledger has forgotten.
pub(super) fn existing(connection: &Connection, id: PaymentId) -> Done<Row> {
    find(connection, id)?.ok_or_else(|| Fault::corrupt(format!("{id} is not in the ledger")))
}

impl Row {
    /// From a `SELECT *`.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: id(row, "id")?,
            fingerprint: Digest::from_bytes(row.get("fingerprint")?),
            settle: word(row, "settle", SettleMode::parse)?,
            generation: unsigned(row, "generation")?,
            state: state(row)?,
            answer: word(row, "answer", parse_mark)?,
            waits: word(row, "answer_waits", Waits::parse)?,
            refund_owed: row.get("refund_owed")?,
            admitted_at: time(row, "admitted_at")?,
            changed_at: time(row, "changed_at")?,
        })
    }

    /// Takes one step of the life cycle, and journals it.
    pub(super) fn step(
        &mut self,
        connection: &Connection,
        event: Event,
        now: Timestamp,
    ) -> Done<()> {
        self.state = self.state.clone().on(event.clone())?;
        self.changed_at = now;
        journal::append(connection, self.id, &Entry::Stepped(event), now)
    }

    /// Raises the mark; it never falls but by [`Row::unmark`].
    pub(super) fn mark(
        &mut self,
        connection: &Connection,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Done<()> {
        if mark <= self.answer {
            return Ok(());
        }
        self.answer = mark;
        self.changed_at = now;
        if mark == AnswerMark::Sent {
            self.waits = Waits::No;
        }
        journal::append(connection, self.id, &Entry::Answered(mark), now)
    }

    /// Takes back what was announced: nothing of the answer has left, and nothing will.
    pub(super) fn unmark(&mut self, connection: &Connection, now: Timestamp) -> Done<()> {
        if self.answer == AnswerMark::Withheld {
            return Ok(());
        }
        self.answer = AnswerMark::Withheld;
        self.changed_at = now;
        journal::append(connection, self.id, &Entry::Answered(AnswerMark::Withheld), now)
    }

    /// Books that it is owed back; the first reason stands.
    pub(super) fn owe(&mut self, connection: &Connection, why: &str, now: Timestamp) -> Done<()> {
        self.waits = Waits::No;
        if self.refund_owed.is_some() {
            return Ok(());
        }
        self.refund_owed = Some(why.to_owned());
        self.changed_at = now;
        journal::append(connection, self.id, &Entry::RefundOwed(why.to_owned()), now)
    }

    /// Writes what can change.
    pub(super) fn save(&self, connection: &Connection) -> Done<()> {
        let columns = Columns::of(&self.state);
        let mut statement = connection.prepare_cached(include_str!("sql/update_payment.sql"))?;
        let changed = statement.execute(named_params! {
            ":id": self.id.as_bytes(),
            ":generation": count(self.generation),
            ":state": self.state.name(),
            ":delivered": columns.delivered,
            ":charge": columns.charge,
            ":transaction": columns.transaction,
            ":reason": columns.reason,
            ":answer": mark_name(self.answer),
            ":answer_waits": self.waits.as_str(),
            ":refund_owed": self.refund_owed,
            ":exposed_units": columns.exposed,
            ":changed_at": millis(self.changed_at),
        })?;
        if changed == 1 {
            return Ok(());
        }
        Err(Fault::corrupt(format!("{} changed under its only writer", self.id)))
    }

    /// Writes all of it: a new row, or the next generation of a released one.
    pub(super) fn hold(&self, connection: &Connection, terms: &Terms) -> Done<()> {
        let mut statement = connection.prepare_cached(include_str!("sql/hold_payment.sql"))?;
        let values = named_params! {
            ":id": self.id.as_bytes(),
            ":fingerprint": self.fingerprint.as_bytes(),
            ":generation": count(self.generation),
            ":network": terms.asset.network().as_str(),
            ":asset": terms.asset.address(),
            ":payer": terms.payer,
            ":limit_units": terms.limit.to_be_bytes(),
            ":settle": self.settle.as_str(),
            ":state": self.state.name(),
            ":answer": mark_name(self.answer),
            ":answer_waits": self.waits.as_str(),
            ":admitted_at": millis(self.admitted_at),
            ":changed_at": millis(self.changed_at),
        };
        let seq: i64 = statement.query_row(values, |row| row.get("seq"))?;
        let mut statement = connection.prepare_cached(include_str!("sql/hold_terms.sql"))?;
        statement.execute(named_params! {
            ":seq": seq,
            ":route": terms.route,
            ":scheme": terms.scheme,
            ":pay_to": terms.pay_to,
            ":price_version": terms.price_version,
            ":settle_by": millis(terms.settle_by),
            ":payload": terms.payload,
            ":requirements": terms.requirements,
        })?;
        Ok(())
    }
}

/// A payment with its terms, from a join of both tables.
pub(super) fn read_stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredPayment> {
    let terms = terms(row)?;
    let it = Row::read(row)?;
    Ok(StoredPayment {
        terms,
        state: it.state,
        answer: it.answer,
        refund_owed: it.refund_owed,
        admitted_at: it.admitted_at,
        changed_at: it.changed_at,
    })
}

/// A payment as the port shows it, if there is one.
pub(super) fn find_stored(connection: &Connection, id: PaymentId) -> Done<Option<StoredPayment>> {
    let sql = "SELECT * FROM payments JOIN terms USING (seq) WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([id.as_bytes()], read_stored).optional()?)
}

/// A payment that is known to have a row.
pub(super) fn stored(connection: &Connection, id: PaymentId) -> Done<StoredPayment> {
    let found = find_stored(connection, id)?;
    found.ok_or_else(|| Fault::corrupt(format!("{id} has lost its terms")))
}

/// What a state carries, by column.
#[derive(Default)]
struct Columns<'a> {
    delivered: Option<[u8; 16]>,
    charge: Option<[u8; 16]>,
    transaction: Option<&'a str>,
    reason: Option<&'a str>,
    exposed: Option<[u8; 16]>,
}

impl<'a> Columns<'a> {
    fn of(state: &'a Payment) -> Self {
        let none = Self::default();
        let exposed = Some(state.exposure().to_be_bytes());
        match state {
            Payment::Held { .. } => Self { exposed, ..none },
            Payment::Serving { delivered, .. } => {
                Self { delivered: Some(delivered.to_be_bytes()), exposed, ..none }
            }
            Payment::Captured { charge } | Payment::Settling { charge } => {
                Self { charge: Some(charge.to_be_bytes()), exposed, ..none }
            }
            Payment::Unknown { charge, transaction } => {
                let transaction = transaction.as_deref();
                Self { charge: Some(charge.to_be_bytes()), transaction, exposed, ..none }
            }
            Payment::Settled { charge, transaction } => {
                Self { charge: Some(charge.to_be_bytes()), transaction: Some(transaction), ..none }
            }
            Payment::Released { why } => Self { reason: Some(why.as_str()), ..none },
            Payment::Lost { charge, reason } => {
                Self { charge: Some(charge.to_be_bytes()), reason: Some(reason), exposed, ..none }
            }
        }
    }
}

/// The asset of a row.
pub(super) fn asset(row: &rusqlite::Row<'_>) -> rusqlite::Result<Asset> {
    let network = word(row, "network", |it| Network::from_str(it).ok())?;
    word(row, "asset", |it| Asset::new(network, it).ok())
}

fn terms(row: &rusqlite::Row<'_>) -> rusqlite::Result<Terms> {
    Ok(Terms {
        id: id(row, "id")?,
        fingerprint: Digest::from_bytes(row.get("fingerprint")?),
        route: row.get("route")?,
        scheme: row.get("scheme")?,
        asset: asset(row)?,
        payer: row.get("payer")?,
        pay_to: row.get("pay_to")?,
        limit: amount(row, "limit_units")?.ok_or_else(|| bad("limit_units"))?,
        settle: word(row, "settle", SettleMode::parse)?,
        price_version: row.get("price_version")?,
        settle_by: time(row, "settle_by")?,
        payload: row.get("payload")?,
        requirements: row.get("requirements")?,
    })
}

fn state(row: &rusqlite::Row<'_>) -> rusqlite::Result<Payment> {
    let limit = || amount(row, "limit_units")?.ok_or_else(|| bad("limit_units"));
    let charge = || amount(row, "charge")?.ok_or_else(|| bad("charge"));
    let name = row.get_ref("state")?.as_str().map_err(|_| bad("state"))?;
    Ok(match name {
        "held" => Payment::Held { limit: limit()? },
        "serving" => {
            let delivered = amount(row, "delivered")?.ok_or_else(|| bad("delivered"))?;
            Payment::Serving { limit: limit()?, delivered }
        }
        "captured" => Payment::Captured { charge: charge()? },
        "settling" => Payment::Settling { charge: charge()? },
        "unknown" => Payment::Unknown { charge: charge()?, transaction: row.get("transaction")? },
        "settled" => Payment::Settled { charge: charge()?, transaction: row.get("transaction")? },
        "released" => Payment::Released { why: word(row, "reason", Release::parse)? },
        "lost" => Payment::Lost { charge: charge()?, reason: row.get("reason")? },
        _ => return Err(bad("state")),
    })
}
