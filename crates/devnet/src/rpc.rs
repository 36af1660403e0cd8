//! JSON-RPC 2.0: what a request is, single or batched, and how it finds its handler.

mod blocks;
mod dev;
mod error;
mod fees;
mod logs;
mod params;
mod send;
mod state;
mod table;

use std::sync::{PoisonError, RwLock};

use serde::Serialize;
use serde_json::Value;

pub(crate) use error::RpcError;
pub(crate) use params::Params;
use table::{Handler, METHODS};

use crate::chain::Chain;

/// Most requests in one batch (go-ethereum's default).
const BATCH_LIMIT: usize = 1_000;

/// What every handler returns.
pub(crate) type Answer = Result<Value, RpcError>;

/// An answer on the wire.
#[derive(Debug, Serialize)]
struct Response {
    jsonrpc: &'static str,
    id: Value,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Result(Value),
    Error(RpcError),
}

/// Answers one HTTP body: a request or a batch. `None` if everything in it was a notification.
pub(crate) fn answer(chain: &RwLock<Chain>, body: &[u8], now: u64) -> Option<Vec<u8>> {
    let response = match serde_json::from_slice::<Value>(body) {
        Err(_) => vec_of(&refusal(RpcError::parse())),
        Ok(Value::Array(batch)) if batch.is_empty() => {
            vec_of(&refusal(RpcError::invalid_request("empty batch")))
        }
        Ok(Value::Array(batch)) if batch.len() > BATCH_LIMIT => {
            vec_of(&refusal(RpcError::invalid_request("batch too large")))
        }
        Ok(Value::Array(batch)) => {
            let answers: Vec<Response> =
                batch.into_iter().filter_map(|one| answer_one(chain, one, now)).collect();
            if answers.is_empty() {
                return None;
            }
            vec_of(&answers)
        }
        Ok(one) => vec_of(&answer_one(chain, one, now)?),
    };
    Some(response)
}

fn vec_of(answer: &impl Serialize) -> Vec<u8> {
    // Serialising values with string keys to memory cannot fail; an empty body would show if it did.
    serde_json::to_vec(answer).unwrap_or_default()
}

fn refusal(error: RpcError) -> Response {
    Response { jsonrpc: "2.0", id: Value::Null, outcome: Outcome::Error(error) }
}

fn answer_one(chain: &RwLock<Chain>, request: Value, now: u64) -> Option<Response> {
    let Value::Object(mut fields) = request else {
        return Some(refusal(RpcError::invalid_request("invalid request")));
    };
    let id = fields.remove("id");
    if id.as_ref().is_some_and(|id| id.is_object() || id.is_array()) {
        return Some(refusal(RpcError::invalid_request("invalid id")));
    }
    let Some(Value::String(method)) = fields.remove("method") else {
        return Some(refusal(RpcError::invalid_request("invalid request")));
    };
    let outcome = match dispatch(chain, &method, fields.remove("params"), now) {
        Ok(result) => Outcome::Result(result),
        Err(error) => Outcome::Error(error),
    };
    Some(Response { jsonrpc: "2.0", id: id?, outcome })
}

fn dispatch(chain: &RwLock<Chain>, method: &str, params: Option<Value>, now: u64) -> Answer {
    let params = Params::new(params)?;
    let found = METHODS.iter().find(|row| row.names.contains(&method));
    // A handler does not panic; if one ever did, the chain is still there to be looked at.
    match found.map(|row| row.handler) {
        Some(Handler::Read(handler)) => {
            handler(&chain.read().unwrap_or_else(PoisonError::into_inner), &params, now)
        }
        Some(Handler::Write(handler)) => {
            handler(&mut chain.write().unwrap_or_else(PoisonError::into_inner), &params, now)
        }
        None => Err(RpcError::no_method(method)),
    }
}
