//! Methods that look for logs, once or by a filter that is polled.

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::U64;
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use serde_json::Value;

use super::{Answer, Params, RpcError, params::value};
use crate::{
    chain::Chain,
    filters::{self, Watch},
};

/// `eth_getLogs(filter)`.
pub(super) fn logs(chain: &Chain, params: &Params, _now: u64) -> Answer {
    value(find(chain, &params.required::<Filter>(0)?)?)
}

/// `eth_newFilter(filter)`.
pub(super) fn new_filter(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let filter = Box::new(params.required::<Filter>(0)?);
    let next = chain.head().saturating_add(1);
    value(U64::from(chain.filters.add(Watch::Logs { filter, next })))
}

/// `eth_newBlockFilter()`.
pub(super) fn new_block_filter(chain: &mut Chain, _params: &Params, _now: u64) -> Answer {
    value(U64::from(chain.filters.add(Watch::Blocks(Vec::new()))))
}

/// `eth_newPendingTransactionFilter()`.
pub(super) fn new_transaction_filter(chain: &mut Chain, _params: &Params, _now: u64) -> Answer {
    value(U64::from(chain.filters.add(Watch::Transactions(Vec::new()))))
}

/// `eth_uninstallFilter(id)`.
pub(super) fn uninstall(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    Ok(Value::Bool(chain.filters.remove(params.required_u64(0)?)))
}

/// `eth_getFilterChanges(id)`: what is new since the last time.
pub(super) fn changes(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let head = chain.head();
    let (filter, since) = match chain.filters.get(params.required_u64(0)?) {
        None => return Err(no_filter()),
        Some(Watch::Blocks(hashes) | Watch::Transactions(hashes)) => {
            return value(std::mem::take(hashes));
        }
        Some(Watch::Logs { filter, next }) => {
            let since = std::mem::replace(next, head.saturating_add(1));
            (filter.clone(), since)
        }
    };
    let (from, to) = range(chain, &filter.block_option);
    let new = chain.blocks.range(since.max(from), to.min(head));
    value(new.flat_map(|block| filters::matching(block, &filter)).collect::<Vec<_>>())
}

/// `eth_getFilterLogs(id)`: everything the filter's range holds.
pub(super) fn filter_logs(chain: &mut Chain, params: &Params, _now: u64) -> Answer {
    let filter = match chain.filters.get(params.required_u64(0)?) {
        Some(Watch::Logs { filter, .. }) => filter.clone(),
        Some(Watch::Blocks(_) | Watch::Transactions(_)) | None => return Err(no_filter()),
    };
    value(find(chain, &filter)?)
}

fn no_filter() -> RpcError {
    RpcError::server("filter not found")
}

fn find<'a>(chain: &'a Chain, filter: &'a Filter) -> Result<Vec<&'a Log>, RpcError> {
    if let FilterBlockOption::AtBlockHash(hash) = filter.block_option {
        let block = chain.blocks.by_hash(hash).ok_or_else(|| RpcError::server("unknown block"))?;
        return Ok(filters::matching(block, filter).collect());
    }
    let (from, to) = range(chain, &filter.block_option);
    if to < from {
        return Err(RpcError::invalid_params("invalid block range params"));
    }
    Ok(chain.blocks.range(from, to).flat_map(|block| filters::matching(block, filter)).collect())
}

/// The blocks that a filter asks for; from and to the newest unless it says otherwise.
fn range(chain: &Chain, option: &FilterBlockOption) -> (u64, u64) {
    let number = |tag: Option<&BlockNumberOrTag>| {
        chain.number(tag.copied().unwrap_or(BlockNumberOrTag::Latest))
    };
    match option {
        FilterBlockOption::Range { from_block, to_block } => {
            (number(from_block.as_ref()), number(to_block.as_ref()))
        }
        FilterBlockOption::AtBlockHash(_) => (0, u64::MAX),
    }
}
