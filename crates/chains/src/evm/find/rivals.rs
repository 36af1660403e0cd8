//! Which of several authorisations one transaction settled whose events are the same: told by the states
//! of their nonces before and after its block.

use alloy_primitives::{B256, U256};
use serde_json::{Value, json};

use super::is_used;
use crate::evm::chain::Chain;
use crate::evm::check::EvmPayment;
use crate::evm::method::{ContractCall, Proof, Rivals, Seen};
use crate::evm::usage::ask_at;
use crate::rpc::{Call, Receipt, RpcError};

impl Chain {
    /// The verdict on a payment of which a transaction's events alone say nothing.
    pub(super) async fn prove_among_rivals(
        &self,
        payment: &EvmPayment,
        call: &ContractCall,
        receipt: &Receipt,
    ) -> Result<Proof, RpcError> {
        let seen = Seen { call, logs: &receipt.logs };
        let Some(Rivals { all, paid }) = payment.method.rivals(payment, seen) else {
            return Ok(Proof::Unclear);
        };
        let all =
            all.into_iter().map(|authorization| EvmPayment { authorization, ..payment.clone() });
        let all: Vec<EvmPayment> = all.collect();
        let Some(mut used) = self.used_in(&all, receipt.block_number).await? else {
            return Ok(Proof::Unclear);
        };
        let is_own = |it: &&EvmPayment| it.authorization == payment.authorization;
        // Somebody may have settled some of them apart, in the same block (attack A7).
        if used.len() != paid && used.iter().any(is_own) {
            let elsewhere = self.settled_beside(&used, receipt).await?;
            used.retain(|it| !elsewhere.contains(&it.authorization.nonce));
        }
        Ok(match used.iter().any(is_own) {
            false => Proof::Unrelated,
            true if used.len() == paid => Proof::Paid,
            true => Proof::Unclear,
        })
    }

    /// Those whose nonces were used in this block; `None` where the node has not kept its states.
    async fn used_in<'a>(
        &self,
        payments: &'a [EvmPayment],
        block: U256,
    ) -> Result<Option<Vec<&'a EvmPayment>>, RpcError> {
        let before = block.saturating_sub(U256::from(1));
        let ask = |it: &EvmPayment| {
            let query = it.method.use_query(&it.authorization);
            [ask_at(&query, before), ask_at(&query, block)]
        };
        let calls: Vec<Call> = payments.iter().flat_map(ask).collect();
        let mut answers = self.rpc().batch(&calls).await?.into_iter();
        let mut used = Vec::new();
        for payment in payments {
            let (before, after) =
                (is_used(payment, answers.next()), is_used(payment, answers.next()));
            match (before, after) {
                (Some(false), Some(true)) => used.push(payment),
                (Some(_), Some(_)) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(used))
    }

    /// The nonces of those that another transaction of the same block settled.
    async fn settled_beside(
        &self,
        payments: &[&EvmPayment],
        receipt: &Receipt,
    ) -> Result<Vec<B256>, RpcError> {
        let number = format!("{:#x}", receipt.block_number);
        let block = self.rpc().call("eth_getBlockByNumber", json!([number, false])).await?;
        let hashes = block.get("transactions").and_then(Value::as_array);
        let hashes = hashes.into_iter().flatten();
        let hashes = hashes.filter_map(|it| it.as_str()?.parse::<B256>().ok());
        let hashes: Vec<B256> = hashes.filter(|it| *it != receipt.transaction_hash).collect();
        let mut settled = Vec::new();
        for hashes in hashes.chunks(super::TRANSACTIONS_BATCH) {
            for (receipt, call) in self.transactions(hashes).await? {
                let seen = Seen { call: &call, logs: &receipt.logs };
                let paid = payments
                    .iter()
                    .filter(|it| receipt.succeeded() && it.method.proof(it, seen) == Proof::Paid);
                settled.extend(paid.map(|it| it.authorization.nonce));
            }
        }
        Ok(settled)
    }
}
