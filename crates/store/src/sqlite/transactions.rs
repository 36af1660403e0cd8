//! The log of signed transactions in the ledger's file, or in one of its own.

use async_trait::async_trait;
use farebox_protocol::{Network, PaymentId};
use rusqlite::{Connection, params};

use crate::port::StoreError;
use crate::sqlite::SqliteLedger;
use crate::sqlite::fault::Done;
use crate::sqlite::rows::{bad, unsigned};
use crate::sqlite::work::Asked;
use crate::transactions::{KeptTransaction, TransactionFate, Transactions};

const PAYMENT_BYTES: usize = 32;

#[async_trait]
impl Transactions for SqliteLedger {
    async fn record(&self, transaction: KeptTransaction) -> Result<(), StoreError> {
        self.writer.call(Asked::new(move |it| record(it.connection, &transaction))).await
    }

    async fn open(&self, network: &Network) -> Result<Vec<KeptTransaction>, StoreError> {
        let network = network.clone();
        self.readers.query(move |it| open(it, &network)).await
    }

    async fn end(&self, ended: Vec<([u8; 32], TransactionFate)>) -> Result<(), StoreError> {
        self.writer.call(Asked::new(move |it| end(it.connection, &ended))).await
    }
}

fn record(connection: &Connection, it: &KeptTransaction) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO transactions (hash, network, sender, nonce, raw, payments, depth)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (hash) DO NOTHING",
    )?;
    let payments: Vec<u8> = it.payments.iter().flat_map(|it| *it.as_bytes()).collect();
    // A chain counts no account's transactions that far.
    let nonce = i64::try_from(it.nonce).unwrap_or(i64::MAX);
    let network = it.network.as_str();
    statement.execute(params![it.hash, network, it.sender, nonce, it.raw, payments, it.depth])?;
    Ok(())
}

fn open(connection: &Connection, network: &Network) -> Done<Vec<KeptTransaction>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM transactions WHERE network = ?1 AND ended IS NULL ORDER BY seq",
    )?;
    let rows = statement.query_map([network.as_str()], |row| {
        Ok(KeptTransaction {
            network: network.clone(),
            sender: row.get("sender")?,
            nonce: unsigned(row, "nonce")?,
            hash: row.get("hash")?,
            raw: row.get("raw")?,
            payments: payments(row)?,
            depth: row.get("depth")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn payments(row: &rusqlite::Row<'_>) -> rusqlite::Result<Vec<PaymentId>> {
    let bytes: Vec<u8> = row.get("payments")?;
    let (ids, rest) = bytes.as_chunks::<PAYMENT_BYTES>();
    if rest.is_empty() {
        Ok(ids.iter().map(|it| PaymentId::from_bytes(*it)).collect())
    } else {
        Err(bad("payments"))
    }
}

fn end(connection: &Connection, ended: &[([u8; 32], TransactionFate)]) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE transactions SET ended = ?2, raw = NULL WHERE hash = ?1 AND ended IS NULL",
    )?;
    for (hash, fate) in ended {
        statement.execute(params![hash, fate.as_str()])?;
    }
    Ok(())
}
