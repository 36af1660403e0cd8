//! The agent against scripted sellers, on sockets.

// `cfg(test)` says to clippy that helpers are tests as well.
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod money;
#[cfg(test)]
mod naming;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "counts of a test are small")]
mod node;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod receipts;
#[cfg(test)]
mod seller;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod upto;
#[cfg(test)]
mod v1;
