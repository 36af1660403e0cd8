//! Placeholder.

pub mod anvil;
pub mod clients;
pub mod evm;
pub mod process;
pub mod rpc;
