//! Methods that send transactions, signed by the caller or by a known key.

use alloy_consensus::TxEnvelope;
use alloy_eips::{BlockId, eip2718::Decodable2718};
use alloy_primitives::{Address, Bytes, keccak256};
use alloy_rpc_types_eth::TransactionRequest;
use serde_json::Value;

use super::{Answer, Params, RpcError, fees, params::value};
use crate::{
    accounts::{DEV_ACCOUNTS, DevAccount},
    chain::Chain,
    evm::Rules,
    sign,
    simulate::Simulation,
};

/// `eth_sendRawTransaction(bytes)`.
pub(super) fn raw(chain: &mut Chain, params: &Params, now: u64) -> Answer {
    let bytes: Bytes = params.required(0)?;
    let mut rest = bytes.as_ref();
    let tx = TxEnvelope::decode_2718(&mut rest)
        .map_err(|error| RpcError::server(format!("transaction could not be decoded: {error}")))?;
    if !rest.is_empty() {
        return Err(RpcError::server("transaction could not be decoded: trailing bytes"));
    }
    value(chain.submit(tx, now)?)
}

/// `eth_accounts()`: the dev accounts and whoever is impersonated.
pub(super) fn accounts(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    let known = DEV_ACCOUNTS.iter().map(|account| account.address);
    let mut accounts: Vec<Address> = known.collect();
    accounts.extend(chain.impersonated.iter().filter(|one| dev_account(**one).is_none()));
    value(accounts)
}

/// `eth_sendTransaction(request)` for a dev account or an impersonated one.
pub(super) fn transaction(chain: &mut Chain, params: &Params, now: u64) -> Answer {
    let request: TransactionRequest = params.required(0)?;
    let from = request.from.ok_or_else(|| RpcError::invalid_params("missing field `from`"))?;
    let impersonated = chain.impersonate_all || chain.impersonated.contains(&from);
    let key = dev_account(from);
    if key.is_none() && !impersonated {
        return Err(RpcError::server("unknown account"));
    }
    let tx = fill(chain, request, from, now)?
        .build_typed_tx()
        .map_err(|_| RpcError::invalid_params("the request is no transaction"))?;
    let (tx, rules) = match key {
        Some(account) => (sign::sign_transaction(account, tx)?, Rules::Block),
        None => (sign::impersonate_transaction(from, tx), Rules::Impersonated),
    };
    value(chain.admit(tx, rules, now)?)
}

/// `eth_sign(address, data)` and `personal_sign(data, address)`: EIP-191 by a dev account.
pub(super) fn sign_message(_chain: &Chain, params: &Params, _now: u64) -> Answer {
    sign_text(params.required(0)?, params.required(1)?)
}

/// See [`sign_message`].
pub(super) fn personal_sign(_chain: &Chain, params: &Params, _now: u64) -> Answer {
    sign_text(params.required(1)?, params.required(0)?)
}

fn sign_text(address: Address, text: Bytes) -> Answer {
    let account = dev_account(address).ok_or_else(|| RpcError::server("unknown account"))?;
    let prefix = format!("\u{19}Ethereum Signed Message:\n{}", text.len());
    let digest = keccak256([prefix.as_bytes(), text.as_ref()].concat());
    value(Bytes::from(sign::sign(account, digest)?.as_bytes()))
}

fn dev_account(address: Address) -> Option<&'static DevAccount> {
    DEV_ACCOUNTS.iter().find(|account| account.address == address)
}

/// Fills in nonce, gas, fees and chain id where the request leaves them open.
fn fill(
    chain: &Chain,
    mut request: TransactionRequest,
    from: Address,
    now: u64,
) -> Result<TransactionRequest, RpcError> {
    request.normalize_input();
    request.chain_id = request.chain_id.or(Some(chain.chain_id()));
    request.to = request.to.or(Some(alloy_primitives::TxKind::Create));
    if request.nonce.is_none() {
        let mined = chain.state.now().nonce(from);
        request.nonce = Some(chain.pool.next_nonce(from, mined));
    }
    if request.gas_price.is_none() {
        let tip = request.max_priority_fee_per_gas.unwrap_or_else(|| fees::suggested_tip(chain));
        let twice = u128::from(chain.base_fee()).saturating_mul(2);
        request.max_priority_fee_per_gas = Some(tip);
        request.max_fee_per_gas = request.max_fee_per_gas.or(Some(twice.saturating_add(tip)));
    }
    if request.gas.is_none() {
        let at = BlockId::pending();
        let (db, env) = (chain.state_at(at, now)?, chain.env_at(at, now)?);
        request.gas = Some(Simulation::new(db, env, request.clone())?.estimate()?);
    }
    Ok(request)
}

/// `anvil_dropTransaction(hash)`: the hash if one was taken out of the pool.
pub(super) fn drop(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let hash = params.required(0)?;
    if chain.pool.remove_hash(hash) { value(hash) } else { Ok(Value::Null) }
}
