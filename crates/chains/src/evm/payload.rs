//! The payload of `exact` by EIP-3009, read strictly.
//!
//! Source: x402 v2, scheme `exact` on EVM: `{signature, authorization}`, where numbers are decimal
//! strings and the nonce is 32 bytes of hexadecimal.

use alloy_primitives::{Address, B256, U256, b256, keccak256};
use farebox_protocol::{Amount, Timestamp};
use serde_json::Value;

use super::address::EvmAddress;
use crate::scheme::BadPayload;

/// EIP-712 hash of EIP-3009's type `TransferWithAuthorization`.
const AUTHORIZATION_TYPE_HASH: B256 =
    b256!("0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267");

/// What the payer signed (EIP-3009).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authorization {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) value: Amount,
    pub(crate) valid_after: U256,
    pub(crate) valid_before: U256,
    pub(crate) nonce: B256,
}

/// The whole payload; the signature is still text, its own rules come later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExactPayload<'a> {
    pub(crate) authorization: Authorization,
    pub(crate) signature: &'a str,
}

impl<'a> ExactPayload<'a> {
    /// Reads a payload's `payload`.
    pub(crate) fn read(payload: &'a Value) -> Result<Self, BadPayload> {
        let object = payload.get("authorization").filter(|it| it.is_object());
        let Some(object) = object else {
            return Err(bad("payload.authorization", "an EIP-3009 authorization object"));
        };
        let authorization = Authorization {
            from: address(object, "from", "payload.authorization.from")?,
            to: address(object, "to", "payload.authorization.to")?,
            value: text(object, "value")
                .and_then(|it| it.parse().ok())
                .ok_or(bad("payload.authorization.value", "atomic units as a decimal string"))?,
            valid_after: seconds(object, "validAfter", "payload.authorization.validAfter")?,
            valid_before: seconds(object, "validBefore", "payload.authorization.validBefore")?,
            nonce: nonce(object)?,
        };
        let signature =
            text(payload, "signature").ok_or(bad("payload.signature", "a string of `0x…`"))?;
        Ok(Self { authorization, signature })
    }
}

impl Authorization {
    /// EIP-712 digest for the token with this domain separator.
    pub(crate) fn digest(&self, domain_separator: B256) -> B256 {
        let mut fields = [0; 7 * 32];
        let words = [
            AUTHORIZATION_TYPE_HASH,
            self.from.into_word(),
            self.to.into_word(),
            B256::from(U256::from(self.value.units())),
            B256::from(self.valid_after),
            B256::from(self.valid_before),
            self.nonce,
        ];
        for (place, word) in fields.chunks_exact_mut(32).zip(words) {
            place.copy_from_slice(word.as_slice());
        }
        let mut message = [0; 2 + 32 + 32];
        let (prefix, hashes) = message.split_at_mut(2);
        prefix.copy_from_slice(&[0x19, 0x01]);
        let (domain, fields_hash) = hashes.split_at_mut(32);
        domain.copy_from_slice(domain_separator.as_slice());
        fields_hash.copy_from_slice(keccak256(fields).as_slice());
        keccak256(message)
    }

    /// When it ends; a time past the end of ours is the end of ours.
    pub(crate) fn ends(&self) -> Timestamp {
        Timestamp::from_seconds(u64::try_from(self.valid_before).unwrap_or(u64::MAX))
    }

    /// After when it is valid; a time past the end of ours is never.
    pub(crate) fn starts(&self) -> Timestamp {
        Timestamp::from_seconds(u64::try_from(self.valid_after).unwrap_or(u64::MAX))
    }
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn address(object: &Value, key: &str, field: &'static str) -> Result<Address, BadPayload> {
    let address = text(object, key).and_then(|it| it.parse::<EvmAddress>().ok());
    address.map(EvmAddress::alloy).ok_or(bad(field, "an address of `0x` and 40 digits"))
}

fn seconds(object: &Value, key: &str, field: &'static str) -> Result<U256, BadPayload> {
    let canonical = |it: &&str| {
        !it.is_empty()
            && (*it == "0" || !it.starts_with('0'))
            && it.bytes().all(|b| b.is_ascii_digit())
    };
    text(object, key)
        .filter(canonical)
        .and_then(|it| U256::from_str_radix(it, 10).ok())
        .ok_or(bad(field, "seconds since the epoch as a decimal string"))
}

fn nonce(object: &Value) -> Result<B256, BadPayload> {
    let expected = bad("payload.authorization.nonce", "`0x` and 64 hexadecimal digits");
    let digits =
        text(object, "nonce").and_then(|it| it.strip_prefix("0x")).ok_or(expected.clone())?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| expected)?;
    Ok(bytes.into())
}

fn bad(field: &'static str, expected: &'static str) -> BadPayload {
    BadPayload { field, expected }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "signature": "0x1b",
            "authorization": {
                "from": "0x49991a0b71e820267ed33F7f2a1af983b6c80DCa",
                "to": "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc",
                "value": "1000",
                "validAfter": "0",
                "validBefore": "115792089237316195423570985008687907853269984665640564039457584007913129639935",
                "nonce": "0xa7e541bf8858d7c300b9329b672558af74852899fc7d9465412a09e98739ac71",
                "later": "fields are not ours to judge"
            }
        })
    }

    #[test]
    fn the_type_hash_is_that_of_the_type() {
        let fields = "address from,address to,uint256 value,uint256 validAfter,\
                      uint256 validBefore,bytes32 nonce";
        let hash = keccak256(format!("TransferWithAuthorization({fields})"));
        assert_eq!(hash, AUTHORIZATION_TYPE_HASH);
    }

    #[test]
    fn a_good_payload_is_read() {
        let payload = good();
        let read = ExactPayload::read(&payload).unwrap();
        assert_eq!(read.authorization.value, Amount::from_units(1000));
        assert_eq!(read.authorization.valid_before, U256::MAX);
        assert_eq!(read.authorization.ends(), Timestamp::from_seconds(u64::MAX));
        assert_eq!(read.signature, "0x1b");
    }

    #[track_caller]
    fn check(key: &str, value: Value, field: &str) {
        let mut payload = good();
        payload["authorization"][key] = value.clone();
        let error = ExactPayload::read(&payload).err().map(|it| it.field);
        assert_eq!(error, Some(field), "{key} = {value}");
    }

    #[test]
    fn every_field_is_strict() {
        for value in [json!(1000), json!("01"), json!("-1"), json!("1e3"), json!(null)] {
            check("value", value.clone(), "payload.authorization.value");
            check("validAfter", value.clone(), "payload.authorization.validAfter");
            check("validBefore", value, "payload.authorization.validBefore");
        }
        check(
            "value",
            json!((U256::from(u128::MAX) + U256::from(1)).to_string()),
            "payload.authorization.value",
        );
        check("validBefore", json!("9".repeat(78)), "payload.authorization.validBefore");
        for value in [json!("0x12"), json!(7), json!("0x49991A0b71e820267ed33F7f2a1af983b6c80DCa")]
        {
            check("from", value.clone(), "payload.authorization.from");
            check("to", value, "payload.authorization.to");
        }
        for value in
            [json!("0x12"), json!("a7".repeat(32)), json!(format!("0x{}", "a7".repeat(33)))]
        {
            check("nonce", value, "payload.authorization.nonce");
        }
        let mut payload = good();
        payload["signature"] = json!(["0x"]);
        assert_eq!(ExactPayload::read(&payload).unwrap_err().field, "payload.signature");
        for other in [json!(null), json!([]), json!({"authorization": []})] {
            assert_eq!(ExactPayload::read(&other).unwrap_err().field, "payload.authorization");
        }
    }
}
