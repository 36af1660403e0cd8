//! The dev chain as its clients see it: over HTTP, with signed transactions.

#[cfg(test)]
mod artifacts;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod erc20;
#[cfg(test)]
mod fees;
#[cfg(test)]
mod helpers;
#[cfg(test)]
mod load;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod permit;
#[cfg(test)]
mod permit2;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod sending;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transfer_with_authorization;
#[cfg(test)]
mod wallets;
#[cfg(test)]
mod wire;
