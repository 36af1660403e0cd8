//! What gas settling calls of each kind take, so that the next one of a kind is tried with that much,
//! which runs it once, where an estimate makes a node run it ten times.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use alloy_primitives::Address;

use super::method::ContractCall;

/// How many kinds are remembered: tokens and proxies are few.
const KINDS_MAX: usize = 256;

/// The contract and the function's selector.
type Kind = (Address, [u8; 4]);

/// The least that was ever estimated for each kind of call. A dearer one, as contract wallets can make it,
/// is estimated each time and never makes others look dear.
#[derive(Debug, Default)]
pub(crate) struct UsualGas(Mutex<HashMap<Kind, u64>>);

impl UsualGas {
    /// What such a call should run on: an eighth over the least, because balances and signatures differ.
    pub(crate) fn of(&self, call: &ContractCall) -> Option<u64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&kind_of(call)?).map(|it| it.saturating_add(it / 8))
    }

    /// This call was estimated at `gas`.
    pub(crate) fn note(&self, call: &ContractCall, gas: u64) {
        let Some(kind) = kind_of(call) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(least) = known.get_mut(&kind) {
            *least = gas.min(*least);
        } else if known.len() < KINDS_MAX {
            known.insert(kind, gas);
        }
    }
}

fn kind_of(call: &ContractCall) -> Option<Kind> {
    Some((call.to, *call.input.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(to: u8, selector: u8) -> ContractCall {
        ContractCall { to: Address::repeat_byte(to), input: vec![selector; 36].into() }
    }

    #[test]
    fn the_least_of_a_kind_counts() {
        let usual = UsualGas::default();
        assert_eq!(usual.of(&call(1, 1)), None);
        for gas in [80_000, 4_000_000, 72_000, 90_000] {
            usual.note(&call(1, 1), gas);
        }
        assert_eq!(usual.of(&call(1, 1)), Some(81_000));
        assert_eq!((usual.of(&call(1, 2)), usual.of(&call(2, 1))), (None, None));
        let nothing = ContractCall { to: Address::repeat_byte(1), input: [].into() };
        usual.note(&nothing, 21_000);
        assert_eq!(usual.of(&nothing), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let usual = UsualGas::default();
        for to in 0..=u8::MAX {
            usual.note(&call(to, 1), 8);
        }
        usual.note(&call(1, 2), 8);
        assert_eq!((usual.of(&call(255, 1)), usual.of(&call(1, 2))), (Some(9), None));
    }
}
