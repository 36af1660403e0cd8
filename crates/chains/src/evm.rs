//! EVM networks: payments by EIP-3009 and Permit2 read, checked, signed and settled.

mod abi;
mod address;
mod approvals;
mod authorization;
mod batch_limits;
mod batches;
mod broadcast;
mod chain;
mod check;
mod contracts;
mod deployed;
mod eip712;
mod exact;
mod exact_permit2;
mod fees;
mod find;
mod flights;
mod funds;
mod grants;
mod key;
mod line;
mod method;
mod multicall;
mod nonces;
mod payer;
mod permit2;
mod rehearsal;
mod resume;
mod settle;
mod sign;
mod signature;
mod signed_by;
mod signers;
mod sponsoring;
mod startup;
mod token;
mod tracker;
mod transaction;
mod turns;
mod upto;
mod usage;
mod usual_gas;
mod verify;
mod wallets;

pub(crate) use self::chain::{Chain, ChainParts};
pub(crate) use self::check::check_but_for_wallet;
pub(crate) use self::exact::EXACT;
pub(crate) use self::method::METHODS;
pub(crate) use self::settle::is_of_configuration;
pub(crate) use self::signers::SigningKeys;
pub(crate) use self::sponsoring::{EIP2612, ERC20_APPROVAL};
pub(crate) use self::verify::NoStanding;

pub use self::address::{BadEvmAddress, EvmAddress};
pub use self::check::{EvmPayment, Refusal, check_payment, check_settlement};
pub use self::exact::Exact;
pub use self::exact_permit2::ExactPermit2;
pub use self::funds::{SignerFunds, SignerStatus};
pub use self::key::{BadKey, EvmKey};
pub use self::payer::{PayerNode, PayerUsage, Permit2Allowance};
pub use self::sign::{
    AuthorizationWindow, CannotSign, sign_eip2612_permit, sign_exact, sign_permit2_exact, sign_upto,
};
pub use self::startup::Problem;
pub use self::token::EvmToken;
pub use self::upto::Upto;
