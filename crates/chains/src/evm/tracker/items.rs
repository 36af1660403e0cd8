//! Transactions on their way: each with its dearer versions, the payments that it settles, and whoever
//! waits for it.

use std::collections::{HashMap, HashSet};

use alloy_primitives::{Address, B256};
use farebox_protocol::PaymentId;
use tokio::sync::oneshot;

use super::Fate;
use super::landed::Landed;
use crate::evm::method::ContractCall;
use crate::evm::transaction::SignedTransaction;
use crate::rpc::Receipt;
use crate::transaction_log::TransactionEnd;

/// What a network has on its way.
#[derive(Debug, Default)]
pub(super) struct Items {
    by_key: HashMap<B256, Item>,
    /// The transaction that was signed last for each payment.
    by_payment: HashMap<PaymentId, B256>,
}

/// One number of one account.
#[derive(Debug)]
pub(super) struct Item {
    /// The transaction and its dearer replacements, all with one nonce.
    pub(super) versions: Vec<SignedTransaction>,
    pub(super) waiters: Vec<oneshot::Sender<Fate>>,
    /// Whether its first sending is over; before, nobody else may send it.
    pub(super) launched: bool,
    /// Whether it was in a block when last looked for.
    pub(super) mined: bool,
    /// Where it is, once those who waited were told, until it is as deep as its value takes.
    pub(super) landed: Option<Landed>,
    /// Rounds of upkeep that it has seen.
    pub(super) rounds: u32,
    /// Rounds since which blocks were made without it.
    pub(super) passed_over: u32,
    /// Rounds in a row in which the nodes would not have it.
    pub(super) refused: u32,
    /// Rounds in a row in which its nonce belonged to another transaction.
    pub(super) superseded: u32,
}

impl Items {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The key is the hash of the first version.
    pub(super) fn insert(&mut self, item: Item) {
        let Some(first) = item.versions.first() else { return };
        let key = first.hash;
        for payment in item.payments() {
            self.by_payment.insert(payment, key);
        }
        self.by_key.insert(key, item);
    }

    pub(super) fn remove(&mut self, key: &B256) -> Option<Item> {
        let item = self.by_key.remove(key)?;
        for payment in item.payments() {
            if self.by_payment.get(&payment) == Some(key) {
                self.by_payment.remove(&payment);
            }
        }
        Some(item)
    }

    pub(super) fn get_mut(&mut self, key: &B256) -> Option<&mut Item> {
        self.by_key.get_mut(key)
    }

    pub(super) fn change<T>(&mut self, key: &B256, act: impl FnOnce(&mut Item) -> T) -> Option<T> {
        self.by_key.get_mut(key).map(act)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&B256, &mut Item)> {
        self.by_key.iter_mut()
    }

    pub(super) fn carrying(&mut self, payment: PaymentId) -> Option<&mut Item> {
        self.by_key.get_mut(self.by_payment.get(&payment)?)
    }

    /// Whose receipts are asked for next, with the hashes of all their versions, after those `asked`
    /// for: of each account what lies in a block already, and at most so many others, from the lowest
    /// number on and up to the first that was found not to be mined.
    pub(super) fn line_up(&self, asked: &HashSet<B256>, most: usize) -> Vec<(B256, B256)> {
        let mut accounts: HashMap<Address, Vec<(u64, &B256, &Item)>> = HashMap::new();
        for (key, item) in self.by_key.iter().filter(|(_, it)| it.landed.is_none()) {
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
}

impl Item {
    pub(super) fn new(
        transaction: SignedTransaction,
        waiter: Option<oneshot::Sender<Fate>>,
    ) -> Self {
        Self {
            versions: vec![transaction],
            waiters: waiter.into_iter().collect(),
            launched: false,
            mined: false,
            landed: None,
            rounds: 0,
            passed_over: 0,
            refused: 0,
            superseded: 0,
        }
    }

    /// One of an earlier process.
    pub(super) fn adopted(versions: Vec<SignedTransaction>) -> Self {
        Self {
            versions,
            waiters: Vec::new(),
            launched: true,
            mined: false,
            landed: None,
            rounds: 0,
            passed_over: 0,
            refused: 0,
            superseded: 0,
        }
    }

    /// In a block or not; a chain that changes its mind takes it out again.
    pub(super) fn see(&mut self, mined: bool) {
        self.mined = mined;
        if mined {
            (self.refused, self.superseded) = (0, 0);
        }
    }

    pub(super) fn newest(&self) -> Option<&SignedTransaction> {
        self.versions.last()
    }

    /// What those of its versions call that do something.
    pub(super) fn call(&self) -> Option<ContractCall> {
        self.versions.iter().find(|it| !it.is_filler()).map(SignedTransaction::call)
    }

    pub(super) fn has_filler(&self) -> bool {
        self.versions.iter().any(SignedTransaction::is_filler)
    }

    /// How many blocks must hold it until nobody needs its bytes any more.
    pub(super) fn depth(&self) -> u32 {
        self.versions.iter().map(|it| it.cargo.depth).max().unwrap_or_default()
    }

    /// What it means for those who wait that this version of it is in a block.
    pub(super) fn fate_of(&self, receipt: &Receipt) -> Fate {
        let mut versions = self.versions.iter();
        let landed = versions.find(|it| it.hash == receipt.transaction_hash);
        let is_filler = landed.is_some_and(SignedTransaction::is_filler);
        if is_filler { Fate::Superseded } else { Fate::Mined(receipt.clone()) }
    }

    /// Tells all who wait.
    pub(super) fn tell(&mut self, fate: &Fate) {
        for waiter in self.waiters.drain(..) {
            if waiter.send(fate.clone()).is_err() {
                tracing::debug!(?fate, "nobody waits for this transaction any more");
            }
        }
    }

    /// How its versions ended, now that a block holds one of them for good.
    pub(super) fn mined_as(&self, receipt: &Receipt) -> Vec<([u8; 32], TransactionEnd)> {
        if let Some(it) = self.newest() {
            it.signer.nonces.landed(it.nonce());
        }
        let end = |it: &SignedTransaction| {
            let is_it = it.hash == receipt.transaction_hash;
            if is_it { TransactionEnd::Mined } else { TransactionEnd::Superseded }
        };
        self.versions.iter().map(|it| (it.hash.0, end(it))).collect()
    }

    pub(super) fn all_ended(&self, end: TransactionEnd) -> Vec<([u8; 32], TransactionEnd)> {
        self.versions.iter().map(|it| (it.hash.0, end)).collect()
    }

    fn payments(&self) -> impl Iterator<Item = PaymentId> {
        self.versions.iter().flat_map(|it| it.cargo.payments.iter().copied())
    }
}
