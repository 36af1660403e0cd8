//! Log queries, and the filters that clients poll (`eth_newFilter` and its kin).

use std::collections::BTreeMap;

use alloy_primitives::{B256, TxHash};
use alloy_rpc_types_eth::{Filter, Log};

use crate::blocks::Block;

/// Filters kept; setting up more forgets the oldest.
const FILTERS_KEPT: usize = 256;

/// Hashes that a filter holds for a client that does not fetch them; the oldest go first.
const HASHES_KEPT: usize = 4_096;

/// What a filter watches, and what its client has not fetched yet.
#[derive(Debug)]
pub(crate) enum Watch {
    /// Logs of the blocks from `next` on.
    Logs {
        /// What to look for.
        filter: Box<Filter>,
        /// First block the client has not seen.
        next: u64,
    },
    /// Hashes of new blocks.
    Blocks(Vec<B256>),
    /// Hashes of transactions as they arrive.
    Transactions(Vec<TxHash>),
}

/// All filters by id.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    watches: BTreeMap<u64, Watch>,
    made: u64,
}

impl Filters {
    /// Sets up a filter; returns its id.
    pub(crate) fn add(&mut self, watch: Watch) -> u64 {
        self.made = self.made.saturating_add(1);
        self.watches.insert(self.made, watch);
        if self.watches.len() > FILTERS_KEPT {
            self.watches.pop_first();
        }
        self.made
    }

    /// The filter with this id.
    pub(crate) fn get(&mut self, id: u64) -> Option<&mut Watch> {
        self.watches.get_mut(&id)
    }

    /// Takes a filter down; false if there was none.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        self.watches.remove(&id).is_some()
    }

    /// Notes a new block.
    pub(crate) fn block(&mut self, block: &Block) {
        for watch in self.watches.values_mut() {
            if let Watch::Blocks(hashes) = watch {
                push(hashes, block.hash);
            }
        }
    }

    /// Notes a transaction that arrived.
    pub(crate) fn transaction(&mut self, hash: TxHash) {
        for watch in self.watches.values_mut() {
            if let Watch::Transactions(hashes) = watch {
                push(hashes, hash);
            }
        }
    }

    /// Notes that the blocks after `head` are gone: their successors will be new to everyone.
    pub(crate) fn rewind(&mut self, head: u64) {
        for watch in self.watches.values_mut() {
            if let Watch::Logs { next, .. } = watch {
                *next = (*next).min(head.saturating_add(1));
            }
        }
    }
}

fn push(hashes: &mut Vec<B256>, hash: B256) {
    if hashes.len() >= HASHES_KEPT {
        hashes.remove(0);
    }
    hashes.push(hash);
}

/// The logs of `block` that `filter` asks for (its block range is the caller's business).
pub(crate) fn matching<'a>(
    block: &'a Block,
    filter: &'a Filter,
) -> impl Iterator<Item = &'a Log> + 'a {
    let worth_a_look = filter.matches_bloom(block.header.logs_bloom);
    let mined = if worth_a_look { block.mined.as_slice() } else { &[] };
    mined
        .iter()
        .flat_map(|one| one.receipt.inner.logs())
        .filter(|log| filter.matches_address(log.address()) && filter.matches_topics(log.topics()))
}
