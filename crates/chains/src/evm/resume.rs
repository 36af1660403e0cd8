//! Going on after the end of an earlier process: what it had signed is on its way, or will be.
//!
//! Nothing is signed on a network before what was kept of it is known: a payment could be under way, and a
//! number of a signer taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::address::EvmAddress;
use super::batches::Landed;
use super::broadcast::NotSent;
use super::chain::Chain;
use super::check::EvmPayment;
use super::contracts::MULTICALL3;
use super::flights::{Outcome, Pilot};
use super::tracker::{Fate, UnderWay};
use super::transaction::SignedTransaction;
use crate::transaction_log::{LoggedTransaction, TransactionLog};

/// The pause before a log that cannot be read is read again.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether what was kept is known, and where it is kept.
#[derive(Debug)]
pub(crate) struct Resumption {
    log: Arc<dyn TransactionLog>,
    done: OnceCell<()>,
}

impl Resumption {
    pub(super) fn new(log: Arc<dyn TransactionLog>) -> Self {
        Self { log, done: OnceCell::new() }
    }
}

/// The transactions of one number, in the order in which they were signed.
type Versions = Vec<LoggedTransaction>;

impl Chain {
    /// Returns once what was kept is known.
    pub(super) async fn resumed(&self) -> Result<(), NotSent> {
        self.resumption.done.get_or_try_init(|| self.resume()).await.copied()
    }

    /// Does not wait for somebody who asks.
    pub(super) async fn resume_at_last(self: Arc<Self>, stop: CancellationToken) {
        let resume = async {
            while let Err(error) = self.resumed().await {
                tracing::error!(network = %self.network(), %error, "nothing can be settled yet");
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _stopped = stop.run_until_cancelled(resume).await;
    }

    async fn resume(&self) -> Result<(), NotSent> {
        let open = self.resumption.log.open(self.network()).await;
        let open = open.map_err(|error| NotSent::Resume(error.to_string()))?;
        let mut all = Vec::new();
        for versions in by_number(open) {
            let Some(first) = versions.first() else { continue };
            let Some(signer) = self.signers.of(first.sender.alloy()) else {
                let (sender, nonce) = (first.sender, first.nonce);
                tracing::warn!(%sender, nonce, "left alone: its signer is not configured any more");
                continue;
            };
            let restored =
                versions.iter().map(|it| SignedTransaction::restore(it, signer, self.chain_id()));
            let restored: Result<Vec<_>, _> = restored.collect();
            all.push(restored.map_err(|error| NotSent::Resume(error.to_string()))?);
        }
        let newest: Vec<_> = all.into_iter().filter_map(|it| self.tracker.adopt(it)).collect();
        if !newest.is_empty() {
            let send = Arc::clone(&self.tracker).send_adopted(newest);
            let stop = self.stop.clone();
            self.tasks.spawn(async move { stop.run_until_cancelled_owned(send).await });
        }
        Ok(())
    }

    /// What becomes of a payment for which a transaction is on its way; `None` where that one certainly did
    /// not settle it, and nothing else can.
    pub(super) async fn follow(
        self: &Arc<Self>,
        payment: &EvmPayment,
        pilot: &Pilot,
        under_way: UnderWay,
    ) -> Option<Outcome> {
        let UnderWay { transaction, call, fate } = under_way;
        pilot.sent(Some(transaction));
        let outcome = match fate.await {
            Ok(Fate::Mined(receipt)) if call.to == MULTICALL3 => {
                self.after(payment, &Landed { call, receipt }).await
            }
            Ok(fate) => Some(self.learn_fate(payment, &call, (transaction, Some(fate))).await),
            Err(_) => Some(Outcome::Unknown { transaction: Some(transaction) }),
        };
        if outcome.is_none() {
            pilot.sent(None);
        }
        outcome
    }
}

/// Groups of one sender and number each, in the order of their numbers.
fn by_number(open: Vec<LoggedTransaction>) -> Vec<Versions> {
    let mut groups: BTreeMap<(EvmAddress, u64), Versions> = BTreeMap::new();
    for transaction in open {
        groups.entry((transaction.sender, transaction.nonce)).or_default().push(transaction);
    }
    groups.into_values().collect()
}
