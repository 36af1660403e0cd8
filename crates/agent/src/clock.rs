//! The one place that reads time, and the seam that tests put their own in.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use farebox_protocol::Timestamp;

/// Time as the agent sees it.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// This moment.
    fn now(&self) -> Timestamp;

    /// Returns after `span`.
    async fn sleep(&self, span: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everyone else is given")]
    fn now(&self) -> Timestamp {
        // Before the epoch only a broken machine is; every authorisation signed there has expired.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}
