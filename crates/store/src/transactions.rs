//! The port to the log of signed transactions: what may be on its way to a chain.

use std::fmt;

use async_trait::async_trait;
use farebox_protocol::{Network, PaymentId};

use crate::port::StoreError;

/// Keeps signed transactions from before they are sent until nobody needs their bytes any more.
#[async_trait]
pub trait Transactions: Send + Sync + fmt::Debug + 'static {
    /// Keeps one; `Ok` means durable. Recorded again, it changes nothing.
    async fn record(&self, transaction: KeptTransaction) -> Result<(), StoreError>;

    /// Those on a network that have not ended, in the order in which they were recorded.
    async fn open(&self, network: &Network) -> Result<Vec<KeptTransaction>, StoreError>;

    /// How transactions ended, by their hashes. What is not kept or has ended already is passed over.
    async fn end(&self, ended: Vec<([u8; 32], TransactionFate)>) -> Result<(), StoreError>;
}

/// A signed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTransaction {
    /// Where it is valid.
    pub network: Network,
    /// Who signed it.
    pub sender: [u8; 20],
    /// Its number among those of the sender; several may share one, of which one can land.
    pub nonce: u64,
    /// Its name.
    pub hash: [u8; 32],
    /// What is broadcast.
    pub raw: Vec<u8>,
    /// The payments that it settles.
    pub payments: Vec<PaymentId>,
    /// How many blocks must hold it until it is final.
    pub depth: u32,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionFate {
    /// A block holds it for good.
    Mined,
    /// Another took its number.
    Superseded,
    /// It was never sent.
    NotSent,
}

impl TransactionFate {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mined => "mined",
            Self::Superseded => "superseded",
            Self::NotSent => "not_sent",
        }
    }
}
