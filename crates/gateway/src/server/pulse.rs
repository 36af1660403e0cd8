//! Whether anything moves on a connection: counted where it happens, looked at now and then.
//!
//! Counters and no wake-ups, because a beat is told for every request and every frame.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::listening::Bounds;

/// How often a connection is looked at within the shorter of its limits.
const LOOKS: u32 = 4;
/// But not more often than this.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Being answered.
    open: AtomicUsize,
    /// Of them, those whose next piece nobody takes.
    stuck: AtomicUsize,
    /// Requests begun.
    begun: AtomicU64,
    /// Pieces asked for.
    beats: AtomicU64,
}

/// Why a connection is not worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Still {
    /// Nothing is asked any more.
    Idle,
    /// Nothing that was answered is taken.
    Stuck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    open: usize,
    stuck: usize,
    begun: u64,
    beats: u64,
}

impl Pulse {
    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Open { pulse: Arc::clone(self), handed: false }
    }

    /// Whether no request is being answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Requests begun so far.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns when nothing has moved for too long.
    pub(super) async fn still(&self, bounds: Bounds) -> Still {
        let Bounds { keep_alive, write_timeout, .. } = bounds;
        let shorter = keep_alive.min(write_timeout);
        let pause = shorter.checked_div(LOOKS).unwrap_or_default().max(LOOK_MIN);
        let mut last = self.seen();
        let mut span = Duration::ZERO;
        loop {
            tokio::time::sleep(pause).await;
            let seen = self.seen();
            if seen != last {
                last = seen;
                span = Duration::ZERO;
                continue;
            }
            span = span.saturating_add(pause);
            if seen.open == 0 && keep_alive <= span {
                return Still::Idle;
            }
            if 0 < seen.open && seen.open == seen.stuck && write_timeout <= span {
                return Still::Stuck;
            }
        }
    }

    fn seen(&self) -> Seen {
        Seen {
            open: self.open.load(Ordering::Relaxed),
            stuck: self.stuck.load(Ordering::Relaxed),
            begun: self.begun.load(Ordering::Relaxed),
            beats: self.beats.load(Ordering::Relaxed),
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Open {
    pulse: Arc<Pulse>,
    /// A piece was handed out, and nobody has come for the next.
    handed: bool,
}

impl Open {
    /// Somebody comes for the next piece.
    fn asked(&mut self) {
        if self.handed {
            self.handed = false;
            self.pulse.stuck.fetch_sub(1, Ordering::Relaxed);
        }
        self.pulse.beats.fetch_add(1, Ordering::Relaxed);
    }

    fn handed(&mut self) {
        self.handed = true;
        self.pulse.stuck.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.asked();
        self.pulse.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer; open until it is dropped.
#[derive(Debug)]
pub(super) struct Beating {
    body: Body,
    open: Open,
}

impl Beating {
    pub(super) fn new(body: Body, open: Open) -> Self {
        Self { body, open }
    }
}

impl http_body::Body for Beating {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.open.asked();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if matches!(frame, Some(Ok(_))) {
            self.open.handed();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;
    use crate::config::Limits;

    fn bounds() -> Bounds {
        let limits = Limits {
            keep_alive: Duration::from_secs(80),
            write_timeout: Duration::from_secs(40),
            ..Limits::STANDARD
        };
        limits.into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_still_when_nothing_is_asked_or_taken() {
        let pulse = Arc::new(Pulse::default());
        let began = Instant::now();
        assert_eq!(pulse.still(bounds()).await, Still::Idle);
        assert_eq!(began.elapsed().as_secs(), 80);
        // Work that takes its time is neither.
        let open = pulse.begin();
        let patient = tokio::time::timeout(Duration::from_secs(10_000), pulse.still(bounds()));
        assert!(patient.await.is_err());
        // An answer of which nobody takes the rest is.
        let mut body = Beating::new(Body::from("piece"), open);
        assert!(body.frame().await.is_some());
        assert_eq!(pulse.still(bounds()).await, Still::Stuck);
        // Unless another one moves.
        let other = pulse.begin();
        let patient = tokio::time::timeout(Duration::from_secs(10_000), pulse.still(bounds()));
        assert!(patient.await.is_err());
        drop((body, other));
        assert!(pulse.is_quiet());
        assert_eq!(pulse.still(bounds()).await, Still::Idle);
    }
}
