//! What names a payment: never its signature bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestBuilder};
use crate::network::Network;

/// Names one payment for ever. The same authorisation always gives the same id, however its
/// signature, its JSON or its header is spelled.
///
/// Shown as `pay_` and 64 hexadecimal digits. See ADR 0002 for what goes in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(Digest);

/// A text that is not a payment id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a payment id: `pay_` and 64 lower-case hexadecimal digits")]
pub struct BadPaymentId;

impl PaymentId {
    /// The id of a single-use authorisation, whatever the scheme: network, verifying contract,
    /// payer and nonce, the last three as bytes so that spelling cannot matter.
    pub fn of_authorization(
        network: &Network,
        contract: &[u8],
        payer: &[u8],
        nonce: &[u8],
    ) -> Self {
        Self(
            DigestBuilder::new("farebox payment id: authorization v1")
                .field(network.as_str().as_bytes())
                .field(contract)
                .field(payer)
                .field(nonce)
                .finish(),
        )
    }

    /// The id behind [`PaymentId::as_bytes`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// 32 bytes, as stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pay_{}", self.0)
    }
}

impl fmt::Debug for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PaymentId {
    type Err = BadPaymentId;

    fn from_str(text: &str) -> Result<Self, BadPaymentId> {
        let digits = text.strip_prefix("pay_").ok_or(BadPaymentId)?;
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(BadPaymentId);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| BadPaymentId)?;
        Ok(Self::from_bytes(bytes))
    }
}

impl Serialize for PaymentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PaymentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_the_text_round_trips() {
        let base = Network::eip155(8453);
        let id = PaymentId::of_authorization(&base, &[1; 20], &[2; 20], &[3; 32]);
        let others = [
            PaymentId::of_authorization(&Network::eip155(1), &[1; 20], &[2; 20], &[3; 32]),
            PaymentId::of_authorization(&base, &[9; 20], &[2; 20], &[3; 32]),
            PaymentId::of_authorization(&base, &[1; 20], &[9; 20], &[3; 32]),
            PaymentId::of_authorization(&base, &[1; 20], &[2; 20], &[9; 32]),
        ];
        assert!(others.iter().all(|it| *it != id));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("pay_00".parse::<PaymentId>(), Err(BadPaymentId));
        assert_eq!(id.to_string().to_uppercase().parse::<PaymentId>(), Err(BadPaymentId));
    }
}
