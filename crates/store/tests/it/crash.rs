//! The ledger under destruction: what was acknowledged, served or sent to the chain survives.
//!
//! A child process (this very binary again, [`child`]) works on a ledger as hard as it can
//! ([`load`], [`worker`]) and says over a pipe what happens to it ([`event`]); whatever it has said
//! is out in the world. The child is killed ([`kill`]); then the file is opened again and held
//! against all that was ever said about it ([`audit`], [`history`]). [`control`] shows that each kind
//! of loss is noticed.

mod audit;
mod child;
mod control;
mod disk;
mod event;
mod fault;
mod history;
mod kill;
mod load;
mod power;
mod random;
mod strace;
mod trace;
mod worker;

/// How often to do it: what the environment says, or so often.
fn count(variable: &str, otherwise: u64) -> u64 {
    let Some(text) = std::env::var_os(variable) else { return otherwise };
    let count = text.to_str().and_then(|it| it.parse().ok());
    count.unwrap_or_else(|| panic!("{variable} is no number: {text:?}"))
}

/// What no failure in that many tries says, and what it does not.
fn bound(tries: u64) -> String {
    format!("so at 95 % confidence one fails with p < 3/{tries}")
}
