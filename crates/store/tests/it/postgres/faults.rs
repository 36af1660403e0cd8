//! Connections that break, servers that crash, commits whose answer never comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use farebox_billing::Payment;
use farebox_store::{
    Admitted, AnswerMark, Ledger, PostgresLedger, PostgresOptions, Refusal, SettleMode, StoreError,
};
use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::{World, assert_sound};
use crate::support::{ask, at, hold, payment_id, serving, terms, units};

/// The connections that write, in the middle of something or not.
const WRITERS: &str = "FROM pg_stat_activity WHERE application_name LIKE 'farebox %'";

/// Those that wait for a standby in the middle of a COMMIT.
const COMMITTING: &str = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// Again until somebody knows. `Unknown` is followed by the same question, which the port answers the
/// same.
async fn surely<T, F>(operation: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match operation().await {
            Err(StoreError::Unknown(_) | StoreError::Unavailable(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            known => return known,
        }
    }
}

/// One payment from the hold to the capture; whether this call has served it.
async fn sell(ledger: &PostgresLedger, number: u64) -> bool {
    let ask = || ask(&terms(number, SettleMode::After), at(1_000));
    let held = loop {
        match surely(|| ledger.admit(ask())).await.unwrap() {
            Admitted::New(hold) => break hold,
            // The hold of an answer that was lost is given back by itself.
            Admitted::Refused(Refusal::InProgress) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Admitted::Refused(refusal) => panic!("{refusal:?}"),
        }
    };
    match surely(|| ledger.begin_serve(&held, at(1_001))).await {
        Ok(()) => {}
        // It had begun, and the answer was lost.
        Err(StoreError::Illegal(_)) => {
            let found = surely(|| ledger.lookup(payment_id(number))).await.unwrap().unwrap();
            assert!(matches!(found.state, Payment::Serving { .. }), "{found:?}");
        }
        Err(error) => panic!("{error:?}"),
    }
    let mut held = held;
    loop {
        match ledger.capture(held, units(40), AnswerMark::Sent, at(1_002)).await {
            Ok(captured) => return captured.charge() == units(40),
            Err(failed) => {
                let source = &failed.source;
                assert!(
                    matches!(source, StoreError::Unknown(_) | StoreError::Unavailable(_)),
                    "{source:?}"
                );
                held = failed.hold;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Two gateways sell while something goes wrong again and again; whatever was acknowledged is there.
async fn sell_while(world: &World, wrong: impl AsyncFn()) -> u64 {
    let nodes = [world.open("a").await, world.open("b").await];
    let (sold, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let clients = join_all((0..24_u64).map(async |client| {
        let node = &nodes[usize::from(client % 2 == 0)];
        let mut number = client * 10_000;
        while !stop.load(Ordering::Relaxed) {
            assert!(sell(node, number).await);
            sold.fetch_add(1, Ordering::Relaxed);
            number += 1;
        }
    }));
    let nemesis = async {
        for _ in 0..12 {
            let before = sold.load(Ordering::Relaxed);
            while sold.load(Ordering::Relaxed) < before + 15 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            wrong().await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(clients, nemesis);
    let sold = sold.into_inner();
    let captured = "SELECT count(*) FROM payments WHERE state = 'captured' AND charge = 40";
    assert_eq!(u64::try_from(world.number(captured).await), Ok(sold));
    assert_eq!(world.number("SELECT count(*) FROM payments WHERE state <> 'captured'").await, 0);
    assert_sound(&nodes[0]).await;
    sold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_lose_and_double_nothing() {
    let world = World::new().await;
    let cut = format!("SELECT count(pg_terminate_backend(pid)) {WRITERS}");
    let nemesis = async || assert!(0 < world.number(&cut).await);
    let sold = sell_while(&world, nemesis).await;
    println!("12 times all connections were cut, {sold} payments sold, 0 lost");
}

/// Sells payments from `first` on, without patience; those that were acknowledged whole.
async fn sell_until_away(
    ledger: Arc<PostgresLedger>,
    first: u64,
    acknowledged: Arc<AtomicU64>,
) -> Vec<u64> {
    let mut sold = Vec::new();
    for number in first.. {
        let terms = terms(number, SettleMode::After);
        let Ok(admitted) = ledger.admit(ask(&terms, at(1_000))).await else { break };
        let Admitted::New(hold) = admitted else { panic!("{admitted:?}") };
        let Ok(()) = ledger.begin_serve(&hold, at(1_001)).await else { break };
        let captured = ledger.capture(hold, units(40), AnswerMark::Sent, at(1_002)).await;
        let Ok(_captured) = captured else { break };
        sold.push(number);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    sold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_loses_nothing_that_it_acknowledged() {
    let mut world = World::new().await;
    for round in 0..3_u64 {
        let ledger = world.open("a").await;
        ledger.recover(at(1_000)).await.unwrap();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let clients = (0..16_u64).map(|client| {
            let first = round * 1_000_000 + client * 10_000;
            sell_until_away(Arc::clone(&ledger), first, Arc::clone(&acknowledged))
        });
        let clients: JoinSet<Vec<u64>> = clients.collect();
        while acknowledged.load(Ordering::Relaxed) < 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.server.crash();
        let sold: Vec<u64> = clients.join_all().await.into_iter().flatten().collect();
        drop(ledger);
        world.server.start_again().unwrap();
        let ledger = world.open("a").await;
        for number in &sold {
            let found = ledger.lookup(payment_id(*number)).await.unwrap().unwrap();
            assert_eq!(found.state, Payment::Captured { charge: units(40) });
        }
        ledger.recover(at(2_000)).await.unwrap();
        assert_sound(&ledger).await;
        println!("the server crashed after {} payments, 0 lost", sold.len());
    }
}

/// A world whose commits wait for a standby that is not there, and one that sets it free again.
async fn freeze(world: &World) {
    world.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    world.execute("SELECT pg_reload_conf()").await;
    world
        .until("SELECT count(*) WHERE current_setting('synchronous_standby_names') = 'nobody'")
        .await;
}

async fn thaw(world: &World) {
    world.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    world.execute("SELECT pg_reload_conf()").await;
}

fn impatient(options: PostgresOptions) -> PostgresOptions {
    PostgresOptions {
        commit_within: Duration::from_secs(2),
        resolve_within: Duration::from_millis(500),
        ..options
    }
}

/// What somebody does to a commit that waits for its standby.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Nothing,
    Cancelled,
    Terminated,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_may_not_be_on_the_standby_is_unknown_until_it_is() {
    for meanwhile in [Meanwhile::Nothing, Meanwhile::Cancelled, Meanwhile::Terminated] {
        let world = World::new().await;
        let ledger = PostgresLedger::open(impatient(world.options("a"))).await.unwrap();
        let served = serving(&ledger, 1, SettleMode::After).await;
        freeze(&world).await;
        let capture = ledger.capture(served, units(40), AnswerMark::Sent, at(2_000));
        let act = async {
            world.until(&format!("SELECT count(*) {COMMITTING}")).await;
            let done = match meanwhile {
                Meanwhile::Nothing => return,
                Meanwhile::Cancelled => "cancel",
                Meanwhile::Terminated => "terminate",
            };
            world.number(&format!("SELECT count(pg_{done}_backend(pid)) {COMMITTING}")).await;
        };
        let (failed, ()) = tokio::join!(capture, act);
        let failed = failed.unwrap_err();
        assert!(matches!(failed.source, StoreError::Unknown(_)), "{meanwhile:?}: {failed:?}");
        // Nobody may look at it as if it were durable, and nothing is served meanwhile.
        let look = tokio::time::timeout(Duration::from_secs(1), ledger.lookup(payment_id(1)));
        assert!(look.await.is_err(), "{meanwhile:?}");
        let refused = ledger.admit(ask(&terms(2, SettleMode::After), at(2_001))).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{meanwhile:?}: {refused:?}");
        thaw(&world).await;
        let found = surely(|| ledger.lookup(payment_id(1))).await.unwrap().unwrap();
        assert_eq!(found.state, Payment::Captured { charge: units(40) }, "{meanwhile:?}");
        let sent = AnswerMark::Sent;
        let again = ledger.capture(failed.hold, units(40), sent, at(2_002)).await.unwrap();
        assert_eq!(again.charge(), units(40));
        assert_sound(&ledger).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_whose_answer_was_lost_is_given_back() {
    let world = World::new().await;
    let ledger = PostgresLedger::open(impatient(world.options("a"))).await.unwrap();
    drop(hold(&ledger, 1, SettleMode::After).await);
    freeze(&world).await;
    let lost = ledger.admit(ask(&terms(2, SettleMode::After), at(1_001))).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    thaw(&world).await;
    assert!(sell(&ledger, 2).await);
    assert_sound(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_in_a_moment_is_found_again() {
    let world = World::new().await;
    let ledger = world.open("a").await;
    let served = serving(&*ledger, 1, SettleMode::After).await;
    freeze(&world).await;
    let capture = ledger.capture(served, units(40), AnswerMark::Sent, at(2_000));
    let act = async {
        world.until(&format!("SELECT count(*) {COMMITTING}")).await;
        world.number(&format!("SELECT count(pg_terminate_backend(pid)) {COMMITTING}")).await;
        thaw(&world).await;
    };
    let (captured, ()) = tokio::join!(capture, act);
    assert_eq!(captured.unwrap().charge(), units(40));
    assert_sound(&ledger).await;
}
