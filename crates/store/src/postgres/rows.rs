//! The book's rows in PostgreSQL: the only place that reads one into the other.

use std::str::FromStr;

use farebox_billing::ledger::{Account, AccountKey, AccountName, Parties};
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::book::entry::{Entry, Line};
use crate::book::record::{Record, Waits};
use crate::book::settlements::{Settlement, Status};
use crate::port::{AnswerMark, SettleMode, StoredPayment, Terms};
use crate::postgres::fault::Trouble;
use crate::postgres::numeric::Units;
use crate::transactions::KeptTransaction;

/// The result of reading a row.
pub(super) type Read<T> = Result<T, Trouble>;

/// A payment with the node whose business it is.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    pub(super) record: Record,
    pub(super) limit: Amount,
    pub(super) node: String,
}

/// From a row of `payments`.
pub(super) fn record(row: &Row) -> Read<Owned> {
    let record = Record {
        id: id(row, "id")?,
        fingerprint: Digest::from_bytes(array(row, "fingerprint")?),
        generation: unsigned(row, "generation")?,
        reopened: small(row, "reopened")?,
        settle: word(row, "settle", SettleMode::parse)?,
        parties: parties(row)?,
        state: state(row)?,
        answer: word(row, "answer", parse_mark)?,
        waits: word(row, "answer_waits", Waits::parse)?,
        refund_owed: get(row, "refund_owed")?,
        admitted_at: time(row, "admitted_at")?,
        changed_at: time(row, "changed_at")?,
    };
    Ok(Owned { record, limit: limit(row)?, node: get(row, "node")? })
}

/// From a row of `payments` with its `terms`.
pub(super) fn terms(row: &Row) -> Read<Terms> {
    Ok(Terms {
        id: id(row, "id")?,
        fingerprint: Digest::from_bytes(array(row, "fingerprint")?),
        route: get(row, "route")?,
        scheme: get(row, "scheme")?,
        asset: asset(row)?,
        payer: get(row, "payer")?,
        pay_to: get(row, "pay_to")?,
        limit: limit(row)?,
        settle: word(row, "settle", SettleMode::parse)?,
        price_version: get(row, "price_version")?,
        settle_by: time(row, "settle_by")?,
        payload: get(row, "payload")?,
        requirements: get(row, "requirements")?,
    })
}

/// From a row of `payments` with its `terms`.
pub(super) fn stored(row: &Row) -> Read<StoredPayment> {
    Ok(with_terms(record(row)?.record, terms(row)?))
}

/// A payment as the port shows it.
pub(super) fn with_terms(record: Record, terms: Terms) -> StoredPayment {
    StoredPayment {
        terms,
        state: record.state,
        answer: record.answer,
        refund_owed: record.refund_owed,
        admitted_at: record.admitted_at,
        changed_at: record.changed_at,
    }
}

/// From a row of `outbox`, with its transaction in the column of that name.
pub(super) fn settlement(
    row: &Row,
    payment: &'static str,
    transaction: &'static str,
) -> Read<Settlement> {
    Ok(Settlement {
        payment: id(row, payment)?,
        generation: unsigned(row, "generation")?,
        status: word(row, "status", Status::parse)?,
        due_at: time(row, "due_at")?,
        attempts: small(row, "attempts")?,
        may_have_been_sent: get(row, "may_have_been_sent")?,
        transaction: get(row, transaction)?,
        outcome: get(row, "outcome")?,
        created_at: time(row, "created_at")?,
        watch_at: optional_time(row, "watch_at")?,
    })
}

/// From a row of `accounts`.
pub(super) fn account(row: &Row) -> Read<(AccountKey, Account)> {
    let side = |column| get::<Units>(row, column).map(|it| it.0);
    let name = word(row, "name", |it| AccountName::from_str(it).ok())?;
    let account = Account {
        debits_pending: side("debits_pending")?,
        debits_posted: side("debits_posted")?,
        credits_pending: side("credits_pending")?,
        credits_posted: side("credits_posted")?,
    };
    Ok((AccountKey { asset: asset(row)?, name }, account))
}

/// A line of the journal, from a row with `payment`, `event`, `amount` and `detail`.
pub(super) fn entry(row: &Row) -> Read<(PaymentId, Entry)> {
    let event: &str = get(row, "event")?;
    let amount = get::<Option<Units>>(row, "amount")?.map(|it| it.0);
    let line = Line { event, amount, detail: get(row, "detail")? };
    let entry = Entry::read(line).map_err(|it| Trouble::Column(it.0))?;
    Ok((id(row, "payment")?, entry))
}

/// From a row of `transactions` with its bytes.
pub(super) fn transaction(row: &Row, network: &Network) -> Read<KeptTransaction> {
    let (ids, rest) = get::<&[u8]>(row, "payments")?.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Trouble::Column("payments"));
    }
    let sender = get::<&[u8]>(row, "sender")?.try_into();
    Ok(KeptTransaction {
        network: network.clone(),
        sender: sender.map_err(|_| Trouble::Column("sender"))?,
        nonce: unsigned(row, "nonce")?,
        hash: array(row, "hash")?,
        raw: get(row, "raw")?,
        payments: ids.iter().map(|it| PaymentId::from_bytes(*it)).collect(),
        depth: small(row, "depth")?,
    })
}

fn state(row: &Row) -> Read<Payment> {
    let amount = |column| -> Read<Amount> {
        get::<Option<Units>>(row, column)?.map(|it| it.0).ok_or(Trouble::Column(column))
    };
    let text = |column| -> Read<String> {
        get::<Option<String>>(row, column)?.ok_or(Trouble::Column(column))
    };
    let charge = || amount("charge");
    Ok(match get(row, "state")? {
        "held" => Payment::Held { limit: limit(row)? },
        "serving" => Payment::Serving { limit: limit(row)?, delivered: amount("delivered")? },
        "captured" => Payment::Captured { charge: charge()? },
        "settling" => Payment::Settling { charge: charge()? },
        "unknown" => Payment::Unknown { charge: charge()?, transaction: get(row, "transaction")? },
        "settled" => Payment::Settled { charge: charge()?, transaction: text("transaction")? },
        "released" => Payment::Released { why: word(row, "reason", Release::parse)? },
        "lost" => Payment::Lost { charge: charge()?, reason: text("reason")? },
        _ => return Err(Trouble::Column("state")),
    })
}

/// From a row with `network`, `asset`, `payer`, `pay_to` and `route`.
pub(super) fn parties(row: &Row) -> Read<Parties> {
    Ok(Parties::new(asset(row)?, get(row, "payer")?, get(row, "pay_to")?, get(row, "route")?))
}

/// From a row with `network` and `asset`.
fn asset(row: &Row) -> Read<Asset> {
    let network = word(row, "network", |it| Network::from_str(it).ok())?;
    word(row, "asset", |it| Asset::new(network, it).ok())
}

fn limit(row: &Row) -> Read<Amount> {
    get::<Units>(row, "limit_units").map(|it| it.0)
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

/// Milliseconds as a `bigint`; saturates in the year 292 million.
pub(super) fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.millis()).unwrap_or(i64::MAX)
}

/// A count as a `bigint`.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column that is there, of a type that was asked for.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &'static str) -> Read<T> {
    row.try_get(column).map_err(|_| Trouble::Column(column))
}

/// A time from a column.
pub(super) fn time(row: &Row, column: &'static str) -> Read<Timestamp> {
    unsigned(row, column).map(Timestamp::from_millis)
}

/// A time from a column that may have none.
pub(super) fn optional_time(row: &Row, column: &'static str) -> Read<Option<Timestamp>> {
    let found: Option<i64> = get(row, column)?;
    found.map(|_| time(row, column)).transpose()
}

/// A number that is never negative from a column.
pub(super) fn unsigned(row: &Row, column: &'static str) -> Read<u64> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| Trouble::Column(column))
}

fn small(row: &Row, column: &'static str) -> Read<u32> {
    Ok(u32::try_from(unsigned(row, column)?).unwrap_or(u32::MAX))
}

/// An id from a column.
pub(super) fn id(row: &Row, column: &'static str) -> Read<PaymentId> {
    array(row, column).map(PaymentId::from_bytes)
}

/// Thirty-two bytes from a column.
pub(super) fn array(row: &Row, column: &'static str) -> Read<[u8; 32]> {
    get::<&[u8]>(row, column)?.try_into().map_err(|_| Trouble::Column(column))
}

fn word<T>(row: &Row, column: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Read<T> {
    parse(get(row, column)?).ok_or(Trouble::Column(column))
}
