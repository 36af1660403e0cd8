//! Reading bodies within bounds of size, patience and memory.
//!
//! Whoever has not paid may send bodies as well (attack A32): large ones share a bounded room and a
//! few places to be parsed in, and each must arrive at some speed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Limits;
use crate::dispatch::{check_declared_length, too_large};
use crate::problem::{Kind, Problem};

/// A body up to this size needs no room and is parsed where it is read.
const SMALL_BYTES: usize = 256 * 1024;
/// Larger ones together.
const ROOM_BYTES: usize = 256 * 1024 * 1024;
/// Room is given in pieces of this size.
const GRAIN_BYTES: usize = 64 * 1024;
/// Larger ones that are parsed at one time.
const PARSERS: usize = 2;
/// The time that a body of any size may take.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What has to arrive in each second beyond it.
const BYTES_PER_SECOND: usize = 64 * 1024;
/// When to come back where there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a body was not read to its end.
#[derive(Debug)]
pub(crate) enum Unread<E> {
    /// More bytes than allowed.
    TooLarge,
    /// No frame for too long, or too few.
    Silent,
    /// No room for it among the others.
    NoRoom,
    /// It broke.
    Broken(E),
}

/// The room that clients' bodies share.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
    parsers: Arc<Semaphore>,
}

/// A body with the room that it takes.
struct Roomy {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Roomy {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// All of the room is free.
    pub(crate) fn new() -> Self {
        Self::with_room(ROOM_BYTES)
    }

    fn with_room(bytes: usize) -> Self {
        let room = Arc::new(Semaphore::new(bytes.div_ceil(GRAIN_BYTES)));
        Self { room, parsers: Arc::new(Semaphore::new(PARSERS)) }
    }

    /// Reads a client's body. Its room is free again when the last of its bytes is dropped.
    pub(crate) async fn read(
        &self,
        limits: &Limits,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Bytes, Problem> {
        let max = limits.request_bytes_max;
        check_declared_length(max, headers)?;
        self.collect(body, max, limits.header_timeout).await.map_err(|unread| match unread {
            Unread::TooLarge => too_large(max),
            Unread::Silent => {
                Problem::new(Kind::RequestTimeout, "The request body did not arrive in time.")
            }
            Unread::NoRoom => Problem::new(
                Kind::Unavailable,
                "Too many large requests at this time; nothing was taken.",
            )
            .retry_after(RETRY_AFTER),
            Unread::Broken(error) => {
                Problem::new(Kind::MalformedRequest, "The request body broke off.").caused_by(error)
            }
        })
    }

    async fn collect<B>(
        &self,
        mut body: B,
        max: usize,
        patience: Duration,
    ) -> Result<Bytes, Unread<B::Error>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let began = Instant::now();
        let mut gathered = Gathered::default();
        let mut room: Option<OwnedSemaphorePermit> = None;
        loop {
            let left = time_for(gathered.length()).saturating_sub(began.elapsed());
            let next = next_data(&mut body, patience.min(left)).await?;
            let Some(data) = next else { break };
            gathered.push(data, max).ok_or(Unread::TooLarge)?;
            if SMALL_BYTES < gathered.length() {
                self.grow(&mut room, gathered.length()).ok_or(Unread::NoRoom)?;
            }
        }
        let bytes = gathered.finish();
        Ok(match room {
            Some(room) => Bytes::from_owner(Roomy { bytes, _room: room }),
            None => bytes,
        })
    }

    /// Never waits: bodies that wait for each other's room would all stand still.
    fn grow(&self, room: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Option<()> {
        let has = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacks = bytes.div_ceil(GRAIN_BYTES).saturating_sub(has);
        let lacks = u32::try_from(lacks).ok()?;
        let more = Arc::clone(&self.room).try_acquire_many_owned(lacks).ok()?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Some(())
    }

    /// Whether what takes time in proportion to a body can be done at once.
    pub(crate) fn is_small(bytes: usize) -> bool {
        bytes <= SMALL_BYTES
    }

    /// Does what takes time in proportion to a body: at once where it is small, else on a thread
    /// where no connection waits for it, few at a time.
    pub(crate) async fn work<T>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem>
    where
        T: Send + 'static,
    {
        if Self::is_small(bytes) {
            return Ok(work());
        }
        let internal = || Problem::new(Kind::Internal, "The work on this request broke off.");
        let place = Arc::clone(&self.parsers).acquire_owned().await;
        let place = place.map_err(|error| internal().caused_by(error))?;
        // The place goes with the work, which a client that hangs up does not end.
        let placed = move || {
            let done = work();
            drop(place);
            done
        };
        tokio::task::spawn_blocking(placed).await.map_err(|error| internal().caused_by(error))
    }
}

/// How long a body may take of which so much has come.
fn time_for(bytes: usize) -> Duration {
    let seconds = bytes.checked_div(BYTES_PER_SECOND).unwrap_or_default();
    BODY_TIME.saturating_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
}

/// What there is of an upstream's body.
#[derive(Debug)]
pub(crate) enum Collected {
    /// All of it.
    Whole(Bytes),
    /// More than was to be read, and not its end; the rest is where it came from.
    Begun(Bytes),
}

/// Reads an upstream's body, about `max` bytes of it at most, with silences of at most `patience`.
pub(crate) async fn collect<B>(
    body: &mut B,
    max: usize,
    patience: Duration,
) -> Result<Collected, Unread<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut gathered = Gathered::default();
    while let Some(data) = next_data(body, patience).await? {
        gathered.add(data);
        if max < gathered.length() {
            return Ok(Collected::Begun(gathered.finish()));
        }
    }
    Ok(Collected::Whole(gathered.finish()))
}

/// The next data of a body, or `None` at its end; trailers are dropped.
async fn next_data<B>(body: &mut B, patience: Duration) -> Result<Option<Bytes>, Unread<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    while !body.is_end_stream() {
        let next = tokio::time::timeout(patience, body.frame()).await;
        let Some(frame) = next.map_err(|_| Unread::Silent)? else { break };
        if let Ok(data) = frame.map_err(Unread::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Frames put together; a body of one frame is not copied.
#[derive(Debug, Default)]
struct Gathered {
    first: Bytes,
    all: BytesMut,
}

impl Gathered {
    fn length(&self) -> usize {
        self.first.len().saturating_add(self.all.len())
    }

    /// `None` where it would be more than `max`.
    fn push(&mut self, data: Bytes, max: usize) -> Option<()> {
        if max < self.length().saturating_add(data.len()) {
            return None;
        }
        self.add(data);
        Some(())
    }

    fn add(&mut self, data: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&data);
    }

    fn finish(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

/// What `Content-Length` says, where it says something.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    const MAX: usize = 8 << 20;

    fn body(bytes: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![b'x'; bytes]))
    }

    #[tokio::test]
    async fn a32_large_bodies_share_a_bounded_room() {
        let bodies = Bodies::with_room(2 << 20);
        let large = bodies.collect(body(1 << 20), MAX, PATIENCE).await.unwrap();
        assert_eq!(large.len(), 1 << 20);
        let rest = large.slice(..1);
        let other = bodies.collect(body(1 << 20), MAX, PATIENCE).await.unwrap();
        let refused = bodies.collect(body(SMALL_BYTES + 1), MAX, PATIENCE).await;
        assert!(matches!(refused, Err(Unread::NoRoom)), "{refused:?}");
        assert!(bodies.collect(body(SMALL_BYTES), MAX, PATIENCE).await.is_ok());
        drop(large);
        let refused = bodies.collect(body(1 << 20), MAX, PATIENCE).await;
        assert!(matches!(refused, Err(Unread::NoRoom)), "a slice of it still lives: {refused:?}");
        drop((rest, other));
        assert!(bodies.collect(body(2 << 20), MAX, PATIENCE).await.is_ok());
        assert_eq!(bodies.room.available_permits(), 32, "all of it is free again");
    }

    /// Bytes that come one by one, each before the reader loses its patience.
    fn trickle(bytes: usize) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        StreamBody::new(Box::pin(stream::unfold(bytes, |left| async move {
            let left = left.checked_sub(1)?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Frame::data(Bytes::from_static(b"x"))), left))
        })))
    }

    #[tokio::test(start_paused = true)]
    async fn a32_a_body_that_trickles_is_not_read_for_ever() {
        let bodies = Bodies::new();
        let read = bodies.collect(trickle(20), MAX, PATIENCE).await;
        assert_eq!(read.unwrap().len(), 20);
        let began = Instant::now();
        let unread = bodies.collect(trickle(10_000), MAX, PATIENCE).await;
        assert!(matches!(unread, Err(Unread::Silent)), "{unread:?}");
        assert!(began.elapsed() <= BODY_TIME, "{:?}", began.elapsed());
        assert_eq!(time_for(MAX), BODY_TIME + Duration::from_secs(128));
    }

    #[tokio::test]
    async fn a32_few_large_bodies_are_parsed_at_one_time() {
        let bodies = Bodies::new();
        assert_eq!(bodies.work(MAX, || 7).await.unwrap(), 7);
        let _all = bodies.parsers.acquire_many(2).await.unwrap();
        assert_eq!(bodies.work(SMALL_BYTES, || 7).await.unwrap(), 7);
        let waits = bodies.work(MAX, || 7);
        assert!(tokio::time::timeout(Duration::from_millis(10), waits).await.is_err());
    }
}
