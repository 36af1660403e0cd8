//! Dollars as the budget counts them: whole millionths, so that caps hold across tokens.

use std::fmt;
use std::str::FromStr;

use farebox_protocol::{Amount, OutOfRange};

/// Digits after the point.
const DIGITS: usize = 6;
/// Millionths in a dollar.
const MICROS_PER_DOLLAR: u128 = 1_000_000;

/// An amount of US dollars, in millionths.
///
/// A token of the policy is worth a dollar each; amounts of it are rounded up to whole millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(u128);

/// A text that is not an amount of dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected dollars such as 0.05, with at most six digits after the point")]
pub struct BadUsd;

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From millionths of a dollar.
    pub const fn from_micros(micros: u128) -> Self {
        Self(micros)
    }

    /// In millionths of a dollar.
    pub const fn micros(self) -> u128 {
        self.0
    }

    /// What `amount` of a dollar token with so many decimals is worth, rounded up.
    pub fn of_token_rounded_up(amount: Amount, decimals: u8) -> Result<Self, OutOfRange> {
        let decimals = u32::from(decimals);
        let scale = |digits: u32| 10_u128.checked_pow(digits).ok_or(OutOfRange);
        if 6 < decimals {
            let unit = scale(decimals.saturating_sub(6))?;
            return Ok(Self(amount.units().div_ceil(unit)));
        }
        let unit = scale(6_u32.saturating_sub(decimals))?;
        amount.units().checked_mul(unit).map(Self).ok_or(OutOfRange)
    }

    /// The sum, at most the largest amount there is: a budget then has nothing left.
    #[must_use]
    pub(crate) const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least nothing.
    #[must_use]
    pub(crate) const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}.{:06}", self.0 / MICROS_PER_DOLLAR, self.0 % MICROS_PER_DOLLAR)
    }
}

impl FromStr for Usd {
    type Err = BadUsd;

    fn from_str(text: &str) -> Result<Self, BadUsd> {
        let text = text.strip_prefix('$').unwrap_or(text);
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || DIGITS < fraction.len() {
            return Err(BadUsd);
        }
        let whole: u128 = whole.parse().map_err(|_| BadUsd)?;
        let fraction: u128 = format!("{fraction:0<DIGITS$}").parse().map_err(|_| BadUsd)?;
        let micros = whole.checked_mul(MICROS_PER_DOLLAR).and_then(|it| it.checked_add(fraction));
        micros.map(Self).ok_or(BadUsd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u128>) {
        assert_eq!(text.parse::<Usd>().ok().map(Usd::micros), expected, "{text:?}");
    }

    #[test]
    fn dollars_are_read_exactly() {
        check("0.05", Some(50_000));
        check("$0.05", Some(50_000));
        check("1", Some(1_000_000));
        check("0.000001", Some(1));
        check("12.345678", Some(12_345_678));
        check("0.0000001", None);
        check("", None);
        check("-1", None);
        check("1.", None);
        check(".5", None);
        check("1e3", None);
        check("1,5", None);
        check("340282366920938463463374607431768211455", None);
    }

    #[test]
    fn tokens_are_rounded_up() {
        let worth = |units, decimals| {
            Usd::of_token_rounded_up(Amount::from_units(units), decimals).map(Usd::micros)
        };
        assert_eq!(worth(10_000, 6), Ok(10_000));
        assert_eq!(worth(1, 18), Ok(1));
        assert_eq!(worth(1_000_000_000_001, 18), Ok(2));
        assert_eq!(worth(1, 0), Ok(1_000_000));
        assert_eq!(worth(u128::MAX, 5), Err(OutOfRange));
        assert_eq!(worth(1, 200), Err(OutOfRange));
    }

    #[test]
    fn dollars_are_shown_in_full() {
        assert_eq!(Usd::from_micros(50_000).to_string(), "$0.050000");
        assert_eq!(Usd::from_micros(12_000_001).to_string(), "$12.000001");
    }
}
