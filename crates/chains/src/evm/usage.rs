//! Whether an authorisation was used, as of one block: what is final may not rest on answers of
//! nodes that are at different heights.

use alloy_primitives::U256;
use farebox_protocol::Timestamp;
use serde_json::json;

use super::chain::Chain;
use super::check::EvmPayment;
use super::method::ContractCall;
use crate::rpc::{Answer, Call, RpcError, garbage, one_word, quantity};

/// What one block says of an authorisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// It was used or cancelled.
    Used,
    /// It was not.
    Unused {
        /// The block's own time: the clock that the token compares with.
        at: Timestamp,
    },
}

impl Chain {
    /// The usage as of a block as deep as configured, and not before block `since`. A node that has
    /// not got that block, or knows no such contract in it, gives no answer.
    pub(crate) async fn usage(&self, payment: &EvmPayment, since: U256) -> Result<Usage, RpcError> {
        let head = self.rpc().call("eth_blockNumber", json!([])).await?;
        let above = self.config().confirmations.saturating_sub(1);
        let number = quantity::<U256>(&head)?.saturating_sub(U256::from(above)).max(since);
        let at = format!("{number:#x}");
        let state = payment.method.use_query(&payment.authorization);
        let calls = [Call::new("eth_getBlockByNumber", json!([at, false])), ask_at(&state, number)];
        let answers: [Answer; 2] = match self.rpc().batch(&calls).await?.try_into() {
            Ok(answers) => answers,
            Err(_) => return Err(RpcError::NoEndpoint),
        };
        let [block, state] = answers;
        let refused = |call: &Call, error| RpcError::Node { method: call.method, error };
        let [ask_block, ask_state] = &calls;
        let block = block.map_err(|error| refused(ask_block, error))?;
        let state = one_word(&state.map_err(|error| refused(ask_state, error))?)?;
        let used = payment.method.is_used(&payment.authorization, state);
        let used = used.ok_or_else(|| garbage("something that says nothing of a nonce"))?;
        let field = |name: &str| block.get(name).unwrap_or_default();
        if quantity::<U256>(field("number"))? != number {
            return Err(garbage("another block than the one that was asked for"));
        }
        let at = Timestamp::from_seconds(quantity(field("timestamp"))?);
        Ok(if used { Usage::Used } else { Usage::Unused { at } })
    }
}

/// A read of the state after a block.
pub(crate) fn ask_at(call: &ContractCall, block: U256) -> Call {
    let at = format!("{block:#x}");
    Call::new("eth_call", json!([{"to": call.to, "data": call.input}, at]))
}
