//! The chain: state, blocks and waiting transactions behind one set of operations. Synchronous and
//! without a clock: whoever calls says what time it is.

use std::collections::{BTreeMap, HashSet};

use alloy_consensus::{Transaction, TxEnvelope, transaction::Recovered};
use alloy_eips::{BlockId, BlockNumberOrTag, eip1559::BaseFeeParams};
use alloy_primitives::{Address, B256, TxHash, U256, keccak256};
use revm::{context::BlockEnv, context_interface::block::BlobExcessGasAndPrice, database::CacheDB};

use crate::{
    blocks::{Block, Blocks, Parent},
    config::{DevnetConfig, Mining},
    evm::{self, ChainDb, Env, Rules},
    fill::{self, Filled, StateDb},
    filters::Filters,
    genesis::{self, GenesisError},
    pool::{Pool, Refused, Sender},
    sign,
    state::{Checkpoint, State},
    time::ChainTime,
};

/// Blocks whose state can still be asked for (besides those a snapshot holds on to).
pub(crate) const STATES_KEPT: u64 = 256;

/// Snapshots kept; taking more forgets the oldest.
const SNAPSHOTS_KEPT: usize = 256;

/// Base fee of the first block, wei per gas.
const FIRST_BASE_FEE: u64 = 1_000_000_000;

/// Gas that fits in a block unless configured otherwise.
pub(crate) const BLOCK_GAS_LIMIT: u64 = 30_000_000;

/// A state to read or to run on, with room for overrides.
pub(crate) type Overlay<'a> = CacheDB<ChainDb<'a>>;

/// The chain.
#[derive(Debug)]
pub(crate) struct Chain {
    id: u64,
    gas_limit: u64,
    /// When blocks are made.
    pub(crate) mining: Mining,
    /// Who gets the tips.
    pub(crate) coinbase: Address,
    /// Accounts that may send without a key.
    pub(crate) impersonated: HashSet<Address>,
    /// Whether every account may.
    pub(crate) impersonate_all: bool,
    /// Block time against the wall clock.
    pub(crate) time: ChainTime,
    /// Filters that clients have set up.
    pub(crate) filters: Filters,
    pub(crate) state: State,
    pub(crate) blocks: Blocks,
    pub(crate) pool: Pool,
    next_base_fee: Option<u64>,
    snapshots: BTreeMap<u64, Snapshot>,
    snapshots_taken: u64,
}

/// What [`Chain::revert`] goes back to.
#[derive(Debug)]
struct Snapshot {
    state: Checkpoint,
    head: u64,
    pool: Pool,
    time: ChainTime,
}

/// Why a block, or its state, cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoSuchState {
    /// There is no such block (any more).
    #[error("header not found")]
    NoBlock,
    /// The block is there, its state is not.
    #[error("missing trie node: the state of blocks more than {STATES_KEPT} back is not kept")]
    Forgotten,
}

impl Chain {
    /// A chain whose first block is mined at the wall clock's `now`, Unix seconds.
    pub(crate) fn new(config: &DevnetConfig, now: u64) -> Result<Self, GenesisError> {
        let mut chain = Self {
            id: config.chain_id,
            gas_limit: config.block_gas_limit,
            mining: config.mining,
            coinbase: Address::ZERO,
            impersonated: HashSet::new(),
            impersonate_all: false,
            time: ChainTime::default(),
            filters: Filters::default(),
            state: State::default(),
            blocks: Blocks::default(),
            pool: Pool::default(),
            next_base_fee: None,
            snapshots: BTreeMap::new(),
            snapshots_taken: 0,
        };
        if let Some(start) = config.start_time {
            chain.time.set_now(now, start);
        }
        let mut env = chain.next_env(now);
        env.block.basefee = 0;
        chain.state = genesis::state(&env)?;
        env.block.basefee = FIRST_BASE_FEE;
        let state = chain.state.checkpoint();
        chain.blocks.push(Block::seal(&Parent::default(), &env.block, Vec::new(), state));
        Ok(chain)
    }

    /// EIP-155 chain id.
    pub(crate) fn chain_id(&self) -> u64 {
        self.id
    }

    /// Changes how much gas fits in the blocks to come.
    pub(crate) fn set_gas_limit(&mut self, gas_limit: u64) {
        self.gas_limit = gas_limit;
    }

    /// Number of the newest block.
    pub(crate) fn head(&self) -> u64 {
        self.blocks.head().map_or(0, |block| block.header.number)
    }

    /// Timestamp of the newest block, Unix seconds.
    pub(crate) fn head_time(&self) -> u64 {
        self.blocks.head().map_or(0, |block| block.header.timestamp)
    }

    /// Base fee of the next block, wei per gas (EIP-1559).
    pub(crate) fn base_fee(&self) -> u64 {
        let by_rule = self
            .blocks
            .head()
            .and_then(|block| block.header.next_block_base_fee(BaseFeeParams::ethereum()));
        self.next_base_fee.or(by_rule).unwrap_or(FIRST_BASE_FEE)
    }

    /// Overrides the base fee of the next block.
    pub(crate) fn set_next_base_fee(&mut self, base_fee: u64) {
        self.next_base_fee = Some(base_fee);
    }

    /// The environment of the block that would be mined at `now`.
    pub(crate) fn next_env(&self, now: u64) -> Env {
        let head = self.blocks.head();
        let parent = head.map(|block| block.hash).unwrap_or_default();
        let number = head.map_or(0, |block| block.header.number.saturating_add(1));
        let block = BlockEnv {
            number: U256::from(number),
            beneficiary: self.coinbase,
            timestamp: U256::from(self.time.block(now, self.head_time())),
            gas_limit: self.gas_limit,
            basefee: self.base_fee(),
            difficulty: U256::ZERO,
            prevrandao: Some(keccak256(parent)),
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice::new(0, 1)),
            slot_num: 0,
        };
        Env { chain_id: self.id, block }
    }

    /// Takes a signed transaction; in instant mode it is mined at once if its turn has come.
    pub(crate) fn submit(&mut self, tx: TxEnvelope, now: u64) -> Result<TxHash, SubmitError> {
        if !(tx.is_legacy() || tx.is_eip2930() || tx.is_eip1559()) {
            return Err(Refused::Type.into());
        }
        let tx = sign::recover_transaction(tx)?;
        Ok(self.admit(tx, Rules::Block, now)?)
    }

    /// Takes a transaction whose sender is known, see [`Chain::submit`].
    pub(crate) fn admit(
        &mut self,
        tx: Recovered<TxEnvelope>,
        rules: Rules,
        now: u64,
    ) -> Result<TxHash, Refused> {
        if let Some(have) = tx.chain_id().filter(|id| *id != self.id) {
            return Err(Refused::ChainId { have, want: self.id });
        }
        if tx.gas_limit() > self.gas_limit {
            return Err(Refused::GasLimit);
        }
        let (cap, tip) = (tx.max_fee_per_gas(), tx.max_priority_fee_per_gas().unwrap_or(0));
        if tip > cap {
            return Err(Refused::TipAboveFeeCap { tip, cap });
        }
        let needed = evm::intrinsic_gas(&tx);
        if tx.gas_limit() < needed {
            return Err(Refused::IntrinsicGas { gas: tx.gas_limit(), needed });
        }
        let view = self.state.now();
        let sender = Sender { nonce: view.nonce(tx.signer()), balance: view.balance(tx.signer()) };
        let hash = self.pool.admit(tx, rules, sender)?;
        self.filters.transaction(hash);
        if self.mining == Mining::Instant {
            self.mine_ready(now);
        }
        Ok(hash)
    }

    /// Mines as long as something can run: one block unless more is ready than fits in it.
    pub(crate) fn mine_ready(&mut self, now: u64) {
        while self.something_is_ready() {
            let waiting = self.pool.len();
            self.mine(now);
            if self.pool.len() == waiting {
                return;
            }
        }
    }

    fn something_is_ready(&self) -> bool {
        let base_fee = self.base_fee();
        self.pool.senders().any(|sender| {
            let head = self.pool.at(sender, self.state.now().nonce(sender));
            head.is_some_and(|head| {
                head.tip(base_fee).is_some() && head.tx.gas_limit() <= self.gas_limit
            })
        })
    }

    /// Mines a block of what waits, perhaps an empty one; returns its number.
    pub(crate) fn mine(&mut self, now: u64) -> u64 {
        let env = self.next_env(now);
        let mut db = StateDb { state: &mut self.state, blocks: &self.blocks };
        let Filled { executed, unrunnable } = fill::fill(&mut db, &env, &self.pool);
        for (sender, nonce, error) in unrunnable {
            tracing::warn!(%sender, nonce, %error, "a waiting transaction cannot run and is dropped");
            self.pool.remove(sender, nonce);
        }
        for one in &executed {
            self.pool.drop_below(one.tx.signer(), one.tx.nonce().saturating_add(1));
        }
        let state = self.state.checkpoint();
        let parent = self
            .blocks
            .head()
            .map(|block| Parent { hash: block.hash, state_root: block.header.state_root });
        let block = Block::seal(&parent.unwrap_or_default(), &env.block, executed, state);
        let (number, timestamp) = (block.header.number, block.header.timestamp);
        self.filters.block(&block);
        self.blocks.push(block);
        self.time.mined(now, timestamp);
        self.next_base_fee = None;
        self.forget();
        number
    }

    /// Runs what waits on a copy of the state: the block that would be mined at `now`.
    pub(crate) fn pending(&self, now: u64) -> (Block, Overlay<'_>) {
        let env = self.next_env(now);
        let mut overlay = CacheDB::new(self.present());
        let filled = fill::fill(&mut overlay, &env, &self.pool);
        let (hash, state_root, state) = self.blocks.head().map_or_else(
            || (B256::ZERO, B256::ZERO, None),
            |head| (head.hash, head.header.state_root, Some(head.state)),
        );
        let state = state.unwrap_or_else(Checkpoint::first);
        let parent = Parent { hash, state_root };
        (Block::seal(&parent, &env.block, filled.executed, state), overlay)
    }

    /// The state that `at` names, to read or to run on.
    pub(crate) fn state_at(&self, at: BlockId, now: u64) -> Result<Overlay<'_>, NoSuchState> {
        if at == BlockId::pending() && self.pool.len() > 0 {
            return Ok(self.pending(now).1);
        }
        let block = self.block(at).ok_or(NoSuchState::NoBlock)?;
        if block.header.number == self.head() {
            return Ok(CacheDB::new(self.present()));
        }
        let view = self.state.at(block.state).map_err(|_| NoSuchState::Forgotten)?;
        Ok(CacheDB::new(ChainDb { view, blocks: &self.blocks }))
    }

    /// The environment that a call on the state `at` runs in. The newest state is run in the coming
    /// block's time: on an idle instant chain the newest block may be hours old, and a payment that
    /// is valid now must not look premature.
    pub(crate) fn env_at(&self, at: BlockId, now: u64) -> Result<Env, NoSuchState> {
        let mut env = self.next_env(now);
        let block = self.block(at).ok_or(NoSuchState::NoBlock)?;
        let header = &block.header;
        if at != BlockId::pending() {
            env.block.number = U256::from(header.number);
        }
        if header.number != self.head() {
            env.block.timestamp = U256::from(header.timestamp);
            env.block.basefee = header.base_fee_per_gas.unwrap_or_default();
            env.block.gas_limit = header.gas_limit;
            env.block.prevrandao = Some(header.mix_hash);
        }
        Ok(env)
    }

    /// The mined block that `at` names; the pending one counts as the newest.
    pub(crate) fn block(&self, at: BlockId) -> Option<&Block> {
        match at {
            BlockId::Hash(hash) => self.blocks.by_hash(hash.block_hash),
            BlockId::Number(number) => self.blocks.by_number(self.number(number)),
        }
    }

    /// The number that a tag stands for now. Nothing is ever reorganised here, so the newest block
    /// is safe and final.
    pub(crate) fn number(&self, tag: BlockNumberOrTag) -> u64 {
        match tag {
            BlockNumberOrTag::Number(number) => number,
            BlockNumberOrTag::Earliest => 0,
            BlockNumberOrTag::Latest
            | BlockNumberOrTag::Pending
            | BlockNumberOrTag::Safe
            | BlockNumberOrTag::Finalized => self.head(),
        }
    }

    /// Remembers this moment; returns the name to go back to it by.
    pub(crate) fn snapshot(&mut self) -> u64 {
        self.snapshots_taken = self.snapshots_taken.saturating_add(1);
        let snapshot = Snapshot {
            state: self.state.checkpoint(),
            head: self.head(),
            pool: self.pool.clone(),
            time: self.time,
        };
        self.snapshots.insert(self.snapshots_taken, snapshot);
        if self.snapshots.len() > SNAPSHOTS_KEPT {
            self.snapshots.pop_first();
        }
        self.snapshots_taken
    }

    /// Goes back to a snapshot, which is used up together with all later ones; false if unknown.
    pub(crate) fn revert(&mut self, id: u64) -> bool {
        let mut later = self.snapshots.split_off(&id);
        let Some(snapshot) = later.remove(&id) else {
            self.snapshots.append(&mut later);
            return false;
        };
        if self.state.rewind(snapshot.state).is_err() {
            return false;
        }
        self.blocks.truncate(snapshot.head);
        self.filters.rewind(snapshot.head);
        self.pool = snapshot.pool;
        self.time = snapshot.time;
        true
    }

    fn present(&self) -> ChainDb<'_> {
        ChainDb { view: self.state.now(), blocks: &self.blocks }
    }

    /// Forgets the states that neither a recent block nor a snapshot needs.
    fn forget(&mut self) {
        let first = self.blocks.first();
        self.snapshots.retain(|_, snapshot| first <= snapshot.head);
        let oldest = self.head().saturating_sub(STATES_KEPT).max(first);
        let Some(block) = self.blocks.by_number(oldest) else { return };
        let keep = self
            .snapshots
            .first_key_value()
            .map_or(block.state, |(_, snapshot)| snapshot.state.min(block.state));
        self.state.forget_before(keep);
    }
}

/// Why a raw transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// Its signature is no good.
    #[error(transparent)]
    Signature(#[from] sign::BadSignature),
    /// The pool does not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::BLOCKS_KEPT;

    const NOW: u64 = 1_700_000_000;

    fn chain() -> Chain {
        let config = DevnetConfig { mining: Mining::Manual, ..DevnetConfig::default() };
        Chain::new(&config, NOW).unwrap()
    }

    fn touch(chain: &mut Chain, wei: u64) {
        chain.state.set_balance(Address::repeat_byte(1), U256::from(wei));
        chain.mine(NOW);
    }

    #[test]
    fn old_blocks_are_forgotten_and_the_rest_stays_in_order() {
        let mut chain = chain();
        let kept = u64::try_from(BLOCKS_KEPT).unwrap();
        for _ in 0..kept + 9 {
            chain.mine(NOW);
        }
        assert_eq!((chain.blocks.first(), chain.head()), (10, kept + 9));
        assert!(chain.blocks.by_number(9).is_none());
        let numbers = |from, to| -> Vec<u64> {
            chain.blocks.range(from, to).map(|block| block.header.number).collect()
        };
        for (from, to, expected) in [
            (0, 12, vec![10, 11, 12]),
            (0, 9, vec![]),
            (11, 11, vec![11]),
            (13, 11, vec![]),
            (kept + 8, u64::MAX, vec![kept + 8, kept + 9]),
        ] {
            assert_eq!(numbers(from, to), expected, "{from}..={to}");
        }
    }

    #[test]
    fn a_snapshot_holds_on_to_its_state() {
        let mut chain = chain();
        touch(&mut chain, 1);
        let snapshot = chain.snapshot();
        for wei in 2..STATES_KEPT + 50 {
            touch(&mut chain, wei);
        }
        let first = BlockId::number(1);
        assert!(chain.state_at(first, NOW).is_ok(), "kept for the snapshot");
        assert!(chain.revert(snapshot));
        assert_eq!(chain.state.now().balance(Address::repeat_byte(1)), U256::ONE);
        assert_eq!(chain.head(), 1);
    }

    #[test]
    fn without_a_snapshot_256_states_are_kept() {
        let mut chain = chain();
        for wei in 1..STATES_KEPT + 50 {
            touch(&mut chain, wei);
        }
        let oldest = chain.head() - STATES_KEPT;
        assert!(chain.state_at(BlockId::number(oldest), NOW).is_ok());
        let older = chain.state_at(BlockId::number(oldest - 1), NOW).map(|_| ());
        assert_eq!(older, Err(NoSuchState::Forgotten));
    }

    #[test]
    fn snapshots_are_bounded() {
        let mut chain = chain();
        let first = chain.snapshot();
        for _ in 0..SNAPSHOTS_KEPT {
            chain.snapshot();
        }
        assert!(!chain.revert(first));
        assert!(chain.revert(first + 1));
    }
}
