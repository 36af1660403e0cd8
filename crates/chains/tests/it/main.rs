//! Payments verified and settled on the dev chain, and facilitators and nodes that misbehave.

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "lengths of short code")]
mod attacks;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "balances of a dev chain are small")]
mod batching;
#[cfg(test)]
mod contract_payers;
#[cfg(test)]
mod faults;
mod gas;
#[cfg(test)]
mod lagging;
#[cfg(test)]
mod lying_wallets;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "balances of a dev chain are small")]
mod parallel;
#[cfg(test)]
mod payer;
#[cfg(test)]
mod permit2;
#[cfg(test)]
mod permit2_attacks;
#[cfg(test)]
mod pure;
#[cfg(test)]
mod reconfigured;
#[cfg(test)]
mod remote;
#[cfg(test)]
mod resuming;
#[cfg(test)]
mod settling;
#[cfg(test)]
mod signed_permit2;
#[cfg(test)]
mod sponsoring;
#[cfg(test)]
mod startup;
#[cfg(test)]
mod support;
#[cfg(test)]
mod wallets;
