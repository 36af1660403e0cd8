//! Is this payment good, and make it final: schemes, networks and facilitators.
//!
//! A [`Facilitator`] verifies and settles: [`LocalFacilitator`] on chain by itself,
//! [`RemoteFacilitator`] by asking others. [`Scheme`] is what the gateway needs to know of a payload
//! before it asks one; [`SCHEMES`] and [`NETWORKS`] are the visible tables. `alloy` types appear in
//! no public signature of this crate.

mod answers;
mod config;
mod evm;
mod facilitator;
mod local;
mod networks;
mod remote;
mod rpc;
mod scheme;
mod schemes;
mod transaction_log;
mod v1;

pub use crate::answers::{settlement_response, verify_failure_response, verify_response};
pub use crate::config::{
    ApprovalGrants, Batching, Finality, FinalityStep, GasSponsoring, NetworkConfig,
    PermitSponsoring, TokenConfig,
};
pub use crate::evm::{
    AuthorizationWindow, BadEvmAddress, BadKey, CannotSign, EvmAddress, EvmKey, EvmPayment,
    EvmToken, Exact, ExactPermit2, PayerNode, PayerUsage, Permit2Allowance, Problem, Refusal,
    SignerFunds, SignerStatus, Upto, check_payment, check_settlement, sign_eip2612_permit,
    sign_exact, sign_permit2_exact, sign_upto,
};
pub use crate::facilitator::{
    Facilitator, FacilitatorError, Lookup, NetworkReadiness, Permanence, SettleError, Settlement,
    Verification,
};
pub use crate::local::{ChainReader, LocalFacilitator, SetupError};
pub use crate::networks::{
    NETWORKS, NetworkKind, NetworkRow, TokenRow, find_network, find_network_v1, find_token,
};
pub use crate::remote::{NotAdmitted, RemoteConfig, RemoteFacilitator};
pub use crate::scheme::{BadPayload, Charging, Identified, Scheme, TransferMethod};
pub use crate::schemes::{SCHEMES, find_scheme, find_scheme_on_wire, says_used, scheme_of};
pub use crate::transaction_log::{
    LogError, LoggedTransaction, MemoryTransactionLog, TransactionEnd, TransactionLog,
};
pub use crate::v1::{
    BadV1, network_from_v1, payment_from_v1, request_from_v1, requirements_from_v1,
    requirements_to_v1, settlement_from_v1, settlement_to_v1, stock_v1_name,
};
