//! Where a used authorisation went: found by events, whoever sent the transaction.

mod rivals;

use std::collections::HashSet;
use std::time::Duration;

use alloy_primitives::{B256, U256};
use serde_json::json;

use super::address::EvmAddress;
use super::chain::Chain;
use super::check::EvmPayment;
use super::method::{Certainty, ContractCall, Proof, Seen, Traces};
use super::tracker::{is_deep, receipt_call};
use super::usage::ask_at;
use crate::facilitator::Settlement;
use crate::rpc::{Answer, Call, Log, Receipt, RpcError, Transaction, garbage, quantity, word};

/// How many blocks the first `eth_getLogs` asks for: nodes keep the state of at least so many.
const FIRST_WINDOW_BLOCKS: u64 = 100;
/// And each of the others: public nodes take at least so many.
const WINDOW_BLOCKS: u64 = 2_000;
/// How far back is looked, at most.
const LOOKBACK: Duration = Duration::from_hours(24);
/// And in at most so many windows, where blocks are short.
const WINDOWS_MAX: u64 = 200;
/// How many windows go into one batch.
const WINDOWS_BATCH: usize = 10;
/// How many transactions go into one batch.
const TRANSACTIONS_BATCH: usize = 20;
/// How many transactions are looked into, at most; full blocks of known networks have fewer.
const TRANSACTIONS_MAX: usize = 10_000;

/// What is said of a transaction that tells nothing.
const UNCLEAR: &str = "what this transaction did cannot be told from its call and its events";

/// Where a used authorisation went.
#[derive(Debug)]
pub(crate) enum Found {
    /// It moved the money as signed and demanded.
    Paid(Settlement),
    /// It was used in a block that is not as deep yet as configured, by this transaction.
    NotDeep(B256),
    /// It was cancelled or used for something else, by this transaction where one is known.
    Elsewhere(Option<B256>),
    /// Its use was not found as far back as was looked, or tells nothing.
    Nowhere,
}

/// What one range of blocks says.
struct Window {
    /// Its first and its last block.
    range: (u64, u64),
    /// Transactions that may have used the nonce, latest first.
    transactions: Vec<B256>,
    /// Whether the nonce was used within it, and in no other range.
    flipped: bool,
}

/// What a search knows so far.
#[derive(Default)]
struct Search {
    /// Transactions that were asked for.
    looked_into: HashSet<B256>,
    /// And those that the node knew.
    seen: HashSet<B256>,
    cancelled: Option<B256>,
    unclear: bool,
}

impl Search {
    /// What holds if nothing more is found and the search was complete.
    fn verdict(&self) -> Found {
        if self.unclear { Found::Nowhere } else { Found::Elsewhere(self.cancelled) }
    }
}

impl Chain {
    /// Looks for the transaction that used an authorisation, latest blocks first.
    pub(crate) async fn find(&self, payment: &EvmPayment) -> Result<Found, RpcError> {
        let head = self.rpc().call("eth_blockNumber", json!([])).await?;
        let head: u64 = quantity(&head)?;
        let traces = payment.method.traces(&payment.authorization);
        let mut search = Search::default();
        for ranges in windows(head, self.lookback_windows()).chunks(WINDOWS_BATCH) {
            for window in self.look_through(payment, &traces, ranges).await? {
                let transactions = &window.transactions;
                let found = self.look_into(payment, transactions, head, &mut search).await?;
                if let Some(found) = found {
                    return Ok(found);
                }
                if window.flipped {
                    return self.look_into_range(payment, window.range, head, search).await;
                }
                if TRANSACTIONS_MAX <= search.looked_into.len() {
                    return Ok(Found::Nowhere);
                }
            }
        }
        // A cancellation says enough; that nothing was found does not.
        Ok(if search.cancelled.is_some() { search.verdict() } else { Found::Nowhere })
    }

    async fn look_through(
        &self,
        payment: &EvmPayment,
        traces: &Traces,
        ranges: &[(u64, u64)],
    ) -> Result<Vec<Window>, RpcError> {
        let used = payment.method.use_query(&payment.authorization);
        let calls = ranges.iter().flat_map(|range| range_calls(&used, traces, *range));
        let calls: Vec<Call> = calls.collect();
        let mut answers = self.rpc().batch(&calls).await?.into_iter();
        let mut windows = Vec::with_capacity(ranges.len());
        for range in ranges {
            let logs = answers.next().ok_or(RpcError::NoEndpoint)?;
            let logs = logs.map_err(|error| RpcError::Node { method: "eth_getLogs", error })?;
            let mut transactions: Vec<B256> = Vec::new();
            for log in Log::read_all(logs)?.iter().rev().filter(|it| !it.removed) {
                let hash = log.transaction_hash;
                if payment.method.is_trace(payment, log) && !transactions.contains(&hash) {
                    transactions.push(hash);
                }
            }
            let flipped = match traces.certainty {
                Certainty::Always => false,
                Certainty::Payments => {
                    let after = is_used(payment, answers.next());
                    let before = is_used(payment, answers.next());
                    after == Some(true) && (range.0 == 0 || before == Some(false))
                }
            };
            windows.push(Window { range: *range, transactions, flipped });
        }
        Ok(windows)
    }

    /// What transactions say, if they settle the question.
    async fn look_into(
        &self,
        payment: &EvmPayment,
        transactions: &[B256],
        head: u64,
        search: &mut Search,
    ) -> Result<Option<Found>, RpcError> {
        let new = transactions.iter().filter(|it| !search.looked_into.contains(*it));
        let new: Vec<B256> = new.copied().take(TRANSACTIONS_MAX).collect();
        search.looked_into.extend(&new);
        for hashes in new.chunks(TRANSACTIONS_BATCH) {
            for (receipt, call) in self.transactions(hashes).await? {
                let hash = receipt.transaction_hash;
                search.seen.insert(hash);
                let proof =
                    payment.method.proof(payment, Seen { call: &call, logs: &receipt.logs });
                if proof == Proof::Unrelated || !receipt.succeeded() {
                    continue;
                }
                if !is_deep(&receipt, U256::from(head), self.config().confirmations.max(1)) {
                    return Ok(Some(Found::NotDeep(hash)));
                }
                let proof = if proof == Proof::Unclear {
                    self.prove_among_rivals(payment, &call, &receipt).await?
                } else {
                    proof
                };
                match proof {
                    Proof::Paid => {
                        return Ok(Some(Found::Paid(self.settlement_of(payment, &receipt))));
                    }
                    Proof::Spent => return Ok(Some(Found::Elsewhere(Some(hash)))),
                    Proof::Cancelled => search.cancelled = Some(hash),
                    Proof::Unclear => {
                        tracing::error!(transaction = %hash, payment = %payment.id, "{UNCLEAR}");
                        search.unclear = true;
                    }
                    Proof::Unrelated => {}
                }
            }
        }
        Ok(None)
    }

    /// What the range says in which the nonce was used, whatever the events of its blocks: nodes keep
    /// those apart, and may be behind with them. Only the block itself shows that nothing was paid.
    async fn look_into_range(
        &self,
        payment: &EvmPayment,
        range: (u64, u64),
        head: u64,
        mut search: Search,
    ) -> Result<Found, RpcError> {
        let Some(block) = self.block_of_use(payment, range).await? else {
            return Ok(Found::Nowhere);
        };
        let number = format!("{block:#x}");
        let answer = self.rpc().call("eth_getBlockByNumber", json!([number, false])).await?;
        let transactions = answer.get("transactions").cloned().unwrap_or_default();
        let Ok(transactions) = serde_json::from_value::<Vec<B256>>(transactions) else {
            return Err(garbage("a block without its transactions"));
        };
        match self.look_into(payment, &transactions, head, &mut search).await? {
            Some(found) => Ok(found),
            None if transactions.iter().all(|it| search.seen.contains(it)) => Ok(search.verdict()),
            None => Ok(Found::Nowhere),
        }
    }

    /// The block in which the nonce was used, by halving the range; `None` where the node has not kept
    /// a state that takes.
    async fn block_of_use(
        &self,
        payment: &EvmPayment,
        (first, last): (u64, u64),
    ) -> Result<Option<u64>, RpcError> {
        let query = payment.method.use_query(&payment.authorization);
        // Unused before `low`, used after `high`.
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = low.midpoint(high);
            let answer = self.rpc().batch(&[ask_at(&query, U256::from(middle))]).await?;
            match is_used(payment, answer.into_iter().next()) {
                Some(true) => high = middle,
                Some(false) => low = middle.saturating_add(1),
                None => return Ok(None),
            }
        }
        Ok(Some(high))
    }

    /// Receipts and calls of transactions; those that the node does not know are left out.
    pub(super) async fn transactions(
        &self,
        hashes: &[B256],
    ) -> Result<Vec<(Receipt, ContractCall)>, RpcError> {
        let calls = hashes.iter().flat_map(|hash| {
            [receipt_call(hash), Call::new("eth_getTransactionByHash", json!([hash]))]
        });
        let calls: Vec<Call> = calls.collect();
        let mut answers = self.rpc().batch(&calls).await?.into_iter().zip(&calls);
        let mut known = Vec::with_capacity(hashes.len());
        while let (Some(receipt), Some(transaction)) = (answers.next(), answers.next()) {
            let said = |(answer, call): (Answer, &Call)| {
                answer.map_err(|error| RpcError::Node { method: call.method, error })
            };
            let receipt = Receipt::read(said(receipt)?)?;
            let transaction = Transaction::read(said(transaction)?)?;
            if let (Some(receipt), Some(Transaction { to, input })) = (receipt, transaction) {
                // What makes a contract calls none that is there.
                let to = to.unwrap_or_default();
                known.push((receipt, ContractCall { to, input }));
            }
        }
        Ok(known)
    }

    fn lookback_windows(&self) -> u64 {
        let block_ms = self.config().block_time.as_millis().max(1);
        let blocks = LOOKBACK.as_millis().checked_div(block_ms).unwrap_or_default();
        let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
        blocks.div_ceil(WINDOW_BLOCKS).saturating_add(1).clamp(2, WINDOWS_MAX)
    }
}

impl Chain {
    /// The proof that a receipt is.
    pub(crate) fn settlement_of(&self, payment: &EvmPayment, receipt: &Receipt) -> Settlement {
        Settlement {
            transaction: receipt.transaction_hash.to_string(),
            network: payment.token.network().clone(),
            payer: payment.payer().to_string(),
            amount: payment.amount(),
            final_in: self.final_in(payment),
        }
    }
}

/// Ranges of blocks from the head backwards, both ends included; the first one is short.
fn windows(head: u64, count: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let (mut end, mut length) = (Some(head), FIRST_WINDOW_BLOCKS);
    while let (Some(last), true) = (end, u64::try_from(ranges.len()).is_ok_and(|it| it < count)) {
        let first = last.saturating_sub(length.saturating_sub(1));
        ranges.push((first, last));
        (end, length) = (first.checked_sub(1), WINDOW_BLOCKS);
    }
    ranges
}

/// The events of a range; and, where a use may leave none, the nonce after and before it.
fn range_calls(used: &ContractCall, traces: &Traces, (first, last): (u64, u64)) -> Vec<Call> {
    let addresses = traces.addresses.iter().map(|it| EvmAddress::from(*it).to_lower_hex());
    let filter = json!({
        "address": addresses.collect::<Vec<_>>(),
        "fromBlock": format!("{first:#x}"),
        "toBlock": format!("{last:#x}"),
        "topics": traces.topics,
    });
    let mut calls = vec![Call::new("eth_getLogs", json!([filter]))];
    if traces.certainty == Certainty::Payments {
        calls.push(ask_at(used, U256::from(last)));
        calls.push(ask_at(used, U256::from(first.saturating_sub(1))));
    }
    calls
}

/// What a state says of the nonce; nothing where the node has not kept it.
fn is_used(payment: &EvmPayment, answer: Option<Answer>) -> Option<bool> {
    let state = word(&answer?.ok()?).ok()??;
    payment.method.is_used(&payment.authorization, state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_way_back_without_overlap() {
        assert_eq!(windows(5, 3), [(0, 5)]);
        assert_eq!(windows(99, 3), [(0, 99)]);
        assert_eq!(windows(100, 3), [(1, 100), (0, 0)]);
        assert_eq!(windows(2_099, 3), [(2_000, 2_099), (0, 1_999)]);
        assert_eq!(windows(9_999, 2), [(9_900, 9_999), (7_900, 9_899)]);
    }
}
