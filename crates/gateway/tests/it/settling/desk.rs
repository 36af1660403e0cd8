//! A settler on a real ledger, with a facilitator that says what it is told to and a clock that
//! stands still until it is pushed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use farebox_chains::{
    Facilitator, FacilitatorError, Lookup, SettleError, Settlement, Verification,
};
use farebox_gateway::{Clock, Entropy, Settler};
use farebox_protocol::wire::{
    Object, PaymentPayload, PaymentRequirements, SettleRequest, SupportedResponse, VerifyRequest,
};
use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId, Reason, Timestamp};
use farebox_store::{
    Admit, Admitted, AnswerMark, Ledger, Recovered, SettleMode, SqliteLedger, SqliteOptions,
    StoredPayment, Terms,
};
use farebox_testkit::gate::Gate;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::app::{PAY_TO, USDC};

pub(crate) const CHARGE: u128 = 10_000;
/// When every test begins.
pub(crate) const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
/// When the payments of these tests must have been sent.
pub(crate) const SETTLE_BY: Duration = Duration::from_mins(5);
const PATIENCE: Duration = Duration::from_secs(20);

/// Time that stands still until it is pushed.
#[derive(Debug)]
pub(crate) struct StillClock(watch::Sender<Timestamp>);

impl StillClock {
    pub(crate) fn advance(&self, span: Duration) {
        self.0.send_modify(|now| *now = now.plus(span));
    }

    pub(crate) fn advance_to(&self, at: Timestamp) {
        self.0.send_modify(|now| *now = (*now).max(at));
    }
}

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    async fn sleep_until(&self, at: Timestamp) {
        drop(self.0.subscribe().wait_for(|now| at <= *now).await);
    }
}

/// What a settlement comes to.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Lands,
    NotSent,
    Rejected(Reason),
    NotServed(Reason),
    Unknown,
    /// Lands once the gate is open.
    Waits(Arc<Gate>),
}

/// What a look at the chain shows.
#[derive(Clone, Debug)]
pub(crate) enum Sees {
    Landed,
    Open,
    Dead,
    CannotTell,
    /// Nothing: the chain does not answer.
    Nothing,
}

/// Says and sees in order, the last of each for ever, and remembers what it was asked.
#[derive(Debug)]
pub(crate) struct Scripted {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    says: VecDeque<Says>,
    sees: VecDeque<Sees>,
    /// When which payment was to be settled.
    settles: Vec<(u64, Timestamp)>,
    lookups: usize,
    flying: usize,
    peak: usize,
}

impl Scripted {
    pub(crate) fn new(says: &[Says], sees: &[Sees]) -> Arc<Self> {
        let (says, sees) = (says.iter().cloned().collect(), sees.iter().cloned().collect());
        Arc::new(Self { state: Mutex::new(State { says, sees, ..State::default() }) })
    }

    /// When settlements were asked for, in order.
    pub(crate) fn settles(&self) -> Vec<Timestamp> {
        self.state().settles.iter().map(|it| it.1).collect()
    }

    /// How often each payment was to be settled.
    pub(crate) fn settles_by_payment(&self) -> HashMap<u64, u64> {
        let mut counts = HashMap::new();
        for (number, _) in &self.state().settles {
            *counts.entry(*number).or_default() += 1;
        }
        counts
    }

    pub(crate) fn lookups(&self) -> usize {
        self.state().lookups
    }

    /// The most settlements that were under way at one time.
    pub(crate) fn peak(&self) -> usize {
        self.state().peak
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next<T: Clone>(script: &mut VecDeque<T>) -> Option<T> {
    if script.len() == 1 { script.front().cloned() } else { script.pop_front() }
}

fn number_of(request: &SettleRequest) -> u64 {
    request.payment_payload.value().payload["number"].as_u64().unwrap()
}

fn settlement(request: &SettleRequest) -> Settlement {
    Settlement {
        transaction: format!("0x{:064x}", number_of(request)),
        network: Network::eip155(84532),
        payer: "0x01".to_owned(),
        amount: request.payment_requirements.value().amount,
        final_in: None,
    }
}

fn unreachable() -> FacilitatorError {
    FacilitatorError { context: "the script".to_owned(), source: None }
}

#[async_trait]
impl Facilitator for Scripted {
    async fn verify(
        &self,
        _request: &VerifyRequest,
        _now: Timestamp,
    ) -> Result<Verification, FacilitatorError> {
        Err(unreachable())
    }

    async fn settle(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        assert_eq!(request.payment_requirements.value().amount.units(), CHARGE);
        let says = {
            let mut state = self.state();
            state.settles.push((number_of(request), now));
            state.flying += 1;
            state.peak = state.peak.max(state.flying);
            next(&mut state.says).unwrap_or(Says::Lands)
        };
        let result = match says {
            Says::Lands => Ok(settlement(request)),
            Says::NotSent => Err(SettleError::NotSent(unreachable())),
            Says::Rejected(reason) => {
                Err(SettleError::Rejected { reason, message: "told to".to_owned() })
            }
            Says::NotServed(reason) => {
                Err(SettleError::NotServed { reason, message: "told to".to_owned() })
            }
            Says::Unknown => Err(SettleError::Unknown { transaction: None }),
            Says::Waits(gate) => {
                gate.pass().await;
                Ok(settlement(request))
            }
        };
        self.state().flying -= 1;
        result
    }

    async fn lookup(
        &self,
        request: &SettleRequest,
        _now: Timestamp,
    ) -> Result<Lookup, FacilitatorError> {
        let sees = {
            let mut state = self.state();
            state.lookups += 1;
            next(&mut state.sees).unwrap_or(Sees::Open)
        };
        match sees {
            Sees::Landed => Ok(Lookup::Landed(settlement(request))),
            Sees::Open => Ok(Lookup::Open),
            Sees::Dead => {
                let reason = Reason::InvalidExactEvmPayloadAuthorizationValidBefore;
                Ok(Lookup::Dead { reason })
            }
            Sees::CannotTell => Ok(Lookup::CannotTell),
            Sees::Nothing => Err(unreachable()),
        }
    }

    async fn supported(&self) -> Result<SupportedResponse, FacilitatorError> {
        Err(unreachable())
    }
}

/// A settler with everything around it.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) ledger: Arc<SqliteLedger>,
    pub(crate) facilitator: Arc<Scripted>,
    pub(crate) clock: Arc<StillClock>,
    pub(crate) settler: Arc<Settler>,
    pub(crate) tasks: TaskTracker,
    /// Stops the worker when the test is over.
    #[expect(dead_code, reason = "held to be dropped")]
    stop: DropGuard,
    files: TempDir,
}

impl Desk {
    /// With its worker running.
    pub(crate) fn start(says: &[Says], sees: &[Sees]) -> Self {
        let clock = Arc::new(StillClock(watch::Sender::new(START)));
        Self::on(tempfile::tempdir().unwrap(), clock, says, sees)
    }

    /// On the ledger of this directory.
    pub(crate) fn on(files: TempDir, clock: Arc<StillClock>, says: &[Says], sees: &[Sees]) -> Self {
        let path = files.path().join("ledger.db");
        let ledger = Arc::new(SqliteLedger::open(path, SqliteOptions::default()).unwrap());
        let facilitator = Scripted::new(says, sees);
        let tasks = TaskTracker::new();
        let settler = settler(&ledger, &facilitator, &clock, &tasks);
        let stop = CancellationToken::new();
        tasks.spawn(Arc::clone(&settler).run(stop.clone()));
        Self { ledger, facilitator, clock, settler, tasks, stop: stop.drop_guard(), files }
    }

    /// Closes the ledger under whatever still runs.
    pub(crate) async fn end(self) -> (TempDir, Arc<StillClock>) {
        self.ledger.close().await.unwrap();
        (self.files, self.clock)
    }

    /// What a start does.
    pub(crate) async fn recover(&self) -> Recovered {
        self.ledger.recover(self.clock.now()).await.unwrap()
    }

    /// Another settler on the same ledger, its worker running too.
    pub(crate) fn another(&self, stop: &CancellationToken) -> Arc<Settler> {
        let settler = settler(&self.ledger, &self.facilitator, &self.clock, &self.tasks);
        self.tasks.spawn(Arc::clone(&settler).run(stop.clone()));
        settler
    }

    /// A captured payment; nobody is told of it.
    pub(crate) async fn capture(&self, number: u64, mark: AnswerMark) -> PaymentId {
        let terms = terms(number);
        let id = terms.id;
        let admit = Admit { terms, keys: Vec::new(), exposure_limit: None, now: self.clock.now() };
        let Admitted::New(hold) = self.ledger.admit(admit).await.unwrap() else {
            panic!("not admitted");
        };
        self.ledger.begin_serve(&hold, self.clock.now()).await.unwrap();
        let charge = Amount::from_units(CHARGE);
        drop(self.ledger.capture(hold, charge, mark, self.clock.now()).await.unwrap());
        id
    }

    pub(crate) async fn payment(&self, id: PaymentId) -> StoredPayment {
        self.ledger.lookup(id).await.unwrap().unwrap()
    }

    /// Polls until something holds.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let reached = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("it did not come about: {what}; {:?}", self.facilitator));
    }

    /// Waits until a payment is in this state and its settlement queued again, or at an end.
    pub(crate) async fn until_state(&self, id: PaymentId, state: &str) {
        self.until(state, async || self.payment(id).await.state.name() == state).await;
    }

    /// Pushes the clock to the next due settlement, which must be in the future.
    pub(crate) async fn advance_to_due(&self) -> Timestamp {
        let due = self.ledger.next_due().await.unwrap().unwrap();
        assert!(self.clock.now() < due, "due already");
        self.clock.advance_to(due);
        due
    }
}

fn settler(
    ledger: &Arc<SqliteLedger>,
    facilitator: &Arc<Scripted>,
    clock: &Arc<StillClock>,
    tasks: &TaskTracker,
) -> Arc<Settler> {
    let entropy = Arc::new(Entropy::seeded(7));
    Settler::new(
        Arc::<SqliteLedger>::clone(ledger),
        Arc::<Scripted>::clone(facilitator),
        Arc::<StillClock>::clone(clock),
        entropy,
        tasks.clone(),
    )
}

/// The id of a payment of this number.
pub(crate) fn id_of(number: u64) -> [u8; 32] {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

fn terms(number: u64) -> Terms {
    let network = Network::eip155(84532);
    let requirements = PaymentRequirements {
        scheme: "exact".to_owned(),
        network: network.clone(),
        amount: Amount::from_units(CHARGE),
        asset: USDC.to_owned(),
        pay_to: PAY_TO.to_owned(),
        max_timeout_seconds: 300,
        extra: Object::new(),
        rest: Object::new(),
    };
    let payload = PaymentPayload {
        x402_version: 2,
        payload: json!({ "number": number }),
        resource: None,
        accepted: requirements.clone(),
        extensions: None,
        rest: Object::new(),
    };
    Terms {
        id: PaymentId::from_bytes(id_of(number)),
        fingerprint: Digest::of(&number.to_be_bytes()),
        route: "GET /premium/*".to_owned(),
        scheme: "exact".to_owned(),
        asset: Asset::new(network, USDC).unwrap(),
        payer: format!("0x{number:040x}"),
        pay_to: PAY_TO.to_owned(),
        limit: Amount::from_units(CHARGE),
        settle: SettleMode::After,
        price_version: "v1".to_owned(),
        settle_by: START.plus(SETTLE_BY),
        payload: serde_json::to_string(&payload).unwrap(),
        requirements: serde_json::to_string(&requirements).unwrap(),
    }
}
