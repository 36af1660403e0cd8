//! Which of the contracts of fixed addresses are on a network.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use alloy_primitives::Address;
use serde_json::{Value, json};

use super::chain::Chain;
use super::method::Method;
use crate::rpc::{Call, RpcError};

/// Contracts that were found; they do not go away. What was not found is asked for again.
#[derive(Debug, Default)]
pub(crate) struct Deployed(Mutex<HashSet<Address>>);

impl Chain {
    /// The first contract that a method needs and this network has not got: its name and address.
    pub(crate) async fn missing_contract(
        &self,
        method: &dyn Method,
    ) -> Result<Option<String>, RpcError> {
        let known = |it: &Address| {
            self.deployed.0.lock().unwrap_or_else(PoisonError::into_inner).contains(it)
        };
        let wanted = method.contracts().iter().filter(|(_, address)| !known(address));
        let wanted: Vec<&(&str, Address)> = wanted.collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let ask = |address: &Address| Call::new("eth_getCode", json!([address, "latest"]));
        let calls: Vec<Call> = wanted.iter().map(|(_, address)| ask(address)).collect();
        let mut missing = None;
        for ((name, address), answer) in wanted.iter().zip(self.rpc().batch(&calls).await?) {
            let code = answer.map_err(|error| RpcError::Node { method: "eth_getCode", error })?;
            if has_code(Some(&code)) {
                self.deployed.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*address);
            } else if missing.is_none() {
                missing = Some(format!("{name} at {}", address.to_checksum(None)));
            }
        }
        Ok(missing)
    }
}

/// Whether the answer of `eth_getCode` is some.
pub(crate) fn has_code(code: Option<&Value>) -> bool {
    code.and_then(Value::as_str).is_some_and(|it| 2 < it.len())
}
