//! One watcher for each network: it looks for the receipts of all transactions on their way, in batches,
//! as often as the block time makes sense, and sees to it that none is forgotten by the nodes.
//!
//! An account's transactions are mined in the order of their numbers, so a look begins with the lowest
//! ones and goes on while it finds them mined: with many on their way that is a receipt or two for each,
//! not one for each of them at every look.

mod upkeep;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use serde_json::json;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fees::FeeOracle;
use super::signers::Signers;
use super::transaction::SignedTransaction;
use crate::rpc::{Call, Receipt, RpcClient, RpcError, quantity};

/// How often receipts are looked for: ten times a block, within these bounds.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(250);
/// For how many transactions of an account a look asks first, and how many times that next.
const LINE: usize = 2;
const LINE_GROWTH: usize = 4;

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is in a block, as deep as configured.
    Mined(Receipt),
    /// Another transaction of the account took its number: it never will be.
    Superseded,
}

/// Transactions on their way, and whoever waits for them.
#[derive(Debug)]
pub(crate) struct Tracker {
    rpc: RpcClient,
    fees: Arc<FeeOracle>,
    signers: Arc<Signers>,
    chain_id: u64,
    block_time: Duration,
    confirmations: u32,
    items: Mutex<HashMap<B256, Item>>,
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

#[derive(Debug)]
struct Item {
    /// The transaction and its dearer replacements, all with one nonce.
    versions: Vec<SignedTransaction>,
    waiter: Option<oneshot::Sender<Fate>>,
    /// Whether its first sending is over; before, nobody else may send it.
    launched: bool,
    /// That one of the versions which does nothing but use up the nonce.
    filler: Option<B256>,
    /// Whether it was in a block when last looked for, not deep enough yet to be certain.
    mined: bool,
    /// Rounds of upkeep that it has seen.
    rounds: u32,
    /// Rounds since which blocks were made without it.
    passed_over: u32,
    /// Rounds in a row in which the nodes would not have it.
    refused: u32,
    /// Rounds in a row in which its nonce belonged to another transaction.
    superseded: u32,
}

/// What a tracker is made of.
pub(crate) struct TrackerParts {
    pub(crate) rpc: RpcClient,
    pub(crate) fees: Arc<FeeOracle>,
    pub(crate) signers: Arc<Signers>,
    pub(crate) chain_id: u64,
    pub(crate) block_time: Duration,
    pub(crate) confirmations: u32,
}

impl Item {
    /// In a block or not; a chain that changes its mind takes it out again.
    fn see(&mut self, mined: bool) {
        self.mined = mined;
        if mined {
            (self.refused, self.superseded) = (0, 0);
        }
    }
}

impl Tracker {
    pub(crate) fn new(parts: TrackerParts) -> Self {
        Self {
            rpc: parts.rpc,
            fees: parts.fees,
            signers: parts.signers,
            chain_id: parts.chain_id,
            block_time: parts.block_time,
            confirmations: parts.confirmations.max(1),
            items: Mutex::default(),
            heads: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// How long between two looks.
    pub(crate) fn poll_interval(&self) -> Duration {
        let tenth = self.block_time.checked_div(10).unwrap_or_default();
        tenth.clamp(POLL_MIN, POLL_MAX)
    }

    /// Watches a transaction from before it is sent. The fate comes when it is certain.
    pub(crate) fn watch(&self, transaction: SignedTransaction) -> oneshot::Receiver<Fate> {
        let (waiter, fate) = oneshot::channel();
        self.insert(transaction, Some(waiter));
        fate
    }

    /// The transaction was sent, or may have been; from now on it is looked after.
    pub(crate) fn launched(&self, transaction: &B256) {
        self.with_item(transaction, |item| item.launched = true);
    }

    /// The transaction certainly was not sent.
    pub(crate) fn forget(&self, transaction: &B256) {
        self.with(|items| items.remove(transaction));
    }

    fn insert(&self, transaction: SignedTransaction, waiter: Option<oneshot::Sender<Fate>>) {
        let hash = transaction.hash;
        let item = Item {
            versions: vec![transaction],
            waiter,
            launched: false,
            filler: None,
            mined: false,
            rounds: 0,
            passed_over: 0,
            refused: 0,
            superseded: 0,
        };
        self.with(|items| items.insert(hash, item));
        self.wake.notify_one();
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<B256, Item>) -> T) -> T {
        act(&mut self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_item<T>(&self, key: &B256, act: impl FnOnce(&mut Item) -> T) -> Option<T> {
        self.with(|items| items.get_mut(key).map(act))
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
            let line = self.with(|items| line_up(items, &asked, most));
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
        let mut answers = self.rpc.batch(&calls).await?.into_iter();
        let head = match answers.next() {
            Some(Ok(value)) => quantity::<U256>(&value)?,
            Some(Err(error)) => return Err(RpcError::Node { method: "eth_blockNumber", error }),
            None => return Ok(()),
        };
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).latest = head;
        let mut mined: HashMap<B256, bool> = HashMap::new();
        for ((key, _), answer) in hashes.iter().zip(answers) {
            let Ok(value) = answer else { continue };
            match Receipt::read(value) {
                Ok(Some(receipt)) if is_deep(&receipt, head, self.confirmations) => {
                    self.resolve(key, Fate::Mined(receipt));
                }
                // One version's receipt tells of all: they share a nonce.
                Ok(receipt) => *mined.entry(*key).or_default() |= receipt.is_some(),
                Err(error) => tracing::warn!(%error, "a receipt could not be read"),
            }
        }
        self.with(|items| {
            for (key, mined) in mined {
                items.entry(key).and_modify(|item| item.see(mined));
            }
        });
        Ok(())
    }

    fn resolve(&self, key: &B256, fate: Fate) {
        let Some(item) = self.with(|items| items.remove(key)) else { return };
        let Some(version) = item.versions.first() else { return };
        let (nonces, nonce) = (&version.signer.nonces, version.nonce());
        let fate = match fate {
            Fate::Mined(receipt) => {
                nonces.landed(nonce);
                let is_filler = item.filler == Some(receipt.transaction_hash);
                if is_filler { Fate::Superseded } else { Fate::Mined(receipt) }
            }
            Fate::Superseded => {
                nonces.taken(nonce);
                Fate::Superseded
            }
        };
        if let Some(Err(fate)) = item.waiter.map(|it| it.send(fate)) {
            tracing::debug!(?fate, "nobody waits for this transaction any more");
        }
    }
}

/// Whose receipts are asked for next, with the hashes of all their versions, after those `asked` for: of
/// each account what lies in a block already, and at most so many others, from the lowest number on and up
/// to the first that was found not to be mined.
fn line_up(items: &HashMap<B256, Item>, asked: &HashSet<B256>, most: usize) -> Vec<(B256, B256)> {
    let mut accounts: HashMap<Address, Vec<(u64, &B256, &Item)>> = HashMap::new();
    for (key, item) in items {
        if let Some(it) = item.versions.first() {
            accounts.entry(it.signer.address()).or_default().push((it.nonce(), key, item));
        }
    }
    let mut line = Vec::new();
    for mut transactions in accounts.into_values() {
        transactions.sort_unstable_by_key(|(nonce, ..)| *nonce);
        let (mined, waiting): (Vec<_>, Vec<_>) =
            transactions.into_iter().partition(|(_, _, item)| item.mined);
        let mined = mined.into_iter().filter(|(_, key, _)| !asked.contains(*key));
        let waiting = waiting.into_iter().take_while(|(_, key, _)| !asked.contains(*key));
        for (_, key, item) in mined.chain(waiting.take(most)) {
            line.extend(item.versions.iter().map(|it| (*key, it.hash)));
        }
    }
    line
}

/// Whether a transaction has as many blocks on it as configured, its own counted.
pub(crate) fn is_deep(receipt: &Receipt, head: U256, confirmations: u32) -> bool {
    let blocks = head.saturating_add(U256::from(1)).saturating_sub(receipt.block_number);
    U256::from(confirmations) <= blocks
}

pub(crate) fn receipt_call(hash: &B256) -> Call {
    Call::new("eth_getTransactionReceipt", json!([hash]))
}
