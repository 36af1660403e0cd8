//! Amounts as PostgreSQL's `numeric`, in its binary form: digits to the base of ten thousand.

use std::error::Error;

use farebox_protocol::Amount;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

const BASE: u128 = 10_000;
const POSITIVE: u16 = 0;

/// An amount on its way to or from a column of type `numeric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Units(pub(super) Amount);

/// A number that is no amount: negative, with decimals, or too large.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a number that is no amount")]
struct NoAmount;

impl ToSql for Units {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let mut digits = Vec::new();
        let mut rest = self.0.units();
        while rest != 0 {
            digits.push(u16::try_from(rest.checked_rem(BASE).ok_or(NoAmount)?)?);
            rest = rest.checked_div(BASE).ok_or(NoAmount)?;
        }
        // How many digits there are, the power of the first, the sign, the decimals.
        let count = i16::try_from(digits.len())?;
        let weight = count.saturating_sub(1).max(0);
        for word in [count.to_be_bytes(), weight.to_be_bytes(), POSITIVE.to_be_bytes(), [0, 0]] {
            out.extend_from_slice(&word);
        }
        for digit in digits.into_iter().rev() {
            out.extend_from_slice(&digit.to_be_bytes());
        }
        Ok(IsNull::No)
    }

    accepts!(NUMERIC);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Units {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let mut words = raw.chunks_exact(2).map(|it| it.try_into().map(u16::from_be_bytes));
        let mut next = || words.next().ok_or(NoAmount)?.map_err(|_| NoAmount);
        let count = next()?;
        let weight = i16::from_be_bytes(next()?.to_be_bytes());
        let sign = next()?;
        let _decimals_shown = next()?;
        if sign != POSITIVE {
            return Err(NoAmount.into());
        }
        let mut units = 0_u128;
        let mut power = weight;
        for _ in 0..count {
            let digit = u128::from(next()?);
            if power < 0 {
                return Err(NoAmount.into());
            }
            units = units.checked_mul(BASE).and_then(|it| it.checked_add(digit)).ok_or(NoAmount)?;
            power = power.saturating_sub(1);
        }
        // Zeros at the end are not sent.
        for _ in 0..power.saturating_add(1).max(0) {
            units = units.checked_mul(BASE).ok_or(NoAmount)?;
        }
        Ok(Self(Amount::from_units(units)))
    }

    accepts!(NUMERIC);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &[u8]) -> Option<u128> {
        Units::from_sql(&Type::NUMERIC, raw).ok().map(|it| it.0.units())
    }

    #[test]
    fn amounts_come_back_as_they_went() {
        let powers = (0..128).map(|it| 1_u128 << it);
        let decimal = (0..39).map(|it| 10_u128.pow(it));
        for units in powers.chain(decimal).flat_map(|it| [it - 1, it, it + 1]).chain([u128::MAX]) {
            let mut raw = BytesMut::new();
            let amount = Units(Amount::from_units(units));
            amount.to_sql(&Type::NUMERIC, &mut raw).unwrap();
            assert_eq!(read(&raw), Some(units));
        }
    }

    #[test]
    fn other_numbers_are_no_amounts() {
        let cases: [(&[i16], Option<u128>); 6] = [
            (&[0, 0, 0, 0], Some(0)),
            (&[1, 2, 0, 0, 5], Some(500_000_000)),
            (&[1, 0, 0x4000, 0, 5], None),
            (&[1, -1, 0, 4, 5], None),
            (&[1, 9, 0, 0, 9_999], None),
            (&[2, 0, 0, 0, 5], None),
        ];
        for (words, units) in cases {
            let raw: Vec<u8> = words.iter().flat_map(|it| it.to_be_bytes()).collect();
            assert_eq!(read(&raw), units, "{words:?}");
        }
    }
}
