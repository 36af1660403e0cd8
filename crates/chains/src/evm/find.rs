//! Where a used authorisation went: found by its event, whoever sent the transaction.

use std::time::Duration;

use alloy_primitives::{B256, U256, b256};
use serde_json::json;

use super::abi::{self, Proof};
use super::chain::Chain;
use super::check::ExactPayment;
use super::tracker::{is_deep, receipt_call};
use crate::facilitator::Settlement;
use crate::rpc::{Call, Log, Receipt, RpcError, quantity};

/// `AuthorizationCanceled(address,bytes32)`
const AUTHORIZATION_CANCELED: B256 =
    b256!("0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81");

/// How many blocks one `eth_getLogs` asks for: public nodes take at least so many.
const WINDOW_BLOCKS: u64 = 2_000;
/// How far back is looked, at most.
const LOOKBACK: Duration = Duration::from_hours(24);
/// And in at most so many windows, where blocks are short.
const WINDOWS_MAX: u64 = 200;
/// How many windows go into one batch.
const WINDOWS_BATCH: usize = 10;

/// What is said of a token that cannot be served well.
const ODD_EVENTS: &str = "the token does not emit AuthorizationUsed and Transfer back to back: it cannot be told what \
     was paid";

/// Where a used authorisation went.
#[derive(Debug)]
pub(crate) enum Found {
    /// It moved the money as signed.
    Paid(Settlement),
    /// It was used in a block that is not as deep yet as configured, by this transaction.
    NotDeep(B256),
    /// It was cancelled by its owner, or the token moved no money.
    Elsewhere(B256),
    /// Its event was not found as far back as was looked, or tells nothing.
    Nowhere,
}

impl Chain {
    /// Looks for the event of a used authorisation, latest blocks first.
    pub(crate) async fn find(&self, payment: &ExactPayment) -> Result<Found, RpcError> {
        let head = self.rpc().call("eth_blockNumber", json!([])).await?;
        let head: u64 = quantity(&head)?;
        let windows = windows(head, self.lookback_windows());
        for chunk in windows.chunks(WINDOWS_BATCH) {
            let calls: Vec<Call> = chunk.iter().map(|it| logs_call(payment, *it)).collect();
            for answer in self.rpc().batch(&calls).await? {
                let logs =
                    answer.map_err(|error| RpcError::Node { method: "eth_getLogs", error })?;
                if let Some(log) = Log::read_all(logs)?.into_iter().rfind(|it| !it.removed) {
                    return self.judge_use(payment, log.transaction_hash, head).await;
                }
            }
        }
        Ok(Found::Nowhere)
    }

    /// Whether this transaction, whoever sent it, made the payment.
    pub(crate) async fn judge_use(
        &self,
        payment: &ExactPayment,
        transaction: B256,
        head: u64,
    ) -> Result<Found, RpcError> {
        let call = receipt_call(&transaction);
        let Some(receipt) = Receipt::read(self.rpc().call(call.method, call.params).await?)? else {
            return Ok(Found::Nowhere);
        };
        if !is_deep(&receipt, U256::from(head), self.config().confirmations.max(1)) {
            return Ok(Found::NotDeep(transaction));
        }
        Ok(match abi::proof_of(&receipt.logs, payment) {
            Proof::Paid if receipt.succeeded() => Found::Paid(settlement_of(payment, &receipt)),
            Proof::Paid | Proof::Unpaid => Found::Elsewhere(transaction),
            Proof::Unclear => {
                tracing::error!(%transaction, payment = %payment.id, "{ODD_EVENTS}");
                Found::Nowhere
            }
        })
    }

    fn lookback_windows(&self) -> u64 {
        let block_ms = self.config().block_time.as_millis().max(1);
        let blocks = LOOKBACK.as_millis().checked_div(block_ms).unwrap_or_default();
        let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
        blocks.div_ceil(WINDOW_BLOCKS).clamp(1, WINDOWS_MAX)
    }
}

/// The proof that a receipt is.
pub(crate) fn settlement_of(payment: &ExactPayment, receipt: &Receipt) -> Settlement {
    Settlement {
        transaction: receipt.transaction_hash.to_string(),
        network: payment.token.network().clone(),
        payer: payment.payer().to_string(),
        amount: payment.amount(),
    }
}

/// Ranges of blocks from the head backwards, both ends included.
fn windows(head: u64, count: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut end = Some(head);
    while let (Some(last), true) = (end, u64::try_from(ranges.len()).is_ok_and(|it| it < count)) {
        let first = last.saturating_sub(WINDOW_BLOCKS.saturating_sub(1));
        ranges.push((first, last));
        end = first.checked_sub(1);
    }
    ranges
}

fn logs_call(payment: &ExactPayment, (first, last): (u64, u64)) -> Call {
    let it = &payment.authorization;
    let topics =
        json!([[abi::AUTHORIZATION_USED, AUTHORIZATION_CANCELED], it.from.into_word(), it.nonce,]);
    let filter = json!({
        "address": payment.token.address().to_lower_hex(),
        "fromBlock": format!("{first:#x}"),
        "toBlock": format!("{last:#x}"),
        "topics": topics,
    });
    Call::new("eth_getLogs", json!([filter]))
}

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    #[test]
    fn the_whole_way_back_without_overlap() {
        assert_eq!(keccak256("AuthorizationCanceled(address,bytes32)"), AUTHORIZATION_CANCELED);
        assert_eq!(windows(5, 3), [(0, 5)]);
        assert_eq!(windows(1_999, 3), [(0, 1_999)]);
        assert_eq!(windows(2_000, 3), [(1, 2_000), (0, 0)]);
        assert_eq!(windows(9_999, 2), [(8_000, 9_999), (6_000, 7_999)]);
    }
}
