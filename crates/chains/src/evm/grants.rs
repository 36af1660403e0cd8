//! How much gas money payers were given, and may be given yet.
//!
//! A payer can keep it and not approve, and payers are made for nothing: what one is given is bounded, and
//! what all are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, U256};
use tokio::time::Instant;

use crate::config::ApprovalGrants;

/// How many payers are remembered for what they were given.
const PAYERS_MAX: usize = 65_536;
/// What [`ApprovalGrants::day_max_wei`] is given in.
const DAY: Duration = Duration::from_hours(24);

/// What was given on one network.
#[derive(Debug, Default)]
pub(crate) struct Grants(Mutex<Given>);

/// In wei.
#[derive(Debug, Default)]
struct Given {
    to: HashMap<Address, U256>,
    /// To all, since when; begins with the first grant after the last day has ended.
    day: Option<(Instant, U256)>,
}

/// Why a payer is not given what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoGrant {
    #[error("gas that this payer is given the money for, which is {left} wei more at most")]
    Payer { left: U256 },
    #[error("gas money that is left to be given today, which is {left} wei")]
    Day { left: U256 },
    #[error("gas money for new payers, which {PAYERS_MAX} were given since the start")]
    Crowd,
}

impl Grants {
    /// Whether a payer could be given so much.
    pub(crate) fn check(
        &self,
        payer: Address,
        wei: U256,
        caps: ApprovalGrants,
    ) -> Result<(), NoGrant> {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.check(payer, wei, (caps, Instant::now()))
    }

    /// Counts what is about to be given, if it may be.
    pub(crate) fn give(
        &self,
        payer: Address,
        wei: U256,
        caps: ApprovalGrants,
    ) -> Result<(), NoGrant> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.give(payer, wei, (caps, Instant::now()))
    }
}

impl Given {
    fn give(
        &mut self,
        payer: Address,
        wei: U256,
        (caps, now): (ApprovalGrants, Instant),
    ) -> Result<(), NoGrant> {
        self.check(payer, wei, (caps, now))?;
        let sum = self.to.entry(payer).or_default();
        *sum = sum.saturating_add(wei);
        let (since, today) = self.today(now).unwrap_or((now, U256::ZERO));
        self.day = Some((since, today.saturating_add(wei)));
        Ok(())
    }

    fn today(&self, now: Instant) -> Option<(Instant, U256)> {
        self.day.filter(|(since, _)| now.saturating_duration_since(*since) < DAY)
    }

    fn check(
        &self,
        payer: Address,
        wei: U256,
        (caps, now): (ApprovalGrants, Instant),
    ) -> Result<(), NoGrant> {
        if wei.is_zero() {
            return Ok(());
        }
        let had = self.to.get(&payer);
        if had.is_none() && PAYERS_MAX <= self.to.len() {
            return Err(NoGrant::Crowd);
        }
        let cap = U256::from(caps.payer_max_wei);
        let left = cap.saturating_sub(had.copied().unwrap_or_default());
        if left < wei {
            return Err(NoGrant::Payer { left });
        }
        let today = self.today(now).map(|(_, wei)| wei).unwrap_or_default();
        let left = U256::from(caps.day_max_wei).saturating_sub(today);
        if left < wei { Err(NoGrant::Day { left }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: ApprovalGrants = ApprovalGrants { payer_max_wei: 7, day_max_wei: 30 };

    #[test]
    fn what_a_payer_and_what_all_are_given_is_bounded() {
        let mut given = Given::default();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let wei = |it: u64| U256::from(it);
        let payer = Address::with_last_byte;
        // Whether it may be given is what is said before it is.
        let mut give_at = |now: Instant, number: u8, amount: u64| {
            let checked = given.check(payer(number), wei(amount), (CAPS, now));
            assert_eq!(given.give(payer(number), wei(amount), (CAPS, now)), checked);
            checked
        };
        let mut give = |number, amount| give_at(start, number, amount);
        assert_eq!(give(1, 5), Ok(()));
        assert_eq!(give(1, 3), Err(NoGrant::Payer { left: wei(2) }));
        assert_eq!(give(1, 2), Ok(()));
        for number in 2..=4 {
            assert_eq!(give(number, 7), Ok(()));
        }
        let mut give = |number, amount| give_at(start + DAY - second, number, amount);
        assert_eq!(give(5, 3), Err(NoGrant::Day { left: wei(2) }));
        assert_eq!(give(5, 2), Ok(()));
        // Who needs nothing is given it at any time.
        assert_eq!(give(6, 0), Ok(()));
        let mut give = |number, amount| give_at(start + DAY, number, amount);
        assert_eq!(give(5, 5), Ok(()));
        assert_eq!(give(1, 1), Err(NoGrant::Payer { left: wei(0) }));
    }
}
