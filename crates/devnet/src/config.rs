//! How the dev chain is started.

use std::{net::SocketAddr, time::Duration};

use crate::chain::BLOCK_GAS_LIMIT;

/// When blocks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mining {
    /// As soon as a transaction can run: one block each, or one for all that a filled nonce gap frees.
    Instant,
    /// Every so often, empty or not.
    Every(Duration),
    /// Only when asked to (`evm_mine`).
    Manual,
}

/// How the dev chain is started; [`DevnetConfig::default`] is what most people want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevnetConfig {
    /// Where JSON-RPC over HTTP listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// When blocks are made.
    pub mining: Mining,
    /// Gas that fits in a block.
    pub block_gas_limit: u64,
    /// Time of the first block, Unix seconds; the chain's clock runs on from there. `None` is now.
    pub start_time: Option<u64>,
}

impl Default for DevnetConfig {
    /// A free port on the loopback interface, Base Sepolia's chain id, instant blocks.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            chain_id: 84_532,
            mining: Mining::Instant,
            block_gas_limit: BLOCK_GAS_LIMIT,
            start_time: None,
        }
    }
}
