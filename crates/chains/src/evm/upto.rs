//! `upto`: the payer signs a ceiling, the seller says at the end how much of it was used.

use std::sync::LazyLock;

use farebox_protocol::Reason;
use farebox_protocol::wire::{Object, PaymentPayload, PaymentRequirements};

use super::authorization::identify;
use super::contracts::{PERMIT2, UPTO_PROXY};
use super::method::Reasons;
use super::permit2::{Permit2Scheme, Proxy, Settler, Types};
use crate::scheme::{BadPayload, Charging, Identified, Scheme, TransferMethod};

const WITNESS: &str = "Witness(address to,address facilitator,uint256 validAfter)";

static PROXY: Proxy = Proxy {
    address: UPTO_PROXY,
    contracts: &[("Permit2", PERMIT2), ("x402UptoPermit2Proxy", UPTO_PROXY)],
    // settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)
    settle: [0xff, 0x11, 0xe7, 0xb4],
    // settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),((address,uint256),uint256,uint256),
    // uint256,address,(address,address,uint256),bytes)
    settle_with_permit: [0x01, 0x6c, 0x17, 0x48],
    settler: Settler::Facilitator,
    types: LazyLock::new(|| Types::of(WITNESS)),
    reasons: Reasons {
        scheme: Reason::InvalidUptoEvmScheme,
        network: Reason::InvalidUptoEvmNetworkMismatch,
        spender: Reason::InvalidPermit2Spender,
        token: Reason::Permit2TokenMismatch,
        recipient: Reason::InvalidPermit2RecipientMismatch,
        facilitator: Reason::UptoFacilitatorMismatch,
        amount: Reason::Permit2AmountMismatch,
        over: Reason::InvalidUptoEvmPayloadSettlementExceedsAmount,
        late: Reason::Permit2DeadlineExpired,
        early: Reason::Permit2NotYetValid,
        signature: Reason::InvalidPermit2Signature,
        used: Reason::Permit2InvalidNonce,
        balance: Reason::Permit2InsufficientBalance,
        simulation: Reason::Permit2SimulationFailed,
        failed: Reason::InvalidUptoEvmTransactionFailed,
        no_contract: Reason::Permit2ProxyNotDeployed,
        not_supported: Reason::Permit2ProxyNotDeployed,
    },
};

/// `upto` by Permit2: one signed, single-use transfer of any amount up to the authorised one, by a proxy
/// that obeys the signed facilitator alone.
#[derive(Clone, Copy, Debug)]
pub struct Upto;

impl Scheme for Upto {
    fn name(&self) -> &'static str {
        "upto"
    }

    fn method(&self) -> TransferMethod {
        TransferMethod::Permit2
    }

    fn word(&self) -> &'static str {
        "upto"
    }

    fn charging(&self) -> Charging {
        Charging::UpTo
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

    fn extra(&self, facilitator: Option<&str>) -> Object {
        let method = Some(("assetTransferMethod", self.method().word()));
        let facilitator = facilitator.map(|it| ("facilitatorAddress", it));
        let members = method.into_iter().chain(facilitator);
        members.map(|(key, value)| (key.to_owned(), value.into())).collect()
    }

    fn used(&self) -> &'static Reason {
        &PROXY.reasons.used
    }
}

impl Permit2Scheme for Upto {
    fn proxy(&self) -> &'static Proxy {
        &PROXY
    }
}
