//! A place where one task waits until a test lets it through: synchronisation without sleeping.

use tokio::sync::watch;

/// Closed at first. Counts who has come to it.
#[derive(Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::Sender::new(false), arrived: watch::Sender::new(0) }
    }
}

impl Gate {
    /// Waits until it is open.
    pub async fn pass(&self) {
        self.arrived.send_modify(|count| *count = count.saturating_add(1));
        // Fails only if the gate is gone, and it is borrowed here.
        drop(self.open.subscribe().wait_for(|open| *open).await);
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many have come to it.
    pub async fn reached_by(&self, count: usize) {
        drop(self.arrived.subscribe().wait_for(|arrived| count <= *arrived).await);
    }
}
