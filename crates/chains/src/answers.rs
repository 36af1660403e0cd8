//! From outcomes to the bodies that x402 servers expect; HTTP itself stays with the gateway.
//!
//! Refusals are bodies too: official servers want HTTP 200 with `isValid: false` or
//! `success: false`, and a `transaction` in every settlement, empty where there is none.

use farebox_protocol::wire::{Object, SettleRequest, SettlementResponse, VerifyResponse};
use farebox_protocol::{Network, Reason};

use crate::facilitator::{FacilitatorError, SettleError, Settlement, Verification};
use crate::scheme::{Charging, Identified};
use crate::schemes::scheme_of;

/// The body of `POST /verify` for a verification that took place.
pub fn verify_response(verification: &Verification) -> VerifyResponse {
    match verification {
        Verification::Valid { payer, collectable: _ } => VerifyResponse {
            is_valid: true,
            invalid_reason: None,
            invalid_message: None,
            payer: Some(payer.clone()),
            rest: Object::new(),
        },
        Verification::Invalid { reason, message, payer } => VerifyResponse {
            is_valid: false,
            invalid_reason: Some(reason.clone()),
            invalid_message: Some(message.clone()),
            payer: payer.clone(),
            rest: Object::new(),
        },
    }
}

/// The body of `POST /verify` where nobody could be asked: nothing is said of the payment. The
/// sources of the error stay in the log, they may name hosts.
pub fn verify_failure_response(error: &FacilitatorError) -> VerifyResponse {
    VerifyResponse {
        is_valid: false,
        invalid_reason: Some(Reason::UnexpectedVerifyError),
        invalid_message: Some(error.to_string()),
        payer: None,
        rest: Object::new(),
    }
}

/// The body of `POST /settle`, and what `PAYMENT-RESPONSE` carries.
///
/// An unknown outcome is `settlement_pending` with the hash: servers then send the same body once
/// more, which is reconciled and never sent twice.
pub fn settlement_response(
    request: &SettleRequest,
    result: &Result<Settlement, SettleError>,
) -> SettlementResponse {
    let payer = payer_of(request);
    let scheme = scheme_of(request.payment_requirements.value());
    let network = request.payment_requirements.value().network.clone();
    match result {
        Ok(settlement) => SettlementResponse {
            success: true,
            payer: Some(settlement.payer.clone()),
            amount: scheme.filter(|it| it.charging() == Charging::UpTo).map(|_| settlement.amount),
            ..bare(settlement.transaction.clone(), settlement.network.clone())
        },
        Err(
            SettleError::Rejected { reason, message } | SettleError::NotServed { reason, message },
        ) => SettlementResponse {
            error_reason: Some(reason.clone()),
            error_message: Some(message.clone()),
            payer,
            ..bare(String::new(), network)
        },
        Err(error @ SettleError::NotSent(_)) => SettlementResponse {
            error_reason: Some(Reason::UnexpectedSettleError),
            error_message: Some(error.to_string()),
            payer,
            ..bare(String::new(), network)
        },
        Err(SettleError::Unknown { transaction }) => SettlementResponse {
            error_reason: Some(Reason::SettlementPending),
            error_message: Some("sent, and not seen to land yet: ask again".to_owned()),
            payer,
            ..bare(transaction.clone().unwrap_or_default(), network)
        },
    }
}

fn bare(transaction: String, network: Network) -> SettlementResponse {
    SettlementResponse {
        success: false,
        error_reason: None,
        error_message: None,
        payer: None,
        transaction,
        network,
        amount: None,
        extensions: None,
        rest: Object::new(),
    }
}

/// The payer that the payload claims, where it can be read.
fn payer_of(request: &SettleRequest) -> Option<String> {
    let requirements = request.payment_requirements.value();
    let scheme = scheme_of(requirements)?;
    let identified: Identified =
        scheme.identify(request.payment_payload.value(), requirements).ok()?;
    Some(identified.payer)
}
