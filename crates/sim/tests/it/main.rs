//! A thousand seeds hold, each flaw shows in some of them, and a seed is a run.

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers; an overflow panics")]
mod seeds;
