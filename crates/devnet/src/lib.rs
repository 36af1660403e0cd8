//! An Ethereum chain in this process, for development and tests: a real EVM, JSON-RPC over HTTP, the
//! payment contracts at their known addresses, and funded accounts whose keys everyone knows.
//!
//! ```no_run
//! # async fn example() -> Result<(), farebox_devnet::DevnetError> {
//! use farebox_devnet::{Devnet, DevnetConfig};
//!
//! let devnet = Devnet::start(DevnetConfig::default()).await?;
//! println!("{} has 1,000,000 USDC at {}", devnet.accounts()[1].address, devnet.url());
//! devnet.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! What it keeps: the last 16,384 blocks with transactions and receipts, and the state of the last 256
//! (older ones are refused, as by a pruned node); a snapshot holds on to its own. Blocks are final when
//! mined. It speaks Prague, without blobs.

mod accounts;
mod banner;
mod blocks;
mod chain;
mod clock;
mod config;
mod contracts;
mod devnet;
mod evm;
mod fill;
mod filters;
mod genesis;
mod http;
mod pool;
mod rpc;
mod sign;
mod simulate;
mod state;
mod testing;
mod time;

pub use accounts::{DEV_ACCOUNTS, DEV_MNEMONIC, DevAccount};
pub use banner::Banner;
pub use config::{DevnetConfig, Mining};
pub use contracts::{
    EXACT_PERMIT2_PROXY_ADDRESS, MULTICALL3_ADDRESS, PERMIT2_ADDRESS, TOKEN_ADDRESS,
    TOKEN_CODE_ADDRESS, UPTO_PERMIT2_PROXY_ADDRESS, WALLET_FACTORY_ADDRESS,
};
pub use devnet::{Devnet, DevnetError};
pub use genesis::{GenesisError, INITIAL_USDC, INITIAL_WEI};
pub use testing::{
    CounterfactualWallet, WalletLie, counterfactual_wallet, forgiving_token_code,
    lying_wallet_creation, lying_wallet_switch, test_wallet_creation,
};
