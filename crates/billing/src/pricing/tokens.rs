//! The metered price: so much for a million tokens in, so much for a million out.

use farebox_protocol::{Amount, OutOfRange};

use super::{Rate, UsdPrice, cost_rounded_up};
use crate::usage::Usage;

/// Prices are for 10⁶ tokens.
const PER_POWER_OF_TEN: u32 = 6;

/// Atomic units for one token.
pub(super) fn rate(price_per_1m: UsdPrice, decimals: u8) -> Result<Rate, OutOfRange> {
    price_per_1m.rate(decimals, PER_POWER_OF_TEN)
}

/// What a usage costs: both kinds are summed exactly, then rounded up once. Cached input costs what
/// other input costs; reasoning is output.
pub(super) fn cost(
    input_per_1m: UsdPrice,
    output_per_1m: UsdPrice,
    usage: &Usage,
    decimals: u8,
) -> Result<Amount, OutOfRange> {
    cost_rounded_up(&[
        (rate(input_per_1m, decimals)?, usage.input_tokens),
        (rate(output_per_1m, decimals)?, usage.output_tokens),
    ])
}
