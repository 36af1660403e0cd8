//! What the memory engine alone has to show: its weather, and what of a crash it keeps.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use farebox_billing::{Payment, Release};
use farebox_protocol::PaymentId;
use farebox_store::{
    AnswerMark, Fair, Ledger, MemoryDisk, MemoryLedger, Mishap, Operation, Recovered, SettleMode,
    StoreError, Weather,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::{ask, at, granted, hold, payment_id, serving, terms, units};

/// What befalls one kind of operation, time after time; nothing befalls the others.
#[derive(Debug)]
struct Script {
    operation: Operation,
    mishaps: Mutex<VecDeque<Mishap>>,
    /// Callers of it hear nothing until there is a permit.
    answers: Semaphore,
}

impl Script {
    fn new(operation: Operation, mishaps: &[Mishap]) -> Arc<Self> {
        let mishaps = Mutex::new(mishaps.iter().copied().collect());
        Arc::new(Self { operation, mishaps, answers: Semaphore::new(Semaphore::MAX_PERMITS) })
    }
}

#[async_trait]
impl Weather for Script {
    async fn before(&self, operation: Operation, _payment: Option<PaymentId>) -> Mishap {
        if operation != self.operation {
            return Mishap::None;
        }
        self.mishaps.lock().unwrap().pop_front().unwrap_or(Mishap::None)
    }

    async fn after(&self, operation: Operation, _payment: Option<PaymentId>) {
        if operation == self.operation {
            drop(self.answers.acquire().await.unwrap());
        }
    }
}

async fn state(ledger: &MemoryLedger, number: u64) -> Option<Payment> {
    ledger.lookup(payment_id(number)).await.unwrap().map(|it| it.state)
}

const GIVEN_BACK: Payment = Payment::Released { why: Release::NothingOwed };

#[tokio::test]
async fn it_fails_as_it_is_told() {
    use Mishap::{Unavailable, UnknownAfter, UnknownBefore};
    let mishaps = [Unavailable, UnknownBefore, UnknownAfter];
    let disk = MemoryDisk::default();
    let ledger = MemoryLedger::open(&disk, Script::new(Operation::Admit, &mishaps));
    let ask = || ask(&terms(1, SettleMode::After), at(1_000));
    assert!(matches!(ledger.admit(ask()).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(ledger.admit(ask()).await, Err(StoreError::Unknown(_))));
    assert_eq!(state(&ledger, 1).await, None);
    assert!(matches!(ledger.admit(ask()).await, Err(StoreError::Unknown(_))));
    assert_eq!(state(&ledger, 1).await, Some(Payment::Held { limit: units(100) }));
    // Nobody has the evidence: the next operation takes it back first.
    let held = granted(ledger.admit(ask()).await.unwrap());
    ledger.begin_serve(&held, at(1_001)).await.unwrap();
    assert!(ledger.check().unwrap().is_sound());
}

async fn ask_for(operation: Operation, ledger: Arc<MemoryLedger>) {
    if operation == Operation::Admit {
        drop(hold(&*ledger, 1, SettleMode::After).await);
    } else {
        drop(ledger.lease_jobs(None, 9, at(2_000)).await.unwrap());
    }
}

#[tokio::test]
async fn what_nobody_heard_of_is_taken_back() {
    for operation in [Operation::Admit, Operation::LeaseJobs] {
        let script = Script::new(operation, &[]);
        let weather = Arc::<Script>::clone(&script);
        let ledger = Arc::new(MemoryLedger::open(&MemoryDisk::default(), weather));
        let serving = serving(&*ledger, 2, SettleMode::After).await;
        drop(ledger.capture(serving, units(100), AnswerMark::Sent, at(2_000)).await.unwrap());
        let permits = script.answers.available_permits();
        script.answers.forget_permits(permits);
        let mut asked = JoinSet::new();
        asked.spawn(ask_for(operation, Arc::clone(&ledger)));
        tokio::task::yield_now().await;
        asked.shutdown().await;
        let number = if operation == Operation::Admit { 1 } else { 2 };
        let done = state(&ledger, number).await.unwrap();
        assert!(matches!(done, Payment::Held { .. } | Payment::Settling { .. }), "{done:?}");
        let id = payment_id(2);
        ledger.mark_answer(id, AnswerMark::Sent, at(2_001)).await.unwrap();
        let captured = Payment::Captured { charge: units(100) };
        let expected = if operation == Operation::Admit { GIVEN_BACK } else { captured };
        assert_eq!(state(&ledger, number).await, Some(expected));
        assert!(ledger.check().unwrap().is_sound());
    }
}

#[tokio::test]
async fn a_crash_fences_the_process_and_keeps_what_was_flushed() {
    let disk = MemoryDisk::default();
    let first = MemoryLedger::open(&disk, Arc::new(Fair));
    let held = hold(&first, 1, SettleMode::After).await;
    let second = MemoryLedger::open(&disk, Arc::new(Fair));
    let late = first.begin_serve(&held, at(1_001)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))));
    assert_eq!(state(&second, 1).await, Some(Payment::Held { limit: units(100) }));
    let recovered = second.recover(at(2_000)).await.unwrap();
    assert_eq!(recovered, Recovered { released: 1, ..Recovered::default() });
    assert!(disk.check().unwrap().is_sound());
}

#[tokio::test]
async fn a_disk_that_lies_forgets_what_it_told() {
    let disk = MemoryDisk::default();
    let lies = [Mishap::None, Mishap::Unflushed, Mishap::Unflushed];
    let ledger = MemoryLedger::open(&disk, Script::new(Operation::Admit, &lies));
    for number in 1..=3 {
        drop(hold(&ledger, number, SettleMode::After).await);
    }
    assert_eq!(ledger.list(None, 9).await.unwrap().len(), 3);
    let ledger = MemoryLedger::open(&disk, Script::new(Operation::Admit, &[Mishap::Unflushed]));
    assert_eq!(ledger.list(None, 9).await.unwrap().len(), 1);
    // The next honest write takes everything before it along.
    let held = hold(&ledger, 2, SettleMode::After).await;
    ledger.begin_serve(&held, at(1_001)).await.unwrap();
    disk.cut();
    let ledger = MemoryLedger::open(&disk, Arc::new(Fair));
    assert_eq!(ledger.list(None, 9).await.unwrap().len(), 2);
    assert!(disk.check().unwrap().is_sound());
}
