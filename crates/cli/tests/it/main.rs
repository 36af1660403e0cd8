//! The binary as its users run it: one test binary, one module for each story.

#[cfg(test)]
mod clients;
#[cfg(test)]
mod config;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod farebox;
#[cfg(test)]
mod help;
#[cfg(test)]
mod init;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod paying;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod serving;
