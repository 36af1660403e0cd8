//! Where this process keeps what it signs for a chain: in the ledger's file, or in one of its own.

use std::sync::Arc;

use async_trait::async_trait;
use farebox_chains::{EvmAddress, LogError, LoggedTransaction, TransactionEnd, TransactionLog};
use farebox_protocol::Network;
use farebox_store::{KeptTransaction, StoreError, TransactionFate, Transactions};

/// The log of a facilitator, kept by a store.
#[derive(Debug)]
pub struct KeptTransactions(Arc<dyn Transactions>);

impl KeptTransactions {
    /// A log in that store. No other process may have it.
    pub fn new(store: Arc<dyn Transactions>) -> Arc<Self> {
        Arc::new(Self(store))
    }
}

#[async_trait]
impl TransactionLog for KeptTransactions {
    async fn record(&self, transaction: &LoggedTransaction) -> Result<(), LogError> {
        let it = transaction.clone();
        let kept = KeptTransaction {
            network: it.network,
            sender: *it.sender.as_bytes(),
            nonce: it.nonce,
            hash: it.hash,
            raw: it.raw,
            payments: it.payments,
            depth: it.depth,
        };
        self.0.record(kept).await.map_err(failed)
    }

    async fn open(&self, network: &Network) -> Result<Vec<LoggedTransaction>, LogError> {
        let open = self.0.open(network).await.map_err(failed)?;
        let logged = open.into_iter().map(|it| LoggedTransaction {
            network: it.network,
            sender: EvmAddress::from_bytes(it.sender),
            nonce: it.nonce,
            hash: it.hash,
            raw: it.raw,
            payments: it.payments,
            depth: it.depth,
        });
        Ok(logged.collect())
    }

    async fn end(
        &self,
        _network: &Network,
        ended: &[([u8; 32], TransactionEnd)],
    ) -> Result<(), LogError> {
        let fate = |it: TransactionEnd| match it {
            TransactionEnd::Mined => TransactionFate::Mined,
            TransactionEnd::Superseded => TransactionFate::Superseded,
            TransactionEnd::NotSent => TransactionFate::NotSent,
        };
        let ended = ended.iter().map(|(hash, end)| (*hash, fate(*end))).collect();
        self.0.end(ended).await.map_err(failed)
    }
}

fn failed(error: StoreError) -> LogError {
    LogError(Box::new(error))
}
