//! What the paying side signs: payloads of payments, and permits that go with them.

use alloy_primitives::{Address, B256, U256};
use farebox_protocol::Timestamp;
use farebox_protocol::wire::{Object, PaymentRequirements};
use serde_json::{Value, json};

use super::address::EvmAddress;
use super::authorization::{Authorization, Limit};
use super::contracts::PERMIT2;
use super::exact::Exact;
use super::exact_permit2::ExactPermit2;
use super::key::EvmKey;
use super::method::Method;
use super::sponsoring::permit_digest;
use super::token::EvmToken;
use super::upto::Upto;
use crate::config::TokenConfig;
use crate::scheme::{Scheme, TransferMethod};
use crate::schemes::scheme_of;

/// From when until when an authorisation can be used; whole seconds on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationWindow {
    /// Not at or before; the epoch means "from now on" and is what official clients sign.
    pub valid_after: Timestamp,
    /// Not at or after. As `deadline` of Permit2 it is that number, and the last second of all.
    pub valid_before: Timestamp,
}

/// The requirements do not describe something that can be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` of the payment requirements: expected {expected}")]
pub struct CannotSign {
    /// The path of the field: `extra.name`.
    pub field: &'static str,
    /// What should stand there.
    pub expected: &'static str,
}

/// Signs an EIP-3009 authorisation that fulfils `requirements`, and returns the `payload` of the
/// payment: `{authorization, signature}`. The nonce must never have been used by this key.
pub fn sign_exact(
    key: &EvmKey,
    requirements: &PaymentRequirements,
    window: AuthorizationWindow,
    nonce: [u8; 32],
) -> Result<Value, CannotSign> {
    let token = token_of(&Exact, requirements, Names::Signed)?;
    let authorization = Signing { key, window, nonce }.authorize(&Exact, &token, requirements)?;
    let signature = sign(key, Exact.digest(&token, &authorization));
    Ok(json!({
        "authorization": {
            "from": key.address().to_string(),
            "to": EvmAddress::from(authorization.pay_to).to_string(),
            "value": requirements.amount.to_string(),
            "validAfter": window.valid_after.seconds().to_string(),
            "validBefore": window.valid_before.seconds().to_string(),
            "nonce": format!("0x{}", hex::encode(nonce)),
        },
        "signature": signature,
    }))
}

/// Signs a Permit2 transfer that fulfils `requirements` of `exact` over Permit2, and returns the
/// `payload` of the payment: `{signature, permit2Authorization}`. The nonce must never have been used
/// by this key, for whatever transfer by Permit2.
pub fn sign_permit2_exact(
    key: &EvmKey,
    requirements: &PaymentRequirements,
    window: AuthorizationWindow,
    nonce: [u8; 32],
) -> Result<Value, CannotSign> {
    Signing { key, window, nonce }.sign_permit2(&ExactPermit2, requirements, None)
}

/// The same for `upto`: the amount of the requirements is the ceiling, and the facilitator that they
/// name (`extra.facilitatorAddress`) alone can settle it.
pub fn sign_upto(
    key: &EvmKey,
    requirements: &PaymentRequirements,
    window: AuthorizationWindow,
    nonce: [u8; 32],
) -> Result<Value, CannotSign> {
    let place = "extra.facilitatorAddress";
    let facilitator = extra(requirements, "facilitatorAddress");
    let facilitator =
        facilitator.ok_or(CannotSign { field: place, expected: "the address that will settle" })?;
    let settler = address(&facilitator, place)?.alloy();
    Signing { key, window, nonce }.sign_permit2(&Upto, requirements, Some(settler))
}

/// Signs an EIP-2612 permit that lets Permit2 spend the demanded amount, and returns the `info` of the
/// extension `eip2612GasSponsoring`. `nonce` is what the token's `nonces(owner)` says.
pub fn sign_eip2612_permit(
    key: &EvmKey,
    requirements: &PaymentRequirements,
    nonce: u64,
    deadline: Timestamp,
) -> Result<Value, CannotSign> {
    let scheme =
        scheme_of(requirements).ok_or(CannotSign { field: "scheme", expected: "a known one" })?;
    let token = token_of(scheme, requirements, Names::Signed)?;
    let value = U256::from(requirements.amount.units());
    let numbers = [value, U256::from(nonce), U256::from(deadline.seconds())];
    let digest = permit_digest(&token, [key.address().alloy(), PERMIT2], numbers);
    Ok(json!({
        "from": key.address().to_string(),
        "asset": token.address().to_string(),
        "spender": EvmAddress::from(PERMIT2).to_string(),
        "amount": value.to_string(),
        "nonce": nonce.to_string(),
        "deadline": deadline.seconds().to_string(),
        "signature": sign(key, digest),
        "version": "1",
    }))
}

/// Who signs what for how long.
#[derive(Clone, Copy)]
struct Signing<'a> {
    key: &'a EvmKey,
    window: AuthorizationWindow,
    nonce: [u8; 32],
}

impl Signing<'_> {
    fn authorize(
        &self,
        method: &dyn Method,
        token: &EvmToken,
        requirements: &PaymentRequirements,
    ) -> Result<Authorization, CannotSign> {
        let asset = token.address().alloy();
        Ok(Authorization {
            payer: self.key.address().alloy(),
            pay_to: address(&requirements.pay_to, "payTo")?.alloy(),
            token: asset,
            spender: method.spender(asset),
            value: requirements.amount,
            valid_after: U256::from(self.window.valid_after.seconds()),
            limit: limit(method, U256::from(self.window.valid_before.seconds())),
            nonce: self.nonce.into(),
            settler: None,
        })
    }

    fn sign_permit2(
        &self,
        method: &dyn Method,
        requirements: &PaymentRequirements,
        settler: Option<Address>,
    ) -> Result<Value, CannotSign> {
        let token = token_of(method, requirements, Names::Unsigned)?;
        let authorization = self.authorize(method, &token, requirements)?;
        let authorization = Authorization { settler, ..authorization };
        let to = EvmAddress::from(authorization.pay_to).to_string();
        let facilitator = settler.map(|it| EvmAddress::from(it).to_string());
        let after = self.window.valid_after.seconds().to_string();
        let members = [Some(("to", to)), facilitator.map(|it| ("facilitator", it))];
        let members = members.into_iter().flatten().chain([("validAfter", after)]);
        let witness: Object = members.map(|(key, value)| (key.to_owned(), value.into())).collect();
        let signature = sign(self.key, method.digest(&token, &authorization));
        Ok(json!({
            "signature": signature,
            "permit2Authorization": {
                "from": self.key.address().to_string(),
                "permitted": {
                    "token": token.address().to_string(),
                    "amount": requirements.amount.to_string(),
                },
                "spender": EvmAddress::from(authorization.spender).to_string(),
                "nonce": U256::from_be_bytes(self.nonce).to_string(),
                "deadline": self.window.valid_before.seconds().to_string(),
                "witness": witness,
            },
        }))
    }
}

/// An end of validity, as the method's contract takes it.
fn limit(method: &dyn Method, second: U256) -> Limit {
    match method.method() {
        TransferMethod::Eip3009 => Limit::Before(second),
        TransferMethod::Permit2 => Limit::Through(second),
    }
}

fn sign(key: &EvmKey, digest: B256) -> String {
    format!("0x{}", hex::encode(key.sign_digest(&digest.0)))
}

/// Whether the token's EIP-712 names are signed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Signed,
    Unsigned,
}

/// The token that the requirements speak of, by their own word, if they are in this scheme.
fn token_of(
    scheme: &dyn Scheme,
    requirements: &PaymentRequirements,
    names: Names,
) -> Result<EvmToken, CannotSign> {
    if requirements.scheme != scheme.name() {
        return Err(CannotSign { field: "scheme", expected: scheme.name() });
    }
    if scheme_of(requirements).is_none_or(|it| it.word() != scheme.word()) {
        let expected = scheme.method().word();
        return Err(CannotSign { field: "extra.assetTransferMethod", expected });
    }
    let named = |key, field, expected| match (extra(requirements, key), names) {
        (Some(name), _) => Ok(name),
        (None, Names::Unsigned) => Ok(String::new()),
        (None, Names::Signed) => Err(CannotSign { field, expected }),
    };
    let name = named("name", "extra.name", "the token's EIP-712 name")?;
    let version = named("version", "extra.version", "the token's EIP-712 version")?;
    let address = address(&requirements.asset, "asset")?;
    let config = TokenConfig { address, decimals: 0, name, version };
    EvmToken::new(requirements.network.clone(), config)
        .ok_or(CannotSign { field: "network", expected: "`eip155:` and a chain id" })
}

fn extra(requirements: &PaymentRequirements, key: &str) -> Option<String> {
    let text = requirements.extra.get(key).and_then(Value::as_str);
    text.filter(|it| !it.is_empty()).map(str::to_owned)
}

fn address(text: &str, field: &'static str) -> Result<EvmAddress, CannotSign> {
    text.parse().map_err(|_| CannotSign { field, expected: "an address of `0x` and 40 digits" })
}
