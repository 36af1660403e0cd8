//! Everything about a payment that can be judged without asking a chain, cheap to dear.
//!
//! The order and the codes are those of `@x402/evm` 2.27.0, except that the signature, the one dear
//! check, comes last. Sources: x402 v2 §6.1.2 and the scheme texts of `exact` and `upto` on EVM.

use std::time::Duration;

use alloy_primitives::Address;
use farebox_protocol::wire::{PaymentRequirements, VerifyRequest, X402_VERSION};
use farebox_protocol::{Amount, PaymentId, Reason, Timestamp};
use serde_json::Value;

use super::address::EvmAddress;
use super::authorization::{Authorization, Signed};
use super::method::{METHODS, Method, method_of};
use super::signature::BadSignature;
use super::signed_by::SignedBy;
use super::sponsoring::Sponsoring;
use super::token::EvmToken;
use crate::scheme::{BadPayload, Charging, Scheme};

/// How long an authorisation must still live, so that it can be mined in time (x402: 6 s).
pub(crate) const EXPIRY_MARGIN: Duration = Duration::from_secs(6);

/// A payment that asks for no more than to be looked up on its chain: its form and its terms are good,
/// and so is its signature, unless only the payer's contract can tell.
#[derive(Clone)]
pub struct EvmPayment {
    pub(crate) id: PaymentId,
    pub(crate) method: &'static dyn Method,
    pub(crate) token: EvmToken,
    pub(crate) authorization: Authorization,
    /// What is to be moved.
    pub(crate) amount: Amount,
    pub(crate) signed_by: SignedBy,
    pub(crate) sponsoring: Option<Sponsoring>,
    /// The extension by which the payer asked for what is not sponsored here.
    pub(crate) unsponsored: Option<&'static str>,
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

/// What `amount` of the requirements means (x402, scheme `upto` §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// What must be authorised, to the unit.
    Verify,
    /// What is to be moved: with [`Charging::UpTo`] at most what was authorised.
    Settle,
}

/// Local verification of a payment in `token`: no chain is asked. `now` is the caller's clock. Only a
/// signature of the payer's own key is taken: those of contracts (ERC-1271, ERC-6492) are refused,
/// because their chain must be asked.
///
/// Of an offer that names its facilitator (`extra.facilitatorAddress`) the authorisation must be for
/// that one; whether that is ours, the chain's own check decides.
pub fn check_payment(
    token: &EvmToken,
    request: &VerifyRequest,
    now: Timestamp,
) -> Result<EvmPayment, Refusal> {
    check(token, request, Phase::Verify, Some(now))?.signed_by_key()
}

/// The same for a settlement, whose `amount` is what is to be moved: with `upto` anything up to what
/// was authorised.
pub fn check_settlement(
    token: &EvmToken,
    request: &VerifyRequest,
    now: Timestamp,
) -> Result<EvmPayment, Refusal> {
    check(token, request, Phase::Settle, Some(now))?.signed_by_key()
}

/// As [`check_payment`], with signatures of contracts left open.
pub(crate) fn check_but_for_wallet(
    token: &EvmToken,
    request: &VerifyRequest,
    now: Timestamp,
) -> Result<EvmPayment, Refusal> {
    check(token, request, Phase::Verify, Some(now))
}

/// The payment, if everything but its time is good: a late repeat asks what became of it. Signatures of
/// contracts are left open.
pub(crate) fn check_untimed(
    token: &EvmToken,
    request: &VerifyRequest,
) -> Result<EvmPayment, Refusal> {
    check(token, request, Phase::Settle, None)
}

fn check(
    token: &EvmToken,
    request: &VerifyRequest,
    phase: Phase,
    now: Option<Timestamp>,
) -> Result<EvmPayment, Refusal> {
    let requirements = request.payment_requirements.value();
    let payload = request.payment_payload.value();
    let method = check_offer(request)?;
    check_token(token, requirements)?;
    method.check_extra(token, requirements)?;
    let signed = read(method, &payload.payload, token)?;
    check_parties(method, &signed.authorization, requirements)?;
    check_amount(method, &signed.authorization, requirements.amount, phase)?;
    if let Some(now) = now {
        check_window(method, &signed.authorization, now)?;
    }
    let sponsoring = Sponsoring::read(method, token, payload, &signed.authorization)?;
    if let (Some(now), Some(sponsoring)) = (now, &sponsoring) {
        sponsoring.check_window(&signed.authorization, now)?;
    }
    let signed_by = check_signature(method, token, &signed)?;
    let authorization = signed.authorization;
    Ok(EvmPayment {
        id: PaymentId::of_authorization(
            token.network(),
            method.nonce_keeper(token.address().alloy()).as_slice(),
            authorization.payer.as_slice(),
            authorization.nonce.as_slice(),
        ),
        method,
        token: token.clone(),
        authorization,
        amount: requirements.amount,
        signed_by,
        sponsoring,
        unsponsored: None,
    })
}

/// Version, scheme and network: the payment's are the demand's, and are served here.
fn check_offer(request: &VerifyRequest) -> Result<&'static dyn Method, Refusal> {
    let payload = request.payment_payload.value();
    let requirements = request.payment_requirements.value();
    for version in [request.x402_version, payload.x402_version] {
        if version != X402_VERSION {
            let message = format!("expected x402Version {X402_VERSION}, found {version}");
            return Err(Refusal::new(Reason::InvalidX402Version, message));
        }
    }
    let Some(method) = method_of(requirements) else {
        let transfer = requirements.extra.get("assetTransferMethod").and_then(Value::as_str);
        let (scheme, by) = (&requirements.scheme, transfer.unwrap_or("any method"));
        let message = format!("expected a scheme that is served here, found `{scheme}` by {by}");
        return Err(Refusal::new(Reason::UnsupportedScheme, message));
    };
    let (name, found) = (method.name(), &payload.accepted.scheme);
    if found != name {
        let message =
            format!("expected `paymentPayload.accepted.scheme` to be `{name}`, found `{found}`");
        return Err(Refusal::new(method.reasons().scheme.clone(), message));
    }
    let (accepted, demanded) = (&payload.accepted.network, &requirements.network);
    if accepted != demanded {
        let message = format!("expected a payment on {demanded}, found one on {accepted}");
        return Err(Refusal::new(method.reasons().network.clone(), message));
    }
    Ok(method)
}

/// The demand is for this token.
fn check_token(token: &EvmToken, requirements: &PaymentRequirements) -> Result<(), Refusal> {
    if requirements.network != *token.network() {
        let (expected, found) = (token.network(), &requirements.network);
        let message = format!("expected the network {expected}, found {found}");
        return Err(Refusal::new(Reason::InvalidNetwork, message));
    }
    if requirements.asset.parse() != Ok(token.address()) {
        let (expected, found) = (token.address(), &requirements.asset);
        let message = format!("expected the asset {expected}, found `{found}`");
        return Err(Refusal::new(Reason::InvalidPaymentRequirements, message));
    }
    Ok(())
}

/// The payload, if it is one of this method and no other.
fn read<'a>(
    method: &dyn Method,
    payload: &'a Value,
    token: &EvmToken,
) -> Result<Signed<'a>, Refusal> {
    let mut members = METHODS.iter().map(|it| it.member());
    let other = members.find(|it| *it != method.member() && payload.get(*it).is_some());
    if let Some(other) = other {
        let message =
            format!("expected a payload with `{}`, found one with `{other}`", method.member());
        return Err(Refusal::new(Reason::UnsupportedPayloadType, message));
    }
    method
        .read(payload, token.address().alloy())
        .map_err(|error: BadPayload| Refusal::new(Reason::InvalidPayload, error.to_string()))
}

/// Token, spender, recipient and facilitator are the demanded ones.
fn check_parties(
    method: &dyn Method,
    authorization: &Authorization,
    requirements: &PaymentRequirements,
) -> Result<(), Refusal> {
    let (payer, reasons) = (authorization.payer, method.reasons());
    let Ok(pay_to) = requirements.pay_to.parse::<EvmAddress>() else {
        let message = format!("expected an address in `payTo`, found `{}`", requirements.pay_to);
        return Err(Refusal::of(payer, &Reason::InvalidPaymentRequirements, message));
    };
    let asset = requirements.asset.parse::<EvmAddress>().unwrap_or(authorization.token.into());
    let spender = method.spender(asset.alloy());
    for (what, found, expected, reason) in [
        ("spender", authorization.spender, spender, &reasons.spender),
        ("recipient", authorization.pay_to, pay_to.alloy(), &reasons.recipient),
        ("token", authorization.token, asset.alloy(), &reasons.token),
    ] {
        if found != expected {
            let (expected, found) = (EvmAddress::from(expected), EvmAddress::from(found));
            let message = format!("expected the {what} {expected}, found {found}");
            return Err(Refusal::of(payer, reason, message));
        }
    }
    let (Some(found), Some(named)) =
        (authorization.settler, requirements.extra.get("facilitatorAddress"))
    else {
        return Ok(());
    };
    let found = EvmAddress::from(found);
    if named.as_str().and_then(|it| it.parse().ok()) != Some(found) {
        let message = format!("expected the facilitator {named}, found {found}");
        return Err(Refusal::of(payer, &reasons.facilitator, message));
    }
    Ok(())
}

/// The amount is the demanded one, or covers what is to be settled.
fn check_amount(
    method: &dyn Method,
    authorization: &Authorization,
    demanded: Amount,
    phase: Phase,
) -> Result<(), Refusal> {
    let found = authorization.value;
    match (phase, method.charging()) {
        (Phase::Verify, _) | (Phase::Settle, Charging::Whole) if found != demanded => {
            let message = format!("expected a value of exactly {demanded}, found {found}");
            Err(Refusal::of(authorization.payer, &method.reasons().amount, message))
        }
        (Phase::Settle, Charging::UpTo) if found < demanded => {
            let message = format!("expected to settle at most {found}, found {demanded}");
            Err(Refusal::of(authorization.payer, &method.reasons().over, message))
        }
        (Phase::Verify | Phase::Settle, Charging::Whole | Charging::UpTo) => Ok(()),
    }
}

/// The authorisation is valid now and for long enough to be mined.
pub(crate) fn check_window(
    method: &dyn Method,
    authorization: &Authorization,
    now: Timestamp,
) -> Result<(), Refusal> {
    let (payer, reasons) = (authorization.payer, method.reasons());
    let limit = authorization.limit.seconds();
    if super::authorization::time(limit) < now.plus(EXPIRY_MARGIN) {
        let (now, margin) = (now.seconds(), EXPIRY_MARGIN.as_secs());
        let message =
            format!("expected an end of validity at least {margin} s after {now}, found {limit}");
        return Err(Refusal::of(payer, &reasons.late, message));
    }
    if now < authorization.starts() {
        let (found, now) = (authorization.valid_after, now.seconds());
        let message = format!("expected validAfter not after {now}, found {found}");
        return Err(Refusal::of(payer, &reasons.early, message));
    }
    Ok(())
}

/// The payer's own key signed these very fields, or its contract may have.
fn check_signature(
    method: &dyn Method,
    token: &EvmToken,
    signed: &Signed<'_>,
) -> Result<SignedBy, Refusal> {
    let payer = signed.authorization.payer;
    let digest = method.digest(token, &signed.authorization);
    SignedBy::read(signed.signature, digest, payer).map_err(|error| unsigned(method, payer, error))
}

fn unsigned(method: &dyn Method, payer: Address, error: BadSignature) -> Refusal {
    let message = format!("`payload.signature`: {error}");
    Refusal::of(payer, &method.reasons().signature, message)
}

impl EvmPayment {
    /// The payment, if it takes no contract to know who signed it.
    fn signed_by_key(self) -> Result<Self, Refusal> {
        let Some(wallet) = self.signed_by.wallet() else { return Ok(self) };
        if wallet.deployment.is_none() {
            return Err(self.not_signed());
        }
        let message = "expected a deployed wallet, found one that may not be".to_owned();
        let payer = self.authorization.payer;
        Err(Refusal::of(payer, &Reason::Eip6492FactoryNotAllowed, message))
    }

    /// The refusal of what no contract signed: the payer has none.
    pub(crate) fn not_signed(&self) -> Refusal {
        let payer = self.authorization.payer;
        let error = self.signed_by.wallet().map_or(BadSignature::Unrecoverable, |it| it.not_by_key);
        unsigned(self.method, payer, error)
    }

    /// The payment that it is, for ever.
    pub fn id(&self) -> PaymentId {
        self.id
    }

    /// The way that it is paid.
    pub fn scheme(&self) -> &'static dyn Scheme {
        self.method
    }

    /// Whose money it is.
    pub fn payer(&self) -> EvmAddress {
        self.authorization.payer.into()
    }

    /// Who gets it.
    pub fn pay_to(&self) -> EvmAddress {
        self.authorization.pay_to.into()
    }

    /// How much is to be moved, in atomic units.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// How much could be.
    pub fn authorized(&self) -> Amount {
        self.authorization.value
    }

    /// Who alone may settle it; anybody where there is none.
    pub fn facilitator(&self) -> Option<EvmAddress> {
        self.authorization.settler.map(EvmAddress::from)
    }
}

impl std::fmt::Debug for EvmPayment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EvmPayment({})", self.id)
    }
}

impl Refusal {
    pub(crate) fn new(reason: Reason, message: String) -> Self {
        Self { reason, message, payer: None }
    }

    pub(crate) fn of(payer: Address, reason: &Reason, message: String) -> Self {
        let payer = Some(EvmAddress::from(payer).to_string());
        Self { reason: reason.clone(), message, payer }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use farebox_protocol::Network;
    use serde_json::json;

    use super::*;
    use crate::config::TokenConfig;
    use crate::evm::exact::Exact;
    use crate::networks::find_token;

    /// What the official TypeScript client signed once (1000 units on Base Sepolia).
    pub(crate) fn payment() -> EvmPayment {
        let row = find_token("eip155:84532", "usdc").unwrap();
        let token = EvmToken::new(Network::eip155(84532), TokenConfig::from(row)).unwrap();
        let accepted = json!({
            "scheme": "exact",
            "network": "eip155:84532",
            "amount": "1000",
            "asset": row.address,
            "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "maxTimeoutSeconds": 300,
            "extra": {"name": "USDC", "version": "2"},
        });
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
        let request = json!({
            "x402Version": 2,
            "paymentPayload": {"x402Version": 2, "payload": payload, "accepted": &accepted},
            "paymentRequirements": accepted,
        });
        check_untimed(&token, &serde_json::from_value(request).unwrap()).unwrap()
    }

    #[test]
    fn what_was_signed_elsewhere_is_recovered_here() {
        let payment = payment();
        assert_eq!(payment.payer().to_lower_hex(), "0x49991a0b71e820267ed33f7f2a1af983b6c80dca");
        assert_eq!(payment.amount(), Amount::from_units(1000));
        assert_eq!(payment.scheme().word(), Exact.word());
        let pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
        assert_eq!(payment.pay_to().to_string(), pay_to);
    }
}
