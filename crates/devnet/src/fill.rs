//! Filling a block: which waiting transactions run, in which order, and what came of each. Works on
//! any state, so the pending block is the same code on a throw-away copy.

use std::{cmp::Reverse, collections::BinaryHeap, convert::Infallible};

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, U256, map::AddressMap};
use revm::{
    Database, DatabaseCommit, DatabaseRef,
    bytecode::Bytecode,
    context::result::{EVMError, ExecutionResult, InvalidTransaction, Output},
    state::{Account, AccountInfo},
};

use crate::{
    blocks::{Blocks, Executed},
    evm::{self, ChainDb, Env},
    pool::{Pool, Pooled},
    state::State,
};

/// What happened to the transactions that were tried.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// Those that ran, in block order.
    pub(crate) executed: Vec<Executed>,
    /// Those that can not run, by sender and nonce, with the reason.
    pub(crate) unrunnable: Vec<(Address, u64, evm::RunError)>,
}

/// The next transaction of one sender; the dearest comes first, then the oldest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    tip: u128,
    arrival: Reverse<u64>,
    sender: Address,
    nonce: u64,
}

impl Candidate {
    fn of(pooled: &Pooled, base_fee: u64) -> Option<Self> {
        Some(Self {
            tip: pooled.tip(base_fee)?,
            arrival: Reverse(pooled.arrival()),
            sender: pooled.tx.signer(),
            nonce: pooled.tx.nonce(),
        })
    }
}

/// Runs what waits in `pool` on `db` until the block is full.
pub(crate) fn fill<DB>(db: &mut DB, env: &Env, pool: &Pool) -> Filled
where
    DB: Database<Error = Infallible> + DatabaseCommit,
{
    let base_fee = env.block.basefee;
    let mut heads = BinaryHeap::new();
    for sender in pool.senders() {
        let Ok(info) = db.basic(sender);
        let nonce = info.map_or(0, |info| info.nonce);
        heads.extend(pool.at(sender, nonce).and_then(|head| Candidate::of(head, base_fee)));
    }
    let mut filled = Filled::default();
    let mut room = env.block.gas_limit;
    while let Some(Candidate { sender, nonce, .. }) = heads.pop() {
        let Some(pooled) = pool.at(sender, nonce) else { continue };
        if pooled.tx.gas_limit() > room {
            continue;
        }
        match execute(db, env, pooled) {
            Ok(executed) => {
                room = room.saturating_sub(executed.gas_used);
                filled.executed.push(executed);
                let next = pool.at(sender, nonce.saturating_add(1));
                heads.extend(next.and_then(|next| Candidate::of(next, base_fee)));
            }
            Err(error) => filled.unrunnable.push((sender, nonce, error)),
        }
    }
    filled
}

fn execute<DB>(
    db: &mut DB,
    env: &Env,
    pooled: &Pooled,
) -> Result<Executed, EVMError<Infallible, InvalidTransaction>>
where
    DB: Database<Error = Infallible> + DatabaseCommit,
{
    let ran = evm::run(&mut *db, env, pooled.rules, evm::tx_env(&pooled.tx))?;
    db.commit(ran.state);
    let gas_used = evm::gas_used(&ran.result);
    let tx = pooled.tx.clone();
    let failed = Executed { tx, gas_used, success: false, logs: Vec::new(), created: None };
    Ok(match ran.result {
        ExecutionResult::Success { logs, output, .. } => {
            let created = match output {
                Output::Create(_, address) => address,
                Output::Call(_) => None,
            };
            Executed { success: true, logs, created, ..failed }
        }
        ExecutionResult::Revert { .. } | ExecutionResult::Halt { .. } => {
            let created = failed.tx.kind().is_create();
            let created = created.then(|| failed.tx.signer().create(failed.tx.nonce()));
            Executed { created, ..failed }
        }
    })
}

/// The present state, to be changed.
#[derive(Debug)]
pub(crate) struct StateDb<'a> {
    /// The state that transactions change.
    pub(crate) state: &'a mut State,
    /// For the `BLOCKHASH` instruction.
    pub(crate) blocks: &'a Blocks,
}

impl StateDb<'_> {
    fn now(&self) -> ChainDb<'_> {
        ChainDb { view: self.state.now(), blocks: self.blocks }
    }
}

impl Database for StateDb<'_> {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        self.now().basic_ref(address)
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Infallible> {
        self.now().code_by_hash_ref(code_hash)
    }

    fn storage(&mut self, address: Address, index: U256) -> Result<U256, Infallible> {
        self.now().storage_ref(address, index)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        self.now().block_hash_ref(number)
    }
}

impl DatabaseCommit for StateDb<'_> {
    fn commit(&mut self, changes: AddressMap<Account>) {
        self.state.commit(changes);
    }
}
