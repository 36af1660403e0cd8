//! The book's rows in SQLite: the only place that turns one into the other.

use std::str::FromStr;

use farebox_billing::ledger::{Books, Parties};
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, named_params, params};

use crate::book::entry::{Entry, Line};
use crate::book::record::{Record, Waits};
use crate::book::settlements::{Settlement, Status};
use crate::book::{Bound, Shelf};
use crate::port::{AnswerMark, RequestKey, SettleMode, StoreError, StoredPayment, Terms};
use crate::sqlite::accounts;
use crate::sqlite::fault::{Done, Fault};

/// The rows of one transaction.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    /// On which they are.
    pub(super) connection: &'a Connection,
    /// The accounts, as this transaction has them; its owner writes what has changed.
    pub(super) books: &'a mut Books,
}

/// A payment with what its accounts are named by.
pub(super) const SELECT: &str =
    "SELECT p.*, t.route, t.pay_to FROM payments AS p JOIN terms AS t USING (seq)";

impl Shelf for Rows<'_> {
    type Fault = Fault;

    fn contradiction(fault: &Fault) -> Option<&StoreError> {
        match fault {
            Fault::Store(error @ (StoreError::Corrupt(_) | StoreError::Illegal(_))) => Some(error),
            Fault::Store(_) | Fault::Sqlite(_) => None,
        }
    }

    fn record(&mut self, id: PaymentId) -> Done<Option<Record>> {
        find(self.connection, id)
    }

    fn save(&mut self, record: &Record) -> Done<()> {
        let columns = Columns::of(&record.state);
        let mut statement =
            self.connection.prepare_cached(include_str!("sql/update_payment.sql"))?;
        let changed = statement.execute(named_params! {
            ":id": record.id.as_bytes(),
            ":generation": count(record.generation),
            ":state": record.state.name(),
            ":delivered": columns.delivered,
            ":charge": columns.charge,
            ":transaction": columns.transaction,
            ":reason": columns.reason,
            ":answer": mark_name(record.answer),
            ":answer_waits": record.waits.as_str(),
            ":refund_owed": record.refund_owed,
            ":reopened": record.reopened,
            ":exposed_units": columns.exposed,
            ":changed_at": millis(record.changed_at),
        })?;
        if changed == 1 {
            return Ok(());
        }
        Err(Fault::corrupt(format!("{} changed under its only writer", record.id)))
    }

    fn hold(&mut self, record: &Record, terms: &Terms) -> Done<()> {
        let mut statement = self.connection.prepare_cached(include_str!("sql/hold_payment.sql"))?;
        let values = named_params! {
            ":id": record.id.as_bytes(),
            ":fingerprint": record.fingerprint.as_bytes(),
            ":generation": count(record.generation),
            ":network": terms.asset.network().as_str(),
            ":asset": terms.asset.address(),
            ":payer": terms.payer,
            ":limit_units": terms.limit.to_be_bytes(),
            ":settle": record.settle.as_str(),
            ":state": record.state.name(),
            ":answer": mark_name(record.answer),
            ":answer_waits": record.waits.as_str(),
            ":admitted_at": millis(record.admitted_at),
            ":changed_at": millis(record.changed_at),
        };
        let seq: i64 = statement.query_row(values, |row| row.get("seq"))?;
        let mut statement = self.connection.prepare_cached(include_str!("sql/hold_terms.sql"))?;
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

    fn stored(&mut self, id: PaymentId) -> Done<Option<StoredPayment>> {
        find_stored(self.connection, id)
    }

    fn books(&mut self, parties: &Parties) -> Done<&mut Books> {
        for key in parties.accounts() {
            if self.books.account(&key).is_none() {
                let account = accounts::find(self.connection, &key)?;
                self.books.load_account(key, account);
            }
        }
        Ok(self.books)
    }

    fn bound(&mut self, name: Digest) -> Done<Option<Bound>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT payment, request FROM request_keys WHERE name = ?1")?;
        let read = |row: &rusqlite::Row<'_>| {
            let request = Digest::from_bytes(row.get("request")?);
            Ok(Bound { payment: id(row, "payment")?, request })
        };
        Ok(statement.query_row([name.as_bytes()], read).optional()?)
    }

    fn bind(&mut self, key: &RequestKey, payment: PaymentId) -> Done<()> {
        let mut statement =
            self.connection.prepare_cached(include_str!("sql/bind_request_key.sql"))?;
        statement.execute(named_params! {
            ":name": key.name.as_bytes(),
            ":payment": payment.as_bytes(),
            ":request": key.request.as_bytes(),
        })?;
        Ok(())
    }

    fn settlement(&mut self, id: PaymentId, generation: u64) -> Done<Option<Settlement>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM outbox WHERE payment = ?1 AND generation = ?2")?;
        let key = params![id.as_bytes(), count(generation)];
        Ok(statement.query_row(key, read_settlement).optional()?)
    }

    fn queue(&mut self, settlement: &Settlement) -> Done<()> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO outbox
                 (payment, generation, status, due_at, attempts, may_have_been_sent, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        statement.execute(params![
            settlement.payment.as_bytes(),
            count(settlement.generation),
            settlement.status.as_str(),
            millis(settlement.due_at),
            settlement.attempts,
            settlement.may_have_been_sent,
            millis(settlement.created_at),
        ])?;
        Ok(())
    }

    fn save_settlement(&mut self, settlement: &Settlement) -> Done<()> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE outbox
                SET status = ?3, due_at = ?4, attempts = ?5, may_have_been_sent = ?6,
                    \"transaction\" = ?7, outcome = ?8, watch_at = ?9
              WHERE payment = ?1 AND generation = ?2",
        )?;
        statement.execute(params![
            settlement.payment.as_bytes(),
            count(settlement.generation),
            settlement.status.as_str(),
            millis(settlement.due_at),
            settlement.attempts,
            settlement.may_have_been_sent,
            settlement.transaction,
            settlement.outcome,
            settlement.watch_at.map(millis),
        ])?;
        Ok(())
    }

    fn due(&mut self, now: Timestamp, far: Timestamp, max: usize) -> Done<Vec<Settlement>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM outbox WHERE status = 'queued' AND (due_at <= ?1 OR ?2 < due_at)
              ORDER BY due_at LIMIT ?3",
        )?;
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let rows =
            statement.query_map(params![millis(now), millis(far), limit], read_settlement)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn append(&mut self, id: PaymentId, entry: &Entry, now: Timestamp) -> Done<()> {
        let Line { event, amount, detail } = entry.line();
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO journal (payment, at, event, amount, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let amount = amount.map(Amount::to_be_bytes);
        statement.execute(params![id.as_bytes(), millis(now), event, amount, detail])?;
        Ok(())
    }

    fn open_records(&mut self) -> Done<Vec<Record>> {
        let open = "state IN ('held', 'serving', 'captured', 'settling', 'unknown')";
        records(self.connection, open)
    }

    fn unanswered_records(&mut self) -> Done<Vec<Record>> {
        records(self.connection, "state = 'settled' AND answer_waits <> 'no'")
    }
}

/// One operation without a writer.
#[cfg(test)]
pub(super) fn alone<T>(
    connection: &Connection,
    work: impl FnOnce(&mut Rows<'_>) -> Done<T>,
) -> Done<T> {
    let mut books = Books::new();
    let done = work(&mut Rows { connection, books: &mut books })?;
    accounts::keep(connection, &mut books)?;
    super::seals::Sealer::of_tests().seal(connection)?;
    Ok(done)
}

/// A payment, if there is one.
pub(super) fn find(connection: &Connection, id: PaymentId) -> Done<Option<Record>> {
    let mut statement = connection.prepare_cached(
        "SELECT p.*, t.route, t.pay_to FROM payments AS p JOIN terms AS t USING (seq)
          WHERE id = ?1",
    )?;
    Ok(statement.query_row([id.as_bytes()], read_record).optional()?)
}

fn records(connection: &Connection, which: &str) -> Done<Vec<Record>> {
    let mut statement = connection.prepare(&format!("{SELECT} WHERE {which}"))?;
    let rows = statement.query_map([], read_record)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Settled payments that have to be looked at by `now` or not before `far`.
pub(super) fn watched(
    connection: &Connection,
    (now, far): (Timestamp, Timestamp),
    max: usize,
) -> Done<Vec<StoredPayment>> {
    let mut statement = connection.prepare_cached(include_str!("sql/watched.sql"))?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![millis(now), millis(far), limit], read_stored)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// When the next queued settlement is due, or the next watched one is to be looked at.
pub(super) fn next_due(connection: &Connection) -> Done<Option<Timestamp>> {
    let mut first = None;
    for sql in [
        "SELECT due_at FROM outbox WHERE status = 'queued' ORDER BY due_at LIMIT 1",
        "SELECT watch_at AS due_at FROM outbox WHERE watch_at IS NOT NULL
          ORDER BY watch_at LIMIT 1",
    ] {
        let mut statement = connection.prepare_cached(sql)?;
        let due = statement.query_row([], |row| time(row, "due_at")).optional()?;
        first = first.into_iter().chain(due).min();
    }
    Ok(first)
}

/// From a join of `payments` with its terms.
pub(super) fn read_record(row: &rusqlite::Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: id(row, "id")?,
        fingerprint: Digest::from_bytes(row.get("fingerprint")?),
        generation: unsigned(row, "generation")?,
        settle: word(row, "settle", SettleMode::parse)?,
        reopened: u32::try_from(unsigned(row, "reopened")?).unwrap_or(u32::MAX),
        parties: parties(row)?,
        state: state(row)?,
        answer: word(row, "answer", parse_mark)?,
        waits: word(row, "answer_waits", Waits::parse)?,
        refund_owed: row.get("refund_owed")?,
        admitted_at: time(row, "admitted_at")?,
        changed_at: time(row, "changed_at")?,
    })
}

/// A settlement from a row of the queue.
pub(super) fn read_settlement(row: &rusqlite::Row<'_>) -> rusqlite::Result<Settlement> {
    let attempts = unsigned(row, "attempts")?;
    Ok(Settlement {
        payment: id(row, "payment")?,
        generation: unsigned(row, "generation")?,
        status: word(row, "status", Status::parse)?,
        due_at: time(row, "due_at")?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        may_have_been_sent: row.get("may_have_been_sent")?,
        transaction: row.get("transaction")?,
        outcome: row.get("outcome")?,
        created_at: time(row, "created_at")?,
        watch_at: optional_time(row, "watch_at")?,
    })
}

/// A line of the journal, from a row with `payment`, `event`, `amount` and `detail`.
pub(super) fn read_entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<(PaymentId, Entry)> {
    let text = |column| row.get_ref(column)?.as_str_or_null().map_err(|_| bad(column));
    let event = text("event")?.ok_or_else(|| bad("event"))?;
    let line = Line { event, amount: amount(row, "amount")?, detail: text("detail")? };
    Ok((id(row, "payment")?, Entry::read(line).map_err(|it| bad(it.0))?))
}

/// A payment with its terms, from a join of both tables.
pub(super) fn read_stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredPayment> {
    let terms = terms(row)?;
    let it = read_record(row)?;
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

/// The stored name of a mark.
fn mark_name(mark: AnswerMark) -> &'static str {
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

/// A time from a column that may have none.
fn optional_time(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    let found: Option<i64> = row.get(column)?;
    found.map(|_| time(row, column)).transpose()
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
        limit: limit(row)?,
        settle: word(row, "settle", SettleMode::parse)?,
        price_version: row.get("price_version")?,
        settle_by: time(row, "settle_by")?,
        payload: row.get("payload")?,
        requirements: row.get("requirements")?,
    })
}

fn state(row: &rusqlite::Row<'_>) -> rusqlite::Result<Payment> {
    let limit = || limit(row);
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

/// The parties of a row.
pub(super) fn parties(row: &rusqlite::Row<'_>) -> rusqlite::Result<Parties> {
    let name = |column| text(row, column);
    Ok(Parties::new(asset(row)?, name("payer")?, name("pay_to")?, name("route")?))
}

fn text<'a>(row: &'a rusqlite::Row<'_>, column: &str) -> rusqlite::Result<&'a str> {
    row.get_ref(column)?.as_str().map_err(|_| bad(column))
}

fn limit(row: &rusqlite::Row<'_>) -> rusqlite::Result<Amount> {
    amount(row, "limit_units")?.ok_or_else(|| bad("limit_units"))
}
