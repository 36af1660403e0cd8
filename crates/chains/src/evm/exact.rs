//! The scheme `exact` on EVM networks, as the gateway sees it.

use farebox_protocol::PaymentId;
use farebox_protocol::wire::{PaymentPayload, PaymentRequirements};

use super::address::EvmAddress;
use super::check::EXACT;
use super::payload::ExactPayload;
use crate::scheme::{BadPayload, Identified, Scheme};

/// `exact` by EIP-3009: one signed, single-use authorisation over exactly the demanded amount.
#[derive(Clone, Copy, Debug)]
pub struct Exact;

impl Scheme for Exact {
    fn name(&self) -> &'static str {
        EXACT
    }

    fn namespace(&self) -> &'static str {
        "eip155"
    }

    fn identify(
        &self,
        payload: &PaymentPayload,
        requirements: &PaymentRequirements,
    ) -> Result<Identified, BadPayload> {
        let asset: EvmAddress = requirements.asset.parse().map_err(|_| BadPayload {
            field: "accepted.asset",
            expected: "an address of `0x` and 40 digits",
        })?;
        let authorization = ExactPayload::read(&payload.payload)?.authorization;
        let payer = EvmAddress::from(authorization.from);
        Ok(Identified {
            id: PaymentId::of_authorization(
                &requirements.network,
                asset.as_bytes(),
                payer.as_bytes(),
                authorization.nonce.as_slice(),
            ),
            payer: payer.to_string(),
            nonce: authorization.nonce.0,
            amount: authorization.value,
            valid_before: authorization.ends(),
        })
    }
}
