//! Prices: what a request can cost at most, and what its usage costs.
//!
//! Prices are US dollars in the configuration and atomic units of a USD-pegged token on the wire.
//! All arithmetic is exact; a charge is rounded once, up, at the very end
//! ([`cost_rounded_up`]), so `charge ≤ quote` follows from usage within the bounds alone.

mod per_request;
mod rate;
mod tokens;
mod usd;
mod version;

use std::fmt;

use farebox_protocol::{Amount, OutOfRange};

pub use self::rate::{Rate, cost_rounded_up};
pub use self::usd::{BadUsd, UsdPrice};
pub use self::version::price_version;
use crate::facts::RequestFacts;
use crate::usage::Usage;

/// What a route costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// Nothing, on purpose.
    Free,
    /// The same for every request that is served.
    PerRequest(UsdPrice),
    /// By what was used.
    Tokens {
        /// US dollars for a million prompt tokens.
        input_per_1m: UsdPrice,
        /// US dollars for a million completion tokens.
        output_per_1m: UsdPrice,
    },
}

/// Why a request has no price. It is then refused (422): never free by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPrice {
    /// The price is by tokens, and nothing bounds the tokens of this request.
    #[error("the price is by tokens, and the tokens of this request cannot be bounded")]
    Unmetered,
    /// The price is zero and does not say that it is meant to be.
    #[error("the price is zero, but the route is not marked as free")]
    Zero,
    /// The most it can cost is more than can be written.
    #[error("the price is too large for the token")]
    OutOfRange,
}

/// What is wrong with a configured price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPrice {
    /// A priced route that charges nothing whatever is asked of it.
    #[error("expected a price above zero; a route that costs nothing says so with `free`")]
    Zero,
    /// One unit of what is sold costs more atomic units than can be written.
    #[error("expected a price that can be written in atomic units of the token")]
    OutOfRange,
}

impl Price {
    /// Whether the price can be charged in a token of so many `decimals`; for the check of a
    /// configuration. One of two token prices may be zero.
    pub fn check(&self, decimals: u8) -> Result<(), BadPrice> {
        if self.is_zero_by_accident() {
            return Err(BadPrice::Zero);
        }
        let rates = match self {
            Self::Free => return Ok(()),
            Self::PerRequest(price) => vec![per_request::rate(*price, decimals)],
            Self::Tokens { input_per_1m, output_per_1m } => {
                vec![tokens::rate(*input_per_1m, decimals), tokens::rate(*output_per_1m, decimals)]
            }
        };
        rates.into_iter().try_for_each(|it| it.map(drop)).map_err(|OutOfRange| BadPrice::OutOfRange)
    }

    /// Whether answers must be metered to be priced: the route needs a format that can.
    pub const fn needs_meter(&self) -> bool {
        match self {
            Self::Tokens { .. } => true,
            Self::Free | Self::PerRequest(_) => false,
        }
    }

    const fn is_zero_by_accident(&self) -> bool {
        match self {
            Self::Free => false,
            Self::PerRequest(price) => price.is_zero(),
            Self::Tokens { input_per_1m, output_per_1m } => {
                input_per_1m.is_zero() && output_per_1m.is_zero()
            }
        }
    }
}

/// The canonical text, which [`price_version`] digests: equal prices have equal texts.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("free"),
            Self::PerRequest(price) => write!(f, "{price} per request"),
            Self::Tokens { input_per_1m, output_per_1m } => {
                write!(
                    f,
                    "{input_per_1m} per 1M input tokens, {output_per_1m} per 1M output tokens"
                )
            }
        }
    }
}

/// The most that a request can cost, in atomic units of a token of so many `decimals`. At least one
/// unit, unless the route is [`Price::Free`].
pub fn quote(price: &Price, facts: &RequestFacts, decimals: u8) -> Result<Amount, NoPrice> {
    if price.is_zero_by_accident() {
        return Err(NoPrice::Zero);
    }
    let most = match price {
        Price::Free => return Ok(Amount::ZERO),
        Price::PerRequest(price) => per_request::cost(*price, decimals),
        Price::Tokens { input_per_1m, output_per_1m } => {
            let bounds = facts.bounds.ok_or(NoPrice::Unmetered)?;
            let most = Usage::estimated(bounds.input_tokens, bounds.output_tokens);
            tokens::cost(*input_per_1m, *output_per_1m, &most, decimals)
        }
    };
    let most = most.map_err(|OutOfRange| NoPrice::OutOfRange)?;
    Ok(most.max(Amount::from_units(1)))
}

/// What was used costs, in atomic units of a token of so many `decimals`.
///
/// The caller still caps it at what is held: an upstream may use more than it was allowed.
/// Saturates at [`Amount::MAX`], which takes more than 340 trillion dollars (see
/// [`cost_rounded_up`]) or a price that [`quote`] and [`Price::check`] refuse.
pub fn charge(price: &Price, usage: &Usage, decimals: u8) -> Amount {
    let cost = match price {
        Price::Free => return Amount::ZERO,
        Price::PerRequest(price) => per_request::cost(*price, decimals),
        Price::Tokens { input_per_1m, output_per_1m } => {
            tokens::cost(*input_per_1m, *output_per_1m, usage, decimals)
        }
    };
    cost.unwrap_or(Amount::MAX)
}

#[cfg(test)]
mod tests;
