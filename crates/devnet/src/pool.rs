//! Transactions that wait for a block: admitted by the rules and in the words of go-ethereum, in
//! nonce order per sender (a gap waits), dearest first between senders.

use std::collections::BTreeMap;

use alloy_consensus::{Transaction, TxEnvelope, transaction::Recovered};
use alloy_primitives::{Address, TxHash, U256, map::HashMap};

use crate::evm::Rules;

/// Most transactions that may wait at once.
pub(crate) const POOL_LIMIT: usize = 8_192;

/// Percentage by which both fees must rise for a transaction to replace one of the same nonce.
const PRICE_BUMP_PERCENT: u128 = 10;

/// A waiting transaction.
#[derive(Debug, Clone)]
pub(crate) struct Pooled {
    /// The transaction and who sent it.
    pub(crate) tx: Recovered<TxEnvelope>,
    /// Whether its sender is impersonated.
    pub(crate) rules: Rules,
    /// Place in the order of arrival.
    arrival: u64,
}

/// Why a transaction was not taken; `Display` is go-ethereum's wording, which clients match on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The very same transaction waits already.
    #[error("already known")]
    AlreadyKnown,
    /// The sender has sent more transactions than that.
    #[error("nonce too low: next nonce {next}, tx nonce {tx}")]
    NonceTooLow {
        /// The sender's next nonce.
        next: u64,
        /// The nonce of the transaction.
        tx: u64,
    },
    /// One with the same nonce waits and pays about as much.
    #[error("replacement transaction underpriced")]
    Underpriced,
    /// The sender cannot pay for it besides what waits already.
    #[error("insufficient funds for gas * price + value: {0}")]
    InsufficientFunds(Box<Shortfall>),
    /// No block is big enough.
    #[error("exceeds block gas limit")]
    GasLimit,
    /// Not even the fixed cost is covered.
    #[error("intrinsic gas too low: gas {gas}, minimum needed {needed}")]
    IntrinsicGas {
        /// The transaction's gas limit.
        gas: u64,
        /// Gas it costs before the first instruction.
        needed: u64,
    },
    /// The tip exceeds the fee it is a part of.
    #[error(
        "max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: {tip}, \
         maxFeePerGas: {cap}"
    )]
    TipAboveFeeCap {
        /// Priority fee in wei per gas.
        tip: u128,
        /// Fee cap in wei per gas.
        cap: u128,
    },
    /// It was signed for another chain.
    #[error("invalid chain id for signer: have {have} want {want}")]
    ChainId {
        /// The transaction's chain id.
        have: u64,
        /// This chain's id.
        want: u64,
    },
    /// Blob and set-code transactions have no place here.
    #[error("transaction type not supported")]
    Type,
    /// Too many transactions wait.
    #[error("txpool is full")]
    Full,
}

/// What a sender has and what was asked of it, in wei.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("balance {balance}, queued cost {queued}, tx cost {cost}, overshot {overshot}")]
pub(crate) struct Shortfall {
    /// The sender's balance.
    pub(crate) balance: U256,
    /// What its waiting transactions may cost.
    pub(crate) queued: U256,
    /// What this one may cost.
    pub(crate) cost: U256,
    /// What is missing.
    pub(crate) overshot: U256,
}

/// What the pool must know of the chain to judge a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// Next nonce on chain.
    pub(crate) nonce: u64,
    /// Balance in wei.
    pub(crate) balance: U256,
}

/// The waiting transactions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    senders: HashMap<Address, BTreeMap<u64, Pooled>>,
    hashes: HashMap<TxHash, (Address, u64)>,
    arrivals: u64,
}

impl Pool {
    /// Takes `tx` in, perhaps in place of one with the same nonce.
    pub(crate) fn admit(
        &mut self,
        tx: Recovered<TxEnvelope>,
        rules: Rules,
        sender: Sender,
    ) -> Result<TxHash, Refused> {
        let hash = *tx.inner().tx_hash();
        if self.hashes.contains_key(&hash) {
            return Err(Refused::AlreadyKnown);
        }
        if tx.nonce() < sender.nonce {
            return Err(Refused::NonceTooLow { next: sender.nonce, tx: tx.nonce() });
        }
        let (address, nonce) = (tx.signer(), tx.nonce());
        self.check_funds(&tx, sender.balance)?;
        let rival = self.senders.get(&address).and_then(|queue| queue.get(&nonce));
        match rival {
            Some(rival) if !outbids(&tx, &rival.tx) => return Err(Refused::Underpriced),
            Some(_) => self.remove(address, nonce),
            None if self.hashes.len() >= POOL_LIMIT => return Err(Refused::Full),
            None => {}
        }
        self.arrivals = self.arrivals.saturating_add(1);
        let pooled = Pooled { tx, rules, arrival: self.arrivals };
        self.senders.entry(address).or_default().insert(nonce, pooled);
        self.hashes.insert(hash, (address, nonce));
        Ok(hash)
    }

    /// The waiting transaction with this hash.
    pub(crate) fn get(&self, hash: TxHash) -> Option<&Pooled> {
        let (sender, nonce) = self.hashes.get(&hash)?;
        self.at(*sender, *nonce)
    }

    /// The waiting transaction of `sender` with this nonce.
    pub(crate) fn at(&self, sender: Address, nonce: u64) -> Option<&Pooled> {
        self.senders.get(&sender)?.get(&nonce)
    }

    /// The nonce that `sender` would use next, counting what waits without a gap after `nonce`.
    pub(crate) fn next_nonce(&self, sender: Address, nonce: u64) -> u64 {
        let Some(queue) = self.senders.get(&sender) else { return nonce };
        let mut next = nonce;
        while queue.contains_key(&next) {
            next = next.saturating_add(1);
        }
        next
    }

    /// Every sender that has something waiting.
    pub(crate) fn senders(&self) -> impl Iterator<Item = Address> {
        self.senders.keys().copied()
    }

    /// All waiting transactions by sender and nonce.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Pooled> {
        self.senders.values().flat_map(BTreeMap::values)
    }

    /// Number of transactions that wait.
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Takes one transaction out.
    pub(crate) fn remove(&mut self, sender: Address, nonce: u64) {
        let Some(queue) = self.senders.get_mut(&sender) else { return };
        if let Some(gone) = queue.remove(&nonce) {
            self.hashes.remove(gone.tx.inner().tx_hash());
        }
        if queue.is_empty() {
            self.senders.remove(&sender);
        }
    }

    /// Takes the transaction with this hash out; false if none waits.
    pub(crate) fn remove_hash(&mut self, hash: TxHash) -> bool {
        let Some((sender, nonce)) = self.hashes.get(&hash).copied() else { return false };
        self.remove(sender, nonce);
        true
    }

    /// Takes out what `sender` can never send any more, its nonce on chain being `nonce`.
    pub(crate) fn drop_below(&mut self, sender: Address, nonce: u64) {
        let stale: Vec<u64> = self
            .senders
            .get(&sender)
            .map(|queue| queue.range(..nonce).map(|(stale, _)| *stale).collect())
            .unwrap_or_default();
        for old in stale {
            self.remove(sender, old);
        }
    }

    fn check_funds(&self, tx: &Recovered<TxEnvelope>, balance: U256) -> Result<(), Refused> {
        let others = self.senders.get(&tx.signer()).into_iter().flatten();
        let queued = others
            .filter(|(nonce, _)| **nonce != tx.nonce())
            .fold(U256::ZERO, |sum, (_, pooled)| sum.saturating_add(cost(&pooled.tx)));
        let cost = cost(tx);
        let overshot = queued.saturating_add(cost).saturating_sub(balance);
        if overshot.is_zero() {
            return Ok(());
        }
        Err(Refused::InsufficientFunds(Box::new(Shortfall { balance, queued, cost, overshot })))
    }
}

impl Pooled {
    /// Tip in wei per gas in a block with this base fee; `None` if it does not cover the base fee.
    pub(crate) fn tip(&self, base_fee: u64) -> Option<u128> {
        self.tx.effective_tip_per_gas(base_fee)
    }

    /// The transaction's nonce.
    pub(crate) fn nonce(&self) -> u64 {
        self.tx.nonce()
    }

    /// Place in the order of arrival, lower is earlier.
    pub(crate) fn arrival(&self) -> u64 {
        self.arrival
    }
}

/// The most wei that `tx` can take from its sender.
fn cost(tx: &TxEnvelope) -> U256 {
    U256::from(tx.gas_limit())
        .saturating_mul(U256::from(tx.max_fee_per_gas()))
        .saturating_add(tx.value())
}

/// Whether `tx` pays enough more than `rival` to take its place.
fn outbids(tx: &TxEnvelope, rival: &TxEnvelope) -> bool {
    let bumped =
        |fee: u128| fee.saturating_mul(PRICE_BUMP_PERCENT.saturating_add(100)).div_ceil(100);
    let tip = |tx: &TxEnvelope| tx.max_priority_fee_per_gas().unwrap_or(tx.max_fee_per_gas());
    bumped(rival.max_fee_per_gas()) <= tx.max_fee_per_gas()
        && bumped(tip(rival)) <= tip(tx)
        && (rival.max_fee_per_gas(), tip(rival)) != (tx.max_fee_per_gas(), tip(tx))
}
