//! Gas sponsoring: ways to give Permit2 its allowance that cost the payer no gas.
//!
//! Sources: x402, extensions `eip2612GasSponsoring` and `erc20ApprovalGasSponsoring`. The payer puts
//! `extensions.<name>.info` into the payload; without it a name is only the echo of the server's.

mod approval;
mod permit;

use alloy_primitives::{Address, U256};
use farebox_protocol::wire::PaymentPayload;
use farebox_protocol::{Reason, Timestamp};
use serde_json::Value;

use super::address::EvmAddress;
use super::authorization::Authorization;
use super::check::Refusal;
use super::contracts::PERMIT2;
use super::method::Method;
use super::token::EvmToken;

pub(crate) use self::approval::SignedApproval;
pub(crate) use self::permit::{SignedPermit, permit_digest};

/// The extension by which payers send an EIP-2612 permit.
pub(crate) const EIP2612: &str = "eip2612GasSponsoring";
/// The extension by which payers send a signed transaction that approves Permit2.
pub(crate) const ERC20_APPROVAL: &str = "erc20ApprovalGasSponsoring";

/// What the payer signed besides, so that Permit2 gets its allowance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sponsoring {
    /// A permit, submitted with the payment.
    Permit(SignedPermit),
    /// A transaction, sent before the payment.
    Approval(SignedApproval),
}

impl Sponsoring {
    /// Reads it, the permit first as official facilitators do; all that needs no chain is checked.
    pub(crate) fn read(
        method: &dyn Method,
        token: &EvmToken,
        payload: &PaymentPayload,
        authorization: &Authorization,
    ) -> Result<Option<Self>, Refusal> {
        if method.allowance_query(authorization).is_none() {
            return Ok(None);
        }
        let info = |name: &str| payload.extensions.as_ref()?.get(name)?.get("info");
        if let Some(info) = info(EIP2612).filter(|it| says_all(it, permit::FIELDS)) {
            return SignedPermit::read(token, info, authorization).map(|it| Some(Self::Permit(it)));
        }
        if let Some(info) = info(ERC20_APPROVAL).filter(|it| says_all(it, approval::FIELDS)) {
            let approval = SignedApproval::read(token, info, authorization);
            return approval.map(|it| Some(Self::Approval(it)));
        }
        Ok(None)
    }

    /// By which extension it came.
    pub(crate) fn extension(&self) -> &'static str {
        match self {
            Self::Permit(_) => EIP2612,
            Self::Approval(_) => ERC20_APPROVAL,
        }
    }

    /// The allowance that Permit2 has by it, whatever it had before.
    pub(crate) fn allows(&self) -> U256 {
        match self {
            Self::Permit(permit) => permit.value(),
            Self::Approval(approval) => approval.allows,
        }
    }

    /// The permit lives for long enough to be mined, and for as long as its payment.
    pub(crate) fn check_window(
        &self,
        authorization: &Authorization,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        match self {
            Self::Permit(permit) => permit.check_window(authorization, now),
            Self::Approval(_) => Ok(()),
        }
    }
}

/// Whether an echo was filled in by the payer.
fn says_all(info: &Value, fields: &[&str]) -> bool {
    fields.iter().all(|it| info.get(it).and_then(Value::as_str).is_some_and(|it| !it.is_empty()))
}

/// `from`, `asset` and `spender` of an extension, with the codes for others: they are the payer, the
/// token and Permit2.
fn check_parties(
    info: &Value,
    authorization: &Authorization,
    format: &Reason,
    mismatches: [Reason; 3],
) -> Result<(), Refusal> {
    let (payer, token) = (authorization.payer, authorization.token);
    let expected: [(&str, Address); 3] = [("from", payer), ("asset", token), ("spender", PERMIT2)];
    for ((key, expected), mismatch) in expected.into_iter().zip(mismatches) {
        let text = info.get(key).and_then(Value::as_str).unwrap_or_default();
        let Ok(found) = text.parse::<EvmAddress>() else {
            let message = format!("expected an address in the extension's `{key}`, found `{text}`");
            return Err(Refusal::of(payer, format, message));
        };
        let expected = EvmAddress::from(expected);
        if found != expected {
            let message = format!("expected the extension's `{key}` {expected}, found {found}");
            return Err(Refusal::of(payer, &mismatch, message));
        }
    }
    Ok(())
}
