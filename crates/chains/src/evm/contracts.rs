//! Contracts that lie at one address on every chain.
//!
//! Sources: Uniswap's list of deployments for Permit2; x402, scheme `exact` and scheme `upto` on EVM,
//! for the proxies; Multicall3's list of deployments.

use alloy_primitives::{Address, address};

/// Permit2: moves any token on its owner's signature.
pub(crate) const PERMIT2: Address = address!("0x000000000022D473030F116dDEE9F6B43aC78BA3");
/// x402ExactPermit2Proxy: the spender of `exact` over Permit2.
pub(crate) const EXACT_PROXY: Address = address!("0x402085c248EeA27D92E8b30b2C58ed07f9E20001");
/// x402UptoPermit2Proxy: the spender of `upto`.
pub(crate) const UPTO_PROXY: Address = address!("0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");
/// Multicall3: makes several calls in one transaction.
pub(crate) const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");
