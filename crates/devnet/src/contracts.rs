//! The contracts of this project: where they lie, their committed artifacts, and the calls that the
//! chain itself makes to them.

use alloy_primitives::{Address, Bytes, U256, address, keccak256};
use alloy_sol_types::{SolValue, sol};
use serde::Deserialize;

use crate::state::State;

/// Where the token lies: the address of USDC on Base Sepolia (chain id 84532), so that stock clients,
/// which pay only tokens they know, pay with it.
pub const TOKEN_ADDRESS: Address = address!("0x036CbD53842c5426634e7929541eC2318f3dCF7e");

/// Where the code of the token lies; at [`TOKEN_ADDRESS`] is a proxy before it, as that of USDC is.
pub const TOKEN_CODE_ADDRESS: Address = address!("0x036C000000000000000000000000000000000002");

/// Where Permit2 lies on every chain (x402 `exact` and `upto` on EVM, annex).
pub const PERMIT2_ADDRESS: Address = address!("0x000000000022D473030F116dDEE9F6B43aC78BA3");

/// Where the spender of `exact` over Permit2 lies on every chain (x402 `exact` on EVM, annex).
pub const EXACT_PERMIT2_PROXY_ADDRESS: Address =
    address!("0x402085c248EeA27D92E8b30b2C58ed07f9E20001");

/// Where the spender of `upto` lies on every chain (x402 `upto` on EVM, annex).
pub const UPTO_PERMIT2_PROXY_ADDRESS: Address =
    address!("0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");

/// Where the dev chain has a factory of contract wallets (`contracts/src/TestWalletFactory.sol`), for
/// payers by ERC-6492. On no other chain is anything there.
pub const WALLET_FACTORY_ADDRESS: Address = address!("0x6492000000000000000000000000000000006492");

/// Where Multicall3 lies on every chain.
pub const MULTICALL3_ADDRESS: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");

/// Artifact of `contracts/src/Permit2.sol`, JSON.
pub(crate) const PERMIT2: &str = include_str!("../../../contracts/artifacts/Permit2.json");

/// Artifact of `contracts/src/X402ExactPermit2Proxy.sol`, JSON.
pub(crate) const EXACT_PERMIT2_PROXY: &str =
    include_str!("../../../contracts/artifacts/X402ExactPermit2Proxy.json");

/// Artifact of `contracts/src/X402UptoPermit2Proxy.sol`, JSON.
pub(crate) const UPTO_PERMIT2_PROXY: &str =
    include_str!("../../../contracts/artifacts/X402UptoPermit2Proxy.json");

/// Artifact of `contracts/src/Multicall3.sol`, JSON.
pub(crate) const MULTICALL3: &str = include_str!("../../../contracts/artifacts/Multicall3.json");

/// Artifact of `contracts/src/TestWalletFactory.sol`, JSON.
pub(crate) const WALLET_FACTORY: &str =
    include_str!("../../../contracts/artifacts/TestWalletFactory.json");

/// Artifact of `contracts/src/TestUSDC.sol`, JSON.
pub(crate) const TEST_USDC: &str = include_str!("../../../contracts/artifacts/TestUSDC.json");

/// Artifact of `contracts/src/TestUSDCProxy.sol`, JSON.
pub(crate) const TEST_USDC_PROXY: &str =
    include_str!("../../../contracts/artifacts/TestUSDCProxy.json");

sol! {
    /// What the chain itself calls on `TestUSDC`.
    interface ITestUsdc {
        function mint(address to, uint256 amount) external returns (bool);
    }
}

/// The part of an artifact that is deployed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Artifact {
    /// Creation code, to which constructor arguments are appended.
    pub(crate) bytecode: Bytes,
    /// Run-time code, without what a constructor computes.
    pub(crate) deployed_bytecode: Bytes,
}

impl Artifact {
    /// Reads an artifact's JSON.
    pub(crate) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Creation code with ABI-encoded constructor arguments.
    pub(crate) fn creation(&self, arguments: &[u8]) -> Bytes {
        [self.bytecode.as_ref(), arguments].concat().into()
    }
}

/// Storage slot of the balances mapping of USDC and of `TestUSDC`.
const BALANCES_SLOT: U256 = U256::from_limbs([9, 0, 0, 0]);

/// The bits of a balance word that are the balance.
const UNITS: U256 = U256::from_limbs([u64::MAX, u64::MAX, u64::MAX, u64::MAX >> 1]);

/// Storage slot of `totalSupply`.
const SUPPLY_SLOT: U256 = U256::from_limbs([11, 0, 0, 0]);

/// Sets the balance of `owner` in atomic units and the supply with it, without a transaction; what the
/// top bit of the word says of the account (blacklisted) stays.
pub(crate) fn deal(state: &mut State, owner: Address, balance: U256) {
    let slot = U256::from_be_bytes(keccak256((owner, BALANCES_SLOT).abi_encode()).0);
    let word = state.now().storage(TOKEN_ADDRESS, slot);
    let mark = word & !UNITS;
    let balance = balance & UNITS;
    let supply = state.now().storage(TOKEN_ADDRESS, SUPPLY_SLOT);
    let supply = supply.saturating_sub(word & UNITS).saturating_add(balance);
    state.set_storage(TOKEN_ADDRESS, slot, mark | balance);
    state.set_storage(TOKEN_ADDRESS, SUPPLY_SLOT, supply);
}
