//! What a simulated world shares: its time, its luck, its log, and the process that can be lost.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use farebox_billing::Payment;
use farebox_gateway::Clock;
use farebox_protocol::{Digest, PaymentId, Timestamp};
use farebox_store::{AnswerMark, MemoryDisk, StoredPayment};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bug::Bug;
use crate::event::{Event, Log};
use crate::plan::{Plan, Rough};
use crate::random::Random;
use crate::run::Unbuilt;
use crate::shop::Prices;

/// When the world begins: any time will do.
const BEGINNING: u64 = 1_800_000_000_000;

/// The world, by everything in it.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) bug: Option<Bug>,
    pub(crate) disk: MemoryDisk,
    seed: u64,
    pub(crate) prices: Prices,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    random: Random,
    log: Log,
    rows: BTreeMap<PaymentId, Row>,
    /// The time at which the present process was started.
    base: u64,
    /// The same by tokio's clock; there is a process.
    began: Option<Instant>,
    /// The process is gone, or never was.
    dead: CancellationToken,
    /// Ports that this process has gone through.
    ports: u64,
    crashes_at: Option<u64>,
    healed: bool,
    attempts: u64,
}

/// A payment, as the ledger was last seen to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) state: Payment,
    pub(crate) answer: AnswerMark,
    pub(crate) refund: Option<String>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl From<StoredPayment> for Row {
    fn from(stored: StoredPayment) -> Self {
        Self { state: stored.state, answer: stored.answer, refund: stored.refund_owed }
    }
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>) -> Result<Arc<Self>, Unbuilt> {
        let dead = CancellationToken::new();
        dead.cancel();
        Ok(Arc::new(Self {
            prices: Prices::new()?,
            plan: Plan::draw(seed),
            bug,
            disk: MemoryDisk::default(),
            seed,
            inner: Mutex::new(Inner {
                random: Random::new(seed ^ 0x5eed),
                log: Log::default(),
                rows: BTreeMap::new(),
                base: BEGINNING,
                began: None,
                dead,
                ports: 0,
                crashes_at: None,
                healed: false,
                attempts: 0,
            }),
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process starts, to be lost at its `crashes_at`th port.
    pub(crate) fn begin(&self, crashes_at: Option<u64>) -> CancellationToken {
        let mut inner = self.inner();
        inner.began = Some(Instant::now());
        inner.dead = CancellationToken::new();
        inner.ports = 0;
        inner.crashes_at = crashes_at;
        let dead = inner.dead.clone();
        drop(inner);
        self.log(Event::Opened);
        self.compare();
        dead
    }

    /// The process has ended; the next one starts after `pause` milliseconds.
    pub(crate) fn end(&self, pause: u64) {
        let now = self.millis();
        let mut inner = self.inner();
        inner.began = None;
        inner.base = now.saturating_add(pause);
    }

    /// The process is lost at this very moment: nothing that it still does has an effect.
    pub(crate) fn crash(&self) {
        let dead = self.inner().dead.clone();
        if !dead.is_cancelled() {
            self.log(Event::Crashed);
            dead.cancel();
            self.disk.cut();
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.inner().dead.is_cancelled()
    }

    /// Nothing fails from here on.
    pub(crate) fn heal(&self) {
        self.log(Event::Healed);
        let mut inner = self.inner();
        inner.healed = true;
        inner.crashes_at = None;
    }

    /// How often things fail now; never, once the world is healed.
    pub(crate) fn rough(&self) -> Option<Rough> {
        (!self.inner().healed).then_some(self.plan.rough)
    }

    /// Whether something happens that happens so often in a thousand, while the world is rough.
    pub(crate) fn strikes(&self, rate: impl Fn(&Rough) -> u64) -> bool {
        match self.rough() {
            Some(rough) => self.luck(|it| it.below(1_000)) < rate(&rough),
            None => false,
        }
    }

    /// What chance decides.
    pub(crate) fn luck<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.inner().random)
    }

    /// A place where the process meets the world, and can be lost. Whoever passes it is alive.
    pub(crate) async fn port(&self) {
        let crashes = {
            let mut inner = self.inner();
            inner.ports = inner.ports.saturating_add(1);
            inner.crashes_at == Some(inner.ports)
        };
        if crashes {
            self.crash();
        }
        if self.is_dead() {
            pending::<()>().await;
        }
    }

    /// Takes from `low` to `high` milliseconds; mostly the least.
    pub(crate) async fn pause(&self, low: u64, high: u64) {
        let millis = self.luck(|it| if it.percent(60) { low } else { it.between(low, high) });
        if 0 < millis {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    pub(crate) fn millis(&self) -> u64 {
        let inner = self.inner();
        let since = inner.began.map(|it| it.elapsed()).unwrap_or_default();
        inner.base.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Writes down what happened. Of a process that is gone, nothing.
    pub(crate) fn log(&self, event: Event) {
        let at = self.millis();
        let mut inner = self.inner();
        if !inner.dead.is_cancelled() {
            inner.log.push(at, event);
        }
    }

    /// A secret of this world.
    pub(crate) fn secret(&self, name: &str) -> [u8; 32] {
        *Digest::of(format!("{} {name}", self.seed).as_bytes()).as_bytes()
    }

    /// The name of a request.
    pub(crate) fn attempt(&self) -> u64 {
        let mut inner = self.inner();
        inner.attempts = inner.attempts.saturating_add(1);
        inner.attempts
    }

    /// Writes down what has changed in the ledger since the last look.
    pub(crate) fn observe(&self) {
        for stored in self.disk.payments() {
            let id = stored.terms.id;
            let row = Row::from(stored);
            let before = self.inner().rows.insert(id, row.clone());
            if before.as_ref() != Some(&row) {
                let Row { state, answer, refund } = row;
                self.log(Event::Row { payment: id, state, answer, refund });
            }
        }
    }

    /// Writes down which payments are not as they were last seen.
    fn compare(&self) {
        let found: BTreeMap<PaymentId, Row> =
            self.disk.payments().into_iter().map(|it| (it.terms.id, it.into())).collect();
        let expected = std::mem::take(&mut self.inner().rows);
        for (payment, row) in expected {
            if found.get(&payment) != Some(&row) {
                self.log(Event::Forgotten { payment });
            }
        }
        self.inner().rows = found;
    }

    /// All that happened.
    pub(crate) fn history<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.inner().log)
    }
}

#[async_trait]
impl Clock for World {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis())
    }

    async fn sleep_until(&self, at: Timestamp) {
        tokio::time::sleep(at.since(self.now())).await;
    }
}
