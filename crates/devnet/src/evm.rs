//! The EVM itself: one transaction, on one state, in one block's environment.

use std::convert::Infallible;

use alloy_consensus::{Transaction, TxEnvelope, Typed2718, transaction::Recovered};
use alloy_primitives::{Address, B256, U256};
use revm::{
    Context, Database, DatabaseRef, ExecuteEvm, MainBuilder, MainContext,
    bytecode::Bytecode,
    context::{
        BlockEnv, CfgEnv, TxEnv,
        result::{EVMError, ExecutionResult, InvalidTransaction, ResultAndState},
    },
    context_interface::cfg::gas::calculate_initial_tx_gas_for_tx,
    primitives::hardfork::SpecId,
    state::AccountInfo,
};

use crate::{blocks::Blocks, state::View};

/// The rules of the chain: Prague, as the networks that stablecoins live on.
pub(crate) const SPEC: SpecId = SpecId::PRAGUE;

/// How strictly a transaction is checked before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// A transaction of a block: nonce, funds, fees and sender are checked.
    Block,
    /// `eth_call` and `eth_estimateGas`: any nonce, and contracts may be the sender.
    Simulation,
    /// A transaction of a block whose sender is impersonated, perhaps a contract.
    Impersonated,
}

/// Why a transaction could not run at all.
pub(crate) type RunError = EVMError<Infallible, InvalidTransaction>;

/// Runs `tx` and returns what came of it and what it would change; commits nothing.
pub(crate) fn run<DB: Database<Error = Infallible>>(
    db: DB,
    env: &Env,
    rules: Rules,
    tx: TxEnv,
) -> Result<ResultAndState, RunError> {
    let mut cfg = CfgEnv::new_with_spec(SPEC).with_chain_id(env.chain_id);
    cfg.disable_nonce_check = rules == Rules::Simulation;
    cfg.disable_eip3607 = rules != Rules::Block;
    let mut evm =
        Context::mainnet().with_db(db).with_cfg(cfg).with_block(env.block.clone()).build_mainnet();
    evm.transact(tx)
}

/// What a transaction sees of the chain besides the state.
#[derive(Debug, Clone)]
pub(crate) struct Env {
    /// EIP-155 chain id.
    pub(crate) chain_id: u64,
    /// Number, time, base fee and gas limit of the block.
    pub(crate) block: BlockEnv,
}

/// The transaction in the EVM's own terms.
pub(crate) fn tx_env(tx: &Recovered<TxEnvelope>) -> TxEnv {
    TxEnv {
        tx_type: tx.ty(),
        caller: tx.signer(),
        gas_limit: tx.gas_limit(),
        gas_price: tx.max_fee_per_gas(),
        gas_priority_fee: tx.max_priority_fee_per_gas(),
        kind: tx.kind(),
        value: tx.value(),
        data: tx.input().clone(),
        nonce: tx.nonce(),
        chain_id: tx.chain_id(),
        access_list: tx.access_list().cloned().unwrap_or_default(),
        ..TxEnv::default()
    }
}

/// The least gas limit that `tx` can have: what it costs before its first instruction, or the calldata
/// floor (EIP-7623).
pub(crate) fn intrinsic_gas(tx: &Recovered<TxEnvelope>) -> u64 {
    let gas = calculate_initial_tx_gas_for_tx(tx_env(tx), SPEC, None);
    gas.initial_total_gas().max(gas.floor_gas())
}

/// Gas that the receipt of `result` shows.
pub(crate) fn gas_used(result: &ExecutionResult) -> u64 {
    result.gas().tx_gas_used()
}

/// The state at one moment as a database of the EVM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChainDb<'a> {
    /// The state to read.
    pub(crate) view: View<'a>,
    /// For the `BLOCKHASH` instruction.
    pub(crate) blocks: &'a Blocks,
}

impl DatabaseRef for ChainDb<'_> {
    type Error = Infallible;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.view.info(address))
    }

    fn code_by_hash_ref(&self, code_hash: B256) -> Result<Bytecode, Infallible> {
        Ok(self.view.code(code_hash))
    }

    fn storage_ref(&self, address: Address, index: U256) -> Result<U256, Infallible> {
        Ok(self.view.storage(address, index))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Infallible> {
        Ok(self.blocks.by_number(number).map(|block| block.hash).unwrap_or_default())
    }
}
