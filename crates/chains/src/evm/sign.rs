//! What the paying side signs: the payload of an `exact` payment.

use farebox_protocol::Timestamp;
use farebox_protocol::wire::PaymentRequirements;
use serde_json::{Value, json};

use super::address::EvmAddress;
use super::check::EXACT;
use super::key::EvmKey;
use super::payload::Authorization;
use super::token::EvmToken;
use crate::config::TokenConfig;

/// From when until when an authorisation can be used; whole seconds on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationWindow {
    /// Not at or before; the epoch means "from now on" and is what official clients sign.
    pub valid_after: Timestamp,
    /// Not at or after.
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
    let token = token_of(requirements)?;
    let pay_to = address(&requirements.pay_to, "payTo")?;
    let authorization = Authorization {
        from: key.address().alloy(),
        to: pay_to.alloy(),
        value: requirements.amount,
        valid_after: alloy_primitives::U256::from(window.valid_after.seconds()),
        valid_before: alloy_primitives::U256::from(window.valid_before.seconds()),
        nonce: nonce.into(),
    };
    let digest = authorization.digest(token.domain_separator().into());
    Ok(json!({
        "authorization": {
            "from": key.address().to_string(),
            "to": pay_to.to_string(),
            "value": requirements.amount.to_string(),
            "validAfter": window.valid_after.seconds().to_string(),
            "validBefore": window.valid_before.seconds().to_string(),
            "nonce": format!("0x{}", hex::encode(nonce)),
        },
        "signature": format!("0x{}", hex::encode(key.sign_digest(&digest.0))),
    }))
}

/// The token that the requirements speak of, by their own word.
fn token_of(requirements: &PaymentRequirements) -> Result<EvmToken, CannotSign> {
    if requirements.scheme != EXACT {
        return Err(CannotSign { field: "scheme", expected: "`exact`" });
    }
    let method = requirements.extra.get("assetTransferMethod").and_then(Value::as_str);
    if method.is_some_and(|it| it != "eip3009") {
        return Err(CannotSign { field: "extra.assetTransferMethod", expected: "`eip3009`" });
    }
    let name = extra(requirements, "name")
        .ok_or(CannotSign { field: "extra.name", expected: "the token's EIP-712 name" })?;
    let version = extra(requirements, "version")
        .ok_or(CannotSign { field: "extra.version", expected: "the token's EIP-712 version" })?;
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
