//! How many connections each address has, so that none takes the places of all (attack A32).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections by address.
#[derive(Debug)]
pub(super) struct Crowd {
    counts: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    /// Nobody is there; each address may have `max`.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max })
    }

    /// A place for another connection of that address, unless it has all of its own.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = subscriber(address);
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if self.max <= *count {
            return None;
        }
        *count = count.saturating_add(1);
        drop(counts);
        Some(Place { crowd: Arc::clone(self), address })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// What one subscriber has: an IPv4 address, or the /64 from which it may take any IPv6 address.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a32_no_address_has_more_than_its_places() {
        let crowd = Crowd::new(2);
        let enter = |address: &str| crowd.enter(address.parse().unwrap());
        let mut places = Vec::new();
        for address in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::ffff:2"] {
            places.push(enter(address).unwrap());
        }
        assert!(enter("192.0.2.1").is_none() && enter("2001:db8::3").is_none());
        assert!(enter("192.0.2.2").is_some() && enter("2001:db8:0:1::3").is_some());
        drop(places.remove(1));
        assert!(enter("192.0.2.1").is_some());
        drop(places);
        assert!(crowd.counts().is_empty(), "nobody is remembered");
    }
}
