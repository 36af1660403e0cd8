//! EVM networks: EIP-3009 payments read, checked, signed and settled.

mod abi;
mod address;
mod broadcast;
mod chain;
mod check;
mod exact;
mod fees;
mod find;
mod flights;
mod key;
mod nonces;
mod payload;
mod settle;
mod sign;
mod signature;
mod signers;
mod startup;
mod token;
mod tracker;
mod transaction;
mod usage;
mod verify;

pub(crate) use self::chain::Chain;
pub(crate) use self::check::EXACT;
pub(crate) use self::signers::SigningKeys;

pub use self::address::{BadEvmAddress, EvmAddress};
pub use self::check::{ExactPayment, Refusal, check_exact};
pub use self::exact::Exact;
pub use self::key::{BadKey, EvmKey};
pub use self::sign::{AuthorizationWindow, CannotSign, sign_exact};
pub use self::startup::Problem;
pub use self::token::EvmToken;
