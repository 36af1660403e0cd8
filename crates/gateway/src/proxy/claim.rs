//! Who may verify: each payment once at a time, and not everybody at once.
//!
//! A verification costs an elliptic-curve operation and questions to a chain. One payment sent a
//! thousand times at the same moment is verified once; the other 999 are told that it is being
//! worked on. Different payments share a bounded number of places (attack A32).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farebox_protocol::PaymentId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Verifications at one time.
const PLACES: usize = 128;
/// The longest wait for a place.
const WAIT: Duration = Duration::from_secs(5);

/// Payments between their first check and their hold.
#[derive(Debug)]
pub(crate) struct Claims {
    ids: Mutex<HashSet<PaymentId>>,
    places: Arc<Semaphore>,
}

/// One payment's claim; ends when dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    id: PaymentId,
}

impl Claims {
    /// Nothing claimed.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { ids: Mutex::default(), places: Arc::new(Semaphore::new(PLACES)) })
    }

    /// The claim to a payment, unless somebody has it.
    pub(crate) fn claim(self: &Arc<Self>, id: PaymentId) -> Option<Claim> {
        let free = self.ids().insert(id);
        free.then(|| Claim { claims: Arc::clone(self), id })
    }

    /// A place to verify in, unless none gets free in time.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::time::timeout(WAIT, place).await.ok()?.ok()
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<PaymentId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.ids().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a32_claims_are_single_and_places_are_few() {
        let claims = Claims::new();
        let id = PaymentId::from_bytes([1; 32]);
        let claim = claims.claim(id);
        assert!(claim.is_some() && claims.claim(id).is_none());
        drop(claim);
        assert!(claims.claim(id).is_some());
        let mut places = Vec::new();
        for _ in 0..PLACES {
            places.extend(claims.place().await);
        }
        assert_eq!(places.len(), PLACES);
        assert!(claims.place().await.is_none());
        places.pop();
        assert!(claims.place().await.is_some());
    }
}
