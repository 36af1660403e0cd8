//! What a payer signed, in the words that every method has, and the strict reading of its fields.

use alloy_primitives::{Address, B256, U256};
use farebox_protocol::wire::{PaymentPayload, PaymentRequirements};
use farebox_protocol::{Amount, PaymentId, Timestamp};
use serde_json::Value;

use super::address::EvmAddress;
use super::method::Method;
use crate::scheme::{BadPayload, Identified};

/// One signed, single-use permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authorization {
    /// Whose money it is.
    pub(crate) payer: Address,
    /// Who gets it.
    pub(crate) pay_to: Address,
    /// Of which token.
    pub(crate) token: Address,
    /// Which contract may move it.
    pub(crate) spender: Address,
    /// The most that it allows.
    pub(crate) value: Amount,
    /// From when on, in seconds; in which second exactly is the contract's affair.
    pub(crate) valid_after: U256,
    /// Until when.
    pub(crate) limit: Limit,
    /// Its single-use number.
    pub(crate) nonce: B256,
    /// Who alone may settle it; anybody where there is none.
    pub(crate) settler: Option<Address>,
}

/// Until when an authorisation can be settled, in seconds of the chain's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Not in this second any more.
    Before(U256),
    /// In this second for the last time.
    Through(U256),
}

/// An authorisation and the text that is to be its signature, whose rules come later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) authorization: Authorization,
    pub(crate) signature: &'a str,
}

impl Authorization {
    /// When it can be settled no more; a time past the end of ours is the end of ours.
    pub(crate) fn ends(&self) -> Timestamp {
        let first_late = match self.limit {
            Limit::Before(second) => second,
            Limit::Through(second) => second.saturating_add(U256::from(1)),
        };
        time(first_late)
    }

    /// After when it is valid; a time past the end of ours is never.
    pub(crate) fn starts(&self) -> Timestamp {
        time(self.valid_after)
    }
}

impl Limit {
    /// The number that was signed.
    pub(crate) fn seconds(self) -> U256 {
        match self {
            Self::Before(second) | Self::Through(second) => second,
        }
    }
}

/// A time in seconds; past the end of ours it is the end of ours.
pub(crate) fn time(seconds: U256) -> Timestamp {
    Timestamp::from_seconds(u64::try_from(seconds).unwrap_or(u64::MAX))
}

/// [`Scheme::identify`](crate::Scheme::identify) for every method.
pub(crate) fn identify(
    method: &dyn Method,
    payload: &PaymentPayload,
    requirements: &PaymentRequirements,
) -> Result<Identified, BadPayload> {
    let asset: EvmAddress =
        requirements.asset.parse().map_err(|_| bad("accepted.asset", ADDRESS))?;
    let authorization = method.read(&payload.payload, asset.alloy())?.authorization;
    let keeper = EvmAddress::from(method.nonce_keeper(asset.alloy()));
    let payer = EvmAddress::from(authorization.payer);
    Ok(Identified {
        id: PaymentId::of_authorization(
            &requirements.network,
            keeper.as_bytes(),
            payer.as_bytes(),
            authorization.nonce.as_slice(),
        ),
        payer: payer.to_string(),
        nonce: authorization.nonce.0,
        amount: authorization.value,
        valid_before: authorization.ends(),
    })
}

const ADDRESS: &str = "an address of `0x` and 40 digits";

/// The text of a field.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// The object of a field.
pub(crate) fn member<'a>(
    object: &'a Value,
    key: &str,
    (field, expected): (&'static str, &'static str),
) -> Result<&'a Value, BadPayload> {
    object.get(key).filter(|it| it.is_object()).ok_or(bad(field, expected))
}

/// An address of either case, or of EIP-55.
pub(crate) fn address(
    object: &Value,
    key: &str,
    field: &'static str,
) -> Result<Address, BadPayload> {
    let address = text(object, key).and_then(|it| it.parse::<EvmAddress>().ok());
    address.map(EvmAddress::alloy).ok_or(bad(field, ADDRESS))
}

/// Atomic units.
pub(crate) fn units(object: &Value, key: &str, field: &'static str) -> Result<Amount, BadPayload> {
    let units = text(object, key).and_then(|it| it.parse().ok());
    units.ok_or(bad(field, "atomic units as a decimal string"))
}

/// Seconds since the epoch.
pub(crate) fn seconds(object: &Value, key: &str, field: &'static str) -> Result<U256, BadPayload> {
    let number = text(object, key).and_then(decimal);
    number.ok_or(bad(field, "seconds since the epoch as a decimal string"))
}

/// The signature, as text.
pub(crate) fn signature(payload: &Value) -> Result<&str, BadPayload> {
    text(payload, "signature").ok_or(bad("payload.signature", "a string of `0x…`"))
}

/// A decimal number in its one canonical spelling.
pub(crate) fn decimal(text: &str) -> Option<U256> {
    let canonical = !text.is_empty()
        && (text == "0" || !text.starts_with('0'))
        && text.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| U256::from_str_radix(text, 10).ok()).flatten()
}

pub(crate) fn bad(field: &'static str, expected: &'static str) -> BadPayload {
    BadPayload { field, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_end_in_their_own_way() {
        let second = U256::from(10);
        let ends = |limit| {
            let any = Address::ZERO;
            let authorization = Authorization {
                payer: any,
                pay_to: any,
                token: any,
                spender: any,
                value: Amount::from_units(1),
                valid_after: U256::ZERO,
                limit,
                nonce: B256::ZERO,
                settler: None,
            };
            authorization.ends()
        };
        assert_eq!(ends(Limit::Before(second)), Timestamp::from_seconds(10));
        assert_eq!(ends(Limit::Through(second)), Timestamp::from_seconds(11));
        assert_eq!(ends(Limit::Through(U256::MAX)), Timestamp::from_seconds(u64::MAX));
    }

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(decimal("0"), Some(U256::ZERO));
        assert_eq!(decimal(&U256::MAX.to_string()), Some(U256::MAX));
        for text in ["", "00", "01", "-1", "+1", "1e3", "0x1", " 1", &"9".repeat(78)] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
