//! Asking a test chain over JSON-RPC, as any user would.

use std::time::Duration;

use alloy_primitives::{Address, Bytes, U256, address, keccak256};
use alloy_sol_types::SolValue;
use farebox_protocol::Amount;
use serde_json::{Value, json};

/// The chain id of the test chains: Base Sepolia's, because stock clients know its USDC.
pub const CHAIN_ID: u64 = 84_532;

/// Where stock clients look for USDC on [`CHAIN_ID`].
pub const TOKEN: Address = address!("0x036CbD53842c5426634e7929541eC2318f3dCF7e");

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A JSON-RPC endpoint.
#[derive(Clone, Debug)]
pub struct JsonRpc {
    url: String,
    client: reqwest::Client,
}

/// Why a chain gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// It could not be asked.
    #[error("the chain could not be asked {method}")]
    Http {
        /// The JSON-RPC method.
        method: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It answered with an error, or with something unexpected.
    #[error("the chain answered {method} with {answer}")]
    Answer {
        /// The JSON-RPC method.
        method: String,
        /// The whole answer.
        answer: Value,
    },
}

impl JsonRpc {
    /// An endpoint at a plain HTTP URL. Nothing is sent yet.
    pub fn new(url: String) -> Result<Self, RpcError> {
        // Building a client wants a TLS provider although none is used. An error says there is one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let builder = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN);
        let unbuilt = |source| RpcError::Http { method: "anything".to_owned(), source };
        builder.build().map(|client| Self { url, client }).map_err(unbuilt)
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// One call; the `result` member of the answer.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let unasked = |source| RpcError::Http { method: method.to_owned(), source };
        let sent = self.client.post(&self.url).json(&call).send().await.map_err(unasked)?;
        let mut answer: Value = sent.json().await.map_err(unasked)?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(RpcError::Answer { method: method.to_owned(), answer }),
        }
    }

    /// A call whose result is one number or 32-byte word.
    pub async fn word(&self, method: &str, params: Value) -> Result<U256, RpcError> {
        let result = self.call(method, params).await?;
        let parsed = result.as_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| RpcError::Answer { method: method.to_owned(), answer: result })
    }

    /// How many token units an account holds, asked of the token itself.
    pub async fn tokens_of(&self, account: Address) -> Result<Amount, RpcError> {
        let selector = keccak256("balanceOf(address)");
        let mut data = selector.iter().copied().take(4).collect::<Vec<u8>>();
        data.extend(account.abi_encode());
        let call = json!({ "to": TOKEN, "data": Bytes::from(data) });
        let units = self.word("eth_call", json!([call, "latest"])).await?;
        let out_of_range = |_| RpcError::Answer {
            method: "balanceOf".to_owned(),
            answer: Value::String(units.to_string()),
        };
        u128::try_from(units).map(Amount::from_units).map_err(out_of_range)
    }
}
