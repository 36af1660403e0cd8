//! The payment contracts, ours on the dev chain beside the real ones on anvil.

#[cfg(test)]
mod allowance_transfer;
#[cfg(test)]
mod erc6492;
#[cfg(test)]
mod multicall3;
#[cfg(test)]
mod permit2_abi;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod signature_transfer;
#[cfg(test)]
mod support;
