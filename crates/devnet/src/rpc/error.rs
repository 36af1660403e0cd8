//! JSON-RPC errors with the codes and words that EVM clients look for.

use std::convert::Infallible;

use alloy_primitives::Bytes;
use alloy_sol_types::decode_revert_reason;
use revm::context::result::{EVMError, HaltReason, InvalidTransaction};
use serde::Serialize;
use serde_json::Value;

use crate::{
    chain::{NoSuchState, SubmitError},
    pool::Refused,
    sign::BadSignature,
    simulate::Failed,
};

/// The body is not JSON.
const PARSE_ERROR: i64 = -32700;
/// The JSON is not a request.
const INVALID_REQUEST: i64 = -32600;
/// There is no such method.
const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters do not fit the method.
const INVALID_PARAMS: i64 = -32602;
/// The request was understood and cannot be met (go-ethereum's general code).
const SERVER_ERROR: i64 = -32000;
/// The call reverted; `data` holds what it returned.
const REVERTED: i64 = 3;

/// The `error` member of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RpcError {
    code: i64,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

impl RpcError {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// -32700.
    pub(crate) fn parse() -> Self {
        Self::new(PARSE_ERROR, "parse error")
    }

    /// -32600.
    pub(crate) fn invalid_request(what: &str) -> Self {
        Self::new(INVALID_REQUEST, what)
    }

    /// -32601.
    pub(crate) fn no_method(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("the method {method} does not exist/is not available"))
    }

    /// -32602.
    pub(crate) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    /// -32000.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::new(SERVER_ERROR, message)
    }

    fn reverted(output: &Bytes) -> Self {
        let message = match decode_revert_reason(output) {
            Some(reason) if !reason.is_empty() => {
                let reason = reason.strip_prefix("revert: ").unwrap_or(&reason);
                format!("execution reverted: {reason}")
            }
            Some(_) | None => "execution reverted".to_owned(),
        };
        Self { code: REVERTED, message, data: Some(Value::String(output.to_string())) }
    }
}

impl From<NoSuchState> for RpcError {
    fn from(error: NoSuchState) -> Self {
        Self::server(error.to_string())
    }
}

impl From<Refused> for RpcError {
    fn from(error: Refused) -> Self {
        Self::server(error.to_string())
    }
}

impl From<BadSignature> for RpcError {
    fn from(error: BadSignature) -> Self {
        Self::server(error.to_string())
    }
}

impl From<SubmitError> for RpcError {
    fn from(error: SubmitError) -> Self {
        Self::server(error.to_string())
    }
}

impl From<Failed> for RpcError {
    fn from(error: Failed) -> Self {
        match error {
            Failed::Reverted(output) => Self::reverted(&output),
            Failed::Halted(reason) => Self::server(halt_words(&reason)),
            Failed::NotRun(EVMError::Transaction(error)) => Self::server(invalid_words(&error)),
            Failed::NotRun(error) => Self::server(error.to_string()),
            Failed::GasRequiredExceeds(gas) => {
                Self::server(format!("gas required exceeds allowance ({gas})"))
            }
            Failed::BothPrices => {
                Self::server("both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified")
            }
        }
    }
}

impl From<Infallible> for RpcError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A halt in go-ethereum's words.
fn halt_words(reason: &HaltReason) -> String {
    if matches!(reason, HaltReason::OutOfGas(_)) {
        return "out of gas".to_owned();
    }
    if matches!(reason, HaltReason::InvalidFEOpcode | HaltReason::OpcodeNotFound) {
        return "invalid opcode".to_owned();
    }
    format!("execution halted: {reason:?}")
}

/// A transaction that cannot run, in go-ethereum's words.
fn invalid_words(error: &InvalidTransaction) -> String {
    if let InvalidTransaction::LackOfFundForMaxFee { fee, balance } = error {
        return format!("insufficient funds for gas * price + value: have {balance} want {fee}");
    }
    if let InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } = error {
        return format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}");
    }
    if let InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, gas_limit } = error {
        return format!(
            "insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}"
        );
    }
    if matches!(error, InvalidTransaction::GasPriceLessThanBasefee) {
        return "max fee per gas less than block base fee".to_owned();
    }
    if matches!(error, InvalidTransaction::PriorityFeeGreaterThanMaxFee) {
        return "max priority fee per gas higher than max fee per gas".to_owned();
    }
    error.to_string()
}
