//! The log of signed transactions, in the same batches as everything else: a node that was fenced keeps
//! nothing, and so sends nothing.

use async_trait::async_trait;
use farebox_protocol::Network;

use crate::port::StoreError;
use crate::postgres::PostgresLedger;
use crate::postgres::loaded::Loaded;
use crate::postgres::work::Asked;
use crate::transactions::{KeptTransaction, TransactionFate, Transactions};

/// Each node has its own: two nodes must not sign with the same account.
#[async_trait]
impl Transactions for PostgresLedger {
    async fn record(&self, transaction: KeptTransaction) -> Result<(), StoreError> {
        let work = move |it: &mut Loaded| {
            it.record_transaction(transaction.clone());
            Ok(())
        };
        self.writer.call(Asked::new(Vec::new(), work)).await
    }

    async fn open(&self, network: &Network) -> Result<Vec<KeptTransaction>, StoreError> {
        self.reader.open_transactions(network).await
    }

    async fn end(&self, ended: Vec<([u8; 32], TransactionFate)>) -> Result<(), StoreError> {
        let work = move |it: &mut Loaded| {
            it.end_transactions(&ended);
            Ok(())
        };
        self.writer.call(Asked::new(Vec::new(), work)).await
    }
}
