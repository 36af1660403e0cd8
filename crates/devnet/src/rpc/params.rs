//! Parameters by position, each parsed when it is asked for.

use alloy_eips::BlockId;
use alloy_primitives::U256;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::RpcError;

/// The `params` array of a request.
#[derive(Debug)]
pub(crate) struct Params(Vec<Value>);

impl Params {
    /// Takes the `params` member; absent and null mean none.
    pub(crate) fn new(params: Option<Value>) -> Result<Self, RpcError> {
        match params {
            None | Some(Value::Null) => Ok(Self(Vec::new())),
            Some(Value::Array(list)) => Ok(Self(list)),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                Err(RpcError::invalid_params("non-array args"))
            }
        }
    }

    /// The parameter at `index`; absent and null are an error.
    pub(crate) fn required<T: DeserializeOwned>(&self, index: usize) -> Result<T, RpcError> {
        self.optional(index)?.ok_or_else(|| {
            RpcError::invalid_params(format!("missing value for required argument {index}"))
        })
    }

    /// The parameter at `index`, if there is one.
    pub(crate) fn optional<T: DeserializeOwned>(
        &self,
        index: usize,
    ) -> Result<Option<T>, RpcError> {
        match self.0.get(index) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|error| {
                RpcError::invalid_params(format!("invalid argument {index}: {error}"))
            }),
        }
    }

    /// A number at `index`, as a hexadecimal or decimal string or as a JSON number: people type all
    /// three when they call the helpers by hand.
    pub(crate) fn number(&self, index: usize) -> Result<Option<U256>, RpcError> {
        let Some(value) = self.optional::<Value>(index)? else { return Ok(None) };
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
        };
        text.parse().map(Some).map_err(|_| {
            RpcError::invalid_params(format!("invalid argument {index}: not a number: {value}"))
        })
    }

    /// A number that fits 64 bits, see [`Params::number`].
    pub(crate) fn u64(&self, index: usize) -> Result<Option<u64>, RpcError> {
        let Some(number) = self.number(index)? else { return Ok(None) };
        u64::try_from(number).map(Some).map_err(|_| {
            RpcError::invalid_params(format!("invalid argument {index}: {number} is too large"))
        })
    }

    /// As [`Params::u64`], and an error if it is absent.
    pub(crate) fn required_u64(&self, index: usize) -> Result<u64, RpcError> {
        self.u64(index)?.ok_or_else(|| {
            RpcError::invalid_params(format!("missing value for required argument {index}"))
        })
    }

    /// The block that `index` names; the newest if it is absent.
    pub(crate) fn block(&self, index: usize) -> Result<BlockId, RpcError> {
        Ok(self.optional(index)?.unwrap_or_else(BlockId::latest))
    }
}

/// Serialises what a handler found.
pub(super) fn value(found: impl serde::Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(found).map_err(|error| RpcError::server(error.to_string()))
}
