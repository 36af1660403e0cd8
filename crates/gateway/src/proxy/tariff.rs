//! Step 12: what is owed for an answer, by the price of the route and the way it is paid.

use farebox_billing::{Metered, Price, Usage, charge};
use farebox_chains::Charging;
use farebox_protocol::Amount;

/// The least that is owed for an answer of which something was delivered.
const LEAST: Amount = Amount::from_units(1);

/// How a payment's charge follows from what was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tariff {
    pub(crate) charging: Charging,
    pub(crate) price: Price,
    /// Of the token.
    pub(crate) decimals: u8,
}

impl Tariff {
    /// What an answer of which something was delivered costs, `limit` at most. Where usage decides
    /// and none was metered, that is the whole: the route is then not one that can be told apart.
    pub(crate) fn owed(&self, metered: &Metered, limit: Amount) -> Amount {
        let used = match (self.charging, metered.usage) {
            (Charging::Whole, _) => return limit,
            (Charging::UpTo, Some(usage)) => charge(&self.price, &usage, self.decimals),
            (Charging::UpTo, None) if self.price.needs_meter() => return limit,
            (Charging::UpTo, None) => charge(&self.price, &Usage::default(), self.decimals),
        };
        used.max(LEAST).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use farebox_billing::{Content, Ending};

    use super::*;

    fn tokens() -> Price {
        Price::Tokens { input_per_1m: "1".parse().unwrap(), output_per_1m: "2".parse().unwrap() }
    }

    #[track_caller]
    fn check(charging: Charging, price: Price, usage: Option<Usage>, expected: u128) {
        let metered =
            Metered { usage, ending: Ending::Complete, content: Content::Some, unread_bytes: 0 };
        let tariff = Tariff { charging, price, decimals: 6 };
        let owed = tariff.owed(&metered, Amount::from_units(1_000));
        assert_eq!(owed, Amount::from_units(expected), "{charging:?} {usage:?}");
    }

    #[test]
    fn usage_decides_within_the_hold() {
        check(Charging::UpTo, tokens(), Some(Usage::reported(10, 20)), 50);
        check(Charging::UpTo, tokens(), Some(Usage::reported(10, 20_000)), 1_000);
        check(Charging::UpTo, tokens(), Some(Usage::reported(0, 0)), 1);
        check(Charging::UpTo, tokens(), None, 1_000);
        check(Charging::UpTo, Price::PerRequest("0.0003".parse().unwrap()), None, 300);
        check(Charging::Whole, tokens(), Some(Usage::reported(10, 20)), 1_000);
    }
}
