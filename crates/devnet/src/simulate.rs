//! `eth_call` and `eth_estimateGas`: running a request that nobody signed, on any kept state.

use alloy_primitives::{Address, Bytes, TxKind, U256};
use alloy_rpc_types_eth::{
    BlockOverrides, TransactionRequest,
    state::{AccountOverride, StateOverride},
};
use revm::{
    bytecode::Bytecode,
    context::{
        TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction},
    },
    database_interface::DatabaseRef,
};

use crate::{
    chain::Overlay,
    evm::{self, Env, Rules, RunError},
};

/// Gas of a transfer that runs no code.
const TRANSFER_GAS: u64 = 21_000;

/// Why a simulation has no result.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The contract reverted with this data.
    Reverted(Bytes),
    /// The EVM stopped: out of gas, an invalid instruction.
    Halted(HaltReason),
    /// It could not start: funds, fees, gas limit.
    NotRun(RunError),
    /// Not even with all the gas there is.
    GasRequiredExceeds(u64),
    /// `gasPrice` and EIP-1559 fees in one request.
    BothPrices,
}

/// A request ready to run.
#[derive(Debug)]
pub(crate) struct Simulation<'a> {
    db: Overlay<'a>,
    env: Env,
    tx: TxEnv,
}

impl<'a> Simulation<'a> {
    /// Fills in what the request leaves open: all gas of a block, no fee, nothing sent.
    pub(crate) fn new(
        db: Overlay<'a>,
        mut env: Env,
        request: TransactionRequest,
    ) -> Result<Self, Failed> {
        if request.gas_price.is_some() && request.max_fee_per_gas.is_some() {
            return Err(Failed::BothPrices);
        }
        let price = request.gas_price.or(request.max_fee_per_gas);
        if price.is_none_or(|price| price == 0) {
            // A call that pays nothing sees no base fee, or it could not run (as go-ethereum does).
            env.block.basefee = 0;
        }
        let limit = env.block.gas_limit;
        let mut tx = TxEnv {
            caller: request.from.unwrap_or_default(),
            gas_limit: request.gas.map_or(limit, |gas| gas.min(limit)),
            gas_price: price.unwrap_or_default(),
            gas_priority_fee: request
                .max_fee_per_gas
                .map(|_| request.max_priority_fee_per_gas.unwrap_or_default()),
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data: request.input.into_input().unwrap_or_default(),
            access_list: request.access_list.unwrap_or_default(),
            chain_id: Some(request.chain_id.unwrap_or(env.chain_id)),
            ..TxEnv::default()
        };
        tx.tx_type = match (tx.gas_priority_fee, tx.access_list.is_empty()) {
            (Some(_), _) => 2,
            (None, false) => 1,
            (None, true) => 0,
        };
        Ok(Self { db, env, tx })
    }

    /// Changes the state for this simulation alone.
    pub(crate) fn override_state(&mut self, overrides: StateOverride) {
        for (address, change) in overrides {
            self.override_account(address, change);
        }
    }

    /// Changes the block environment for this simulation alone.
    pub(crate) fn override_block(&mut self, overrides: BlockOverrides) {
        let block = &mut self.env.block;
        block.number = overrides.number.unwrap_or(block.number);
        block.timestamp = overrides.time.map_or(block.timestamp, U256::from);
        block.gas_limit = overrides.gas_limit.unwrap_or(block.gas_limit);
        block.beneficiary = overrides.coinbase.unwrap_or(block.beneficiary);
        block.prevrandao = overrides.random.or(block.prevrandao);
        block.basefee = overrides.base_fee.map_or(block.basefee, |fee| fee.saturating_to());
        self.db.cache.block_hashes.extend(
            overrides
                .block_hash
                .unwrap_or_default()
                .into_iter()
                .map(|(number, hash)| (U256::from(number), hash)),
        );
    }

    /// What the call returns.
    pub(crate) fn call(self) -> Result<Bytes, Failed> {
        let (output, _gas) = self.attempt(self.tx.gas_limit)?;
        Ok(output)
    }

    /// The least gas limit with which the transaction succeeds.
    pub(crate) fn estimate(self) -> Result<u64, Failed> {
        if self.is_plain_transfer() && self.attempt(TRANSFER_GAS).is_ok() {
            return Ok(TRANSFER_GAS);
        }
        let mut high = self.affordable_gas()?;
        let (_output, used) = match self.attempt(high) {
            Err(Failed::Halted(HaltReason::OutOfGas(_))) => {
                return Err(Failed::GasRequiredExceeds(high));
            }
            other => other?,
        };
        // 63/64 of the gas is the most that an inner call gets (EIP-150), so more than was used may be
        // needed: search between, first at what was used and close to it.
        let mut low = used.saturating_sub(1);
        let near = used.saturating_add(used.div_ceil(63)).saturating_add(2_300);
        for guess in [used, near] {
            if low < guess && guess < high {
                if self.attempt(guess).is_ok() {
                    high = guess;
                } else {
                    low = guess;
                }
            }
        }
        while low.saturating_add(1) < high {
            let middle = low.midpoint(high);
            if self.attempt(middle).is_ok() {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(high)
    }

    /// Runs once with `gas`; returns the output and the gas used, before refunds.
    fn attempt(&self, gas: u64) -> Result<(Bytes, u64), Failed> {
        let tx = TxEnv { gas_limit: gas, ..self.tx.clone() };
        let db = Overlay { cache: self.db.cache.clone(), db: self.db.db };
        let ran = evm::run(db, &self.env, Rules::Simulation, tx).map_err(Failed::NotRun)?;
        match ran.result {
            ExecutionResult::Success { output, gas, .. } => {
                Ok((output.into_data(), gas.total_gas_spent().max(gas.floor_gas())))
            }
            ExecutionResult::Revert { output, .. } => Err(Failed::Reverted(output)),
            ExecutionResult::Halt { reason, .. } => Err(Failed::Halted(reason)),
        }
    }

    fn is_plain_transfer(&self) -> bool {
        let Some(to) = self.tx.kind.to() else { return false };
        let Ok(info) = self.db.basic_ref(*to);
        self.tx.data.is_empty() && info.is_none_or(|info| info.is_empty_code_hash())
    }

    /// The gas limit to try at most: what was asked for, capped by what the sender can pay.
    fn affordable_gas(&self) -> Result<u64, Failed> {
        if self.tx.gas_price == 0 {
            return Ok(self.tx.gas_limit);
        }
        let Ok(info) = self.db.basic_ref(self.tx.caller);
        let balance = info.map(|info| info.balance).unwrap_or_default();
        let left = balance.checked_sub(self.tx.value).ok_or_else(|| {
            let fee = Box::new(self.tx.value);
            let error = InvalidTransaction::LackOfFundForMaxFee { fee, balance: Box::new(balance) };
            Failed::NotRun(EVMError::Transaction(error))
        })?;
        let gas = left.checked_div(U256::from(self.tx.gas_price)).unwrap_or(U256::MAX);
        Ok(self.tx.gas_limit.min(gas.saturating_to()))
    }

    fn override_account(&mut self, address: Address, change: AccountOverride) {
        let Ok(info) = self.db.basic_ref(address);
        let mut info = info.unwrap_or_default();
        if let Some(code) = change.code {
            let code = Bytecode::new_raw(code);
            let hash = code.hash_slow();
            info = info.with_code_and_hash(code, hash);
        }
        info.balance = change.balance.unwrap_or(info.balance);
        info.nonce = change.nonce.unwrap_or(info.nonce);
        self.db.insert_account_info(address, info);
        let word = |(slot, word): (alloy_primitives::B256, alloy_primitives::B256)| {
            (U256::from_be_bytes(slot.0), U256::from_be_bytes(word.0))
        };
        if let Some(state) = change.state {
            let Ok(()) =
                self.db.replace_account_storage(address, state.into_iter().map(word).collect());
        }
        for (slot, word) in change.state_diff.into_iter().flatten().map(word) {
            let Ok(()) = self.db.insert_account_storage(address, slot, word);
        }
    }
}
