//! A price in US dollars, read exactly from text.

use std::fmt;
use std::str::FromStr;

use farebox_protocol::OutOfRange;

use super::Rate;

/// The most digits after the point.
const FRACTION_DIGITS_MAX: usize = 18;
/// The most digits before it. With both limits every mantissa is below 10³⁰.
const WHOLE_DIGITS_MAX: usize = 12;

/// A price in US dollars: a decimal such as `0.15`, kept exactly.
///
/// `0.10` and `0.1` are equal. There is no way in from a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UsdPrice {
    /// The price is `mantissa / 10^scale`; no trailing zeros while `scale` is above zero.
    mantissa: u128,
    scale: u8,
}

/// A text that is not a price in US dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUsd {
    /// Not a plain decimal.
    #[error(
        "expected a price in US dollars as a plain decimal such as \"0.15\": digits and at most \
         one point between them, without sign, exponent, currency or separators"
    )]
    Form,
    /// More digits after the point than are kept.
    #[error("expected at most {FRACTION_DIGITS_MAX} digits after the point")]
    TooFine,
    /// More digits before the point than any price needs.
    #[error("expected at most {WHOLE_DIGITS_MAX} digits before the point")]
    TooLarge,
}

impl UsdPrice {
    /// Nothing.
    pub const ZERO: Self = Self { mantissa: 0, scale: 0 };

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// The exact rate in a USD-pegged token of so many `decimals`, where this price buys
    /// 10^`per_power_of_ten` of what is sold (6: the price is for a million).
    pub fn rate(self, decimals: u8, per_power_of_ten: u32) -> Result<Rate, OutOfRange> {
        let below = i32::from(self.scale)
            .checked_add(i32::try_from(per_power_of_ten).map_err(|_| OutOfRange)?)
            .ok_or(OutOfRange)?;
        let exponent = i32::from(decimals).checked_sub(below).ok_or(OutOfRange)?;
        Rate::new(self.mantissa, exponent)
    }
}

impl FromStr for UsdPrice {
    type Err = BadUsd;

    fn from_str(text: &str) -> Result<Self, BadUsd> {
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(BadUsd::Form),
            Some(parts) => parts,
            None => (text, ""),
        };
        let plain = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(fraction) {
            return Err(BadUsd::Form);
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if WHOLE_DIGITS_MAX < whole.len() {
            return Err(BadUsd::TooLarge);
        }
        if FRACTION_DIGITS_MAX < fraction.len() {
            return Err(BadUsd::TooFine);
        }
        let scale = u8::try_from(fraction.len()).map_err(|_| BadUsd::TooFine)?;
        let mut digits = String::from("0");
        digits.push_str(whole);
        digits.push_str(fraction);
        let mantissa = digits.parse().map_err(|_| BadUsd::TooLarge)?;
        Ok(Self { mantissa, scale })
    }
}

impl fmt::Display for UsdPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        if scale == 0 {
            return write!(f, "{}", self.mantissa);
        }
        let width = scale.saturating_add(1);
        let digits = format!("{:0width$}", self.mantissa);
        let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
        write!(f, "{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, BadUsd>) {
        let actual = text.parse::<UsdPrice>().map(|it| it.to_string());
        assert_eq!(actual.as_deref().map_err(|it| *it), expected, "{text:?}");
    }

    #[test]
    fn prices_are_read_exactly() {
        check("0", Ok("0"));
        check("0.15", Ok("0.15"));
        check("0.150", Ok("0.15"));
        check("00.15", Ok("0.15"));
        check("15", Ok("15"));
        check("15.00", Ok("15"));
        check("1500", Ok("1500"));
        check("0.000000000000000001", Ok("0.000000000000000001"));
        check("999999999999.999999999999999999", Ok("999999999999.999999999999999999"));
    }

    #[test]
    fn anything_else_says_what_was_expected() {
        for bad in ["", ".", ".5", "1.", "-1", "+1", "1e-3", "0,15", "$1", " 1", "1 ", "0x1", "1_0"]
        {
            check(bad, Err(BadUsd::Form));
        }
        for bad in ["1.2.3", "NaN", "inf", "١", "1.٢"] {
            check(bad, Err(BadUsd::Form));
        }
        check("0.0000000000000000001", Err(BadUsd::TooFine));
        check("1000000000000", Err(BadUsd::TooLarge));
    }

    #[test]
    fn rates_are_exact() {
        let rate = |text: &str, decimals, per| {
            text.parse::<UsdPrice>().unwrap().rate(decimals, per).map(|it| (it.units(), it.per()))
        };
        // $0.15 per 1M in USDC is 0.15 units a token: 15 units for 100 tokens.
        assert_eq!(rate("0.15", 6, 6), Ok((15, 100)));
        assert_eq!(rate("0.01", 6, 0), Ok((10_000, 1)));
        assert_eq!(rate("0.01", 18, 0), Ok((10_u128.pow(16), 1)));
        assert_eq!(rate("0.000000000000000001", 0, 6), Ok((1, 10_u128.pow(24))));
        assert_eq!(rate("1", 39, 0), Err(OutOfRange));
        assert_eq!(rate("0", 255, 0), Ok((0, 1)));
    }
}
