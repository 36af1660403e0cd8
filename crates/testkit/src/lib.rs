//! Placeholder.

pub mod anvil;
pub mod clients;
pub mod process;
