//! One run: processes come and go on one disk and one chain until all is bought and all is settled.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farebox_billing::Payment;
use farebox_gateway::{Clock, Entropy, Gateway, NoProbe, Parts};
use farebox_store::{Fair, Ledger as _, MemoryLedger, Recovered};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bug::Bug;
use crate::chain::Chain;
use crate::check::{self, Breach};
use crate::client::{Client, Keeps};
use crate::event::{Event, Log};
use crate::ledger::WorldLedger;
use crate::shop;
use crate::upstream::Upstream;
use crate::wire::Served;
use crate::world::World;

/// So long after the world is healed, nothing may be open any more.
const HEALING: Duration = Duration::from_mins(30);
/// How long it goes on after that.
const REST: Duration = Duration::from_secs(30);
/// How often it is looked at in that time.
const LOOK: Duration = Duration::from_secs(5);

/// Something that every run needs could not be made: a bug of the simulation.
#[derive(Debug, thiserror::Error)]
#[error("the world could not be built: {0}")]
pub struct Unbuilt(String);

impl Unbuilt {
    pub(crate) fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed that it follows from.
    pub seed: u64,
    /// A digest of everything that happened: the same for the same seed.
    pub digest: u64,
    /// How much of what happened.
    pub tally: Tally,
    /// What must not be, and was.
    pub breaches: Vec<Breach>,
    /// The last that happened, for people.
    pub last: Vec<String>,
}

/// How much happened: a run in which nothing does shows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of anything.
    pub events: u64,
    /// Processes that were lost.
    pub crashes: u64,
    /// Ledger operations that were refused, or of which nobody knew.
    pub mishaps: u64,
    /// Answers of which something left.
    pub served: u64,
    /// Settlements that were asked for and not heard of.
    pub unheard: u64,
    /// Payments that were taken.
    pub payments: u64,
    /// Of them, settled.
    pub settled: u64,
    /// Given back.
    pub released: u64,
    /// Served and never paid.
    pub lost: u64,
    /// Settled and owed back.
    pub owed_back: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            crashes: self.crashes.saturating_add(other.crashes),
            mishaps: self.mishaps.saturating_add(other.mishaps),
            served: self.served.saturating_add(other.served),
            unheard: self.unheard.saturating_add(other.unheard),
            payments: self.payments.saturating_add(other.payments),
            settled: self.settled.saturating_add(other.settled),
            released: self.released.saturating_add(other.released),
            lost: self.lost.saturating_add(other.lost),
            owed_back: self.owed_back.saturating_add(other.owed_back),
        }
    }

    fn of(world: &World, log: &Log) -> Self {
        let mut tally = Self::default();
        let add = |count: &mut u64| *count = count.saturating_add(1);
        for (_, event) in log.events() {
            add(&mut tally.events);
            match event {
                Event::Crashed => add(&mut tally.crashes),
                Event::Mishap { .. } => add(&mut tally.mishaps),
                Event::Left { .. } => add(&mut tally.served),
                Event::SettleTold { told, .. } if told.contains("Unknown") => {
                    add(&mut tally.unheard);
                }
                Event::SettleTold { .. }
                | Event::Opened
                | Event::Ready
                | Event::Healed
                | Event::Row { .. }
                | Event::Forgotten { .. }
                | Event::Requested { .. }
                | Event::HungUp { .. }
                | Event::UpstreamAsked { .. }
                | Event::Used { .. }
                | Event::Answered { .. }
                | Event::Finished { .. }
                | Event::SettleAsked { .. }
                | Event::LookedUp { .. }
                | Event::Broadcast { .. } => {}
            }
        }
        for stored in world.disk.payments() {
            add(&mut tally.payments);
            match stored.state {
                Payment::Settled { .. } => add(&mut tally.settled),
                Payment::Released { .. } => add(&mut tally.released),
                Payment::Lost { .. } => add(&mut tally.lost),
                Payment::Held { .. }
                | Payment::Serving { .. }
                | Payment::Captured { .. }
                | Payment::Settling { .. }
                | Payment::Unknown { .. } => {}
            }
            if stored.refund_owed.is_some() {
                add(&mut tally.owed_back);
            }
        }
        tally
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Crashed,
    Finished,
}

/// The clients, across processes.
#[derive(Clone)]
struct Clients(Arc<Mutex<Vec<Client>>>);

impl Keeps for Clients {
    fn keep(&self, client: &Client) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = all.iter_mut().find(|it| it.number() == client.number()) {
            *kept = client.clone();
        }
    }
}

impl Clients {
    fn all(&self) -> Vec<Client> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What outlives a process.
struct Stage {
    world: Arc<World>,
    chain: Arc<Chain>,
    clients: Clients,
}

/// Runs the world of a seed, and holds what happened against the invariants.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Outcome, Unbuilt> {
    let world = World::new(seed, bug)?;
    let chain = Arc::new(Chain::new(Arc::clone(&world), shop::token()?));
    let plans = world.plan.clients.iter().cloned();
    let clients = (0..).zip(plans).map(|(number, plan)| Client::new(number, plan)).collect();
    let stage = Stage { world, chain, clients: Clients(Arc::new(Mutex::new(clients))) };
    let mut crashes = stage.world.plan.crashes.clone().into_iter();
    let mut breaches = Vec::new();
    loop {
        let (end, found) = live(&stage, crashes.next())?;
        breaches.extend(found);
        if end == End::Finished {
            break;
        }
    }
    // First, for recovery repairs what can be repaired.
    breaches.extend(check::check(&stage.world, &stage.chain));
    breaches.extend(last_start(&stage.world)?);
    Ok(stage.world.history(|log| Outcome {
        seed,
        digest: log.hash(),
        tally: Tally::of(&stage.world, log),
        breaches,
        last: check::tell(log.events()),
    }))
}

/// The life of one process, in a runtime of its own: with it go all of its tasks.
fn live(stage: &Stage, crashes_at: Option<u64>) -> Result<(End, Vec<Breach>), Unbuilt> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(Unbuilt::new)?;
    let world = &stage.world;
    let (end, breaches) = runtime.block_on(async {
        let dead = world.begin(crashes_at);
        let mut breaches = check::ledger(world);
        if world.luck(|it| it.percent(50)) {
            breaches.extend(recovered_twice(world).await?);
        }
        let end = tokio::select! {
            biased;
            () = dead.cancelled() => End::Crashed,
            lived = process(stage, &dead) => {
                lived?;
                End::Finished
            }
        };
        let pause = world.luck(|it| it.below(world.plan.downtime));
        world.end(pause);
        Ok::<_, Unbuilt>((end, breaches))
    })?;
    // Nothing that a dropped task does has an effect: the disk and the log are closed to it.
    drop(runtime);
    Ok((end, breaches))
}

/// The process that comes after everything.
fn last_start(world: &World) -> Result<Vec<Breach>, Unbuilt> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(Unbuilt::new)?.block_on(async {
        world.begin(None);
        recovered_twice(world).await
    })
}

/// Starts a gateway, lets the clients buy, and waits until nothing is open.
async fn process(stage: &Stage, dead: &CancellationToken) -> Result<(), Unbuilt> {
    let Stage { world, chain, clients } = stage;
    let tasks = TaskTracker::new();
    let upstream = Arc::new(Upstream { world: Arc::clone(world), tasks: tasks.clone() });
    let clock: Arc<dyn Clock> = Arc::<World>::clone(world);
    let parts = Parts {
        ledger: Arc::new(WorldLedger::open(world)),
        facilitator: Arc::<Chain>::clone(chain),
        clock,
        entropy: Arc::new(Entropy::seeded(world.luck(crate::random::Random::next))),
        probe: Arc::new(NoProbe),
        mounts: Vec::new(),
    };
    let config = shop::config(&world.plan, world.prices)?;
    let gateway = Gateway::in_process(config, parts, upstream).await.map_err(Unbuilt::new)?;
    world.log(Event::Ready);
    let served =
        Served { world: Arc::clone(world), gateway: Arc::new(gateway), tasks: tasks.clone() };
    let mut buying = JoinSet::new();
    for client in clients.all() {
        buying.spawn(client.buy(served.clone(), clients.clone()));
    }
    while buying.join_next().await.is_some() {}
    world.heal();
    let mut waited = Duration::ZERO;
    while waited < HEALING && !is_over(world) && !dead.is_cancelled() {
        tokio::time::sleep(LOOK).await;
        waited = waited.saturating_add(LOOK);
    }
    // What is written down after a settlement takes its time, too.
    tokio::time::sleep(REST).await;
    Ok(())
}

/// Whether every payment has come to an end.
fn is_over(world: &World) -> bool {
    let payments = world.disk.payments();
    payments.iter().all(|it| match it.state {
        Payment::Settled { .. } | Payment::Released { .. } | Payment::Lost { .. } => true,
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. } => false,
    })
}

/// What a process that starts makes of the ledger, it makes once: starting again changes nothing.
async fn recovered_twice(world: &World) -> Result<Vec<Breach>, Unbuilt> {
    let ledger = MemoryLedger::open(&world.disk, Arc::new(Fair));
    let _first = ledger.recover(world.now()).await.map_err(Unbuilt::new)?;
    world.observe();
    let once = format!("{:?}", world.disk.payments());
    let again = ledger.recover(world.now()).await.map_err(Unbuilt::new)?;
    if again == Recovered::default() && once == format!("{:?}", world.disk.payments()) {
        return Ok(Vec::new());
    }
    Ok(vec![Breach::new(20, None, format!("recovering again did something: {again:?}"))])
}
