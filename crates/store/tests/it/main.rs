//! The ledger's tests: one contract for every engine, and what SQLite alone has to show.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod sqlite;
#[cfg(test)]
mod support;
