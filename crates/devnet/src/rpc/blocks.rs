//! Methods that read blocks, transactions and receipts.

use alloy_eips::BlockId;
use alloy_primitives::{B256, Bytes, TxHash, U64, U256};
use alloy_rpc_types_eth::{
    Block as RpcBlock, BlockTransactions, Header, Transaction, TransactionInfo, Withdrawals,
};
use serde_json::{Map, Value, json};

use super::{Answer, Params, params::value};
use crate::{
    blocks::{self, Block},
    chain::Chain,
    pool::Pooled,
};

/// `eth_blockNumber()`.
pub(super) fn number(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(U64::from(chain.head()))
}

/// `eth_getBlockByNumber(tag, full)` and `eth_getBlockByHash(hash, full)`.
pub(super) fn block(chain: &Chain, params: &Params, now: u64) -> Answer {
    let at: BlockId = params.required(0)?;
    let full = params.optional::<bool>(1)?.unwrap_or_default();
    if at == BlockId::pending() {
        let (block, _state) = chain.pending(now);
        return Ok(pending(show(&block, full)?));
    }
    match chain.block(at) {
        Some(block) => show(block, full),
        None => Ok(Value::Null),
    }
}

/// A pending block has no hash yet, nor have the places of its transactions.
fn pending(mut block: Value) -> Value {
    if let Value::Object(fields) = &mut block {
        for unknown in ["hash", "nonce"] {
            fields.insert(unknown.to_owned(), Value::Null);
        }
        let transactions = fields.get_mut("transactions").and_then(Value::as_array_mut);
        for tx in transactions.into_iter().flatten().filter_map(Value::as_object_mut) {
            tx.insert("blockHash".to_owned(), Value::Null);
        }
    }
    block
}

fn show(block: &Block, full: bool) -> Answer {
    let transactions = if full {
        BlockTransactions::Full(block.mined.iter().map(|one| one.tx.clone()).collect())
    } else {
        BlockTransactions::Hashes(
            block.mined.iter().map(|one| one.receipt.transaction_hash).collect(),
        )
    };
    value(RpcBlock {
        header: Header {
            hash: block.hash,
            inner: block.header.clone(),
            total_difficulty: Some(U256::ZERO),
            size: Some(U256::from(block.size)),
        },
        uncles: Vec::new(),
        transactions,
        withdrawals: Some(Withdrawals::default()),
    })
}

/// `eth_getBlockReceipts(block)`.
pub(super) fn receipts(chain: &Chain, params: &Params, _now: u64) -> Answer {
    let Some(block) = chain.block(params.required(0)?) else { return Ok(Value::Null) };
    value(block.mined.iter().map(|one| &one.receipt).collect::<Vec<_>>())
}

/// `eth_getBlockTransactionCountByNumber(tag)` and `…ByHash(hash)`.
pub(super) fn transaction_count(chain: &Chain, params: &Params, _now: u64) -> Answer {
    match chain.block(params.required(0)?) {
        Some(block) => value(U256::from(block.mined.len())),
        None => Ok(Value::Null),
    }
}

/// `eth_getUncleCountByBlockNumber(tag)` and `…ByHash(hash)`.
pub(super) fn uncle_count(chain: &Chain, params: &Params, _now: u64) -> Answer {
    match chain.block(params.required(0)?) {
        Some(_) => value(U256::ZERO),
        None => Ok(Value::Null),
    }
}

/// `eth_getTransactionByHash(hash)`, mined or waiting.
pub(super) fn transaction(chain: &Chain, params: &Params, _now: u64) -> Answer {
    let hash: TxHash = params.required(0)?;
    if let Some(mined) = chain.blocks.transaction(hash) {
        return value(&mined.tx);
    }
    match chain.pool.get(hash) {
        Some(pooled) => waiting(pooled),
        None => Ok(Value::Null),
    }
}

/// `eth_getTransactionByBlockNumberAndIndex(tag, index)` and `…ByBlockHash…`.
pub(super) fn transaction_at(chain: &Chain, params: &Params, _now: u64) -> Answer {
    let index = usize::try_from(params.required_u64(1)?).unwrap_or(usize::MAX);
    let block = chain.block(params.required(0)?);
    match block.and_then(|block| block.mined.get(index)) {
        Some(mined) => value(&mined.tx),
        None => Ok(Value::Null),
    }
}

/// `eth_getTransactionReceipt(hash)`; null while it waits.
pub(super) fn receipt(chain: &Chain, params: &Params, _now: u64) -> Answer {
    let hash: TxHash = params.required(0)?;
    match chain.blocks.transaction(hash) {
        Some(mined) => value(&mined.receipt),
        None => Ok(Value::Null),
    }
}

/// `eth_getRawTransactionByHash(hash)`.
pub(super) fn raw_transaction(chain: &Chain, params: &Params, _now: u64) -> Answer {
    let hash: TxHash = params.required(0)?;
    let mined = chain.blocks.transaction(hash).map(|mined| mined.tx.inner.inner());
    match mined.or_else(|| chain.pool.get(hash).map(|pooled| pooled.tx.inner())) {
        Some(tx) => value(Bytes::from(blocks::raw(tx))),
        None => Ok(Value::Null),
    }
}

fn waiting(pooled: &Pooled) -> Answer {
    let hash: B256 = *pooled.tx.inner().tx_hash();
    let info = TransactionInfo { hash: Some(hash), ..TransactionInfo::default() };
    value(Transaction::from_transaction(pooled.tx.clone(), info))
}

/// `txpool_status()`.
pub(super) fn pool_status(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    let runnable = chain.pool.all().filter(|pooled| is_runnable(chain, pooled)).count();
    let queued = chain.pool.len().saturating_sub(runnable);
    value(json!({ "pending": U256::from(runnable), "queued": U256::from(queued) }))
}

/// `txpool_content()`: what can run and what waits for an earlier nonce, by sender and nonce.
pub(super) fn pool_content(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    let mut content = [Map::new(), Map::new()];
    let [runnable, queued] = &mut content;
    for pooled in chain.pool.all() {
        let part = if is_runnable(chain, pooled) { &mut *runnable } else { &mut *queued };
        let sender = part.entry(pooled.tx.signer().to_string()).or_insert_with(|| json!({}));
        if let Value::Object(by_nonce) = sender {
            by_nonce.insert(pooled.nonce().to_string(), waiting(pooled)?);
        }
    }
    let [runnable, queued] = content;
    Ok(json!({ "pending": runnable, "queued": queued }))
}

fn is_runnable(chain: &Chain, pooled: &Pooled) -> bool {
    let sender = pooled.tx.signer();
    let next = chain.pool.next_nonce(sender, chain.state.now().nonce(sender));
    pooled.nonce() < next
}
