//! Every method that the chain answers, in one table. To add one, write a handler and add a row.

use super::{Answer, Params, blocks, dev, fees, logs, send, state};
use crate::chain::Chain;

/// A method that only looks: any number run at once.
type Read = fn(&Chain, &Params, u64) -> Answer;

/// A method that changes the chain: it runs alone.
type Write = fn(&mut Chain, &Params, u64) -> Answer;

/// What runs when a method is called, with the wall clock's Unix seconds.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// Only looks.
    Read(Read),
    /// Changes the chain.
    Write(Write),
}

/// One row: a method under all its names.
pub(super) struct Method {
    /// The names it goes by.
    pub(super) names: &'static [&'static str],
    /// What it does.
    pub(super) handler: Handler,
}

const fn read(names: &'static [&'static str], handler: Read) -> Method {
    Method { names, handler: Handler::Read(handler) }
}

const fn write(names: &'static [&'static str], handler: Write) -> Method {
    Method { names, handler: Handler::Write(handler) }
}

/// The table.
#[rustfmt::skip]
pub(super) static METHODS: &[Method] = &[
    // The node.
    read(&["eth_chainId"], state::chain_id),
    read(&["net_version"], state::net_version),
    read(&["net_listening"], state::listening),
    read(&["net_peerCount"], state::peer_count),
    read(&["web3_clientVersion"], state::client_version),
    read(&["web3_sha3"], state::sha3),
    read(&["eth_syncing"], state::syncing),
    // Accounts and calls.
    read(&["eth_getBalance"], state::balance),
    read(&["eth_getCode"], state::code),
    read(&["eth_getStorageAt"], state::storage),
    read(&["eth_getTransactionCount"], state::nonce),
    read(&["eth_call"], state::call),
    read(&["eth_estimateGas"], state::estimate_gas),
    // Blocks, transactions, receipts.
    read(&["eth_blockNumber"], blocks::number),
    read(&["eth_getBlockByNumber", "eth_getBlockByHash"], blocks::block),
    read(&["eth_getBlockReceipts"], blocks::receipts),
    read(&["eth_getBlockTransactionCountByNumber", "eth_getBlockTransactionCountByHash"], blocks::transaction_count),
    read(&["eth_getUncleCountByBlockNumber", "eth_getUncleCountByBlockHash"], blocks::uncle_count),
    read(&["eth_getTransactionByHash"], blocks::transaction),
    read(&["eth_getTransactionByBlockNumberAndIndex", "eth_getTransactionByBlockHashAndIndex"], blocks::transaction_at),
    read(&["eth_getTransactionReceipt"], blocks::receipt),
    read(&["eth_getRawTransactionByHash"], blocks::raw_transaction),
    read(&["txpool_status"], blocks::pool_status),
    read(&["txpool_content"], blocks::pool_content),
    // Logs and filters.
    read(&["eth_getLogs"], logs::logs),
    write(&["eth_newFilter"], logs::new_filter),
    write(&["eth_newBlockFilter"], logs::new_block_filter),
    write(&["eth_newPendingTransactionFilter"], logs::new_transaction_filter),
    write(&["eth_getFilterChanges"], logs::changes),
    write(&["eth_getFilterLogs"], logs::filter_logs),
    write(&["eth_uninstallFilter"], logs::uninstall),
    // Fees.
    read(&["eth_gasPrice"], fees::gas_price),
    read(&["eth_maxPriorityFeePerGas"], fees::priority_fee),
    read(&["eth_blobBaseFee"], fees::blob_base_fee),
    read(&["eth_feeHistory"], fees::history),
    // Sending.
    write(&["eth_sendRawTransaction"], send::raw),
    write(&["eth_sendTransaction"], send::transaction),
    read(&["eth_accounts", "eth_requestAccounts"], send::accounts),
    read(&["eth_sign"], send::sign_message),
    read(&["personal_sign"], send::personal_sign),
    // Helpers for tests.
    write(&["evm_mine"], dev::evm_mine),
    write(&["anvil_mine", "hardhat_mine"], dev::anvil_mine),
    write(&["anvil_setBalance", "hardhat_setBalance"], dev::set_balance),
    write(&["anvil_addBalance"], dev::add_balance),
    write(&["anvil_setCode", "hardhat_setCode"], dev::set_code),
    write(&["anvil_setStorageAt", "hardhat_setStorageAt"], dev::set_storage),
    write(&["anvil_setNonce", "hardhat_setNonce", "evm_setAccountNonce"], dev::set_nonce),
    write(&["anvil_dealERC20", "anvil_dealErc20", "hardhat_dealERC20", "tenderly_setErc20Balance"], dev::deal),
    write(&["anvil_setCoinbase", "hardhat_setCoinbase"], dev::set_coinbase),
    write(&["anvil_setNextBlockBaseFeePerGas", "hardhat_setNextBlockBaseFeePerGas"], dev::set_base_fee),
    write(&["anvil_dropTransaction", "hardhat_dropTransaction"], send::drop),
    write(&["anvil_impersonateAccount", "hardhat_impersonateAccount"], dev::impersonate),
    write(&["anvil_stopImpersonatingAccount", "hardhat_stopImpersonatingAccount"], dev::stop_impersonating),
    write(&["anvil_autoImpersonateAccount", "hardhat_autoImpersonateAccount"], dev::impersonate_all),
    read(&["anvil_getAutomine", "hardhat_getAutomine"], dev::automine),
    write(&["evm_setAutomine", "anvil_setAutoMine"], dev::set_automine),
    write(&["evm_setIntervalMining", "anvil_setIntervalMining"], dev::set_interval),
    write(&["evm_setBlockGasLimit", "anvil_setBlockGasLimit"], dev::set_gas_limit),
    write(&["evm_increaseTime", "anvil_increaseTime"], dev::increase_time),
    write(&["evm_setNextBlockTimestamp", "anvil_setNextBlockTimestamp"], dev::set_next_timestamp),
    write(&["evm_setTime", "anvil_setTime"], dev::set_time),
    write(&["evm_snapshot", "anvil_snapshot"], dev::snapshot),
    write(&["evm_revert", "anvil_revert"], dev::revert),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_appears_once() {
        let mut seen = HashSet::new();
        for name in METHODS.iter().flat_map(|row| row.names) {
            assert!(seen.insert(name), "{name} twice");
        }
    }
}
