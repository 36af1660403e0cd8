//! The one place that reads time.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use farebox_protocol::Timestamp;

/// Time as the gateway sees it; tests bring their own.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// This moment.
    fn now(&self) -> Timestamp;

    /// Returns at `at`, or at once if that is past.
    async fn sleep_until(&self, at: Timestamp);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everyone else is given")]
    fn now(&self) -> Timestamp {
        // A clock before the epoch is a broken machine; everything then looks long expired or not
        // yet valid, which refuses payments and serves nothing.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, at: Timestamp) {
        tokio::time::sleep(at.since(self.now())).await;
    }
}
