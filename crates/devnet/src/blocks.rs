//! The chain's blocks with their transactions and receipts, and how a block is put together: true
//! transaction, receipt and bloom commitments, and a hash that covers them.
//!
//! The state root is not a Merkle root: no client can check it without `eth_getProof`, which is not
//! offered, and computing it would cost more than everything else. It chains the block's other
//! commitments instead.

use std::collections::VecDeque;

use alloy_consensus::{
    BlockBody, Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, Transaction as _, TxEnvelope,
    constants::EMPTY_WITHDRAWALS, proofs, transaction::Recovered,
};
use alloy_eips::{eip2718::Encodable2718, eip4895::Withdrawals, eip7685::EMPTY_REQUESTS_HASH};
use alloy_primitives::{Address, B256, Bloom, Log, TxHash, keccak256, map::HashMap};
use alloy_rpc_types_eth::{Log as RpcLog, Transaction, TransactionInfo, TransactionReceipt};
use revm::context::BlockEnv;

use crate::state::Checkpoint;

/// Blocks kept; older ones are answered like blocks that never were. At one block in 2 s this is
/// nine hours.
pub(crate) const BLOCKS_KEPT: usize = 16_384;

/// A transaction that ran, before its block is sealed.
#[derive(Debug, Clone)]
pub(crate) struct Executed {
    /// The transaction and who sent it.
    pub(crate) tx: Recovered<TxEnvelope>,
    /// Gas of this transaction alone.
    pub(crate) gas_used: u64,
    /// False if it reverted or ran out of gas.
    pub(crate) success: bool,
    /// Events it emitted.
    pub(crate) logs: Vec<Log>,
    /// Address of the contract it made, if it made one.
    pub(crate) created: Option<Address>,
}

/// A transaction in its block, ready to be shown.
#[derive(Debug, Clone)]
pub(crate) struct Mined {
    /// As `eth_getTransactionByHash` shows it.
    pub(crate) tx: Transaction,
    /// As `eth_getTransactionReceipt` shows it.
    pub(crate) receipt: TransactionReceipt,
}

/// A sealed block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// Its header.
    pub(crate) header: Header,
    /// Keccak-256 of the header's RLP.
    pub(crate) hash: B256,
    /// Its transactions in order.
    pub(crate) mined: Vec<Mined>,
    /// Bytes of the block's RLP.
    pub(crate) size: usize,
    /// The state after it.
    pub(crate) state: Checkpoint,
}

impl Block {
    /// Puts a block together from what ran in it; `state` is the moment after it.
    pub(crate) fn seal(
        parent: &Parent,
        env: &BlockEnv,
        executed: Vec<Executed>,
        state: Checkpoint,
    ) -> Self {
        let receipts = receipts(&executed);
        let header = header(parent, env, &executed, &receipts);
        let hash = header.hash_slow();
        let transactions: Vec<TxEnvelope> =
            executed.iter().map(|one| one.tx.inner().clone()).collect();
        let body = BlockBody {
            transactions,
            ommers: Vec::new(),
            withdrawals: Some(Withdrawals::default()),
        };
        let size = alloy_consensus::Block::rlp_length_for(&header, &body);
        let mut place = Place { header: &header, hash, index: 0, first_log: 0, gas_before: 0 };
        let mut mined = Vec::with_capacity(executed.len());
        for (one, receipt) in executed.into_iter().zip(receipts) {
            mined.push(place.put(one, receipt));
        }
        Self { header, hash, mined, size, state }
    }
}

/// What a block takes from the one before it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Parent {
    /// Hash of the block before; zero for the genesis block.
    pub(crate) hash: B256,
    /// Its commitment to the state.
    pub(crate) state_root: B256,
}

fn receipts(executed: &[Executed]) -> Vec<ReceiptEnvelope> {
    let mut gas = 0_u64;
    let mut receipts = Vec::with_capacity(executed.len());
    for one in executed {
        gas = gas.saturating_add(one.gas_used);
        let receipt = Receipt {
            status: one.success.into(),
            cumulative_gas_used: gas,
            logs: one.logs.clone(),
        };
        let with_bloom: ReceiptWithBloom<Receipt> = receipt.with_bloom();
        receipts.push(ReceiptEnvelope::from_typed(one.tx.tx_type(), with_bloom));
    }
    receipts
}

fn header(
    parent: &Parent,
    env: &BlockEnv,
    executed: &[Executed],
    receipts: &[ReceiptEnvelope],
) -> Header {
    let transactions: Vec<&TxEnvelope> = executed.iter().map(|one| one.tx.inner()).collect();
    let transactions_root = proofs::calculate_transaction_root(&transactions);
    let receipts_root = proofs::calculate_receipt_root(receipts);
    let logs_bloom =
        receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | *receipt.logs_bloom());
    let commitments = [parent.state_root, transactions_root, receipts_root];
    Header {
        parent_hash: parent.hash,
        beneficiary: env.beneficiary,
        state_root: keccak256(commitments.concat()),
        transactions_root,
        receipts_root,
        logs_bloom,
        number: env.number.saturating_to(),
        gas_limit: env.gas_limit,
        gas_used: receipts.last().map_or(0, ReceiptEnvelope::cumulative_gas_used),
        timestamp: env.timestamp.saturating_to(),
        mix_hash: env.prevrandao.unwrap_or_default(),
        base_fee_per_gas: Some(env.basefee),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}

/// Where the next transaction of a block stands.
struct Place<'a> {
    header: &'a Header,
    hash: B256,
    index: u64,
    first_log: u64,
    gas_before: u64,
}

impl Place<'_> {
    fn put(&mut self, one: Executed, receipt: ReceiptEnvelope) -> Mined {
        let hash = *one.tx.inner().tx_hash();
        let info = TransactionInfo {
            hash: Some(hash),
            index: Some(self.index),
            block_hash: Some(self.hash),
            block_number: Some(self.header.number),
            base_fee: self.header.base_fee_per_gas,
            block_timestamp: Some(self.header.timestamp),
        };
        let mut log_index = self.first_log;
        let inner = receipt.map_logs(|log| {
            let shown = self.log(log, hash, log_index);
            log_index = log_index.saturating_add(1);
            shown
        });
        let receipt = TransactionReceipt {
            inner,
            transaction_hash: hash,
            transaction_index: info.index,
            block_hash: info.block_hash,
            block_number: info.block_number,
            gas_used: one.gas_used,
            effective_gas_price: one.tx.effective_gas_price(self.header.base_fee_per_gas),
            blob_gas_used: None,
            blob_gas_price: None,
            from: one.tx.signer(),
            to: one.tx.to(),
            contract_address: one.created,
        };
        self.first_log = log_index;
        self.index = self.index.saturating_add(1);
        self.gas_before = self.gas_before.saturating_add(one.gas_used);
        Mined { tx: Transaction::from_transaction(one.tx, info), receipt }
    }

    fn log(&self, inner: Log, transaction: TxHash, log_index: u64) -> RpcLog {
        RpcLog {
            inner,
            block_hash: Some(self.hash),
            block_number: Some(self.header.number),
            block_timestamp: Some(self.header.timestamp),
            transaction_hash: Some(transaction),
            transaction_index: Some(self.index),
            log_index: Some(log_index),
            removed: false,
        }
    }
}

/// The blocks of the chain, newest last; never empty once the genesis block is in.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    list: VecDeque<Block>,
    /// Number of the first block still kept.
    first: u64,
    numbers: HashMap<B256, u64>,
    transactions: HashMap<TxHash, (u64, usize)>,
}

impl Blocks {
    /// Appends a block and forgets the oldest beyond [`BLOCKS_KEPT`].
    pub(crate) fn push(&mut self, block: Block) {
        let number = block.header.number;
        self.numbers.insert(block.hash, number);
        for (index, mined) in block.mined.iter().enumerate() {
            self.transactions.insert(mined.receipt.transaction_hash, (number, index));
        }
        self.list.push_back(block);
        if self.list.len() > BLOCKS_KEPT
            && let Some(old) = self.list.pop_front()
        {
            self.first = self.first.saturating_add(1);
            self.unlist(&old);
        }
    }

    /// Drops every block after `number`.
    pub(crate) fn truncate(&mut self, number: u64) {
        while self.list.back().is_some_and(|block| block.header.number > number)
            && let Some(block) = self.list.pop_back()
        {
            self.unlist(&block);
        }
    }

    /// The newest block.
    pub(crate) fn head(&self) -> Option<&Block> {
        self.list.back()
    }

    /// Number of the oldest block that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The block with this number, if it is kept.
    pub(crate) fn by_number(&self, number: u64) -> Option<&Block> {
        let index = number.checked_sub(self.first)?;
        self.list.get(usize::try_from(index).ok()?)
    }

    /// The block with this hash, if it is kept.
    pub(crate) fn by_hash(&self, hash: B256) -> Option<&Block> {
        self.by_number(*self.numbers.get(&hash)?)
    }

    /// The mined transaction with this hash, if its block is kept.
    pub(crate) fn transaction(&self, hash: TxHash) -> Option<&Mined> {
        let (number, index) = self.transactions.get(&hash)?;
        self.by_number(*number)?.mined.get(*index)
    }

    /// The blocks `from..=to` that are kept, oldest first.
    pub(crate) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = &Block> {
        let index =
            |number: u64| usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let end = if to < self.first { 0 } else { index(to).saturating_add(1) };
        self.list.iter().take(end).skip(index(from))
    }

    fn unlist(&mut self, block: &Block) {
        self.numbers.remove(&block.hash);
        for mined in &block.mined {
            self.transactions.remove(&mined.receipt.transaction_hash);
        }
    }
}

/// Bytes of a transaction as it travels.
pub(crate) fn raw(tx: &TxEnvelope) -> Vec<u8> {
    tx.encoded_2718()
}
