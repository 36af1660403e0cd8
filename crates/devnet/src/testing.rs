//! Contracts that tests bring onto a chain themselves: payers that are contracts, honest or not, and a
//! token that keeps silent about used nonces.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue, sol};

use crate::contracts::{Artifact, WALLET_FACTORY_ADDRESS};

const TEST_WALLET: &str = include_str!("../../../contracts/artifacts/TestWallet.json");
const LYING_WALLET: &str = include_str!("../../../contracts/artifacts/LyingWallet.json");
const FORGIVING_USDC: &str = include_str!("../../../contracts/artifacts/ForgivingUSDC.json");

sol! {
    /// What is called of `TestWalletFactory`.
    interface ITestWalletFactory {
        function createAccount(address owner, uint256 salt) external returns (address account);
    }

    /// What is called of `LyingWallet`.
    interface ILyingWallet {
        function setLie(uint8 lie) external;
    }
}

/// A wallet that does not exist yet: what a signature by ERC-6492 says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterfactualWallet {
    /// Where it will lie.
    pub address: Address,
    /// Who makes it: [`WALLET_FACTORY_ADDRESS`].
    pub factory: Address,
    /// The call that makes the factory make it, by anyone, as often as one likes.
    pub factory_calldata: Bytes,
}

/// The `TestWallet` of `owner` that the dev chain's factory makes with `salt` (CREATE2, EIP-1014).
///
/// # Errors
/// The committed artifact cannot be read; the build is broken.
pub fn counterfactual_wallet(
    owner: Address,
    salt: U256,
) -> Result<CounterfactualWallet, serde_json::Error> {
    let creation = keccak256(test_wallet_creation(owner)?);
    let factory_calldata =
        ITestWalletFactory::createAccountCall { owner, salt }.abi_encode().into();
    Ok(CounterfactualWallet {
        address: WALLET_FACTORY_ADDRESS.create2(B256::from(salt), creation),
        factory: WALLET_FACTORY_ADDRESS,
        factory_calldata,
    })
}

/// Creation code of `TestWallet`, an ERC-1271 contract account that signs with the key of `owner`:
/// the data of a transaction that deploys one.
///
/// # Errors
/// The committed artifact cannot be read; the build is broken.
pub fn test_wallet_creation(owner: Address) -> Result<Bytes, serde_json::Error> {
    Ok(Artifact::parse(TEST_WALLET)?.creation(&owner.abi_encode()))
}

/// How a `LyingWallet` answers the question of ERC-1271, whatever the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalletLie {
    /// It signed everything.
    Nothing,
    /// It signed, it says to accounts; it did not, it says to contracts: to tokens and Permit2.
    ToContracts,
    /// It signed, it says in simulations (at gas price zero); it did not, it says in transactions.
    InTransactions,
    /// It signed nothing.
    Always,
    /// It burns all the gas it gets; as a factory too.
    BurnsGas,
    /// It signed, after five million gas; as a factory it uses as much and deploys nothing.
    WastesGas,
    /// It answers with a megabyte whose first word says that it signed.
    Floods,
}

impl WalletLie {
    /// Its number in `contracts/src/LyingWallet.sol`.
    const fn number(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::ToContracts => 1,
            Self::InTransactions => 2,
            Self::Always => 3,
            Self::BurnsGas => 4,
            Self::WastesGas => 5,
            Self::Floods => 6,
        }
    }
}

/// Creation code of `LyingWallet`: the data of a transaction that deploys one. Called by anything but
/// its own functions it does what its lie says and deploys nothing, so it can pose as a factory.
///
/// # Errors
/// The committed artifact cannot be read; the build is broken.
pub fn lying_wallet_creation(lie: WalletLie) -> Result<Bytes, serde_json::Error> {
    Ok(Artifact::parse(LYING_WALLET)?.creation(&U256::from(lie.number()).abi_encode()))
}

/// The call by which anyone makes a `LyingWallet` lie in another way from now on.
pub fn lying_wallet_switch(lie: WalletLie) -> Bytes {
    ILyingWallet::setLieCall { lie: lie.number() }.abi_encode().into()
}

/// Run-time code of `ForgivingUSDC`, which does not revert on a used nonce: its transaction succeeds
/// and moves nothing. Put in the place of the token (`anvil_setCode`) it keeps the balances.
///
/// # Errors
/// The committed artifact cannot be read; the build is broken.
pub fn forgiving_token_code() -> Result<Bytes, serde_json::Error> {
    Ok(Artifact::parse(FORGIVING_USDC)?.deployed_bytecode)
}
