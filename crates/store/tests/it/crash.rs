//! kill -9 under load: whatever was acknowledged is there afterwards.
//!
//! The test runs this very binary again as a child that works on a ledger as hard as it can and
//! prints a line for each answer it gets. It is killed at a random moment (sometimes while it opens
//! or recovers the file), the file is recovered and audited here, and every printed line must be
//! true of it.
//!
//! What this cannot show: a killed process loses nothing that it has handed to the kernel, so a
//! ledger that never forces its log to the disk would pass as well. That needs cut power. Here, the
//! settings that force it are checked instead (`open`), and that a lost line is noticed is checked
//! by the control below.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId};
use farebox_store::{
    Admitted, AnswerMark, Hold, Ledger, Recovered, Resolution, SettleMode, SqliteLedger,
    SqliteOptions, StoredPayment,
};

use crate::support::{Place, ask, at, payment_id, terms, units};

/// Tells the child which file to work on.
const FILE: &str = "FAREBOX_CRASH_FILE";
/// Tells the child which number to begin with.
const FIRST: &str = "FAREBOX_CRASH_FIRST";
const FILES: u64 = 4;
const KILLS_PER_FILE: u64 = 10;
const WORKERS: u64 = 8;
/// Payments of one worker in one life of the child, more than it can make.
const EACH: u64 = 100_000;

/// The child's whole life. Without its environment it is not a child, and has nothing to do.
#[test]
fn child() {
    let (Some(file), Some(first)) = (std::env::var_os(FILE), std::env::var_os(FIRST)) else {
        return;
    };
    let first: u64 = first.to_str().unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async move {
        let ledger = Arc::new(SqliteLedger::open(file, SqliteOptions::default()).unwrap());
        let _recovered = ledger.recover(at(1_000)).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..WORKERS {
            tasks.spawn(work(Arc::clone(&ledger), first + worker * EACH));
        }
        tasks.spawn(settle(Arc::clone(&ledger)));
        tasks.join_all().await;
    });
}

/// One payment after the other, in all the ways that end.
async fn work(ledger: Arc<SqliteLedger>, first: u64) {
    for number in first..first + EACH {
        let settle = if number % 5 == 0 { SettleMode::Before } else { SettleMode::After };
        let asked = ledger.admit(ask(&terms(number, settle), at(2_000))).await.unwrap();
        let Admitted::New(hold) = asked else { panic!("{number} was taken") };
        println!("ack: held {number}");
        if number % 7 == 0 {
            ledger.release(&hold, Release::UpstreamFailed, at(2_001)).await.unwrap();
            println!("ack: released {number}");
        } else if settle == SettleMode::Before {
            capture(&ledger, hold, number, AnswerMark::Withheld).await;
        } else {
            ledger.begin_serve(&hold, at(2_002)).await.unwrap();
            println!("ack: serving {number}");
            for upto in [10, 20, 30] {
                ledger.meter(&hold, units(upto), at(2_003)).await.unwrap();
                println!("ack: metered {number} {upto}");
            }
            capture(&ledger, hold, number, AnswerMark::Leaving).await;
        }
    }
}

async fn capture(ledger: &SqliteLedger, hold: Hold, number: u64, mark: AnswerMark) {
    drop(ledger.capture(hold, units(60), mark, at(2_004)).await.unwrap());
    println!("ack: captured {number} 60");
}

async fn settle(ledger: Arc<SqliteLedger>) {
    loop {
        for job in ledger.lease_jobs(None, 16, at(3_000)).await.unwrap() {
            let id = job.terms.id;
            println!("ack: leased {id}");
            let how = Resolution::Settled { transaction: format!("0x{id}") };
            drop(ledger.resolve_job(id, how, at(3_001)).await.unwrap());
            println!("ack: settled {id}");
            ledger.mark_answer(id, AnswerMark::Sent, at(3_002)).await.unwrap();
            println!("ack: sent {id}");
        }
        tokio::task::yield_now().await;
    }
}

fn start(file: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--test-threads", "1"])
        .env(FILE, file)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a child live for so long, kills it, and gives what it said.
fn live_and_die(file: &Path, first: u64, life: Duration) -> Vec<String> {
    let mut child = start(file, first);
    let output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        lines.collect::<Vec<_>>()
    });
    std::thread::sleep(life);
    let ended = child.try_wait().unwrap();
    assert!(ended.is_none(), "the child ended by itself: {ended:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// What is not true of the ledger after all of what was said.
fn lost(said: &[String], stored: &BTreeMap<PaymentId, StoredPayment>) -> Vec<String> {
    let is_lost = |line: &&String| {
        !claim(line).is_none_or(|(id, claim)| stored.get(&id).is_some_and(|it| is_true(&claim, it)))
    };
    said.iter().filter(is_lost).cloned().collect()
}

/// One line of the child; `None` for what the test harness says itself, which may stand before it.
fn claim(line: &str) -> Option<(PaymentId, Vec<String>)> {
    let (_, line) = line.split_once("ack: ")?;
    let mut words = line.split(' ').map(ToOwned::to_owned);
    let verb = words.next()?;
    let name = words.next()?;
    let id = match name.parse::<u64>() {
        Ok(number) => payment_id(number),
        Err(_) => name.parse().ok()?,
    };
    Some((id, std::iter::once(verb).chain(words).collect()))
}

fn charge(state: &Payment) -> Option<Amount> {
    match state {
        Payment::Captured { charge }
        | Payment::Unknown { charge, .. }
        | Payment::Settling { charge }
        | Payment::Settled { charge, .. } => Some(*charge),
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Released { .. }
        | Payment::Lost { .. } => None,
    }
}

/// Whether a claim holds after recovery.
fn is_true(claim: &[String], it: &StoredPayment) -> bool {
    let withheld = it.answer == AnswerMark::Withheld;
    let crashed = it.state == (Payment::Released { why: Release::Crashed });
    let verb = claim.first().map(String::as_str);
    let amount = claim.get(1).map(|it| units(it.parse().unwrap()));
    match verb {
        // Nothing is left in the middle of its life.
        Some("held" | "serving") => {
            !matches!(it.state, Payment::Held { .. } | Payment::Serving { .. })
        }
        Some("released") => it.state == (Payment::Released { why: Release::UpstreamFailed }),
        // A checkpoint is charged, at least.
        Some("metered") => amount <= charge(&it.state),
        // Nothing had left and nothing was sent: then it may be given back.
        Some("captured") => charge(&it.state) == amount || (withheld && crashed),
        Some("leased") => {
            matches!(it.state, Payment::Unknown { .. } | Payment::Settled { .. })
        }
        Some("settled") => matches!(it.state, Payment::Settled { .. }),
        Some("sent") => it.answer == AnswerMark::Sent && it.refund_owed.is_none(),
        _ => false,
    }
}

async fn audit(place: &Place, said: &[String]) {
    let ledger = place.open();
    let _recovered = ledger.recover(at(5_000)).await.unwrap();
    assert_eq!(ledger.recover(at(5_001)).await.unwrap(), Recovered::default());
    let report = ledger.check().await.unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    let stored = ledger.list(None, usize::MAX).await.unwrap();
    let stored: BTreeMap<_, _> = stored.into_iter().map(|it| (it.terms.id, it)).collect();
    let lost = lost(said, &stored);
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), said.len());
    ledger.close().await.unwrap();
}

#[test]
fn a31_kill_9_loses_nothing_that_was_acknowledged() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut kills, mut said, mut early) = (0, 0, 0);
    // Moments from the first milliseconds, when the file is opened, to far into the work.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..FILES {
        let place = Place::new();
        let mut all = Vec::new();
        for life in 0..KILLS_PER_FILE {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let millis = (random >> 33) % 300;
            let first = (life + 1) * WORKERS * EACH;
            let lines = live_and_die(&place.file(), first, Duration::from_millis(millis));
            let claims: Vec<_> = lines.into_iter().filter(|it| claim(it).is_some()).collect();
            kills += 1;
            early += u32::from(claims.is_empty());
            said += claims.len();
            all.extend(claims);
            runtime.block_on(audit(&place, &all));
        }
    }
    assert!(said > 1_000, "only {said} acknowledgements: the child did not work");
    println!(
        "{kills} kills ({early} before the first answer), {said} acknowledgements, 0 lost: \
         at 95 % confidence a kill loses something with p < 3/{kills}"
    );
}

/// The first moments of a file are the ones in which it is made.
#[test]
fn kill_9_while_the_file_is_made_leaves_one_that_opens() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for millis in 0..24 {
        let place = Place::new();
        let said = live_and_die(&place.file(), 1, Duration::from_millis(millis));
        runtime.block_on(audit(&place, &said));
    }
}

/// The control: if a line were not true, it would be noticed.
#[tokio::test]
async fn a_lost_acknowledgement_is_noticed() {
    let place = Place::new();
    let ledger = place.open();
    let (kept, other) = (payment_id(1), payment_id(2));
    for number in [1, 2] {
        let asked = ledger.admit(ask(&terms(number, SettleMode::After), at(2_000))).await.unwrap();
        drop(asked);
    }
    let _recovered = ledger.recover(at(5_000)).await.unwrap();
    let stored = ledger.list(None, 10).await.unwrap();
    let stored: BTreeMap<_, _> = stored.into_iter().map(|it| (it.terms.id, it)).collect();
    let said =
        ["ack: held 1", "test child ... ack: held 2", "running 1 test", ""].map(ToOwned::to_owned);
    assert_eq!(lost(&said, &stored), Vec::<String>::new());
    let untrue = [
        "ack: held 3".to_owned(),
        "ack: released 1".to_owned(),
        "ack: metered 1 10".to_owned(),
        format!("ack: leased {kept}"),
        format!("ack: settled {other}"),
        format!("ack: sent {kept}"),
    ];
    let found: BTreeSet<_> = lost(&untrue, &stored).into_iter().collect();
    assert_eq!(found, BTreeSet::from(untrue));
}
