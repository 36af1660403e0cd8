//! The flat price: the same for every request that is served.

use farebox_protocol::{Amount, OutOfRange};

use super::{Rate, UsdPrice, cost_rounded_up};

/// Atomic units for one request.
pub(super) fn rate(price: UsdPrice, decimals: u8) -> Result<Rate, OutOfRange> {
    price.rate(decimals, 0)
}

/// What one request costs.
pub(super) fn cost(price: UsdPrice, decimals: u8) -> Result<Amount, OutOfRange> {
    cost_rounded_up(&[(rate(price, decimals)?, 1)])
}
