//! Methods that read accounts and run calls.

use alloy_eips::BlockId;
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest, state::StateOverride};
use revm::database_interface::DatabaseRef;

use super::{Answer, Params, RpcError, params::value};
use crate::{chain::Chain, simulate::Simulation};

/// `eth_getBalance(address, block)`.
pub(super) fn balance(chain: &Chain, params: &Params, now: u64) -> Answer {
    let address: Address = params.required(0)?;
    let info = chain.state_at(params.block(1)?, now)?.basic_ref(address)?;
    value(info.unwrap_or_default().balance)
}

/// `eth_getCode(address, block)`.
pub(super) fn code(chain: &Chain, params: &Params, now: u64) -> Answer {
    let address: Address = params.required(0)?;
    let db = chain.state_at(params.block(1)?, now)?;
    let code = match db.basic_ref(address)? {
        Some(info) => db.code_by_hash_ref(info.code_hash)?.original_bytes(),
        None => Bytes::new(),
    };
    value(code)
}

/// `eth_getStorageAt(address, slot, block)`.
pub(super) fn storage(chain: &Chain, params: &Params, now: u64) -> Answer {
    let address: Address = params.required(0)?;
    let slot = params
        .number(1)?
        .ok_or_else(|| RpcError::invalid_params("missing value for required argument 1"))?;
    let word = chain.state_at(params.block(2)?, now)?.storage_ref(address, slot)?;
    value(B256::from(word))
}

/// `eth_getTransactionCount(address, block)`.
pub(super) fn nonce(chain: &Chain, params: &Params, now: u64) -> Answer {
    let address: Address = params.required(0)?;
    let at = params.block(1)?;
    if at == BlockId::pending() {
        let mined = chain.state.now().nonce(address);
        return value(U64::from(chain.pool.next_nonce(address, mined)));
    }
    let info = chain.state_at(at, now)?.basic_ref(address)?;
    value(U64::from(info.unwrap_or_default().nonce))
}

/// `eth_call(request, block, state overrides, block overrides)`.
pub(super) fn call(chain: &Chain, params: &Params, now: u64) -> Answer {
    value(simulation(chain, params, now)?.call()?)
}

/// `eth_estimateGas(request, block, state overrides, block overrides)`.
pub(super) fn estimate_gas(chain: &Chain, params: &Params, now: u64) -> Answer {
    value(U64::from(simulation(chain, params, now)?.estimate()?))
}

fn simulation<'a>(chain: &'a Chain, params: &Params, now: u64) -> Result<Simulation<'a>, RpcError> {
    let request: TransactionRequest = params.required(0)?;
    let at = params.block(1)?;
    let (db, env) = (chain.state_at(at, now)?, chain.env_at(at, now)?);
    let mut simulation = Simulation::new(db, env, request)?;
    if let Some(overrides) = params.optional::<StateOverride>(2)? {
        simulation.override_state(overrides);
    }
    if let Some(overrides) = params.optional::<BlockOverrides>(3)? {
        simulation.override_block(overrides);
    }
    Ok(simulation)
}

/// `eth_chainId()`.
pub(super) fn chain_id(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(U64::from(chain.chain_id()))
}

/// `net_version()`, decimal.
pub(super) fn net_version(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(chain.chain_id().to_string())
}

/// `web3_clientVersion()`.
pub(super) fn client_version(_chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(concat!("farebox-devnet/v", env!("CARGO_PKG_VERSION")))
}

/// `web3_sha3(data)`.
pub(super) fn sha3(_chain: &Chain, params: &Params, _now: u64) -> Answer {
    let data: Bytes = params.required(0)?;
    value(alloy_primitives::keccak256(data))
}

/// `eth_syncing()`: never.
pub(super) fn syncing(_chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(false)
}

/// `net_listening()`: there is nobody to listen to, but clients ask whether the node is up.
pub(super) fn listening(_chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(true)
}

/// `net_peerCount()`.
pub(super) fn peer_count(_chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(U256::ZERO)
}
