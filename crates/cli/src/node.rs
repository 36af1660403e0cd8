//! A few questions to an EVM node, asked as any outsider would, over JSON-RPC.
//!
//! For what `farebox-chains` does not tell because no payment depends on it: balances and fees.

use std::time::Duration;

use farebox_chains::EvmAddress;
use serde_json::{Value, json};
use url::Url;

/// The longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON-RPC client of one network.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    http: reqwest::Client,
    urls: Vec<Url>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// There is no HTTP client to ask with.
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
    /// Nobody answered, or not in JSON.
    #[error("no node answered {method}")]
    Silent {
        /// What was asked.
        method: &'static str,
        /// How the last one failed.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The answer is an error, or not of the form that it should have.
    #[error("expected {expected} from {method}, found {found}")]
    Answer {
        /// What was asked.
        method: &'static str,
        /// What should have come.
        expected: &'static str,
        /// What came, as JSON.
        found: String,
    },
}

impl Node {
    /// A client of the nodes at `urls`; the next one is asked where one fails.
    pub(crate) fn new(urls: Vec<Url>) -> Result<Self, NodeError> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build();
        Ok(Self { http: http.map_err(NodeError::Client)?, urls })
    }

    /// What an account has for gas, in wei.
    pub(crate) async fn wei(&self, owner: EvmAddress) -> Result<u128, NodeError> {
        let method = "eth_getBalance";
        let answer = self.ask(method, json!([owner.to_string(), "latest"])).await?;
        quantity(method, &answer)
    }

    /// What a call that changes nothing returns, as a number.
    pub(crate) async fn call(&self, to: EvmAddress, data: &str) -> Result<u128, NodeError> {
        let method = "eth_call";
        let call = json!({ "to": to.to_string(), "data": data });
        let answer = self.ask(method, json!([call, "latest"])).await?;
        quantity(method, &answer)
    }

    /// Gas used and price of a mined transaction: units, and wei a unit.
    pub(crate) async fn gas(&self, transaction: &str) -> Result<(u128, u128), NodeError> {
        let method = "eth_getTransactionReceipt";
        let receipt = self.ask(method, json!([transaction])).await?;
        let field = |name: &str| quantity(method, receipt.get(name).unwrap_or(&Value::Null));
        Ok((field("gasUsed")?, field("effectiveGasPrice")?))
    }

    async fn ask(&self, method: &'static str, params: Value) -> Result<Value, NodeError> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut last = None;
        for url in &self.urls {
            match self.ask_one(url, &body).await {
                Ok(answer) => return result(method, answer),
                // A URL may carry a key; an error that is shown may not.
                Err(error) => last = Some(error.without_url()),
            }
        }
        Err(NodeError::Silent { method, source: last })
    }

    async fn ask_one(&self, url: &Url, body: &Value) -> Result<Value, reqwest::Error> {
        self.http.post(url.clone()).json(body).send().await?.json().await
    }
}

fn result(method: &'static str, mut answer: Value) -> Result<Value, NodeError> {
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(NodeError::Answer { method, expected: "a result", found: answer.to_string() }),
    }
}

/// A hexadecimal number below 2¹²⁸, padded or not.
fn quantity(method: &'static str, value: &Value) -> Result<u128, NodeError> {
    let digits = value.as_str().and_then(|it| it.strip_prefix("0x")).filter(|it| !it.is_empty());
    let number = digits.and_then(|it| match it.trim_start_matches('0') {
        "" => Some(0),
        significant => u128::from_str_radix(significant, 16).ok(),
    });
    number.ok_or_else(|| NodeError::Answer {
        method,
        expected: "a number",
        found: value.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let read = |value: &Value| quantity("test", value).ok();
        assert_eq!(read(&json!("0x0")), Some(0));
        assert_eq!(read(&json!("0x2a")), Some(42));
        assert_eq!(read(&json!(format!("0x{:064x}", 1_000_000))), Some(1_000_000));
        let bad = [json!("0x"), json!("2a"), json!(7), json!(null), json!("0xzz")];
        assert!(bad.iter().all(|it| read(it).is_none()));
        assert_eq!(read(&json!(format!("0x1{}", "0".repeat(32)))), None, "2¹²⁸");
    }
}
