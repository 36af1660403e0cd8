//! A foreign chain to test against: anvil, with our token where stock clients look for USDC.

use std::time::Duration;

use alloy_primitives::{Address, B256, U256, address, keccak256};
use alloy_sol_types::SolValue;
use farebox_protocol::Amount;
use serde_json::{Value, json};

use crate::process::{Process, StartError, installed, workspace};

/// The chain id of the test chains: Base Sepolia's, because stock clients know its USDC.
pub const CHAIN_ID: u64 = 84_532;

/// Where stock clients look for USDC on [`CHAIN_ID`].
pub const TOKEN: Address = address!("0x036CbD53842c5426634e7929541eC2318f3dCF7e");

const BINARY: &str = "tests/clients/js/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil";
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const LISTENING: &str = "Listening on ";
const ARTIFACT: &str = include_str!("../../../contracts/artifacts/TestUSDC.json");

/// The slots in which the token keeps balances and the supply (`contracts/src/TestUSDC.sol`).
const BALANCES_SLOT: u64 = 9;
const SUPPLY_SLOT: u64 = 11;

/// A running anvil, ended on drop.
#[derive(Debug)]
pub struct Anvil {
    process: Process,
    url: String,
    client: reqwest::Client,
}

/// What went wrong between a test and its anvil.
#[derive(Debug, thiserror::Error)]
pub enum AnvilError {
    /// It does not run.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It could not be asked.
    #[error("anvil could not be asked {method}")]
    Http {
        /// The JSON-RPC method.
        method: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It answered with an error, or with something unexpected.
    #[error("anvil answered {method} with {answer}")]
    Answer {
        /// The JSON-RPC method.
        method: String,
        /// The whole answer.
        answer: Value,
    },
    /// The token's artifact is not what the compiler writes.
    #[error("contracts/artifacts/TestUSDC.json has no run-time code")]
    Artifact(#[source] serde_json::Error),
}

/// When anvil makes a block.
#[derive(Clone, Copy, Debug)]
pub enum Blocks {
    /// With each transaction.
    Instant,
    /// Every so many seconds.
    EverySeconds(u64),
}

impl Anvil {
    /// Starts a chain on a free port, with the token in place and nobody holding any.
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
        let anvil = Self { process, url: format!("http://{listening}"), client: http_client()? };
        // The genesis block has timestamp 1; what depends on time needs one of today.
        anvil.rpc("evm_mine", json!([])).await?;
        anvil.rpc("anvil_setCode", json!([TOKEN, token_code()?])).await?;
        Ok(anvil)
    }

    /// Where its JSON-RPC answers, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it logged so far, for a failing test.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// One JSON-RPC call; the `result` member of the answer.
    pub async fn rpc(&self, method: &str, params: Value) -> Result<Value, AnvilError> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let unasked = |source| AnvilError::Http { method: method.to_owned(), source };
        let sent = self.client.post(&self.url).json(&call).send().await.map_err(unasked)?;
        let mut answer: Value = sent.json().await.map_err(unasked)?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(AnvilError::Answer { method: method.to_owned(), answer }),
        }
    }

    /// Gives an account one ether, enough for the gas of any test.
    pub async fn give_ether(&self, account: Address) -> Result<(), AnvilError> {
        let one_ether = U256::from(10).saturating_pow(U256::from(18));
        self.rpc("anvil_setBalance", json!([account, one_ether])).await.map(drop)
    }

    /// Mints token units to an account; the total supply grows with it.
    pub async fn give_tokens(&self, account: Address, amount: Amount) -> Result<(), AnvilError> {
        let balance = keccak256((account, U256::from(BALANCES_SLOT)).abi_encode());
        for slot in [balance, B256::from(U256::from(SUPPLY_SLOT))] {
            let held: U256 = self.word("eth_getStorageAt", json!([TOKEN, slot, "latest"])).await?;
            let more = B256::from(held.saturating_add(U256::from(amount.units())));
            self.rpc("anvil_setStorageAt", json!([TOKEN, slot, more])).await?;
        }
        Ok(())
    }

    /// How many token units an account holds, asked of the token itself.
    pub async fn tokens_of(&self, account: Address) -> Result<Amount, AnvilError> {
        let selector = keccak256("balanceOf(address)");
        let mut data = selector.iter().copied().take(4).collect::<Vec<u8>>();
        data.extend(account.abi_encode());
        let call = json!({ "to": TOKEN, "data": alloy_primitives::Bytes::from(data) });
        let units: U256 = self.word("eth_call", json!([call, "latest"])).await?;
        let out_of_range = |_| AnvilError::Answer {
            method: "balanceOf".to_owned(),
            answer: Value::String(units.to_string()),
        };
        u128::try_from(units).map(Amount::from_units).map_err(out_of_range)
    }

    /// A call whose result is one 32-byte word.
    async fn word(&self, method: &str, params: Value) -> Result<U256, AnvilError> {
        let result = self.rpc(method, params).await?;
        let parsed = result.as_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| AnvilError::Answer { method: method.to_owned(), answer: result })
    }
}

/// A client for plain HTTP on this machine.
fn http_client() -> Result<reqwest::Client, AnvilError> {
    // Building a client wants a TLS provider although none is used. An error says there is one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN);
    builder.build().map_err(|source| AnvilError::Http { method: "anything".to_owned(), source })
}

/// The token's run-time code. Name, version and domain are computed, so it works at any address.
fn token_code() -> Result<String, AnvilError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Artifact {
        deployed_bytecode: String,
    }
    let artifact: Artifact = serde_json::from_str(ARTIFACT).map_err(AnvilError::Artifact)?;
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
        assert_eq!(anvil.tokens_of(holder).await.unwrap(), Amount::from_units(42));
        assert_eq!(anvil.tokens_of(other).await.unwrap(), Amount::ZERO);
        let chain_id = anvil.rpc("eth_chainId", json!([])).await.unwrap();
        assert_eq!(chain_id, json!("0x14a34"));
    }

    #[tokio::test]
    async fn an_unknown_method_is_an_error_that_names_it() {
        let anvil = Anvil::start(Blocks::EverySeconds(2)).await.unwrap();
        let error = anvil.rpc("eth_nonsense", json!([])).await.unwrap_err();
        assert!(error.to_string().starts_with("anvil answered eth_nonsense with"), "{error}");
    }
}
