//! A foreign chain to test against: anvil, with our token where stock clients look for USDC, our
//! proxies of x402 (the real ones are in no registry), and the real Permit2 and Multicall3.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolValue;
use farebox_devnet::{
    EXACT_PERMIT2_PROXY_ADDRESS, MULTICALL3_ADDRESS, PERMIT2_ADDRESS, TOKEN_CODE_ADDRESS,
    UPTO_PERMIT2_PROXY_ADDRESS, WALLET_FACTORY_ADDRESS,
};
use farebox_protocol::Amount;
use serde_json::json;

use crate::process::{Process, StartError, installed, workspace};
use crate::real::{self, RealError};
use crate::rpc::{CHAIN_ID, JsonRpc, RpcError, TOKEN};

const BINARY: &str = "tests/clients/js/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil";
const LISTENING: &str = "Listening on ";

/// Our contracts and where they lie. None needs its constructor, but that of the token's proxy.
const CONTRACTS: [(Address, &str); 5] = [
    (TOKEN, include_str!("../../../contracts/artifacts/TestUSDCProxy.json")),
    (TOKEN_CODE_ADDRESS, include_str!("../../../contracts/artifacts/TestUSDC.json")),
    (
        EXACT_PERMIT2_PROXY_ADDRESS,
        include_str!("../../../contracts/artifacts/X402ExactPermit2Proxy.json"),
    ),
    (
        UPTO_PERMIT2_PROXY_ADDRESS,
        include_str!("../../../contracts/artifacts/X402UptoPermit2Proxy.json"),
    ),
    (WALLET_FACTORY_ADDRESS, include_str!("../../../contracts/artifacts/TestWalletFactory.json")),
];

/// What the constructor of the token's proxy keeps, by the name that its slot is the hash of.
const PROXY: [(&str, Address); 2] = [
    ("org.zeppelinos.proxy.implementation", TOKEN_CODE_ADDRESS),
    ("org.zeppelinos.proxy.admin", Address::repeat_byte(0xff)),
];

/// The slots in which the token keeps balances and the supply (`contracts/src/TestUSDC.sol`).
const BALANCES_SLOT: u64 = 9;
const SUPPLY_SLOT: u64 = 11;

/// A running anvil, ended on drop.
#[derive(Debug)]
pub struct Anvil {
    process: Process,
    rpc: JsonRpc,
}

/// Why there is no anvil to test on.
#[derive(Debug, thiserror::Error)]
pub enum AnvilError {
    /// It does not run.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It runs but cannot be prepared.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// An artifact is not what the compiler writes.
    #[error("the artifact of the contract for {address} has no run-time code")]
    Artifact {
        /// Where the contract was to lie.
        address: Address,
        /// What is wrong with its JSON.
        #[source]
        source: serde_json::Error,
    },
    /// The code of a foreign contract cannot be had.
    #[error(transparent)]
    Real(#[from] RealError),
}

/// When the chain makes a block.
#[derive(Clone, Copy, Debug)]
pub enum Blocks {
    /// With each transaction.
    Instant,
    /// Every so many seconds.
    EverySeconds(u64),
}

impl Anvil {
    /// Starts a chain on a free port, with the contracts in place and nobody holding any tokens.
    pub async fn start(blocks: Blocks) -> Result<Self, AnvilError> {
        let binary = installed(workspace().join(BINARY))?;
        let chain_id = CHAIN_ID.to_string();
        let mut arguments = vec!["--port", "0", "--chain-id", &chain_id];
        let seconds;
        if let Blocks::EverySeconds(interval) = blocks {
            seconds = interval.to_string();
            arguments.extend(["--block-time", &seconds]);
        }
        let (process, listening) = Process::start(&binary, &arguments, |output| {
            let line = output.split_inclusive('\n').find(|line| line.starts_with(LISTENING))?;
            Some(line.strip_prefix(LISTENING)?.strip_suffix('\n')?.to_owned())
        })
        .await?;
        let rpc = JsonRpc::new(format!("http://{listening}"))?;
        // The genesis block has timestamp 1; what depends on time needs one of today.
        rpc.call("evm_mine", json!([])).await?;
        for (address, artifact) in CONTRACTS {
            let code = runtime_code(artifact)
                .map_err(|source| AnvilError::Artifact { address, source })?;
            rpc.call("anvil_setCode", json!([address, code])).await?;
        }
        for (name, value) in PROXY {
            let set = json!([TOKEN, keccak256(name), value.into_word()]);
            rpc.call("anvil_setStorageAt", set).await?;
        }
        rpc.call("anvil_setCode", json!([PERMIT2_ADDRESS, real::permit2_code()?])).await?;
        let creation = json!([{ "data": real::multicall3_creation()? }, "latest"]);
        let multicall3 = rpc.call("eth_call", creation).await?;
        rpc.call("anvil_setCode", json!([MULTICALL3_ADDRESS, multicall3])).await?;
        Ok(Self { process, rpc })
    }

    /// Where and how to ask it.
    pub fn rpc(&self) -> &JsonRpc {
        &self.rpc
    }

    /// What it logged so far, for a failing test.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Mints token units to an account; the total supply grows with it.
    pub async fn give_tokens(&self, account: Address, amount: Amount) -> Result<(), RpcError> {
        let balance = keccak256((account, U256::from(BALANCES_SLOT)).abi_encode());
        for slot in [balance, B256::from(U256::from(SUPPLY_SLOT))] {
            let held = self.rpc.word("eth_getStorageAt", json!([TOKEN, slot, "latest"])).await?;
            let more = B256::from(held.saturating_add(U256::from(amount.units())));
            self.rpc.call("anvil_setStorageAt", json!([TOKEN, slot, more])).await?;
        }
        Ok(())
    }
}

/// The run-time code in an artifact.
fn runtime_code(artifact: &str) -> Result<String, serde_json::Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Artifact {
        deployed_bytecode: String,
    }
    let artifact: Artifact = serde_json::from_str(artifact)?;
    Ok(artifact.deployed_bytecode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn token_units_given_are_token_units_held() {
        let anvil = Anvil::start(Blocks::Instant).await.unwrap();
        let (holder, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        anvil.give_tokens(holder, Amount::from_units(5)).await.unwrap();
        anvil.give_tokens(holder, Amount::from_units(37)).await.unwrap();
        assert_eq!(anvil.rpc().tokens_of(holder).await.unwrap(), Amount::from_units(42));
        assert_eq!(anvil.rpc().tokens_of(other).await.unwrap(), Amount::ZERO);
        assert_eq!(anvil.rpc().word("eth_chainId", json!([])).await.unwrap(), U256::from(CHAIN_ID));
    }

    #[tokio::test]
    async fn an_unknown_method_is_an_error_that_names_it() {
        let anvil = Anvil::start(Blocks::EverySeconds(2)).await.unwrap();
        let error = anvil.rpc().call("eth_nonsense", json!([])).await.unwrap_err();
        assert!(error.to_string().starts_with("the chain answered eth_nonsense with"), "{error}");
    }
}
