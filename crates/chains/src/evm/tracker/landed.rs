//! What lies in a block and is not as deep yet as its value takes: watched, and sent again, the same bytes,
//! if the chain takes the block back.

use alloy_primitives::{B256, U256};
use serde_json::json;

use super::items::Item;
use super::{Tracker, is_deep, receipt_call};
use crate::rpc::{Call, Receipt, RpcError, quantity};
use crate::transaction_log::TransactionEnd;

/// In how many looks in a row a block must have gone: nodes may lag behind one another.
const GONE_LOOKS: u32 = 2;
/// For how many receipts a node is asked at a time.
const BATCH: usize = 100;

/// Where a transaction is.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) receipt: Receipt,
    /// Looks in a row in which it was not there.
    gone: u32,
}

/// What one look says of a transaction.
enum Sight {
    /// It is where it was.
    There(Receipt),
    /// It is in no block, or in another.
    Gone,
}

impl Item {
    /// Those who waited were told; it is looked after until it is deep enough.
    pub(super) fn wait_for_depth(&mut self, receipt: Receipt) {
        if let Some(it) = self.newest() {
            it.signer.nonces.in_block(it.nonce());
        }
        self.mined = true;
        self.landed = Some(Landed { receipt, gone: 0 });
    }

    /// The chain took it back: it is on its way as before.
    fn undo(&mut self) -> Option<Receipt> {
        let landed = self.landed.take()?;
        if let Some(it) = self.newest() {
            it.signer.nonces.on_its_way(it.nonce());
        }
        self.mined = false;
        self.passed_over = 0;
        Some(landed.receipt)
    }
}

impl Tracker {
    /// One look at all of them.
    pub(super) async fn look_at_landed(&self) -> Result<(), RpcError> {
        let landed: Vec<(B256, B256, B256)> = self.with(|items| {
            let landed = items.iter_mut().filter_map(|(key, item)| {
                let receipt = &item.landed.as_ref()?.receipt;
                Some((*key, receipt.transaction_hash, receipt.block_hash))
            });
            landed.collect()
        });
        for chunk in landed.chunks(BATCH) {
            self.look_at_these(chunk).await?;
        }
        Ok(())
    }

    async fn look_at_these(&self, landed: &[(B256, B256, B256)]) -> Result<(), RpcError> {
        let mut calls = vec![Call::new("eth_blockNumber", json!([]))];
        calls.extend(landed.iter().map(|(_, hash, _)| receipt_call(hash)));
        let mut answers = self.parts.rpc.batch(&calls).await?.into_iter();
        let head = answers.next().ok_or(RpcError::NoEndpoint)?;
        let head = head.map_err(|error| RpcError::Node { method: "eth_blockNumber", error })?;
        let head = quantity::<U256>(&head)?;
        let mut ended = Vec::new();
        for ((key, _, block), answer) in landed.iter().zip(answers) {
            let Ok(value) = answer else { continue };
            match Receipt::read(value)? {
                Some(receipt) if receipt.block_hash == *block => {
                    ended.extend(self.see_landed(key, Sight::There(receipt), head));
                }
                Some(_) | None => ended.extend(self.see_landed(key, Sight::Gone, head)),
            }
        }
        self.end(&ended).await;
        Ok(())
    }

    /// What has ended by that.
    fn see_landed(&self, key: &B256, sight: Sight, head: U256) -> Vec<([u8; 32], TransactionEnd)> {
        self.with(|items| {
            let Some(item) = items.get_mut(key) else { return Vec::new() };
            let depth = item.depth();
            let Some(landed) = &mut item.landed else { return Vec::new() };
            match sight {
                Sight::There(receipt) if is_deep(&receipt, head, depth) => {
                    return items.remove(key).map(|it| it.mined_as(&receipt)).unwrap_or_default();
                }
                Sight::There(_) => landed.gone = 0,
                Sight::Gone => {
                    landed.gone = landed.gone.saturating_add(1);
                    if GONE_LOOKS <= landed.gone
                        && let Some(receipt) = item.undo()
                    {
                        let (transaction, block) = (receipt.transaction_hash, receipt.block_hash);
                        tracing::warn!(%transaction, %block, "the chain took back its block");
                        self.parts.flights.undo(&transaction);
                    }
                }
            }
            Vec::new()
        })
    }
}
