//! The ledger's tests: one contract for every engine, and what each alone has to show.

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers; an overflow panics")]
#[expect(clippy::wildcard_enum_match_arm, reason = "cells of an SQLite row are of any kind")]
mod audit;
#[cfg(test)]
mod contract;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers; an overflow panics")]
mod crash;
#[cfg(test)]
mod engines;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod memory;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers; an overflow panics")]
mod model;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers; an overflow panics")]
mod postgres;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers; an overflow panics")]
mod property;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod resolute;
#[cfg(test)]
mod restoring;
#[cfg(test)]
mod sqlite;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transactions;
