//! The port to where signed transactions are kept: each before it is broadcast for the first time, so that
//! whatever ends the process, the very same bytes are sent again and nothing else is signed in their place.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use farebox_protocol::{Network, PaymentId};

use crate::evm::EvmAddress;

/// Keeps what may be on its way to a chain. One log belongs to one process at a time.
#[async_trait]
pub trait TransactionLog: Send + Sync + fmt::Debug + 'static {
    /// Keeps a transaction, durably once `Ok`. Recorded again, it changes nothing. After an error
    /// nobody knows whether it is kept; it must not be sent then.
    async fn record(&self, transaction: &LoggedTransaction) -> Result<(), LogError>;

    /// Those on a network that have not ended, in the order in which they were recorded.
    async fn open(&self, network: &Network) -> Result<Vec<LoggedTransaction>, LogError>;

    /// Nothing has to be sent for these (by their hashes) any more. One that is not kept or has ended
    /// already is passed over. If this is lost, they are found to have ended once more.
    async fn end(
        &self,
        network: &Network,
        ended: &[([u8; 32], TransactionEnd)],
    ) -> Result<(), LogError>;
}

/// A signed transaction, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedTransaction {
    /// Where it is valid.
    pub network: Network,
    /// Who signed it.
    pub sender: EvmAddress,
    /// Its number among those of the sender. Several share one where the price had to be raised; no more
    /// than one of them can land.
    pub nonce: u64,
    /// Its name.
    pub hash: [u8; 32],
    /// What is broadcast: the EIP-2718 envelope.
    pub raw: Vec<u8>,
    /// The payments that it settles.
    pub payments: Vec<PaymentId>,
    /// How many blocks must hold it, its own counted, until it need not be sent again.
    pub depth: u32,
}

/// Why nothing has to be sent for a transaction any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionEnd {
    /// A block holds it, as deep as it takes.
    Mined,
    /// A block holds another with its number.
    Superseded,
    /// It was kept, and certainly never sent.
    NotSent,
}

impl TransactionEnd {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mined => "mined",
            Self::Superseded => "superseded",
            Self::NotSent => "not_sent",
        }
    }
}

/// The log could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("the log of signed transactions cannot be used: {0}")]
pub struct LogError(#[source] pub Box<dyn Error + Send + Sync>);

/// With so many kept, those that have ended are let go.
const MEMORY_MAX: usize = 65_536;

/// A log that ends with the process: for tests, and for chains of test money that end with it, too.
#[derive(Debug, Default)]
pub struct MemoryTransactionLog(Mutex<Rows>);

#[derive(Debug, Default)]
struct Rows {
    next: usize,
    by_hash: HashMap<[u8; 32], Row>,
}

#[derive(Clone, Debug)]
struct Row {
    place: usize,
    transaction: LoggedTransaction,
    end: Option<TransactionEnd>,
}

impl MemoryTransactionLog {
    /// What was recorded, and how it ended, in the order of recording.
    pub fn all(&self) -> Vec<(LoggedTransaction, Option<TransactionEnd>)> {
        let mut rows: Vec<Row> = self.rows().by_hash.values().cloned().collect();
        rows.sort_by_key(|it| it.place);
        rows.into_iter().map(|it| (it.transaction, it.end)).collect()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TransactionLog for MemoryTransactionLog {
    async fn record(&self, transaction: &LoggedTransaction) -> Result<(), LogError> {
        let mut rows = self.rows();
        if MEMORY_MAX <= rows.by_hash.len() {
            rows.by_hash.retain(|_, it| it.end.is_none());
        }
        let place = rows.next;
        rows.next = place.saturating_add(1);
        let row = || Row { place, transaction: transaction.clone(), end: None };
        rows.by_hash.entry(transaction.hash).or_insert_with(row);
        Ok(())
    }

    async fn open(&self, network: &Network) -> Result<Vec<LoggedTransaction>, LogError> {
        let open =
            self.all().into_iter().filter(|(it, end)| it.network == *network && end.is_none());
        Ok(open.map(|(it, _)| it).collect())
    }

    async fn end(
        &self,
        network: &Network,
        ended: &[([u8; 32], TransactionEnd)],
    ) -> Result<(), LogError> {
        let mut rows = self.rows();
        for (hash, end) in ended {
            if let Some(row) = rows.by_hash.get_mut(hash)
                && row.transaction.network == *network
            {
                row.end.get_or_insert(*end);
            }
        }
        Ok(())
    }
}
