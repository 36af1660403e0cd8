//! An EVM address, compared as bytes and written in EIP-55 mixed case.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::Address;

/// 20 bytes. Two spellings of one address are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EvmAddress([u8; 20]);

/// A text that is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEvmAddress {
    /// Not `0x` and 40 hexadecimal digits.
    #[error("expected `0x` and 40 hexadecimal digits")]
    Form,
    /// Mixed case, and not the case that EIP-55 gives: a digit was mistyped.
    #[error("its mixed case is not that of EIP-55: a digit may be wrong")]
    Checksum,
}

impl EvmAddress {
    /// The address of these bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// `0x` and 40 lower-case digits, as [`crate::Identified::payer`] has it.
    pub fn to_lower_hex(self) -> String {
        format!("0x{}", hex::encode(self.0))
    }

    pub(crate) fn alloy(self) -> Address {
        Address::from(self.0)
    }
}

impl FromStr for EvmAddress {
    type Err = BadEvmAddress;

    /// Reads lower case, upper case, and mixed case if it is that of EIP-55.
    fn from_str(text: &str) -> Result<Self, BadEvmAddress> {
        let digits = text.strip_prefix("0x").ok_or(BadEvmAddress::Form)?;
        let mut bytes = [0; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| BadEvmAddress::Form)?;
        let address = Self(bytes);
        let lower = digits.bytes().any(|b| b.is_ascii_lowercase());
        let upper = digits.bytes().any(|b| b.is_ascii_uppercase());
        if lower && upper && address.to_string() != text {
            return Err(BadEvmAddress::Checksum);
        }
        Ok(address)
    }
}

impl fmt::Display for EvmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.alloy().to_checksum(None))
    }
}

impl fmt::Debug for EvmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Address> for EvmAddress {
    fn from(address: Address) -> Self {
        Self(address.into_array())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let mixed = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
        let address: EvmAddress = mixed.parse().unwrap();
        assert_eq!(address.to_string(), mixed);
        assert_eq!(mixed.to_lowercase().parse(), Ok(address));
        assert_eq!(format!("0x{}", hex::encode_upper(address.as_bytes())).parse(), Ok(address));
        let mistyped = "0x036cbD53842c5426634e7929541eC2318f3dCF7e";
        assert_eq!(mistyped.parse::<EvmAddress>(), Err(BadEvmAddress::Checksum));
        for bad in ["", "0x", "0X036CbD53842c5426634e7929541eC2318f3dCF7e", "0x036C", "0xé"] {
            assert_eq!(bad.parse::<EvmAddress>(), Err(BadEvmAddress::Form), "{bad}");
        }
    }
}
