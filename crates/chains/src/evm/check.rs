//! Everything about an `exact` payment that can be judged without asking a chain, cheap to dear.
//!
//! The order and the codes are those of `@x402/evm` 2.27.0, except that the signature, the one dear
//! check, comes last. Sources: x402 v2 §6.1.2 and the scheme text of `exact` on EVM.

use std::time::Duration;

use alloy_primitives::Address;
use farebox_protocol::wire::{PaymentRequirements, VerifyRequest, X402_VERSION};
use farebox_protocol::{Amount, PaymentId, Reason, Timestamp};
use serde_json::Value;

use super::address::EvmAddress;
use super::payload::{Authorization, ExactPayload};
use super::signature::{BadSignature, Signature};
use super::token::EvmToken;
use crate::scheme::BadPayload;

/// How long an authorisation must still live, so that it can be mined in time (x402: 6 s).
pub(crate) const EXPIRY_MARGIN: Duration = Duration::from_secs(6);

/// The scheme's name on the wire.
pub(crate) const EXACT: &str = "exact";

/// A payment that asks for no more than to be looked up on its chain: its form, its terms and its
/// signature are good.
#[derive(Clone, PartialEq, Eq)]
pub struct ExactPayment {
    pub(crate) id: PaymentId,
    pub(crate) token: EvmToken,
    pub(crate) authorization: Authorization,
    pub(crate) signature: Signature,
}

/// Why a payment is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The specified code.
    pub reason: Reason,
    /// The same for people: what was expected, what was found.
    pub message: String,
    /// Whose money it would be, in EIP-55 mixed case, if that much was understood.
    pub payer: Option<String>,
}

/// Local verification of an `exact` payment in `token`: no chain is asked, nothing is allocated for
/// a good one but its result. `now` is the caller's clock.
pub fn check_exact(
    token: &EvmToken,
    request: &VerifyRequest,
    now: Timestamp,
) -> Result<ExactPayment, Refusal> {
    let payload = check_terms(token, request)?;
    check_window(&payload.authorization, now)?;
    check_signature(token, &payload)
}

/// Form and terms: everything but time and signature.
pub(crate) fn check_terms<'a>(
    token: &EvmToken,
    request: &'a VerifyRequest,
) -> Result<ExactPayload<'a>, Refusal> {
    check_offer(request)?;
    let requirements = request.payment_requirements.value();
    check_token(token, requirements)?;
    let payload = &request.payment_payload.value().payload;
    if payload.get("permit2Authorization").is_some() {
        let message = "expected an EIP-3009 `authorization`, found a Permit2 one".to_owned();
        return Err(refusal(Reason::UnsupportedPayloadType, message));
    }
    let payload = ExactPayload::read(payload)
        .map_err(|error: BadPayload| refusal(Reason::InvalidPayload, error.to_string()))?;
    check_parties(&payload.authorization, requirements)?;
    Ok(payload)
}

/// Version, scheme and network: the payment's are the demand's, and are served here.
fn check_offer(request: &VerifyRequest) -> Result<(), Refusal> {
    let payload = request.payment_payload.value();
    let requirements = request.payment_requirements.value();
    for version in [request.x402_version, payload.x402_version] {
        if version != X402_VERSION {
            let message = format!("expected x402Version {X402_VERSION}, found {version}");
            return Err(refusal(Reason::InvalidX402Version, message));
        }
    }
    for (whose, scheme) in [
        ("paymentPayload.accepted", &payload.accepted.scheme),
        ("paymentRequirements", &requirements.scheme),
    ] {
        if scheme != EXACT {
            let message = format!("expected `{whose}.scheme` to be `{EXACT}`, found `{scheme}`");
            return Err(refusal(Reason::InvalidExactEvmScheme, message));
        }
    }
    let (accepted, demanded) = (&payload.accepted.network, &requirements.network);
    if accepted != demanded {
        let message = format!("expected a payment on {demanded}, found one on {accepted}");
        return Err(refusal(Reason::InvalidExactEvmNetworkMismatch, message));
    }
    Ok(())
}

/// The demand is for this token, under the names that the token has.
fn check_token(token: &EvmToken, requirements: &PaymentRequirements) -> Result<(), Refusal> {
    if requirements.network != *token.network() {
        let (expected, found) = (token.network(), &requirements.network);
        let message = format!("expected the network {expected}, found {found}");
        return Err(refusal(Reason::InvalidNetwork, message));
    }
    if requirements.asset.parse() != Ok(token.address()) {
        let (expected, found) = (token.address(), &requirements.asset);
        let message = format!("expected the asset {expected}, found `{found}`");
        return Err(refusal(Reason::InvalidPaymentRequirements, message));
    }
    let transfer_method = requirements.extra.get("assetTransferMethod").and_then(Value::as_str);
    if let Some(method) = transfer_method.filter(|it| *it != "eip3009") {
        let message = format!("expected `extra.assetTransferMethod` eip3009, found `{method}`");
        return Err(refusal(Reason::UnsupportedPayloadType, message));
    }
    let config = token.config();
    for (key, expected, mismatch) in [
        ("name", &config.name, Reason::InvalidExactEvmTokenNameMismatch),
        ("version", &config.version, Reason::InvalidExactEvmTokenVersionMismatch),
    ] {
        let found = requirements.extra.get(key).and_then(Value::as_str).unwrap_or_default();
        if found.is_empty() {
            let message = format!("expected the token's EIP-712 {key} in `extra.{key}`");
            return Err(refusal(Reason::InvalidExactEvmMissingEip712Domain, message));
        }
        if found != expected {
            let message = format!("expected `extra.{key}` to be `{expected}`, found `{found}`");
            return Err(refusal(mismatch, message));
        }
    }
    Ok(())
}

/// Recipient and amount are the demanded ones, to the unit.
fn check_parties(
    authorization: &Authorization,
    requirements: &PaymentRequirements,
) -> Result<(), Refusal> {
    let payer = authorization.from;
    let Ok(pay_to) = requirements.pay_to.parse::<EvmAddress>() else {
        let message = format!("expected an address in `payTo`, found `{}`", requirements.pay_to);
        return Err(refusal_of(payer, Reason::InvalidPaymentRequirements, message));
    };
    let to = EvmAddress::from(authorization.to);
    if to != pay_to {
        let message = format!("expected a payment to {pay_to}, found one to {to}");
        return Err(refusal_of(payer, Reason::InvalidExactEvmRecipientMismatch, message));
    }
    if authorization.value != requirements.amount {
        let (expected, found) = (requirements.amount, authorization.value);
        let message = format!("expected a value of exactly {expected}, found {found}");
        let reason = Reason::InvalidExactEvmPayloadAuthorizationValueMismatch;
        return Err(refusal_of(payer, reason, message));
    }
    Ok(())
}

/// The authorisation is valid now and for long enough to be mined.
pub(crate) fn check_window(authorization: &Authorization, now: Timestamp) -> Result<(), Refusal> {
    let payer = authorization.from;
    if authorization.ends() < now.plus(EXPIRY_MARGIN) {
        let (found, now, margin) =
            (authorization.valid_before, now.seconds(), EXPIRY_MARGIN.as_secs());
        let message =
            format!("expected validBefore at least {margin} s after {now}, found {found}");
        let reason = Reason::InvalidExactEvmPayloadAuthorizationValidBefore;
        return Err(refusal_of(payer, reason, message));
    }
    if now < authorization.starts() {
        let (found, now) = (authorization.valid_after, now.seconds());
        let message = format!("expected validAfter not after {now}, found {found}");
        let reason = Reason::InvalidExactEvmPayloadAuthorizationValidAfter;
        return Err(refusal_of(payer, reason, message));
    }
    Ok(())
}

/// The payer's own key signed these very fields for this very token.
pub(crate) fn check_signature(
    token: &EvmToken,
    payload: &ExactPayload<'_>,
) -> Result<ExactPayment, Refusal> {
    let authorization = payload.authorization;
    let payer = authorization.from;
    let refuse = |error: BadSignature| {
        let reason = match error {
            BadSignature::Undeployed => Reason::Eip6492FactoryNotAllowed,
            BadSignature::NotHex
            | BadSignature::Length(_)
            | BadSignature::V(_)
            | BadSignature::HighS
            | BadSignature::Unrecoverable => Reason::InvalidExactEvmSignature,
        };
        refusal_of(payer, reason, format!("`payload.signature`: {error}"))
    };
    let signature = Signature::parse(payload.signature).map_err(refuse)?;
    let digest = authorization.digest(token.domain_separator().into());
    let signer = signature.recover(digest).map_err(refuse)?;
    if signer != payer {
        let (expected, found) = (EvmAddress::from(payer), EvmAddress::from(signer));
        let message = format!(
            "expected a signature by {expected} itself (those of smart wallets by ERC-1271 are not \
             taken here), found one by {found} or over other fields"
        );
        return Err(refusal_of(payer, Reason::InvalidExactEvmSignature, message));
    }
    Ok(ExactPayment {
        id: payment_id(token, &authorization),
        token: token.clone(),
        authorization,
        signature,
    })
}

/// Network, verifying contract, payer and nonce: never signature bytes.
pub(crate) fn payment_id(token: &EvmToken, authorization: &Authorization) -> PaymentId {
    PaymentId::of_authorization(
        token.network(),
        token.address().as_bytes(),
        authorization.from.as_slice(),
        authorization.nonce.as_slice(),
    )
}

impl ExactPayment {
    /// The payment that it is, for ever.
    pub fn id(&self) -> PaymentId {
        self.id
    }

    /// Whose money it is.
    pub fn payer(&self) -> EvmAddress {
        self.authorization.from.into()
    }

    /// Who gets it.
    pub fn pay_to(&self) -> EvmAddress {
        self.authorization.to.into()
    }

    /// How much, in atomic units.
    pub fn amount(&self) -> Amount {
        self.authorization.value
    }
}

impl std::fmt::Debug for ExactPayment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExactPayment({})", self.id)
    }
}

fn refusal(reason: Reason, message: String) -> Refusal {
    Refusal { reason, message, payer: None }
}

pub(crate) fn refusal_of(payer: Address, reason: Reason, message: String) -> Refusal {
    Refusal { reason, message, payer: Some(EvmAddress::from(payer).to_string()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use farebox_protocol::Network;
    use serde_json::json;

    use super::*;
    use crate::config::TokenConfig;
    use crate::networks::find_token;

    /// What the official TypeScript client signed once (1000 units on Base Sepolia).
    pub(crate) fn payment() -> ExactPayment {
        let row = find_token("eip155:84532", "usdc").unwrap();
        let token = EvmToken::new(Network::eip155(84532), TokenConfig::from(row)).unwrap();
        let payload = json!({
            "authorization": {
                "from": "0x49991a0b71e820267ed33F7f2a1af983b6c80DCa",
                "to": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
                "value": "1000",
                "validAfter": "0",
                "validBefore": "1795222633",
                "nonce": "0xa7e541bf8858d7c300b9329b672558af74852899fc7d9465412a09e98739ac71",
            },
            "signature": "0x38c103d75cf43e55a0142dd053591218646f65ffbfa31e2019d751db73036b9c\
                          6d92aa6a3e45987cbe98d02bc8ce25757987b5cb6d3ce6795318e788f84c59741b",
        });
        let payload = ExactPayload::read(&payload).unwrap();
        check_signature(&token, &payload).unwrap()
    }

    #[test]
    fn what_was_signed_elsewhere_is_recovered_here() {
        let payment = payment();
        assert_eq!(payment.payer().to_lower_hex(), "0x49991a0b71e820267ed33f7f2a1af983b6c80dca");
        assert_eq!(payment.amount(), Amount::from_units(1000));
        let pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
        assert_eq!(payment.pay_to().to_string(), pay_to);
    }
}
