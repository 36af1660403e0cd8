//! The helpers that testers know from anvil and hardhat: set state, move time, mine, go back.

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use serde_json::Value;

use super::{Answer, Params, RpcError, params::value};
use crate::{
    chain::Chain,
    config::Mining,
    contracts::{self, TOKEN_ADDRESS},
};

/// Most blocks mined by one request.
const MINE_LIMIT: u64 = 100_000;

/// Most gas that a block may be given: an endless loop runs for seconds with it, not for ever.
const GAS_LIMIT: u64 = 1_000_000_000;

/// Highest base fee that can be asked for, wei per gas: 1 ETH, far from overflowing later.
const BASE_FEE_LIMIT: u64 = 1_000_000_000_000_000_000;

/// `evm_mine(timestamp?)`, also with `{ timestamp, blocks }`.
pub(super) fn evm_mine(chain: &mut Chain, params: &Params, now: u64) -> Answer {
    let options = params.optional::<Value>(0)?;
    if let Some(Value::Object(mut fields)) = options {
        let numbers = [fields.remove("timestamp"), fields.remove("blocks")];
        let inner = Params::new(Some(Value::Array(
            numbers.map(Option::unwrap_or_default).into_iter().collect(),
        )))?;
        set_time_of_next(chain, inner.u64(0)?)?;
        mine_blocks(chain, inner.u64(1)?.unwrap_or(1), 0, now)?;
    } else {
        set_time_of_next(chain, params.u64(0)?)?;
        mine_blocks(chain, 1, 0, now)?;
    }
    Ok(Value::String("0x0".to_owned()))
}

/// `anvil_mine(count?, seconds between?)`.
pub(super) fn anvil_mine(chain: &mut Chain, params: &Params, now: u64) -> Answer {
    mine_blocks(chain, params.u64(0)?.unwrap_or(1), params.u64(1)?.unwrap_or(0), now)?;
    Ok(Value::Null)
}

fn set_time_of_next(chain: &mut Chain, timestamp: Option<u64>) -> Result<(), RpcError> {
    let Some(timestamp) = timestamp else { return Ok(()) };
    let head = chain.head_time();
    if timestamp < head {
        return Err(RpcError::invalid_params(format!(
            "timestamp {timestamp} is before that of the newest block, {head}"
        )));
    }
    chain.time.set_next(timestamp);
    Ok(())
}

fn mine_blocks(chain: &mut Chain, count: u64, apart_s: u64, now: u64) -> Result<(), RpcError> {
    if count > MINE_LIMIT {
        return Err(RpcError::invalid_params(format!("at most {MINE_LIMIT} blocks at once")));
    }
    for index in 0..count {
        if index > 0 && apart_s > 0 {
            chain.time.set_next(chain.head_time().saturating_add(apart_s));
        }
        chain.mine(now);
    }
    Ok(())
}

/// `anvil_setBalance(address, wei)`.
pub(super) fn set_balance(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let wei = number(params, 1)?;
    chain.state.set_balance(params.required(0)?, wei);
    Ok(Value::Null)
}

/// `anvil_addBalance(address, wei)`.
pub(super) fn add_balance(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let address: Address = params.required(0)?;
    let wei = chain.state.now().balance(address).saturating_add(number(params, 1)?);
    chain.state.set_balance(address, wei);
    Ok(Value::Null)
}

/// `anvil_setCode(address, code)`.
pub(super) fn set_code(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let code: Bytes = params.required(1)?;
    chain.state.set_code(params.required(0)?, code);
    Ok(Value::Null)
}

/// `anvil_setStorageAt(address, slot, word)`.
pub(super) fn set_storage(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let slot = number(params, 1)?;
    let word: B256 = params.required(2)?;
    chain.state.set_storage(params.required(0)?, slot, U256::from_be_bytes(word.0));
    Ok(Value::Bool(true))
}

/// `anvil_setNonce(address, nonce)`.
pub(super) fn set_nonce(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let address: Address = params.required(0)?;
    let nonce = params.required_u64(1)?;
    chain.state.set_nonce(address, nonce);
    chain.pool.drop_below(address, nonce);
    Ok(Value::Null)
}

/// `anvil_dealERC20(owner, token, amount)`: sets a balance of the chain's own token.
pub(super) fn deal(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let token: Address = params.required(1)?;
    if token != TOKEN_ADDRESS {
        return Err(RpcError::invalid_params(format!(
            "only the token of this chain, {TOKEN_ADDRESS}, can be dealt"
        )));
    }
    let amount = number(params, 2)?;
    contracts::deal(&mut chain.state, params.required(0)?, amount);
    Ok(Value::Null)
}

/// `anvil_setCoinbase(address)`.
pub(super) fn set_coinbase(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    chain.coinbase = params.required(0)?;
    Ok(Value::Null)
}

/// `anvil_setNextBlockBaseFeePerGas(wei)`.
pub(super) fn set_base_fee(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let base_fee = params.required_u64(0)?;
    if base_fee > BASE_FEE_LIMIT {
        return Err(RpcError::invalid_params(format!("at most {BASE_FEE_LIMIT} wei per gas")));
    }
    chain.set_next_base_fee(base_fee);
    Ok(Value::Null)
}

/// `evm_setBlockGasLimit(gas)`.
pub(super) fn set_gas_limit(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let gas = params.required_u64(0)?;
    if gas > GAS_LIMIT {
        return Err(RpcError::invalid_params(format!("at most {GAS_LIMIT} gas in a block")));
    }
    chain.set_gas_limit(gas);
    Ok(Value::Bool(true))
}

/// `evm_increaseTime(seconds)`: the total shift in seconds.
pub(super) fn increase_time(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    Ok(Value::from(chain.time.increase(params.required_u64(0)?)))
}

/// `evm_setNextBlockTimestamp(timestamp)`.
pub(super) fn set_next_timestamp(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    set_time_of_next(chain, Some(params.required_u64(0)?))?;
    Ok(Value::Null)
}

/// `evm_setTime(timestamp)`: the shift in seconds.
pub(super) fn set_time(chain: &mut Chain, params: &Params, now: u64) -> Answer {
    let timestamp = params.required_u64(0)?;
    if timestamp < chain.head_time() {
        return Err(RpcError::invalid_params("the time is before that of the newest block"));
    }
    chain.time.set_now(now, timestamp);
    Ok(Value::from(timestamp.saturating_sub(now)))
}

/// `evm_snapshot()`.
pub(super) fn snapshot(chain: &mut Chain, _params: &Params, _now: u64) -> Answer {
    value(U64::from(chain.snapshot()))
}

/// `evm_revert(id)`.
pub(super) fn revert(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    Ok(Value::Bool(chain.revert(params.required_u64(0)?)))
}

/// `evm_setAutomine(on)`; what waits is mined when it is switched on.
pub(super) fn set_automine(chain: &mut Chain, params: &Params, now: u64) -> Answer {
    if params.required::<bool>(0)? {
        chain.mining = Mining::Instant;
        chain.mine_ready(now);
    } else if chain.mining == Mining::Instant {
        chain.mining = Mining::Manual;
    }
    Ok(Value::Null)
}

/// `anvil_getAutomine()`.
pub(super) fn automine(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(chain.mining == Mining::Instant)
}

/// `evm_setIntervalMining(seconds)`, 0 for none; a fraction of a second is taken too.
pub(super) fn set_interval(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let seconds: serde_json::Number = params.required(0)?;
    let interval = seconds
        .as_f64()
        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| RpcError::invalid_params("invalid argument 0: not a number of seconds"))?;
    chain.mining = if interval.is_zero() { Mining::Manual } else { Mining::Every(interval) };
    Ok(Value::Null)
}

/// `anvil_impersonateAccount(address)`.
pub(super) fn impersonate(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    chain.impersonated.insert(params.required(0)?);
    Ok(Value::Null)
}

/// `anvil_stopImpersonatingAccount(address)`.
pub(super) fn stop_impersonating(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let address: Address = params.required(0)?;
    chain.impersonated.remove(&address);
    Ok(Value::Null)
}

/// `anvil_autoImpersonateAccount(on)`.
pub(super) fn impersonate_all(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    chain.impersonate_all = params.required(0)?;
    Ok(Value::Null)
}

fn number(params: &Params, index: usize) -> Result<U256, RpcError> {
    params.number(index)?.ok_or_else(|| {
        RpcError::invalid_params(format!("missing value for required argument {index}"))
    })
}
