//! Money: whole atomic units of one asset, checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A non-negative amount in the smallest unit of one asset (10⁻⁶ for USDC).
///
/// On the wire it is a decimal string (x402 v2 §5.1.2, `amount`). Arithmetic is checked; there is
/// no `From` for signed or floating numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u128);

/// The result of an operation left the range of [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("amount out of range")]
pub struct OutOfRange;

/// A text that is not an amount of atomic units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number of atomic units in decimal, without sign, point or leading zeros")]
pub struct BadAmount;

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount that can be told apart.
    pub const MAX: Self = Self(u128::MAX);

    /// An amount from its atomic units.
    pub const fn from_units(units: u128) -> Self {
        Self(units)
    }

    /// The atomic units.
    pub const fn units(self) -> u128 {
        self.0
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or an error past the range.
    pub fn checked_add(self, other: Self) -> Result<Self, OutOfRange> {
        self.0.checked_add(other.0).map(Self).ok_or(OutOfRange)
    }

    /// The difference, or an error below zero.
    pub fn checked_sub(self, other: Self) -> Result<Self, OutOfRange> {
        self.0.checked_sub(other.0).map(Self).ok_or(OutOfRange)
    }

    /// The product with a count, or an error past the range.
    pub fn checked_mul(self, count: u128) -> Result<Self, OutOfRange> {
        self.0.checked_mul(count).map(Self).ok_or(OutOfRange)
    }

    /// 16 bytes, big endian: sorts as the amounts do, which is how the store keeps them.
    pub const fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The amount behind [`Amount::to_be_bytes`].
    pub const fn from_be_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// A human rendering in whole tokens, for example `0.010000` for 10 000 units of 6 decimals.
    pub fn in_tokens(self, decimals: u8) -> String {
        let digits = self.0.to_string();
        let width = usize::from(decimals);
        if width == 0 {
            return digits;
        }
        let missing = width.saturating_add(1).saturating_sub(digits.len());
        let padded = format!("{}{digits}", "0".repeat(missing));
        let (whole, fraction) = padded.split_at(padded.len().saturating_sub(width));
        format!("{whole}.{fraction}")
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Amount {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let canonical = text == "0" || !text.starts_with('0');
        if text.is_empty() || !canonical || !text.bytes().all(|it| it.is_ascii_digit()) {
            return Err(BadAmount);
        }
        text.parse().map(Self).map_err(|_| BadAmount)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u128>) {
        assert_eq!(text.parse::<Amount>().ok().map(Amount::units), expected, "{text:?}");
    }

    #[test]
    fn only_plain_decimal_is_an_amount() {
        check("0", Some(0));
        check("10000", Some(10_000));
        check("340282366920938463463374607431768211455", Some(u128::MAX));
        check("340282366920938463463374607431768211456", None);
        for bad in ["", "00", "01", "-1", "+1", "1.0", "1e3", " 1", "1 ", "0x10", "١"] {
            check(bad, None);
        }
    }

    #[test]
    fn arithmetic_is_checked() {
        assert_eq!(Amount::MAX.checked_add(Amount::from_units(1)), Err(OutOfRange));
        assert_eq!(Amount::ZERO.checked_sub(Amount::from_units(1)), Err(OutOfRange));
        assert_eq!(Amount::MAX.checked_mul(2), Err(OutOfRange));
        assert_eq!(Amount::from_units(3).checked_mul(2), Ok(Amount::from_units(6)));
    }

    #[test]
    fn in_tokens_keeps_every_digit() {
        assert_eq!(Amount::from_units(10_000).in_tokens(6), "0.010000");
        assert_eq!(Amount::from_units(1_234_567).in_tokens(6), "1.234567");
        assert_eq!(Amount::from_units(0).in_tokens(6), "0.000000");
        assert_eq!(Amount::from_units(7).in_tokens(0), "7");
    }

    #[test]
    fn bytes_sort_as_amounts_do() {
        let small = Amount::from_units(255).to_be_bytes();
        let large = Amount::from_units(256).to_be_bytes();
        assert!(small < large);
        assert_eq!(Amount::from_be_bytes(large).units(), 256);
    }
}
