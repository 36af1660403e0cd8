//! A signing key in memory: it prints nothing and is erased when dropped.

use std::fmt;
use std::sync::LazyLock;

use alloy_primitives::{B256, U256};
use secp256k1::ecdsa::RecoveryId;
use secp256k1::{Message, Secp256k1, SecretKey, SignOnly};

use super::address::EvmAddress;
use super::signature::address_of;

static SIGNER: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// The key of an EVM account.
pub struct EvmKey {
    secret: SecretKey,
    address: EvmAddress,
}

/// Bytes that are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not 64 hexadecimal digits, with or without `0x`.
    #[error("expected 64 hexadecimal digits, with or without `0x`")]
    Form,
    /// Zero, or not below the order of the curve.
    #[error("the number is not a secp256k1 key")]
    Range,
}

impl EvmKey {
    /// The key of 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, BadKey> {
        let secret = SecretKey::from_byte_array(bytes).map_err(|_| BadKey::Range)?;
        let address = address_of(&secret.public_key(&SIGNER)).into();
        Ok(Self { secret, address })
    }

    /// The key of a text such as a key file holds: 64 hexadecimal digits, `0x` and white space
    /// around them allowed.
    pub fn from_hex(text: &str) -> Result<Self, BadKey> {
        let text = text.trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| BadKey::Form)?;
        Self::from_bytes(bytes)
    }

    /// Its account.
    pub fn address(&self) -> EvmAddress {
        self.address
    }

    /// Signs 32 bytes: `r ‖ s ‖ v` with low `s` and `v` of 27 or 28, deterministic (RFC 6979).
    pub fn sign_digest(&self, digest: &[u8; 32]) -> [u8; 65] {
        let (rs, odd) = self.sign(digest);
        let mut bytes = [0; 65];
        let (numbers, v) = bytes.split_at_mut(64);
        numbers.copy_from_slice(&rs);
        v.fill(if odd { 28 } else { 27 });
        bytes
    }

    pub(crate) fn sign_transaction(&self, hash: B256) -> alloy_primitives::Signature {
        let (rs, odd) = self.sign(&hash.0);
        let (r, s) = rs.split_at(32);
        alloy_primitives::Signature::new(U256::from_be_slice(r), U256::from_be_slice(s), odd)
    }

    /// `r ‖ s`, and whether the point's y is odd.
    fn sign(&self, digest: &[u8; 32]) -> ([u8; 64], bool) {
        let signature = SIGNER.sign_ecdsa_recoverable(Message::from_digest(*digest), &self.secret);
        let (id, rs) = signature.serialize_compact();
        (rs, matches!(id, RecoveryId::One | RecoveryId::Three))
    }
}

impl fmt::Debug for EvmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EvmKey({})", self.address)
    }
}

impl Drop for EvmKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evm::signature::Signature;

    #[test]
    fn known_account_and_round_trip() {
        let text = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        let key = EvmKey::from_hex(&format!("{text}\n")).unwrap();
        assert_eq!(key.address().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(format!("{key:?}"), "EvmKey(0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266)");
        for byte in 0..64 {
            let digest = [byte; 32];
            let text = format!("0x{}", hex::encode(key.sign_digest(&digest)));
            let signer = Signature::parse(&text).unwrap().recover(digest.into());
            assert_eq!(signer.map(EvmAddress::from), Ok(key.address()));
        }
        assert_eq!(EvmKey::from_hex("0x12").map(|_| ()), Err(BadKey::Form));
        assert_eq!(EvmKey::from_bytes([0; 32]).map(|_| ()), Err(BadKey::Range));
        assert_eq!(EvmKey::from_bytes([0xff; 32]).map(|_| ()), Err(BadKey::Range));
    }
}
