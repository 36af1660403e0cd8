//! Whether the chain still has what it had, and how deep.

use std::time::Duration;

use alloy_primitives::{B256, U256};
use farebox_protocol::wire::SettleRequest;
use serde_json::json;

use super::chain::Chain;
use super::check::EvmPayment;
use super::method::{Proof, Seen};
use super::tracker::is_deep;
use super::usage::Usage;
use crate::facilitator::Permanence;
use crate::rpc::{RpcError, quantity};

impl Chain {
    /// How firmly a transaction of a payment is in the chain.
    pub(crate) async fn permanence(
        &self,
        request: &SettleRequest,
        transaction: &str,
    ) -> Result<Permanence, RpcError> {
        let (Ok(payment), Ok(hash)) = (self.read_untimed(request), transaction.parse::<B256>())
        else {
            // It was settled under another configuration, or by somebody with other names.
            return Ok(Permanence::CannotTell);
        };
        let depth = self.depth_of(&payment);
        let head = self.rpc().call("eth_blockNumber", json!([])).await?;
        let head: U256 = quantity(&head)?;
        let found = self.transactions(&[hash]).await?.into_iter().next();
        let Some((receipt, call)) = found.filter(|(receipt, _)| receipt.succeeded()) else {
            self.flights.undo(&hash);
            return Ok(Permanence::Gone);
        };
        let proof = payment.method.proof(&payment, Seen { call: &call, logs: &receipt.logs });
        let is_there = match proof {
            Proof::Paid => true,
            // One of several that look alike: the nonce has to tell.
            Proof::Unclear => self.usage(&payment, receipt.block_number).await? == Usage::Used,
            Proof::Spent | Proof::Unrelated | Proof::Cancelled => false,
        };
        if !is_there {
            self.flights.undo(&hash);
            return Ok(Permanence::Gone);
        }
        if is_deep(&receipt, head, depth) {
            return Ok(Permanence::Final);
        }
        let blocks = head.saturating_add(U256::from(1)).saturating_sub(receipt.block_number);
        let missing = depth.saturating_sub(u32::try_from(blocks).unwrap_or(u32::MAX));
        Ok(Permanence::Shallow { left: self.config().block_time.saturating_mul(missing) })
    }

    /// How long it takes from its block until a payment is final; `None`: it is then.
    pub(super) fn final_in(&self, payment: &EvmPayment) -> Option<Duration> {
        let blocks = self.depth_of(payment).saturating_sub(self.config().confirmations.max(1));
        (0 < blocks).then(|| self.config().block_time.saturating_mul(blocks))
    }
}
