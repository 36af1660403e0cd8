//! Several gateways on one database.

use std::collections::BTreeSet;
use std::time::Duration;

use farebox_billing::{Payment, Release};
use farebox_protocol::{Digest, Network};
use farebox_store::{
    Admitted, AnswerMark, Claim, KeptTransaction, Ledger, PostgresLedger, PostgresOpenError,
    PostgresOptions, Refusal, RequestKey, Resolution, SettleMode, StoreError, TransactionFate,
    Transactions,
};
use futures_util::future::join_all;

use super::{DATABASE, World, assert_sound};
use crate::support::{ask, at, hold, payment_id, serving, terms, units};

async fn state(ledger: &PostgresLedger, number: u64) -> Option<Payment> {
    ledger.lookup(payment_id(number)).await.unwrap().map(|it| it.state)
}

#[tokio::test]
async fn a_payment_is_taken_once_whoever_asks() {
    let world = World::new().await;
    let nodes = [world.open("a").await, world.open("b").await, world.open("c").await];
    let numbers: Vec<u64> = (0..100).collect();
    let asked = numbers.iter().flat_map(|it| nodes.iter().map(move |node| (node, *it)));
    let answers = join_all(asked.map(async |(node, number)| {
        let admitted = node.admit(ask(&terms(number, SettleMode::After), at(1_000))).await;
        match admitted.unwrap() {
            Admitted::New(hold) => {
                node.begin_serve(&hold, at(1_001)).await.unwrap();
                Some(number)
            }
            Admitted::Refused(Refusal::InProgress) => None,
            Admitted::Refused(refusal) => panic!("{refusal:?}"),
        }
    }));
    let mut served: Vec<u64> = answers.await.into_iter().flatten().collect();
    served.sort_unstable();
    assert_eq!(served, numbers);
    assert_sound(&nodes[0]).await;
}

#[tokio::test]
async fn a_payer_has_one_exposure_on_all_nodes() {
    let world = World::new().await;
    let nodes = [world.open("a").await, world.open("b").await];
    let answers = join_all((0..120_u64).map(async |number| {
        let mut ask = ask(&terms(number, SettleMode::After), at(1_000));
        ask.exposure_limit = Some(units(3_050));
        let node = usize::from(number.is_multiple_of(2));
        match nodes[node].admit(ask).await.unwrap() {
            Admitted::New(_) => true,
            Admitted::Refused(Refusal::ExposureExceeded { open, limit }) => {
                assert_eq!((open, limit), (units(3_000), units(3_050)));
                false
            }
            Admitted::Refused(refusal) => panic!("{refusal:?}"),
        }
    }));
    let admitted = answers.await.into_iter().filter(|it| *it).count();
    assert_eq!(admitted, 30, "of a limit of 100 each");
    assert_sound(&nodes[1]).await;
}

#[tokio::test]
async fn a_request_key_belongs_to_one_payment_on_all_nodes() {
    let world = World::new().await;
    let nodes = [world.open("a").await, world.open("b").await];
    let answers = join_all((0..80).map(async |number: u64| {
        let mut ask = ask(&terms(number, SettleMode::After), at(1_000));
        // Two payments for each key, one on each node.
        let name = Digest::of(&(number / 2).to_be_bytes());
        ask.keys.push(RequestKey { name, request: Digest::of(b"request") });
        let node = usize::from(number.is_multiple_of(2));
        match nodes[node].admit(ask).await.unwrap() {
            Admitted::New(_) => Some(number / 2),
            Admitted::Refused(Refusal::KeyUsed { same_request: true, payment }) => {
                assert_eq!(payment.terms.id, payment_id(number ^ 1));
                None
            }
            Admitted::Refused(refusal) => panic!("{refusal:?}"),
        }
    }));
    let mut named: Vec<u64> = answers.await.into_iter().flatten().collect();
    named.sort_unstable();
    assert_eq!(named, (0..40).collect::<Vec<u64>>());
    assert_sound(&nodes[0]).await;
}

#[tokio::test]
async fn a_settlement_is_leased_once_whoever_asks() {
    let world = World::new().await;
    let nodes = [world.open("a").await, world.open("b").await];
    join_all((0..100).map(async |number| {
        let hold = serving(&*nodes[0], number, SettleMode::Background).await;
        drop(nodes[0].capture(hold, units(7), AnswerMark::Sent, at(2_000)).await.unwrap());
    }))
    .await;
    let leases = join_all((0..40_u64).map(async |number| {
        let node = &nodes[usize::from(number.is_multiple_of(2))];
        let jobs = node.lease_jobs(None, 5, at(2_001)).await.unwrap();
        for job in &jobs {
            let resolution = Resolution::Settled { transaction: "0x1".to_owned() };
            drop(node.resolve_job(job.terms.id, resolution, at(2_002)).await.unwrap());
        }
        jobs
    }));
    let leased: Vec<_> = leases.await.into_iter().flatten().map(|it| it.terms.id).collect();
    let distinct: BTreeSet<_> = leased.iter().collect();
    assert_eq!((leased.len(), distinct.len()), (100, 100));
    assert_eq!(nodes[0].next_due().await.unwrap(), None);
    assert_sound(&nodes[1]).await;
}

#[tokio::test]
async fn what_a_request_waits_with_is_settled_by_its_own_node() {
    let world = World::new().await;
    let (a, b) = (world.open("a").await, world.open("b").await);
    let hold = serving(&*a, 1, SettleMode::After).await;
    drop(a.capture(hold, units(7), AnswerMark::Withheld, at(2_000)).await.unwrap());
    assert_eq!(b.next_due().await.unwrap(), None);
    assert_eq!(b.lease_jobs(None, 9, at(2_001)).await.unwrap().len(), 0);
    assert_eq!(a.next_due().await.unwrap(), Some(at(2_000)));
    assert_eq!(a.lease_jobs(None, 9, at(2_001)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_recovers_what_it_left_and_nothing_else() {
    let world = World::new().await;
    let (a, b) = (world.open("a").await, world.open("b").await);
    let of_a = serving(&*a, 1, SettleMode::After).await;
    let of_b = serving(&*b, 2, SettleMode::After).await;
    // Captured on `a`, leased by `b`: now it is the business of `b`.
    let leased = serving(&*a, 3, SettleMode::Background).await;
    drop(a.capture(leased, units(7), AnswerMark::Sent, at(2_000)).await.unwrap());
    assert_eq!(b.lease_jobs(None, 9, at(2_001)).await.unwrap().len(), 1);
    drop(a);
    let a = world.open("a").await;
    let recovered = a.recover(at(3_000)).await.unwrap();
    assert_eq!((recovered.released, recovered.to_reconcile), (1, 0));
    assert_eq!(state(&a, 1).await, Some(Payment::Released { why: Release::Crashed }));
    assert_eq!(state(&a, 3).await, Some(Payment::Settling { charge: units(7) }));
    assert_eq!(a.recover(at(3_001)).await.unwrap().released, 0);
    b.release(&of_b, Release::UpstreamFailed, at(3_002)).await.unwrap();
    drop(b);
    let b = world.open("b").await;
    assert_eq!(b.recover(at(3_003)).await.unwrap().to_reconcile, 1);
    let late = a.capture(of_a, units(1), AnswerMark::Sent, at(3_004)).await.unwrap_err();
    assert!(matches!(late.source, StoreError::Fenced(_)), "{late:?}");
    assert_sound(&b).await;
}

#[tokio::test]
async fn a_node_whose_name_was_taken_over_writes_nothing_more() {
    let world = World::new().await;
    let old = world.open("a").await;
    let held = hold(&*old, 1, SettleMode::After).await;
    let served = serving(&*old, 2, SettleMode::After).await;
    let options = PostgresOptions { claim: Claim::TakeOver, ..world.options("a") };
    let new = PostgresLedger::open(options).await.unwrap();
    let late = old.capture(served, units(1), AnswerMark::Sent, at(2_000)).await.unwrap_err();
    assert!(matches!(late.source, StoreError::Fenced(id) if id == payment_id(2)), "{late:?}");
    tokio::time::timeout(Duration::from_secs(10), old.failed()).await.unwrap();
    for late in [
        old.begin_serve(&held, at(2_001)).await.unwrap_err(),
        old.lease_jobs(None, 9, at(2_001)).await.unwrap_err(),
        old.lookup(payment_id(1)).await.unwrap_err(),
    ] {
        assert!(matches!(late, StoreError::Unavailable(_)), "{late:?}");
    }
    assert_eq!(new.recover(at(2_002)).await.unwrap().released, 2);
    drop(hold(&new, 3, SettleMode::After).await);
    assert_sound(&new).await;
}

#[tokio::test]
async fn the_name_of_a_living_node_is_not_taken_by_mistake() {
    let world = World::new().await;
    let first = world.open("a").await;
    let options = PostgresOptions { claim: Claim::WaitFor(Duration::ZERO), ..world.options("a") };
    let error = PostgresLedger::open(options).await.unwrap_err();
    assert!(matches!(&error, PostgresOpenError::InUse { node, by: Some(_) } if node == "a"));
    assert!(error.to_string().contains("server process"), "{error}");
    drop(hold(&*first, 1, SettleMode::After).await);
    first.close().await.unwrap();
    let second = world.open("a").await;
    assert_eq!(second.recover(at(2_000)).await.unwrap().released, 1);
}

#[tokio::test]
async fn a_node_keeps_its_own_signed_transactions() {
    let world = World::new().await;
    let (a, b) = (world.open("a").await, world.open("b").await);
    let network = Network::eip155(84_532);
    let kept = |number: u8, nonce| KeptTransaction {
        network: network.clone(),
        sender: [7; 20],
        nonce,
        hash: [number; 32],
        raw: vec![number; 300],
        payments: (0..u64::from(number)).map(payment_id).collect(),
        depth: 10,
    };
    let all = [kept(0, 4), kept(3, 4), kept(1, 5)];
    for it in &all {
        a.record(it.clone()).await.unwrap();
        a.record(it.clone()).await.unwrap();
    }
    b.record(kept(9, 1)).await.unwrap();
    drop(a);
    let a = world.open("a").await;
    assert_eq!(Transactions::open(&*a, &network).await.unwrap(), all);
    assert_eq!(Transactions::open(&*b, &network).await.unwrap(), [kept(9, 1)]);
    assert_eq!(Transactions::open(&*a, &Network::eip155(1)).await.unwrap(), []);
    let fates = [TransactionFate::Superseded, TransactionFate::Mined, TransactionFate::NotSent];
    let ended = [(all[0].hash, fates[0]), (all[1].hash, fates[1]), ([0xee; 32], fates[2])];
    a.end(ended.to_vec()).await.unwrap();
    // The first word stands, and what has ended is not recorded anew.
    a.end(vec![(all[0].hash, fates[2])]).await.unwrap();
    a.record(all[0].clone()).await.unwrap();
    assert_eq!(Transactions::open(&*a, &network).await.unwrap(), all[2..]);
    let superseded = "SELECT count(*) FROM transactions WHERE ended = 'superseded' AND raw IS NULL";
    assert_eq!(world.number(superseded).await, 1);
    for sql in [
        "DELETE FROM transactions",
        "UPDATE transactions SET nonce = 6",
        "UPDATE transactions SET raw = '\\x00' WHERE raw IS NOT NULL",
        "UPDATE transactions SET raw = NULL",
        "UPDATE transactions SET ended = 'mined' WHERE ended IS NULL",
    ] {
        assert!(world.server.execute(DATABASE, sql).await.is_err(), "{sql}");
    }
    // What is fenced keeps nothing, and so sends nothing.
    let options = PostgresOptions { claim: Claim::TakeOver, ..world.options("a") };
    let _new = PostgresLedger::open(options).await.unwrap();
    assert!(matches!(a.record(kept(5, 6)).await, Err(StoreError::Unavailable(_))));
}
