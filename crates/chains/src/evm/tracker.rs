//! One watcher for each network: it looks for the receipts of all transactions on their way, in batches,
//! as often as the block time makes sense, and sees to it that none is forgotten by the nodes.
//!
//! An account's transactions are mined in the order of their numbers, so a look begins with the lowest
//! ones and goes on while it finds them mined: with many on their way that is a receipt or two for each,
//! not one for each of them at every look.

mod items;
mod landed;
mod upkeep;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy_primitives::{B256, U256};
use farebox_protocol::{Network, PaymentId};
use serde_json::json;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::items::{Item, Items};
use super::fees::FeeOracle;
use super::flights::Flights;
use super::method::ContractCall;
use super::signers::Signers;
use super::transaction::SignedTransaction;
use crate::rpc::{Call, Receipt, RpcClient, RpcError, quantity};
use crate::transaction_log::{LogError, TransactionEnd, TransactionLog};

/// How often receipts are looked for: ten times a block, within these bounds.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(250);
/// For how many transactions of an account a look asks first, and how many times that next.
const LINE: usize = 2;
const LINE_GROWTH: usize = 4;

/// What became of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It is in a block, as deep as configured.
    Mined(Receipt),
    /// Another transaction of the account took its number: it never will be.
    Superseded,
}

/// A transaction on its way that settles some payment.
#[derive(Debug)]
pub(crate) struct UnderWay {
    /// The one that was sent last.
    pub(crate) transaction: B256,
    pub(crate) call: ContractCall,
    pub(crate) fate: oneshot::Receiver<Fate>,
}

/// Transactions on their way, and whoever waits for them.
#[derive(Debug)]
pub(crate) struct Tracker {
    parts: TrackerParts,
    items: Mutex<Items>,
    heads: Mutex<Heads>,
    wake: Notify,
}

/// How high the chain is.
#[derive(Debug, Default)]
struct Heads {
    latest: U256,
    /// At the last round of upkeep.
    upkept: U256,
}

/// What a tracker is made of.
#[derive(Debug)]
pub(crate) struct TrackerParts {
    pub(crate) rpc: RpcClient,
    pub(crate) fees: Arc<FeeOracle>,
    pub(crate) signers: Arc<Signers>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) log: Arc<dyn TransactionLog>,
    pub(crate) network: Network,
    pub(crate) chain_id: u64,
    pub(crate) block_time: Duration,
    /// How many blocks must hold a transaction until those who wait are told.
    pub(crate) confirmations: u32,
}

impl Tracker {
    pub(crate) fn new(parts: TrackerParts) -> Self {
        let confirmations = parts.confirmations.max(1);
        Self {
            parts: TrackerParts { confirmations, ..parts },
            items: Mutex::default(),
            heads: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// How long between two looks.
    pub(crate) fn poll_interval(&self) -> Duration {
        let tenth = self.parts.block_time.checked_div(10).unwrap_or_default();
        tenth.clamp(POLL_MIN, POLL_MAX)
    }

    /// Keeps a transaction that is about to be sent.
    pub(crate) async fn keep(&self, transaction: &SignedTransaction) -> Result<(), LogError> {
        self.parts.log.record(&transaction.logged(&self.parts.network)).await
    }

    /// Watches a transaction from before it is sent. The fate comes when it is certain.
    pub(crate) fn watch(&self, transaction: SignedTransaction) -> oneshot::Receiver<Fate> {
        let (waiter, fate) = oneshot::channel();
        self.insert(Item::new(transaction, Some(waiter)));
        fate
    }

    /// The transaction was sent, or may have been; from now on it is looked after.
    pub(crate) fn launched(&self, transaction: &B256) {
        self.with(|items| items.change(transaction, |it| it.launched = true));
    }

    /// The transaction certainly was not sent.
    pub(crate) async fn forget(&self, transaction: &B256) {
        self.with(|items| items.remove(transaction));
        self.end(&[(transaction.0, TransactionEnd::NotSent)]).await;
    }

    /// What is on its way for a payment.
    pub(crate) fn follow(&self, payment: PaymentId) -> Option<UnderWay> {
        self.with(|items| {
            let item = items.carrying(payment)?;
            let (waiter, fate) = oneshot::channel();
            let under_way = UnderWay { transaction: item.newest()?.hash, call: item.call()?, fate };
            match &item.landed {
                None => item.waiters.push(waiter),
                // It was told before, and may be asked for again.
                Some(landed) if landed.receipt.succeeded() => {
                    waiter.send(item.fate_of(&landed.receipt)).ok()?;
                }
                // It moved nothing.
                Some(_) => return None,
            }
            Some(under_way)
        })
    }

    /// Goes on with what an earlier process sent, or was about to: the versions of one transaction, in the
    /// order in which they were signed. It returns the one to send again, for it may never have been.
    pub(crate) fn adopt(&self, versions: Vec<SignedTransaction>) -> Option<SignedTransaction> {
        let newest = versions.last().cloned()?;
        newest.signer.nonces.on_its_way(newest.nonce());
        self.insert(Item::adopted(versions));
        Some(newest)
    }

    /// Sends again what was adopted, one after the other. What the nodes answer is no news: they may know
    /// it, or have it in a block. The next look tells.
    pub(crate) async fn send_adopted(self: Arc<Self>, transactions: Vec<SignedTransaction>) {
        for it in transactions {
            let sent = self.parts.rpc.send_raw(&it.raw).await;
            tracing::info!(transaction = %it.hash, nonce = it.nonce(), ?sent, "sent again");
        }
    }

    async fn end(&self, ended: &[([u8; 32], TransactionEnd)]) {
        if ended.is_empty() {
            return;
        }
        if let Err(error) = self.parts.log.end(&self.parts.network, ended).await {
            // Found to have ended once more after the next start.
            tracing::warn!(%error, "that transactions have ended was not kept");
        }
    }

    fn insert(&self, item: Item) {
        self.with(|items| items.insert(item));
        self.wake.notify_one();
    }

    fn with<T>(&self, act: impl FnOnce(&mut Items) -> T) -> T {
        act(&mut self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs until told to stop. Sleeps while nothing is on its way.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let _stopped = stop.run_until_cancelled_owned(self.look_for_ever()).await;
    }

    async fn look_for_ever(&self) {
        let interval = self.poll_interval();
        let mut last_upkeep = Instant::now();
        loop {
            if self.with(|items| items.is_empty()) {
                self.wake.notified().await;
                continue;
            }
            let begun = Instant::now();
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "receipts could not be looked for");
            }
            // A node that takes long to answer has enough to do.
            let rest = interval.max(begun.elapsed());
            if self.upkeep_interval() <= last_upkeep.elapsed() {
                self.keep_up().await;
                last_upkeep = Instant::now();
            }
            tokio::time::sleep(rest).await;
        }
    }

    /// One look: at what lies in a block, at the next transactions of each account, and at more of
    /// them as long as they turn out to be mined.
    async fn look(&self) -> Result<(), RpcError> {
        let mut asked = HashSet::new();
        let mut most = LINE;
        loop {
            let line = self.with(|items| items.line_up(&asked, most));
            if line.is_empty() {
                return Ok(());
            }
            asked.extend(line.iter().map(|(key, _)| *key));
            self.look_at(&line).await?;
            most = most.saturating_mul(LINE_GROWTH);
        }
    }

    async fn look_at(&self, hashes: &[(B256, B256)]) -> Result<(), RpcError> {
        let mut calls = vec![Call::new("eth_blockNumber", json!([]))];
        calls.extend(hashes.iter().map(|(_, hash)| receipt_call(hash)));
        let mut answers = self.parts.rpc.batch(&calls).await?.into_iter();
        let head = match answers.next() {
            Some(Ok(value)) => quantity::<U256>(&value)?,
            Some(Err(error)) => return Err(RpcError::Node { method: "eth_blockNumber", error }),
            None => return Ok(()),
        };
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).latest = head;
        let mut mined: HashMap<B256, bool> = HashMap::new();
        let mut ended = Vec::new();
        for ((key, _), answer) in hashes.iter().zip(answers) {
            let Ok(value) = answer else { continue };
            match Receipt::read(value) {
                Ok(Some(receipt)) if is_deep(&receipt, head, self.parts.confirmations) => {
                    ended.extend(self.landed(key, receipt, head));
                }
                // One version's receipt tells of all: they share a nonce.
                Ok(receipt) => *mined.entry(*key).or_default() |= receipt.is_some(),
                Err(error) => tracing::warn!(%error, "a receipt could not be read"),
            }
        }
        self.with(|items| {
            for (key, mined) in mined {
                items.change(&key, |item| item.see(mined));
            }
        });
        self.end(&ended).await;
        Ok(())
    }

    /// Tells those who wait; what has ended by that.
    fn landed(&self, key: &B256, receipt: Receipt, head: U256) -> Vec<([u8; 32], TransactionEnd)> {
        self.with(|items| {
            let Some(item) = items.get_mut(key) else { return Vec::new() };
            item.tell(&item.fate_of(&receipt));
            if is_deep(&receipt, head, item.depth()) {
                return items.remove(key).map(|it| it.mined_as(&receipt)).unwrap_or_default();
            }
            item.wait_for_depth(receipt);
            Vec::new()
        })
    }

    /// Another transaction has the number.
    async fn superseded(&self, key: &B256) {
        let Some(mut item) = self.with(|items| items.remove(key)) else { return };
        if let Some(version) = item.newest() {
            version.signer.nonces.taken(version.nonce());
        }
        item.tell(&Fate::Superseded);
        self.end(&item.all_ended(TransactionEnd::Superseded)).await;
    }
}

/// Whether a transaction has as many blocks on it as configured, its own counted.
pub(crate) fn is_deep(receipt: &Receipt, head: U256, confirmations: u32) -> bool {
    let blocks = head.saturating_add(U256::from(1)).saturating_sub(receipt.block_number);
    U256::from(confirmations) <= blocks
}

pub(crate) fn receipt_call(hash: &B256) -> Call {
    Call::new("eth_getTransactionReceipt", json!([hash]))
}
