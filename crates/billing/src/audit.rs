//! The audit: a journal that nobody can change in silence.
//!
//! Every line of a journal goes into one chain of hashes. A node seals the lines of each of its commits
//! as a [`Batch`]: the [`Seal`] has the hash of all that came before and of the batch, and is signed with
//! the node's key. Whoever was given a [`Head`] can tell later whether the journal was cut or written
//! anew since, even with the key. ADR 0017.

mod chain;
mod seal;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "numbers of a test are small")]
mod tests;
mod verify;

pub use crate::audit::chain::{Batch, Line, OutOfOrder, Tip};
pub use crate::audit::seal::{BadSecret, BadText, Head, PublicKey, Seal, Signature, SigningKey};
pub use crate::audit::verify::{Trust, Verified, Verifier, Wrong};
