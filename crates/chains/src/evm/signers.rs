//! The accounts that pay the gas of settlements.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::Address;

use super::address::EvmAddress;
use super::key::EvmKey;
use super::nonces::Nonces;

/// Keys that several networks share.
#[derive(Clone, Debug)]
pub(crate) struct SigningKeys(Arc<[Arc<EvmKey>]>);

impl SigningKeys {
    pub(crate) fn new(keys: Vec<EvmKey>) -> Self {
        Self(keys.into_iter().map(Arc::new).collect())
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = EvmAddress> {
        self.0.iter().map(|it| it.address())
    }
}

/// One key on one network.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) key: Arc<EvmKey>,
    pub(crate) nonces: Nonces,
}

/// The signers of one network.
#[derive(Debug)]
pub(crate) struct Signers {
    all: Vec<Arc<Signer>>,
    turn: AtomicUsize,
}

impl Signers {
    pub(crate) fn new(keys: &SigningKeys) -> Self {
        let signer = |key: &Arc<EvmKey>| {
            let nonces = Nonces::new(key.address());
            Arc::new(Signer { key: Arc::clone(key), nonces })
        };
        Self { all: keys.0.iter().map(signer).collect(), turn: AtomicUsize::new(0) }
    }

    /// The one with the fewest transactions on their way; in turn among equals.
    pub(crate) fn pick(&self) -> Option<&Arc<Signer>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let start = turn.checked_rem(self.all.len())?;
        let in_turn = self.all.iter().skip(start).chain(self.all.iter().take(start));
        in_turn.min_by_key(|it| it.nonces.in_flight())
    }

    /// The one of this address.
    pub(crate) fn of(&self, address: Address) -> Option<&Arc<Signer>> {
        self.all.iter().find(|it| it.address() == address)
    }

    pub(crate) fn all(&self) -> &[Arc<Signer>] {
        &self.all
    }

    /// Whom simulations are made to come from.
    pub(crate) fn simulated(&self) -> Address {
        self.all.first().map_or(Address::ZERO, |it| it.address())
    }
}

impl Signer {
    pub(crate) fn address(&self) -> Address {
        self.key.address().alloy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_take_turns() {
        let key = |byte| EvmKey::from_bytes([byte; 32]).unwrap();
        let signers = Signers::new(&SigningKeys::new(vec![key(1), key(2), key(3)]));
        let picked: Vec<Address> =
            (0..6).filter_map(|_| signers.pick()).map(|it| it.address()).collect();
        let (first, second) = picked.split_at(3);
        assert_eq!(first, second);
        assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2]);
        assert!(Signers::new(&SigningKeys::new(Vec::new())).pick().is_none());
    }
}
