//! A body that gives up on a sender who falls silent.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// Passes frames through; an error after a silence of `limit`.
#[derive(Debug)]
pub(crate) struct IdleTimeout<B> {
    body: B,
    limit: Duration,
    /// Made at the first wait: most bodies are at hand already.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer belongs to the present silence.
    waiting: bool,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The sender fell silent.
    #[error("no data for {0:?}")]
    Idle(Duration),
    /// The connection broke.
    #[error("the connection broke")]
    Connection(#[source] hyper::Error),
}

impl<B> IdleTimeout<B> {
    /// Watches `body`.
    pub(crate) fn new(body: B, limit: Duration) -> Self {
        Self { body, limit, timer: None, waiting: false }
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(deadline(limit));
        }
        timer.as_mut().poll(context)
    }
}

fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now)
}

impl<B> Body for IdleTimeout<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = false;
            return Poll::Ready(frame.map(|it| it.map_err(Broken::Connection)));
        }
        ready!(self.poll_silence(context));
        self.waiting = false;
        Poll::Ready(Some(Err(Broken::Idle(self.limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
