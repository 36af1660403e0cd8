//! What nodes return, read strictly.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256};
use serde::Deserialize;
use serde_json::Value;

use super::error::RpcError;

/// `eth_getTransactionReceipt`, what we need of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receipt {
    pub(crate) transaction_hash: B256,
    pub(crate) block_number: U256,
    pub(crate) block_hash: B256,
    pub(crate) status: U256,
    pub(crate) logs: Vec<Log>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Log {
    pub(crate) address: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
    pub(crate) transaction_hash: B256,
    /// Its place among all events of its block.
    #[serde(rename = "logIndex")]
    pub(crate) index: U256,
    #[serde(default)]
    pub(crate) removed: bool,
}

/// `eth_getTransactionByHash`, what we need of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Transaction {
    /// Nobody: it makes a contract.
    pub(crate) to: Option<Address>,
    pub(crate) input: Bytes,
}

impl Transaction {
    /// A transaction, or nothing where the node does not know it.
    pub(crate) fn read(value: Value) -> Result<Option<Self>, RpcError> {
        serde_json::from_value(value).map_err(|_| garbage("something that is not a transaction"))
    }
}

impl Receipt {
    /// A receipt, or nothing where the node has none yet.
    pub(crate) fn read(value: Value) -> Result<Option<Self>, RpcError> {
        serde_json::from_value(value).map_err(|_| garbage("something that is not a receipt"))
    }

    /// Whether the transaction ran to its end.
    pub(crate) fn succeeded(&self) -> bool {
        self.status == U256::from(1)
    }
}

impl Log {
    /// The answer of `eth_getLogs`.
    pub(crate) fn read_all(value: Value) -> Result<Vec<Self>, RpcError> {
        serde_json::from_value(value).map_err(|_| garbage("something that is not a list of logs"))
    }
}

/// A number such as `0x1b4`.
pub(crate) fn quantity<T: TryFrom<U256>>(value: &Value) -> Result<T, RpcError> {
    let number = value.as_str().and_then(|it| it.strip_prefix("0x"));
    let number = number.and_then(|it| U256::from_str_radix(it, 16).ok());
    number
        .and_then(|it| it.try_into().ok())
        .ok_or_else(|| garbage("something that is not a number"))
}

/// The 32-byte words of what `eth_call` returned; an odd rest makes it no answer.
pub(crate) fn words(value: &Value) -> Result<Vec<B256>, RpcError> {
    let bytes: Bytes = serde_json::from_value(value.clone())
        .map_err(|_| garbage("something that is not hexadecimal"))?;
    let chunks = bytes.chunks_exact(32);
    if !chunks.remainder().is_empty() {
        return Err(garbage("something that is not ABI-encoded"));
    }
    Ok(chunks.map(B256::from_slice).collect())
}

/// The one word of what `eth_call` returned; nothing where there is no contract.
pub(crate) fn word(value: &Value) -> Result<Option<B256>, RpcError> {
    Ok(words(value)?.first().copied())
}

/// Exactly one word: nothing, as nodes answer that are not up to date, is no answer.
pub(crate) fn one_word(value: &Value) -> Result<B256, RpcError> {
    match words(value)?.as_slice() {
        [word] => Ok(*word),
        _ => Err(garbage("something that is not one word")),
    }
}

pub(crate) fn garbage(what: &'static str) -> RpcError {
    RpcError::Garbage { host: Arc::from("the node"), what }
}
