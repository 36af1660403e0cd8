//! Asks the dev chain as any outsider would, over JSON-RPC: the sums are checked against what the
//! chain says, not against what farebox remembers.

use std::time::Duration;

use farebox_chains::EvmAddress;
use farebox_protocol::Amount;
use serde_json::{Value, json};

use crate::failure::Failure;

/// `balanceOf(address)` of ERC-20.
const BALANCE_OF: &str = "70a08231";

/// A JSON-RPC client of one node.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    http: reqwest::Client,
    url: String,
    token: EvmAddress,
}

impl Chain {
    /// A client of the node at `url`, for balances in `token`.
    pub(super) fn new(url: String, token: EvmAddress) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build();
        let http =
            http.map_err(|error| Failure::new("the HTTP client could not be made").because(error))?;
        Ok(Self { http, url, token })
    }

    /// What an account has of the token, in atomic units.
    pub(super) async fn token_balance(&self, owner: EvmAddress) -> Result<Amount, Failure> {
        let owner = owner.to_lower_hex();
        let data = format!("0x{BALANCE_OF}{:0>64}", owner.trim_start_matches("0x"));
        let call = json!({ "to": self.token.to_string(), "data": data });
        let answer = self.ask("eth_call", json!([call, "latest"])).await?;
        Ok(Amount::from_units(quantity(&answer)?))
    }

    /// What an account has for gas, in wei.
    pub(super) async fn wei(&self, owner: EvmAddress) -> Result<u128, Failure> {
        let answer = self.ask("eth_getBalance", json!([owner.to_string(), "latest"])).await?;
        quantity(&answer)
    }

    /// What a mined transaction cost its sender, in wei.
    pub(super) async fn fee(&self, transaction: &str) -> Result<u128, Failure> {
        let receipt = self.ask("eth_getTransactionReceipt", json!([transaction])).await?;
        let field = |name: &str| quantity(receipt.get(name).unwrap_or(&Value::Null));
        let fee = field("gasUsed")?.checked_mul(field("effectiveGasPrice")?);
        fee.ok_or_else(|| Failure::new("a fee is larger than can be written"))
    }

    async fn ask(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let failed = || Failure::new(format!("the dev chain did not answer {method}"));
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.http.post(&self.url).json(&body).send().await;
        let answer = answer.map_err(|error| failed().because(error))?;
        let mut answer: Value = answer.json().await.map_err(|error| failed().because(error))?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(failed().because(answer.to_string())),
        }
    }
}

/// A hexadecimal number that fits, as everything on this chain does.
fn quantity(value: &Value) -> Result<u128, Failure> {
    let digits = value.as_str().and_then(|it| it.strip_prefix("0x"));
    let number = digits.and_then(|it| u128::from_str_radix(it.trim_start_matches('0'), 16).ok());
    let zero = digits.filter(|it| !it.is_empty() && it.bytes().all(|byte| byte == b'0'));
    number
        .or(zero.map(|_| 0))
        .ok_or_else(|| Failure::new(format!("expected a number from the dev chain, found {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        assert_eq!(quantity(&json!("0x0")).unwrap(), 0);
        assert_eq!(quantity(&json!("0x2a")).unwrap(), 42);
        assert_eq!(quantity(&json!(format!("0x{:064x}", 1_000_000))).unwrap(), 1_000_000);
        for bad in [json!("0x"), json!("2a"), json!(7), json!(null), json!("0xzz")] {
            assert!(quantity(&bad).is_err(), "{bad}");
        }
    }
}
