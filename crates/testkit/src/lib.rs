//! Placeholder.

pub mod anvil;
pub mod clients;
pub mod evm;
pub mod facilitator;
pub mod gate;
pub mod process;
pub mod real;
pub mod rpc;
pub mod upstream;
