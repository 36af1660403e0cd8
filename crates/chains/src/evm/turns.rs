//! One thing at a time for each payer, and no payer waits for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use alloy_primitives::Address;
use tokio::sync::OwnedMutexGuard;

/// Whose turn it is, by account. What nobody waits for is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Address, Weak<tokio::sync::Mutex<()>>>>);

/// Kept until it is dropped.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits until nobody else has this account's turn.
    pub(crate) async fn take(&self, account: Address) -> Turn {
        self.of(account).lock_owned().await
    }

    /// The same, within a bound.
    pub(crate) async fn take_within(&self, account: Address, wait: Duration) -> Option<Turn> {
        tokio::time::timeout(wait, self.take(account)).await.ok()
    }

    fn of(&self, account: Address) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&account).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, it| 0 < it.strong_count());
        let turn = Arc::default();
        turns.insert(account, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_waits_for_nobody_else() {
        let turns = Turns::default();
        let [one, other] = [1, 2].map(Address::with_last_byte);
        let wait = Duration::from_millis(20);
        let first = turns.take(one).await;
        assert!(turns.take_within(one, wait).await.is_none());
        let second = turns.take_within(other, wait).await.unwrap();
        drop(first);
        drop(turns.take_within(one, wait).await.unwrap());
        drop(second);
        drop(turns.take(Address::with_last_byte(3)).await);
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
