//! The accounts that pay the gas of settlements: who of them takes the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::Address;
use tokio::sync::Notify;

use super::address::EvmAddress;
use super::broadcast::NotSent;
use super::funds::Funds;
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
    pub(crate) funds: Funds,
}

/// The signers of one network.
#[derive(Debug)]
pub(crate) struct Signers {
    all: Vec<Arc<Signer>>,
    turn: AtomicUsize,
    reserve_wei: u128,
    /// Rung where balances should be looked at.
    bell: Notify,
}

impl Signers {
    /// `reserve_wei`: what one must have to take a payment.
    pub(crate) fn new(keys: &SigningKeys, reserve_wei: u128) -> Self {
        let signer = |key: &Arc<EvmKey>| {
            let nonces = Nonces::new(key.address());
            Arc::new(Signer { key: Arc::clone(key), nonces, funds: Funds::default() })
        };
        Self {
            all: keys.0.iter().map(signer).collect(),
            turn: AtomicUsize::new(0),
            reserve_wei,
            bell: Notify::new(),
        }
    }

    /// Who takes a payment: the `settler` whom its payer named, or of those with gas money the one with
    /// the fewest transactions on their way; in turn among equals.
    pub(crate) fn take(&self, settler: Option<Address>) -> Option<&Arc<Signer>> {
        let found = match settler {
            Some(settler) => self.of(settler).filter(|it| !it.funds.are_low()),
            None => self.pick(),
        };
        if found.is_none() {
            // Somebody may just have sent it some.
            self.ring();
        }
        found
    }

    /// Why nobody takes a payment.
    pub(crate) fn why_nobody(&self) -> NotSent {
        let (low, reserve_wei) = (self.low(), self.reserve_wei);
        if low.is_empty() { NotSent::NoSigner } else { NotSent::NoFunds { low, reserve_wei } }
    }

    fn pick(&self) -> Option<&Arc<Signer>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let start = turn.checked_rem(self.all.len())?;
        let in_turn = self.all.iter().skip(start).chain(self.all.iter().take(start));
        in_turn.filter(|it| !it.funds.are_low()).min_by_key(|it| it.nonces.in_flight())
    }

    /// What one must have to take a payment.
    pub(crate) fn reserve_wei(&self) -> u128 {
        self.reserve_wei
    }

    /// Has the balances looked at soon.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Returns when the balances should be looked at.
    pub(crate) async fn wanted(&self) {
        self.bell.notified().await;
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
    use crate::evm::funds::SignerFunds;

    #[test]
    fn equals_take_turns() {
        let signers = three();
        let picked: Vec<Address> =
            (0..6).filter_map(|_| signers.pick()).map(|it| it.address()).collect();
        let (first, second) = picked.split_at(3);
        assert_eq!(first, second);
        assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2]);
        let nobody = Signers::new(&SigningKeys::new(Vec::new()), 0);
        assert!(nobody.take(None).is_none());
        assert!(matches!(nobody.why_nobody(), NotSent::NoSigner));
    }

    #[test]
    fn who_has_no_gas_money_takes_nothing() {
        let signers = three();
        let (poor, rich) = (&signers.all[0], &signers.all[1]);
        poor.funds.set(SignerFunds::Low { wei: 3 });
        for _ in 0..6 {
            assert_ne!(signers.take(None).unwrap().address(), poor.address());
        }
        // The payer has named one: nobody else can settle it.
        assert_eq!(signers.take(Some(rich.address())).unwrap().address(), rich.address());
        assert!(signers.take(Some(poor.address())).is_none());
        let error = signers.why_nobody().to_string();
        assert!(error.contains(&poor.key.address().to_string()), "{error}");
        assert!(error.contains("has 3 wei") && error.contains("at least 10 wei"), "{error}");
        for it in &signers.all {
            it.funds.set(SignerFunds::Low { wei: 0 });
        }
        assert!(signers.take(None).is_none());
        poor.funds.set(SignerFunds::Enough { wei: 10 });
        assert_eq!(signers.take(None).unwrap().address(), poor.address());
    }

    fn three() -> Signers {
        let key = |byte| EvmKey::from_bytes([byte; 32]).unwrap();
        Signers::new(&SigningKeys::new(vec![key(1), key(2), key(3)]), 10)
    }
}
