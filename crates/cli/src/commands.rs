//! One file for each command.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod devnet;
pub(crate) mod facilitator;
pub(crate) mod init;
pub(crate) mod ledger;
pub(crate) mod serve;
