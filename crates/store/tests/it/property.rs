//! Random histories against the model: every reply predicted, every row equal, and at the end the
//! journal replays to all of it.
//!
//! 600 histories for each engine and each kind of caller, of together 10,000 calls at least.

use std::cell::Cell;
use std::collections::BTreeMap;

use farebox_billing::Release;
use farebox_protocol::{Digest, PaymentId, Timestamp};
use farebox_store::{
    Admitted, AnswerMark, Hold, Job, Ledger, Refusal, RequestKey, Resolution, SettleMode,
    StoreError, Unsure,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::{Builder, Runtime};

use crate::engines::Engine;
use crate::model::{Handed, Model, No};
use crate::resolute::Resolute;
use crate::support::{ask, at, payment_id, terms, units};

const HISTORIES: u32 = 600;
/// Calls of all of them together, at least.
const TRANSITIONS: usize = 10_000;
/// Payments of one history; enough to meet, few enough to meet often.
const PAYMENTS: u64 = 3;

/// One call. `n` is one of the payments, `age` which of its holds, the newest first.
#[derive(Clone, Debug)]
enum Call {
    Admit(Ask),
    BeginServe { n: u64, age: usize },
    Meter { n: u64, age: usize, upto: u128 },
    Capture { n: u64, age: usize, charge: u128, mark: AnswerMark },
    Release { n: u64, age: usize, why: Release },
    Withdraw { n: u64, age: usize, why: Release },
    Mark { n: u64, mark: AnswerMark },
    Owe { n: u64 },
    Lease { only: Option<u64> },
    Resolve { n: u64, how: Outcome },
    NextDue,
    Recover,
}

/// What is asked to be held.
#[derive(Clone, Debug)]
struct Ask {
    n: u64,
    other_request: bool,
    settle: SettleMode,
    exposure: Option<u128>,
    /// What its request is called: two payers, so not every name is one payer's.
    keys: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Settled,
    Rejected,
    NotSent { later: u64 },
    Unknown { named: bool, later: u64 },
}

fn call() -> impl Strategy<Value = Call> {
    let n = 0..PAYMENTS;
    let age = prop_oneof![8 => Just(0_usize), 1 => Just(1_usize)];
    let sum = prop_oneof![Just(0_u128), Just(1), Just(40), Just(100), Just(101)];
    let mark =
        prop_oneof![Just(AnswerMark::Withheld), Just(AnswerMark::Leaving), Just(AnswerMark::Sent)];
    let settle = prop_oneof![
        4 => Just(SettleMode::After),
        1 => Just(SettleMode::Before),
        1 => Just(SettleMode::Background)
    ];
    let why = prop_oneof![Just(Release::UpstreamFailed), Just(Release::NothingOwed)];
    let later = prop_oneof![3 => Just(0_u64), 1 => Just(25), 1 => Just(500)];
    let how = prop_oneof![
        3 => Just(Outcome::Settled),
        2 => Just(Outcome::Rejected),
        2 => later.clone().prop_map(|later| Outcome::NotSent { later }),
        2 => (any::<bool>(), later).prop_map(|(named, later)| Outcome::Unknown { named, later }),
    ];
    let keys = prop::collection::vec(0..3_u8, 0..3);
    let exposure = prop_oneof![3 => Just(None), 1 => (100_u128..350).prop_map(Some)];
    prop_oneof![
        8 => (n.clone(), prop::bool::weighted(0.15), settle, exposure, keys).prop_map(
            |(n, other_request, settle, exposure, keys)| {
                Call::Admit(Ask { n, other_request, settle, exposure, keys })
            }
        ),
        7 => (n.clone(), age.clone()).prop_map(|(n, age)| Call::BeginServe { n, age }),
        4 => (n.clone(), age.clone(), sum.clone())
            .prop_map(|(n, age, upto)| Call::Meter { n, age, upto }),
        8 => (n.clone(), age.clone(), sum, mark.clone())
            .prop_map(|(n, age, charge, mark)| Call::Capture { n, age, charge, mark }),
        3 => (n.clone(), age.clone(), why.clone())
            .prop_map(|(n, age, why)| Call::Release { n, age, why }),
        3 => (n.clone(), age, why).prop_map(|(n, age, why)| Call::Withdraw { n, age, why }),
        3 => (n.clone(), mark).prop_map(|(n, mark)| Call::Mark { n, mark }),
        1 => n.clone().prop_map(|n| Call::Owe { n }),
        7 => prop::option::of(n.clone()).prop_map(|only| Call::Lease { only }),
        7 => (n, how).prop_map(|(n, how)| Call::Resolve { n, how }),
        1 => Just(Call::NextDue),
        2 => Just(Call::Recover),
    ]
}

/// One history under way. Its payments are its own, so that all can share a ledger.
struct History<'a> {
    ledger: &'a dyn Ledger,
    model: Model,
    first: u64,
    now: u64,
    holds: BTreeMap<u64, Vec<(u64, Hold)>>,
}

/// What the caller is told, without the particulars.
fn no(error: &StoreError) -> No {
    match error {
        StoreError::Fenced(_) => No::Fenced,
        StoreError::Illegal(_) => No::Illegal,
        StoreError::Corrupt(_) => No::Missing,
        StoreError::Unavailable(_) | StoreError::Unknown(_) => panic!("{error}"),
    }
}

impl History<'_> {
    fn id(&self, n: u64) -> PaymentId {
        payment_id(self.first + n)
    }

    fn time(&self) -> Timestamp {
        at(self.now)
    }

    async fn step(&mut self, call: Call) {
        self.now += 10;
        match call {
            Call::Admit(ask) => self.admit(ask).await,
            Call::BeginServe { n, age } => {
                let Some((generation, hold)) = self.take(n, age) else { return };
                let done = self.ledger.begin_serve(&hold, self.time()).await;
                let expected = self.model.begin_serve(hold.id(), generation);
                assert_eq!(done.map_err(|it| no(&it)), expected);
                self.put(n, generation, hold);
            }
            Call::Meter { n, age, upto } => {
                let Some((generation, hold)) = self.take(n, age) else { return };
                let done = self.ledger.meter(&hold, units(upto), self.time()).await;
                let expected = self.model.meter(hold.id(), generation, units(upto));
                assert_eq!(done.map_err(|it| no(&it)), expected);
                self.put(n, generation, hold);
            }
            Call::Capture { n, age, charge, mark } => self.capture(n, age, charge, mark).await,
            Call::Release { n, age, why } => {
                let Some((generation, hold)) = self.take(n, age) else { return };
                let done = self.ledger.release(&hold, why, self.time()).await;
                let expected = self.model.release(hold.id(), generation, why);
                assert_eq!(done.map_err(|it| no(&it)), expected);
                self.put(n, generation, hold);
            }
            Call::Withdraw { n, age, why } => {
                let Some((generation, hold)) = self.take(n, age) else { return };
                let done = self.ledger.withdraw(&hold, why, self.time()).await;
                let expected = self.model.withdraw(hold.id(), generation, why);
                assert_eq!(done.map_err(|it| no(&it)), expected);
                self.put(n, generation, hold);
            }
            Call::Mark { n, mark } => {
                let done = self.ledger.mark_answer(self.id(n), mark, self.time()).await;
                let expected = self.model.mark(self.id(n), mark);
                assert_eq!(done.map_err(|it| no(&it)), expected);
            }
            Call::Owe { n } => {
                let done = self.ledger.owe_refund(self.id(n), "why", self.time()).await;
                assert_eq!(done.map_err(|it| no(&it)), self.model.owe(self.id(n), "why"));
            }
            Call::Lease { only } => self.lease(only).await,
            Call::Resolve { n, how } => self.resolve(n, how).await,
            Call::NextDue => {
                assert_eq!(self.ledger.next_due().await.unwrap(), self.model.next_due());
            }
            Call::Recover => {
                let done = self.ledger.recover(self.time()).await.unwrap();
                assert_eq!(done, self.model.recover(self.time()));
            }
        }
    }

    /// A hold that was given; it stays here in the meantime, so that it can be used when stale.
    fn take(&mut self, n: u64, age: usize) -> Option<(u64, Hold)> {
        let holds = self.holds.get_mut(&n)?;
        let newest = holds.len().checked_sub(1)?;
        Some(holds.remove(newest.saturating_sub(age)))
    }

    fn put(&mut self, n: u64, generation: u64, hold: Hold) {
        let holds = self.holds.entry(n).or_default();
        holds.push((generation, hold));
        holds.sort_by_key(|it| it.0);
    }

    async fn admit(&mut self, Ask { n, other_request, settle, exposure, keys }: Ask) {
        let mut terms = terms(self.first + n, settle);
        // The payer is part of the fingerprint; two payers share the payments of a history.
        terms.payer = format!("0x{:040x}", self.first + n % 2);
        terms.payload = format!("{{\"at\":{}}}", self.now);
        if other_request {
            terms.fingerprint = Digest::of(b"another request");
        }
        let mut ask = ask(&terms, self.time());
        ask.exposure_limit = exposure.map(units);
        // The third payment's request is that of the first.
        let request = Digest::of(&[u8::from(other_request || n == 1)]);
        let name = |key: u8| Digest::of(format!("{} {key}", terms.payer).as_bytes());
        ask.keys = keys.into_iter().map(|it| RequestKey { name: name(it), request }).collect();
        let expected = self.model.admit(&ask);
        match self.ledger.admit(ask).await.unwrap() {
            Admitted::New(hold) => self.put(n, expected.unwrap(), hold),
            Admitted::Refused(Refusal::InProgress) => assert_eq!(expected, Err(No::InProgress)),
            Admitted::Refused(Refusal::AlreadyUsed { same_request, .. }) => {
                assert_eq!(expected, Err(No::Used { same_request }));
            }
            Admitted::Refused(Refusal::KeyUsed { same_request, payment }) => {
                assert_eq!(expected, Err(No::KeyUsed { same_request, by: payment.terms.id }));
            }
            Admitted::Refused(Refusal::ExposureExceeded { .. }) => {
                assert_eq!(expected, Err(No::Exposed));
            }
        }
    }

    async fn capture(&mut self, n: u64, age: usize, charge: u128, mark: AnswerMark) {
        let Some((generation, hold)) = self.take(n, age) else { return };
        let (id, charge) = (hold.id(), units(charge));
        let expected = self.model.capture(id, generation, (charge, mark), self.time());
        match self.ledger.capture(hold, charge, mark, self.time()).await {
            Ok(captured) => {
                assert_eq!(expected, Ok(()));
                assert_eq!((captured.id(), captured.charge()), (id, charge));
            }
            Err(failed) => {
                assert_eq!(expected, Err(no(&failed.source)));
                self.put(n, generation, failed.hold);
            }
        }
    }

    async fn lease(&mut self, only: Option<u64>) {
        let only = only.map(|n| self.id(n));
        let mut jobs = self.ledger.lease_jobs(only, 100, self.time()).await.unwrap();
        jobs.sort_by_key(|job| job.terms.id);
        for job in &jobs {
            assert_eq!(
                Some(&job.terms),
                self.model.payments.get(&job.terms.id).map(|it| &it.terms)
            );
        }
        let jobs: Vec<_> = jobs.into_iter().map(handed).collect();
        assert_eq!(jobs, self.model.lease(only, self.time()));
    }

    async fn resolve(&mut self, n: u64, how: Outcome) {
        let how = match how {
            Outcome::Settled => Resolution::Settled { transaction: "0xaa".to_owned() },
            Outcome::Rejected => Resolution::Rejected { reason: "expired".to_owned() },
            Outcome::NotSent { later } => Resolution::NotSent { retry_at: at(self.now + later) },
            Outcome::Unknown { named, later } => Resolution::Unknown {
                transaction: named.then(|| format!("0x{}", self.now)),
                retry_at: at(self.now + later),
            },
        };
        let id = self.id(n);
        let done = self.ledger.resolve_job(id, how.clone(), self.time()).await;
        assert_eq!(done.map_err(|it| no(&it)), self.model.resolve(id, &how));
    }

    /// Every row is what the model has.
    async fn compare(&self) {
        for n in 0..PAYMENTS {
            let stored = self.ledger.lookup(self.id(n)).await.unwrap();
            let stored = stored.map(|it| (it.terms, it.state, it.answer, it.refund_owed));
            let known = self.model.payments.get(&self.id(n)).cloned();
            let known = known.map(|it| (it.terms, it.state, it.answer, it.refund_owed));
            assert_eq!(stored, known);
        }
    }

    /// Closes what an earlier history left open, so that this one has the queue to itself.
    async fn tidy(&self) {
        let _recovered = self.ledger.recover(at(self.now)).await.unwrap();
        for job in self.ledger.lease_jobs(None, 100, at(u64::MAX)).await.unwrap() {
            let settled = Resolution::Settled { transaction: "0xend".to_owned() };
            drop(self.ledger.resolve_job(job.terms.id, settled, at(self.now)).await.unwrap());
        }
    }
}

fn handed(job: Job) -> Handed {
    Handed {
        id: job.terms.id,
        charge: job.charge,
        attempts: job.attempts,
        may_have_been_sent: job.may_have_been_sent,
        transaction: job.transaction,
        answer: job.answer,
    }
}

/// Histories on one ledger, each as the model says.
fn run<L: Ledger>(runtime: &Runtime, ledger: &L) {
    let config = Config { cases: HISTORIES, failure_persistence: None, ..Config::default() };
    let number = Cell::new(0);
    let transitions = Cell::new(0);
    let calls = prop::collection::vec(call(), 1..60);
    let result = TestRunner::new(config).run(&calls, |calls| {
        number.set(number.get() + 1);
        transitions.set(transitions.get() + calls.len());
        runtime.block_on(async {
            let first = number.get() * 1_000;
            let (model, holds) = (Model::default(), BTreeMap::new());
            let mut history = History { ledger, model, first, now: 10_000, holds };
            history.tidy().await;
            for call in calls {
                history.step(call).await;
            }
            history.compare().await;
        });
        Ok(())
    });
    result.unwrap();
    assert!(TRANSITIONS <= transitions.get(), "{} transitions", transitions.get());
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Random histories; afterwards the engine's own audit finds nothing.
pub(crate) fn histories<E: Engine>() {
    let runtime = runtime();
    let (ledger, _keeper) = runtime.block_on(E::start());
    run(&runtime, &ledger);
    let report = runtime.block_on(E::check(&ledger));
    assert!(report.is_sound(), "{:?}", report.problems);
    println!("{} payments, {} journal entries", report.payments, report.entries);
}

/// The same where every fourth answer is `Unknown` and the callers are not content with that.
pub(crate) fn doubtful_histories<E: Engine>() {
    let runtime = runtime();
    let (ledger, _keeper) = runtime.block_on(E::start());
    let callers = Resolute::new(Unsure::new(ledger, 7, 4));
    run(&runtime, &callers);
    let unsure = callers.inner();
    assert!(u64::from(HISTORIES) < unsure.doubts(), "{} doubts", unsure.doubts());
    let report = runtime.block_on(E::check(unsure.inner()));
    assert!(report.is_sound(), "{:?}", report.problems);
}
