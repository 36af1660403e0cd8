//! Answers that are kept for a while, so that who lost one need not buy it again.
//!
//! Only where a route says so, for answers are private: in memory alone, within bounds of size, number
//! and time. What does not fit is not kept, and its repeat gets the receipt.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farebox_protocol::{PaymentId, Timestamp};
use http::{HeaderMap, StatusCode, response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Keep;

/// All answers together, those that are still on their way included.
const ROOM_BYTES: usize = 64 << 20;
/// Room is given in pieces of this size, so that there are at most 16,384 answers.
const GRAIN_BYTES: usize = 4 << 10;
/// How often it is looked whose time is over.
const SWEEP: Duration = Duration::from_secs(5);

/// The answers of one gateway.
#[derive(Debug)]
pub(crate) struct Kept {
    room: Arc<Semaphore>,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    of: HashMap<PaymentId, Entry>,
    /// The first to go first.
    order: BTreeSet<(Timestamp, PaymentId)>,
}

#[derive(Debug)]
struct Entry {
    answer: KeptAnswer,
    until: Timestamp,
    _room: OwnedSemaphorePermit,
}

/// An answer as it left, but for what it said of its payment.
#[derive(Clone, Debug)]
pub(crate) struct KeptAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer on its way, that is kept if it comes to its end.
#[derive(Debug)]
pub(crate) struct Recording {
    kept: Arc<Kept>,
    keep: Keep,
    status: StatusCode,
    headers: HeaderMap,
    body: BytesMut,
    room: OwnedSemaphorePermit,
}

impl Kept {
    /// None yet.
    pub(crate) fn new() -> Arc<Self> {
        Self::with_room(ROOM_BYTES)
    }

    fn with_room(bytes: usize) -> Arc<Self> {
        let grains = bytes.checked_div(GRAIN_BYTES).unwrap_or_default();
        Arc::new(Self { room: Arc::new(Semaphore::new(grains)), answers: Mutex::default() })
    }

    /// Begins to record an answer with this head, where answers are kept and there is room.
    pub(crate) fn record(
        self: &Arc<Self>,
        keep: Option<Keep>,
        head: &response::Parts,
    ) -> Option<Recording> {
        let (keep, headers) = (keep?, head.headers.clone());
        let bytes = headers.iter().map(|(name, value)| {
            name.as_str().len().saturating_add(value.len()).saturating_add(HEADER_COST)
        });
        let room = self.take(grains(bytes.fold(0, usize::saturating_add)))?;
        let kept = Arc::clone(self);
        Some(Recording { kept, keep, status: head.status, headers, body: BytesMut::new(), room })
    }

    /// The answer to a payment, if it is kept.
    pub(crate) fn answer(&self, id: PaymentId, now: Timestamp) -> Option<KeptAnswer> {
        let mut answers = self.answers();
        answers.forget_until(now);
        answers.of.get(&id).map(|it| it.answer.clone())
    }

    /// Forgets what is over, until `stopped`. What is private does not stay because nobody comes.
    pub(crate) async fn sweep(self: Arc<Self>, clock: Arc<dyn Clock>, stopped: CancellationToken) {
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                () = clock.sleep_until(clock.now().plus(SWEEP)) => {}
            }
            self.answers().forget_until(clock.now());
        }
    }

    /// Room, if need be that of the answers that would go first.
    fn take(&self, grains: u32) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(grains) {
                return Some(room);
            }
            self.answers().forget_first()?;
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a header takes beside its letters.
const HEADER_COST: usize = 64;

fn grains(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(GRAIN_BYTES)).unwrap_or(u32::MAX).max(1)
}

impl Answers {
    fn forget_first(&mut self) -> Option<()> {
        let (_, id) = self.order.pop_first()?;
        self.of.remove(&id).map(drop)
    }

    fn forget_until(&mut self, now: Timestamp) {
        while self.order.first().is_some_and(|(until, _)| *until <= now) {
            if self.forget_first().is_none() {
                return;
            }
        }
    }

    fn insert(&mut self, id: PaymentId, entry: Entry) {
        let until = entry.until;
        if let Some(before) = self.of.insert(id, entry) {
            self.order.remove(&(before.until, id));
        }
        self.order.insert((until, id));
    }
}

impl Recording {
    /// The recording with more of the body; none where that is too much.
    pub(crate) fn with(mut self, data: &[u8]) -> Option<Self> {
        let bytes = self.body.len().saturating_add(data.len());
        if self.keep.bytes_max < bytes {
            return None;
        }
        let has = u32::try_from(self.room.num_permits()).unwrap_or(u32::MAX);
        // One is for the head.
        let lacks = grains(bytes).saturating_add(1).saturating_sub(has);
        if 0 < lacks {
            self.room.merge(self.kept.take(lacks)?);
        }
        self.body.extend_from_slice(data);
        Some(self)
    }

    /// Keeps it: it has come to its end, and is charged or about to be.
    pub(crate) fn keep(self, id: PaymentId, now: Timestamp) {
        let Self { kept, keep, status, headers, body, room } = self;
        let answer = KeptAnswer { status, headers, body: body.freeze() };
        let until = now.plus(keep.span);
        let mut answers = kept.answers();
        answers.forget_until(now);
        answers.insert(id, Entry { answer, until, _room: room });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    const KEEP: Keep = Keep { span: Duration::from_secs(10), bytes_max: 3 * GRAIN_BYTES };

    fn id(number: u8) -> PaymentId {
        PaymentId::from_bytes([number; 32])
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn recording(kept: &Arc<Kept>) -> Option<Recording> {
        kept.record(Some(KEEP), &Response::new(()).into_parts().0)
    }

    fn put(kept: &Arc<Kept>, number: u8, bytes: usize, now: u64) {
        let recording = recording(kept).and_then(|it| it.with(&vec![number; bytes]));
        recording.unwrap().keep(id(number), at(now));
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_no_longer() {
        let kept = Kept::new();
        assert!(kept.record(None, &Response::new(()).into_parts().0).is_none());
        put(&kept, 1, 5, 100);
        assert_eq!(kept.answer(id(1), at(109)).unwrap().body, [1; 5].as_slice());
        assert!(kept.answer(id(2), at(109)).is_none());
        assert!(kept.answer(id(1), at(110)).is_none());
        assert_eq!(kept.room.available_permits(), ROOM_BYTES / GRAIN_BYTES, "all of it is free");
    }

    #[test]
    fn one_that_is_too_large_is_not_kept() {
        let kept = Kept::new();
        let whole = recording(&kept).unwrap().with(&[0; 2 * GRAIN_BYTES]).unwrap();
        assert!(whole.with(&[0; GRAIN_BYTES + 1]).is_none());
        assert_eq!(kept.room.available_permits(), ROOM_BYTES / GRAIN_BYTES);
        put(&kept, 1, 3 * GRAIN_BYTES, 100);
    }

    #[test]
    fn a32_the_oldest_goes_where_there_is_no_room() {
        let kept = Kept::with_room(4 * GRAIN_BYTES);
        put(&kept, 1, 1, 100);
        put(&kept, 2, 1, 101);
        let running = recording(&kept).unwrap();
        let there = |number| kept.answer(id(number), at(102)).is_some();
        assert_eq!((there(1), there(2)), (false, true));
        // What is on its way has its room, and is nobody's to take.
        let running = running.with(&[0; 3 * GRAIN_BYTES]).unwrap();
        assert!(!there(2));
        assert!(recording(&kept).is_none());
        drop(running);
        put(&kept, 1, 1, 102);
        put(&kept, 1, 2, 103);
        assert_eq!(kept.answer(id(1), at(112)).unwrap().body.len(), 2);
        assert_eq!(kept.answers().order.len(), 1);
    }
}
