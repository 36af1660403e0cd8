//! `exact` over Permit2: for tokens that have no EIP-3009, or payers who prefer it.

use std::sync::LazyLock;

use farebox_protocol::Reason;
use farebox_protocol::wire::{Object, PaymentPayload, PaymentRequirements};

use super::authorization::identify;
use super::contracts::{EXACT_PROXY, PERMIT2};
use super::exact::EXACT;
use super::method::Reasons;
use super::permit2::{Permit2Scheme, Proxy, Settler, Types};
use crate::scheme::{BadPayload, Charging, Identified, Scheme, TransferMethod};

const WITNESS: &str = "Witness(address to,uint256 validAfter)";

static PROXY: Proxy = Proxy {
    address: EXACT_PROXY,
    contracts: &[("Permit2", PERMIT2), ("x402ExactPermit2Proxy", EXACT_PROXY)],
    // settle(((address,uint256),uint256,uint256),address,(address,uint256),bytes)
    settle: [0x13, 0xcd, 0x3b, 0x53],
    // settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),((address,uint256),uint256,uint256),
    // address,(address,uint256),bytes)
    settle_with_permit: [0xfa, 0x34, 0x03, 0x78],
    settler: Settler::Anybody,
    types: LazyLock::new(|| Types::of(WITNESS)),
    reasons: Reasons {
        scheme: Reason::InvalidExactEvmScheme,
        network: Reason::InvalidExactEvmNetworkMismatch,
        spender: Reason::InvalidPermit2Spender,
        token: Reason::Permit2TokenMismatch,
        recipient: Reason::InvalidPermit2RecipientMismatch,
        facilitator: Reason::InvalidPayload,
        amount: Reason::Permit2AmountMismatch,
        over: Reason::Permit2AmountMismatch,
        late: Reason::Permit2DeadlineExpired,
        early: Reason::Permit2NotYetValid,
        signature: Reason::InvalidPermit2Signature,
        used: Reason::Permit2InvalidNonce,
        balance: Reason::Permit2InsufficientBalance,
        simulation: Reason::Permit2SimulationFailed,
        failed: Reason::InvalidExactEvmTransactionFailed,
        no_contract: Reason::Permit2ProxyNotDeployed,
        not_supported: Reason::Permit2ProxyNotDeployed,
    },
};

/// `exact` over Permit2: one signed, single-use transfer of exactly the demanded amount, by a proxy
/// that the payer's allowance for Permit2 makes possible.
#[derive(Clone, Copy, Debug)]
pub struct ExactPermit2;

impl Scheme for ExactPermit2 {
    fn name(&self) -> &'static str {
        EXACT
    }

    fn method(&self) -> TransferMethod {
        TransferMethod::Permit2
    }

    fn word(&self) -> &'static str {
        "exact-permit2"
    }

    fn charging(&self) -> Charging {
        Charging::Whole
    }

    fn namespace(&self) -> &'static str {
        "eip155"
    }

    fn identify(
        &self,
        payload: &PaymentPayload,
        requirements: &PaymentRequirements,
    ) -> Result<Identified, BadPayload> {
        identify(self, payload, requirements)
    }

    fn extra(&self, _facilitator: Option<&str>) -> Object {
        let method = self.method().word().into();
        [("assetTransferMethod".to_owned(), method)].into_iter().collect()
    }

    fn used(&self) -> &'static Reason {
        &PROXY.reasons.used
    }
}

impl Permit2Scheme for ExactPermit2 {
    fn proxy(&self) -> &'static Proxy {
        &PROXY
    }
}
