//! The upstream's end of a stream: frames through the meter, within bounds of time.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use farebox_billing::{Content, Ended, Ending, Format, Metered, StreamFilter};
use farebox_protocol::Timestamp;
use http::response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::app::App;
use crate::problem::{Kind, Problem};
use crate::proxy::Asked;
use crate::proxy::charge::is_owed;
use crate::proxy::work::{Flowing, forget_length, over};
use crate::upstream::{Broken, IdleTimeout};

/// What is kept back while a stream has no content: comments, roles. More than that is let go and
/// counts as an answer.
const PRELUDE_BYTES_MAX: usize = 64 * 1024;

/// A stream on its way through the meter.
pub(super) struct Flow {
    body: IdleTimeout<Incoming>,
    format: Format,
    filter: StreamFilter,
    deadline: Deadline,
    bytes: usize,
    /// What was read before.
    begun: Option<Bytes>,
}

/// When the work must be over, so that there is time to settle.
struct Deadline {
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
    past: bool,
}

impl Deadline {
    /// Returns when it has come; may be dropped and asked again.
    async fn wait(&mut self) {
        if !self.past {
            self.sleep.as_mut().await;
            self.past = true;
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// To be forwarded now; may be none.
    Pieces(Vec<Bytes>),
    /// The end marker came, or the body ended.
    End,
    /// The upstream did not finish.
    Broken(Interrupted),
}

/// Why a stream has no proper end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    /// By the upstream.
    #[error(transparent)]
    Upstream(Broken),
    /// By us: the payment could not be settled if it went on.
    #[error("the payment's authorisation ends")]
    Deadline,
    /// By the client, and nothing depends on the rest.
    #[error("the client is gone")]
    Unwanted,
}

impl Flow {
    /// Puts the meter of the format into the stream, which ends at `serve_by` at the latest.
    pub(super) fn new(
        app: &Arc<App>,
        asked: &Asked,
        flowing: Flowing,
        serve_by: Option<Timestamp>,
    ) -> (response::Parts, Self) {
        let config = &asked.route.config;
        let (format, facts) = (config.format, &asked.facts);
        let (format, filter, answer, begun) = match flowing {
            Flowing::Events(mut answer) => {
                if format != Format::Opaque {
                    forget_length(answer.headers_mut());
                }
                (format, StreamFilter::new(format, facts), answer, None)
            }
            Flowing::Long(answer, begun) => {
                (format, StreamFilter::of_document(format, facts), answer, Some(begun))
            }
            Flowing::Bytes(answer) => {
                (Format::Opaque, StreamFilter::new(Format::Opaque, facts), answer, None)
            }
        };
        let (head, body) = answer.into_parts();
        let clock = Arc::clone(&app.clock);
        let sleep = Box::pin(async move { over(&*clock, serve_by).await });
        let deadline = Deadline { sleep, past: false };
        (head, Self { body, format, filter, deadline, bytes: 0, begun })
    }

    /// What comes first, from the first content on. An answer that breaks off before it, or tells of
    /// an error, is a problem: it owes nothing, so nothing of it is forwarded.
    pub(super) async fn first(&mut self) -> Result<Next, Problem> {
        let mut prelude = Vec::new();
        let mut bytes = 0_usize;
        loop {
            let data = match self.frame().await {
                Ok(Some(data)) => data,
                Ok(None) if self.format == Format::Opaque || self.filter.is_done() => {
                    return Ok(if prelude.is_empty() { Next::End } else { Next::Pieces(prelude) });
                }
                Ok(None) => return Err(nothing_came()),
                Err(error) => return Err(nothing_came().caused_by(error)),
            };
            let pieces = self.filter.push(data);
            bytes = pieces.iter().map(Bytes::len).fold(bytes, usize::saturating_add);
            prelude.extend(pieces);
            let seen = self.filter.so_far();
            if seen.ending == Ending::Failed && !is_owed(&seen) {
                return Err(Problem::new(
                    Kind::UpstreamFailed,
                    "The upstream answered with an error.",
                ));
            }
            if seen.content == Content::Some || PRELUDE_BYTES_MAX < bytes {
                return Ok(Next::Pieces(prelude));
            }
        }
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Next {
        match self.frame().await {
            Ok(Some(data)) => Next::Pieces(self.filter.push(data)),
            Ok(None) => Next::End,
            Err(error) => Next::Broken(error),
        }
    }

    /// What was delivered so far.
    pub(super) fn so_far(&self) -> Metered {
        self.filter.so_far()
    }

    /// Returns when the stream must be over.
    pub(super) async fn deadline(&mut self) -> Interrupted {
        self.deadline.wait().await;
        Interrupted::Deadline
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The stream is over, or is wanted no longer.
    pub(super) fn end(self) -> Ended {
        self.filter.end()
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Interrupted> {
        if self.filter.is_done() {
            return Ok(None);
        }
        if let Some(begun) = self.begun.take().filter(|it| !it.is_empty()) {
            self.bytes = self.bytes.saturating_add(begun.len());
            return Ok(Some(begun));
        }
        let frame = tokio::select! {
            biased;
            () = self.deadline.wait() => return Err(Interrupted::Deadline),
            frame = self.body.frame() => frame,
        };
        let Some(frame) = frame.transpose().map_err(Interrupted::Upstream)? else {
            return Ok(None);
        };
        // Trailers are not part of any format.
        let data = frame.into_data().unwrap_or_default();
        self.bytes = self.bytes.saturating_add(data.len());
        Ok(Some(data))
    }
}

/// An answer that ended before it gave anything.
fn nothing_came() -> Problem {
    Problem::new(Kind::UpstreamFailed, "The upstream's answer ended before it began.")
}
