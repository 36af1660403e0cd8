//! Exact rates, and the one place where money is rounded.

use farebox_protocol::{Amount, OutOfRange};

/// So many atomic units for so many of what is sold, exactly: `3` per `20 000 000` tokens.
///
/// Made by [`super::UsdPrice::rate`]; `per` is a power of ten, at most 10²⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    units: u128,
    per: u128,
}

impl Rate {
    /// `mantissa × 10^exponent` atomic units for one of what is sold.
    pub(super) fn new(mantissa: u128, exponent: i32) -> Result<Self, OutOfRange> {
        let power = 10_u128.checked_pow(exponent.unsigned_abs()).ok_or(OutOfRange);
        if mantissa == 0 {
            return Ok(Self { units: 0, per: 1 });
        }
        if exponent < 0 {
            return Ok(Self { units: mantissa, per: power? });
        }
        Ok(Self { units: mantissa.checked_mul(power?).ok_or(OutOfRange)?, per: 1 })
    }

    /// Atomic units charged…
    pub const fn units(self) -> u128 {
        self.units
    }

    /// …for this many of what is sold; a power of ten.
    pub const fn per(self) -> u128 {
        self.per
    }
}

/// The cost of several quantities at their rates: summed exactly over the common denominator, then
/// rounded up, once. The seller never loses a fraction, the buyer never pays two.
///
/// Out of range above `u128::MAX` numerator units. With a token of `d` decimals the denominator is
/// at most 10^(24−d), so that takes more than 3.4 × 10¹⁴ dollars.
pub fn cost_rounded_up(quantities: &[(Rate, u64)]) -> Result<Amount, OutOfRange> {
    // Every denominator is a power of ten, so the largest is a multiple of each.
    let common = quantities.iter().map(|(rate, _)| rate.per).max().unwrap_or(1);
    let mut exact = 0_u128;
    for (rate, quantity) in quantities {
        let scale = common.checked_div(rate.per).ok_or(OutOfRange)?;
        let part = rate.units.checked_mul(u128::from(*quantity)).ok_or(OutOfRange)?;
        let part = part.checked_mul(scale).ok_or(OutOfRange)?;
        exact = exact.checked_add(part).ok_or(OutOfRange)?;
    }
    Ok(Amount::from_units(exact.div_ceil(common)))
}
