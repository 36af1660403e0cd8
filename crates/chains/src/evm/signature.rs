//! secp256k1 signatures as tokens and Permit2 take them: 65 bytes, low `s`, `v` of 27 or 28.
//!
//! Whatever the token would refuse is refused here, before any gas is spent: the malleable twin of
//! a signature, the compact 64-byte form of EIP-2098, and the bare recovery ids 0 and 1.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, Secp256k1, VerifyOnly};

/// Recovery needs no randomised context, so one is enough for the process.
static VERIFIER: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Half of the order of the curve: a larger `s` has a smaller twin (EIP-2).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// A well-formed signature: `r ‖ s ‖ v`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signature {
    rs: [u8; 64],
    v: u8,
}

/// Why a text is not a signature that a token would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSignature {
    #[error("expected `0x` and 130 hexadecimal digits, found something else")]
    NotHex,
    #[error("expected at most 4096 bytes, found more")]
    TooLong,
    #[error(
        "expected a factory, its call and a signature before the end of ERC-6492, found others"
    )]
    Wrapper,
    #[error("expected a signature of 65 bytes, found {0}")]
    Length(usize),
    #[error("expected v to be 27 or 28, found {0}")]
    V(u8),
    #[error("expected s in the lower half of the curve's order, found its malleable twin")]
    HighS,
    #[error("expected a point of the curve, found numbers that no key could have made")]
    Unrecoverable,
    #[error("expected the payer's own signature, found one by {0} or over other fields")]
    Signer(Address),
}

impl Signature {
    /// Reads `0x` and hexadecimal digits of either case.
    pub(crate) fn parse(text: &str) -> Result<Self, BadSignature> {
        let digits = text.strip_prefix("0x").ok_or(BadSignature::NotHex)?;
        let bytes = hex::decode(digits).map_err(|_| BadSignature::NotHex)?;
        Self::from_slice(&bytes)
    }

    /// The same of bytes.
    pub(crate) fn from_slice(bytes: &[u8]) -> Result<Self, BadSignature> {
        let fixed: [u8; 65] = bytes.try_into().map_err(|_| BadSignature::Length(bytes.len()))?;
        Self::from_bytes(fixed)
    }

    /// `r ‖ s ‖ v`.
    pub(crate) fn from_bytes(bytes: [u8; 65]) -> Result<Self, BadSignature> {
        let (rs, v) = bytes.split_at(64);
        let v = v.first().copied().unwrap_or_default();
        if v != 27 && v != 28 {
            return Err(BadSignature::V(v));
        }
        if HALF_ORDER.as_slice() < rs.split_at(32).1 {
            return Err(BadSignature::HighS);
        }
        let mut fixed = [0; 64];
        fixed.copy_from_slice(rs);
        Ok(Self { rs: fixed, v })
    }

    /// The address whose key signed `digest`.
    pub(crate) fn recover(&self, digest: B256) -> Result<Address, BadSignature> {
        let id = if self.v == 27 { RecoveryId::Zero } else { RecoveryId::One };
        recover(&self.rs, id, digest).ok_or(BadSignature::Unrecoverable)
    }

    /// Whose key made this over `digest`, by any rule of writing signatures: any `v`, the large `s`, or
    /// the 64 bytes of EIP-2098.
    pub(crate) fn signers_of_any_spelling(bytes: &[u8], digest: B256) -> Vec<Address> {
        let mut rs = match bytes.first_chunk::<64>() {
            Some(rs) if matches!(bytes.len(), 64 | 65) => *rs,
            Some(_) | None => return Vec::new(),
        };
        if bytes.len() == 64 {
            // The highest bit of `s` is the parity.
            let (_, s) = rs.split_at_mut(32);
            s.first_mut().into_iter().for_each(|it| *it &= 0x7f);
        }
        let ids = [RecoveryId::Zero, RecoveryId::One];
        ids.into_iter().filter_map(|id| recover(&rs, id, digest)).collect()
    }

    /// Its 65 bytes.
    pub(crate) fn to_bytes(self) -> [u8; 65] {
        let mut bytes = [self.v; 65];
        bytes.split_at_mut(64).0.copy_from_slice(&self.rs);
        bytes
    }

    pub(crate) fn r(&self) -> B256 {
        B256::from_slice(self.rs.split_at(32).0)
    }

    pub(crate) fn s(&self) -> B256 {
        B256::from_slice(self.rs.split_at(32).1)
    }

    pub(crate) fn v(&self) -> u8 {
        self.v
    }
}

fn recover(rs: &[u8; 64], id: RecoveryId, digest: B256) -> Option<Address> {
    let signature = RecoverableSignature::from_compact(rs, id).ok()?;
    let key = VERIFIER.recover_ecdsa(Message::from_digest(digest.0), &signature).ok()?;
    Some(address_of(&key))
}

/// The last 20 bytes of the hash of the key's coordinates.
pub(crate) fn address_of(key: &PublicKey) -> Address {
    let uncompressed = key.serialize_uncompressed();
    let (_, coordinates) = uncompressed.split_at(1);
    Address::from_slice(keccak256(coordinates).split_at(12).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: BadSignature) {
        assert_eq!(Signature::parse(text).map(|_| ()), Err(expected), "{text}");
    }

    #[test]
    fn a11_only_the_one_canonical_form_is_read() {
        let compact = format!("0x{}{}", "11".repeat(32), "22".repeat(32));
        let good = format!("{compact}1b");
        assert!(Signature::parse(&good).is_ok());
        assert!(Signature::parse(&good.replace("1b", "1C")).is_ok());
        check(good.trim_start_matches("0x"), BadSignature::NotHex);
        check(&good.replace('2', "g"), BadSignature::NotHex);
        check(&compact, BadSignature::Length(64));
        check(&format!("{good}00"), BadSignature::Length(66));
        check("0x", BadSignature::Length(0));
        for v in ["00", "01", "1a", "1d", "25"] {
            let number = u8::from_str_radix(v, 16).unwrap();
            check(&format!("{compact}{v}"), BadSignature::V(number));
        }
        let half = hex::encode(HALF_ORDER);
        assert!(Signature::parse(&format!("0x{}{half}1b", "11".repeat(32))).is_ok());
        let above = half.replace("20a0", "20a1");
        check(&format!("0x{}{above}1b", "11".repeat(32)), BadSignature::HighS);
    }

    #[test]
    fn a11_impossible_numbers_are_refused() {
        for (r, s) in [("00", "22"), ("ff", "22"), ("11", "00")] {
            let text = format!("0x{}{}1b", r.repeat(32), s.repeat(32));
            let signature = Signature::parse(&text).unwrap();
            assert_eq!(signature.recover(B256::repeat_byte(1)), Err(BadSignature::Unrecoverable));
        }
    }
}
