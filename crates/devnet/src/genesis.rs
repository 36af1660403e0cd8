//! The first block: one table of contracts, each made by running its own constructor at its fixed
//! address, and the dev accounts with their money.

use alloy_primitives::{Address, Bytes, TxKind, U256};
use alloy_sol_types::{SolCall, SolValue};
use revm::context::{TxEnv, result::ExecutionResult};

use crate::{
    accounts::DEV_ACCOUNTS,
    blocks::Blocks,
    contracts::{
        Artifact, EXACT_PERMIT2_PROXY, EXACT_PERMIT2_PROXY_ADDRESS, ITestUsdc, MULTICALL3,
        MULTICALL3_ADDRESS, PERMIT2, PERMIT2_ADDRESS, TEST_USDC, TEST_USDC_PROXY, TOKEN_ADDRESS,
        TOKEN_CODE_ADDRESS, UPTO_PERMIT2_PROXY, UPTO_PERMIT2_PROXY_ADDRESS, WALLET_FACTORY,
        WALLET_FACTORY_ADDRESS,
    },
    evm::{self, ChainDb, Env, Rules},
    state::State,
};
use revm::database_interface::WrapDatabaseRef;

/// A contract that is there from the first block on.
struct GenesisContract {
    /// What to call it in an error.
    name: &'static str,
    /// Where it lies.
    address: Address,
    /// Its committed artifact, JSON.
    artifact: &'static str,
    /// ABI-encoded constructor arguments.
    arguments: fn() -> Vec<u8>,
}

/// The token: constructed where its storage stays, before its code makes place for the proxy.
static TOKEN: GenesisContract = GenesisContract {
    name: "TestUSDC",
    address: TOKEN_ADDRESS,
    artifact: TEST_USDC,
    arguments: || minter().abi_encode(),
};

/// Every other contract of the first block. To add one, add a row.
static CONTRACTS: &[GenesisContract] = &[
    GenesisContract {
        name: "TestUSDCProxy",
        address: TOKEN_ADDRESS,
        artifact: TEST_USDC_PROXY,
        arguments: || (TOKEN_CODE_ADDRESS, Address::repeat_byte(0xff)).abi_encode(),
    },
    GenesisContract {
        name: "Permit2",
        address: PERMIT2_ADDRESS,
        artifact: PERMIT2,
        arguments: Vec::new,
    },
    GenesisContract {
        name: "X402ExactPermit2Proxy",
        address: EXACT_PERMIT2_PROXY_ADDRESS,
        artifact: EXACT_PERMIT2_PROXY,
        arguments: Vec::new,
    },
    GenesisContract {
        name: "X402UptoPermit2Proxy",
        address: UPTO_PERMIT2_PROXY_ADDRESS,
        artifact: UPTO_PERMIT2_PROXY,
        arguments: Vec::new,
    },
    GenesisContract {
        name: "Multicall3",
        address: MULTICALL3_ADDRESS,
        artifact: MULTICALL3,
        arguments: Vec::new,
    },
    GenesisContract {
        name: "TestWalletFactory",
        address: WALLET_FACTORY_ADDRESS,
        artifact: WALLET_FACTORY,
        arguments: Vec::new,
    },
];

/// Ether of each dev account at the start, in wei (10,000 ETH).
pub const INITIAL_WEI: U256 = U256::from_limbs([0x19e0_c9ba_b240_0000, 0x21e, 0, 0]);

/// USDC of each dev account at the start, in atomic units (1,000,000 USDC).
pub const INITIAL_USDC: u64 = 1_000_000_000_000;

/// Gas for one step of the set-up: no limit in practice.
const STEP_GAS: u64 = 30_000_000;

/// The account that owns the token and may mint: the first dev account.
pub(crate) fn minter() -> Address {
    let [first, ..] = &DEV_ACCOUNTS;
    first.address
}

/// The first block could not be made; the build is broken.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// A committed artifact is not what the build script writes.
    #[error("artifact of {name} cannot be read")]
    Artifact {
        /// The contract.
        name: &'static str,
        /// What is wrong with its JSON.
        #[source]
        source: serde_json::Error,
    },
    /// A constructor or a mint did not succeed.
    #[error("{name}: {outcome}")]
    Contract {
        /// The contract.
        name: &'static str,
        /// What the EVM said.
        outcome: String,
    },
}

/// The state before the first block, in the environment `env`.
pub(crate) fn state(env: &Env) -> Result<State, GenesisError> {
    let mut state = State::default();
    for account in &DEV_ACCOUNTS {
        state.set_balance(account.address, INITIAL_WEI);
    }
    let token_code = construct(&mut state, env, &TOKEN)?;
    state.set_code(TOKEN_CODE_ADDRESS, token_code);
    state.set_nonce(TOKEN_CODE_ADDRESS, 1);
    for contract in CONTRACTS {
        construct(&mut state, env, contract)?;
    }
    for account in &DEV_ACCOUNTS {
        let call = ITestUsdc::mintCall { to: account.address, amount: U256::from(INITIAL_USDC) };
        step(&mut state, env, "TestUSDC", (minter(), TOKEN_ADDRESS, call.abi_encode().into()))?;
    }
    // The set-up was free of charge and left no trace on its sender.
    for account in &DEV_ACCOUNTS {
        state.set_nonce(account.address, 0);
    }
    Ok(state)
}

/// Runs the constructor in place: the creation code lies at the address while it is called, and what
/// it returns takes its place. So `address(this)` is right and no storage has to be moved. Returns the
/// code that lies there then.
fn construct(
    state: &mut State,
    env: &Env,
    contract: &GenesisContract,
) -> Result<Bytes, GenesisError> {
    let name = contract.name;
    let artifact = Artifact::parse(contract.artifact)
        .map_err(|source| GenesisError::Artifact { name, source })?;
    state.set_code(contract.address, artifact.creation(&(contract.arguments)()));
    let code = step(state, env, name, (minter(), contract.address, Bytes::new()))?;
    state.set_code(contract.address, code.clone());
    state.set_nonce(contract.address, 1);
    Ok(code)
}

/// Calls a contract and commits what it changed; returns what it returned.
fn step(
    state: &mut State,
    env: &Env,
    name: &'static str,
    (caller, to, data): (Address, Address, Bytes),
) -> Result<Bytes, GenesisError> {
    let tx = TxEnv {
        caller,
        kind: TxKind::Call(to),
        data,
        gas_limit: STEP_GAS,
        chain_id: None,
        ..TxEnv::default()
    };
    let blocks = Blocks::default();
    let db = WrapDatabaseRef(ChainDb { view: state.now(), blocks: &blocks });
    let outcome = |outcome: String| GenesisError::Contract { name, outcome };
    let ran =
        evm::run(db, env, Rules::Simulation, tx).map_err(|error| outcome(error.to_string()))?;
    match ran.result {
        ExecutionResult::Success { output, .. } => {
            state.commit(ran.state);
            Ok(output.into_data())
        }
        failed @ (ExecutionResult::Revert { .. } | ExecutionResult::Halt { .. }) => {
            Err(outcome(format!("{failed:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ether_is_ten_thousand() {
        assert_eq!(INITIAL_WEI, U256::from(10_000) * U256::from(10).pow(U256::from(18)));
    }
}
