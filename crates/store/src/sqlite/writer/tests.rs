//! The writer when things go wrong: refused operations, failed commits, a full disk.

use std::sync::mpsc;

use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, Timestamp};
use rusqlite::ErrorCode;
use tempfile::TempDir;

use super::*;
use crate::book::holds::{self, HoldName};
use crate::book::sample::terms;
use crate::book::settlements;
use crate::book::unheard::Evidence;
use crate::port::{Admit, Admitted, AnswerMark};
use crate::sqlite::fault::Fault;
use crate::sqlite::open;
use crate::sqlite::rows::{self, Rows};

/// Enough for some hundred operations.
const BALLAST: u64 = 1 << 20;

/// A writer on a file of its own, and a notice when it lets the file go.
struct Bench {
    directory: TempDir,
    writer: Writer,
    released: mpsc::Receiver<()>,
}

/// Tells when it is dropped.
struct Notice(mpsc::Sender<()>);

impl Drop for Notice {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

impl Bench {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let opened = open::open(&directory.path().join("farebox.db")).unwrap();
        let path = opened.path.clone();
        let beside = Beside { mark: None, ballast: Ballast::of(&path, BALLAST) };
        let connect = Box::new(move || open::reconnect(&path));
        let (sender, released) = mpsc::channel();
        let guard = (opened.lock, Notice(sender));
        let batching = Batching { queue: 1024, max: 256, linger: Duration::ZERO };
        let writer =
            Writer::start((opened.connection, connect), beside, guard, batching, opened.sealer)
                .unwrap();
        Self { directory, writer, released }
    }
}

async fn admit(writer: &Writer, number: u64) -> Result<Admitted, StoreError> {
    let admit = Admit {
        terms: terms(number),
        keys: Vec::new(),
        exposure_limit: None,
        now: Timestamp::from_millis(5),
    };
    let work = move |it: &mut Rows<'_>| holds::admit(it, &admit);
    writer.call(Asked::proving(work, unheard::in_admitted)).await
}

/// An operation that works, and makes the commit of its whole batch fail.
async fn break_the_commit(writer: &Writer) -> StoreError {
    let work = |it: &mut Rows<'_>| -> Done<()> {
        // The reference is checked when the transaction ends, and then it is wrong.
        it.connection.execute_batch(
            "PRAGMA defer_foreign_keys = ON;
             INSERT INTO journal (payment, at, event) VALUES (zeroblob(32), 1, 'serve_began')",
        )?;
        Ok(())
    };
    writer.call(Asked::new(work)).await.unwrap_err()
}

async fn payments(writer: &Writer) -> u64 {
    let work = |it: &mut Rows<'_>| -> Done<u64> {
        let sql = "SELECT count(*) AS number FROM payments";
        Ok(it.connection.query_row(sql, [], |row| rows::unsigned(row, "number"))?)
    };
    writer.call(Asked::new(work)).await.unwrap()
}

/// Runs `calls` while the writer is busy with something else, so that they become one batch.
async fn in_one_batch<T>(writer: &Writer, calls: impl Future<Output = T>) -> T {
    let (begun, has_begun) = mpsc::channel();
    let (free, until) = mpsc::channel::<()>();
    let busy = move |_: &mut Rows<'_>| -> Done<()> {
        begun.send(()).ok();
        until.recv().ok();
        Ok(())
    };
    let calls = async {
        // The writer is another thread, and it was asked before.
        has_begun.recv().unwrap();
        let (answers, ()) = tokio::join!(calls, async { drop(free) });
        answers
    };
    let (busy, answers) = tokio::join!(writer.call(Asked::new(busy)), calls);
    busy.unwrap();
    answers
}

#[tokio::test]
async fn a_refused_operation_spoils_nothing_but_itself() {
    let bench = Bench::new();
    let half_done = |it: &mut Rows<'_>| -> Done<()> {
        let now = Timestamp::from_millis(5);
        drop(holds::admit(
            it,
            &Admit { terms: terms(2), keys: Vec::new(), exposure_limit: None, now },
        )?);
        it.connection.execute_batch("INSERT INTO nowhere VALUES (1)")?;
        Ok(())
    };
    let calls = async {
        tokio::join!(
            admit(&bench.writer, 1),
            bench.writer.call(Asked::new(half_done)),
            admit(&bench.writer, 3)
        )
    };
    let (first, refused, third) = in_one_batch(&bench.writer, calls).await;
    assert!(matches!(first, Ok(Admitted::New(_))));
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    assert!(matches!(third, Ok(Admitted::New(_))));
    assert_eq!(bench.writer.counts(), (4, 2), "operations and commits");
    assert_eq!(payments(&bench.writer).await, 2);
}

#[tokio::test]
async fn a_failed_commit_is_unknown_to_its_whole_batch() {
    let bench = Bench::new();
    let calls = async {
        tokio::join!(
            admit(&bench.writer, 1),
            break_the_commit(&bench.writer),
            admit(&bench.writer, 2)
        )
    };
    let (one, broken, two) = in_one_batch(&bench.writer, calls).await;
    assert!(matches!(one, Err(StoreError::Unknown(_))), "{one:?}");
    assert!(matches!(broken, StoreError::Unknown(_)));
    assert!(matches!(two, Err(StoreError::Unknown(_))));
    // On a new connection it goes on.
    assert!(matches!(admit(&bench.writer, 1).await, Ok(Admitted::New(_))));
    assert_eq!(bench.writer.standing(), Standing::Open);
}

#[tokio::test]
async fn the_third_failure_in_a_row_closes_the_ledger_for_good() {
    let bench = Bench::new();
    for _ in 0..2 {
        assert!(matches!(break_the_commit(&bench.writer).await, StoreError::Unknown(_)));
    }
    assert!(admit(&bench.writer, 1).await.is_ok(), "a good commit begins the count anew");
    for _ in 0..2 {
        assert!(matches!(break_the_commit(&bench.writer).await, StoreError::Unknown(_)));
    }
    assert_eq!(bench.writer.standing(), Standing::Open);
    assert!(bench.released.try_recv().is_err());
    assert!(matches!(break_the_commit(&bench.writer).await, StoreError::Unknown(_)));
    bench.writer.failed().await;
    assert_eq!(bench.writer.standing(), Standing::Failed);
    assert!(matches!(admit(&bench.writer, 2).await, Err(StoreError::Unavailable(_))));
    assert!(bench.writer.close().await.is_err());
    bench.released.recv().unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_again_closes_the_ledger() {
    let bench = Bench::new();
    let hidden = bench.directory.path().join("hidden.db");
    std::fs::rename(bench.directory.path().join("farebox.db"), hidden).unwrap();
    assert!(matches!(break_the_commit(&bench.writer).await, StoreError::Unknown(_)));
    for _ in 0..2 {
        let refused = admit(&bench.writer, 1).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    bench.writer.failed().await;
}

#[tokio::test]
async fn a_full_disk_refuses_and_then_goes_on() {
    let bench = Bench::new();
    let limit = |pages: i64| {
        let work = move |it: &mut Rows<'_>| -> Done<()> {
            it.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
            Ok(())
        };
        Asked::new(work)
    };
    bench.writer.call(limit(1)).await.unwrap();
    let mut refused = 0;
    for number in 0..400 {
        match admit(&bench.writer, number).await {
            Ok(admitted) => drop(admitted),
            Err(StoreError::Unavailable(error)) => {
                assert!(error.to_string().contains("full"), "{error}");
                refused += 1;
                break;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(refused, 1, "it never was full");
    for number in 1_000..1_010 {
        assert!(matches!(admit(&bench.writer, number).await, Err(StoreError::Unavailable(_))));
    }
    assert_eq!(bench.writer.standing(), Standing::Open, "without room nothing is broken");
    bench.writer.call(limit(1 << 20)).await.unwrap();
    assert!(matches!(admit(&bench.writer, 1_000).await, Ok(Admitted::New(_))));
}

/// What is held is finished in the room that the ballast gives up; what is new waits until there is
/// so much room that the ballast fits again.
#[tokio::test]
async fn i17_a_full_disk_refuses_new_payments_and_finishes_those_it_has() {
    let bench = Bench::new();
    let ballast = bench.directory.path().join("farebox.db.ballast");
    assert_eq!(std::fs::metadata(&ballast).unwrap().len(), BALLAST);
    let limit = |pages: u64| {
        let work = move |it: &mut Rows<'_>| -> Done<()> {
            let pages = i64::try_from(pages).unwrap();
            it.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
            Ok(())
        };
        Asked::new(work)
    };
    bench.writer.call(limit(1)).await.unwrap();
    let mut held = Vec::new();
    for number in 0.. {
        match admit(&bench.writer, number).await {
            Ok(Admitted::New(hold)) => held.push(HoldName::of(&hold)),
            Ok(refused) => panic!("{refused:?}"),
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                break;
            }
        }
    }
    // Not `is_full`: to ask has it looked at, and this disk does have room.
    assert!(bench.writer.shared.full.load(Ordering::Acquire));
    assert!(!ballast.exists(), "it was given up");
    // What SQLite may use grows by what the ballast was, to the page.
    let pages = |it: &mut Rows<'_>| -> Done<u64> {
        Ok(it
            .connection
            .query_row("PRAGMA page_count", [], |row| rows::unsigned(row, "page_count"))?)
    };
    let used = bench.writer.call(Asked::new(pages)).await.unwrap();
    bench.writer.call(limit(used + BALLAST / 4096)).await.unwrap();
    for hold in held.drain(..) {
        let now = Timestamp::from_millis(6);
        let charge = holds::Charge { units: Amount::from_units(60), mark: AnswerMark::Sent };
        let finish = move |it: &mut Rows<'_>| -> Done<_> {
            holds::begin_serve(it, hold, now)?;
            holds::capture(it, hold, charge, now)
        };
        drop(bench.writer.call(Asked::new(finish)).await.unwrap());
    }
    // This disk has room, so the ballast is soon there again.
    let mut looks = 0;
    while bench.writer.is_full() {
        looks += 1;
        assert!(looks < 1_000, "it stays full");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(ballast.exists());
}

/// An operation whose error takes the whole transaction with it, as the lack of room may.
async fn lose_the_transaction(writer: &Writer) -> StoreError {
    let work = |it: &mut Rows<'_>| -> Done<()> {
        it.connection.execute_batch("ROLLBACK")?;
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(13), None).into())
    };
    writer.call(Asked::new(work)).await.unwrap_err()
}

#[tokio::test]
async fn a_lost_transaction_is_no_unknown_outcome() {
    let bench = Bench::new();
    let calls =
        async { tokio::join!(admit(&bench.writer, 1), lose_the_transaction(&bench.writer)) };
    let (before, lost) = in_one_batch(&bench.writer, calls).await;
    assert!(matches!(before, Err(StoreError::Unavailable(_))), "{before:?}");
    assert!(matches!(lost, StoreError::Unavailable(_)), "{lost:?}");
    for _ in 0..MAX_FAILURES {
        assert!(matches!(lose_the_transaction(&bench.writer).await, StoreError::Unavailable(_)));
    }
    assert_eq!(payments(&bench.writer).await, 0);
    assert_eq!(bench.writer.standing(), Standing::Open, "without room nothing is broken");
}

/// Asks for what can be lost, and goes away before its turn or in the middle of it.
async fn ask_and_go<T: Send + 'static>(
    writer: &Writer,
    leaves: Leaves,
    work: impl FnOnce(&mut Rows<'_>) -> Done<T> + Send + 'static,
    evidence: Evidence<T>,
) {
    let (begun, has_begun) = mpsc::channel();
    let (free, until) = mpsc::channel::<()>();
    let slow = move |it: &mut Rows<'_>| {
        begun.send(()).ok();
        until.recv().ok();
        work(it)
    };
    let mut call = Box::pin(writer.call(Asked::proving(slow, evidence)));
    match leaves {
        Leaves::Before => {
            let gone = async move {
                is_asked(&mut call).await;
                drop(call);
            };
            in_one_batch(writer, gone).await;
        }
        Leaves::Meanwhile => {
            is_asked(&mut call).await;
            // The writer is another thread.
            has_begun.recv().unwrap();
            drop(call);
        }
    }
    drop(free);
}

/// Polls once: it is sent, and not answered.
async fn is_asked<F: Future + Unpin>(call: &mut F) {
    std::future::poll_fn(|context| {
        assert!(std::pin::Pin::new(&mut *call).poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
}

#[derive(Clone, Copy)]
enum Leaves {
    Before,
    Meanwhile,
}

async fn stored(writer: &Writer, number: u64) -> Option<Payment> {
    let look = move |it: &mut Rows<'_>| -> Done<_> { rows::find(it.connection, terms(number).id) };
    writer.call(Asked::new(look)).await.unwrap().map(|it| it.state)
}

const GIVEN_BACK: Payment = Payment::Released { why: Release::NothingOwed };

#[tokio::test]
async fn an_admission_that_nobody_waits_for_is_given_back() {
    for (leaves, expected) in [(Leaves::Before, None), (Leaves::Meanwhile, Some(GIVEN_BACK))] {
        let bench = Bench::new();
        let now = Timestamp::from_millis(5);
        let ask = Admit { terms: terms(1), keys: Vec::new(), exposure_limit: None, now };
        let work = move |it: &mut Rows<'_>| holds::admit(it, &ask);
        ask_and_go(&bench.writer, leaves, work, unheard::in_admitted).await;
        assert_eq!(stored(&bench.writer, 1).await, expected);
        assert!(matches!(admit(&bench.writer, 1).await, Ok(Admitted::New(_))));
    }
}

/// Serves and captures payment 1.
async fn capture(writer: &Writer, charge: Amount, now: Timestamp) {
    let admitted = admit(writer, 1).await.unwrap();
    let Admitted::New(hold) = admitted else { panic!("{admitted:?}") };
    let hold = HoldName::of(&hold);
    let charge = holds::Charge { units: charge, mark: AnswerMark::Leaving };
    let serve = move |it: &mut Rows<'_>| -> Done<_> {
        holds::begin_serve(it, hold, now)?;
        holds::capture(it, hold, charge, now)
    };
    drop(writer.call(Asked::new(serve)).await.unwrap());
}

#[tokio::test]
async fn a_lease_that_nobody_waits_for_is_queued_again() {
    for leaves in [Leaves::Before, Leaves::Meanwhile] {
        let bench = Bench::new();
        let (charge, now) = (Amount::from_units(60), Timestamp::from_millis(6));
        capture(&bench.writer, charge, now).await;
        let lease = move |it: &mut Rows<'_>| settlements::lease(it, None, 9, now);
        ask_and_go(&bench.writer, leaves, lease, unheard::in_leased).await;
        assert_eq!(stored(&bench.writer, 1).await, Some(Payment::Captured { charge }));
        let lease_again = || bench.writer.call(Asked::proving(lease, unheard::in_leased));
        let jobs = lease_again().await.unwrap();
        let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
        assert_eq!((job.attempts, job.may_have_been_sent), (0, false));
        // Heard of, it is given to nobody else.
        assert!(lease_again().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_was_answered_just_when_the_caller_went_is_passed_on() {
    let passed = std::cell::RefCell::new(Vec::new());
    let (reply, answer) = oneshot::channel();
    let name = HoldName { id: terms(1).id, generation: 4 };
    reply.send(Ok(name)).unwrap();
    let evidence = |name: &HoldName| vec![Unheard::Hold(*name)];
    drop(Waiting::new(answer, evidence, |unheard| passed.borrow_mut().extend(unheard)));
    assert_eq!(*passed.borrow(), [Unheard::Hold(name)]);
    // And what was heard is not.
    let (reply, answer) = oneshot::channel();
    reply.send(Ok(name)).unwrap();
    let waiting = Waiting::new(answer, evidence, |_| panic!("it was heard"));
    assert_eq!(waiting.answer().await.unwrap(), name);
}

#[tokio::test]
async fn a_hold_of_unknown_outcome_does_not_stay_held() {
    let bench = Bench::new();
    let admitted = admit(&bench.writer, 1).await.unwrap();
    let Admitted::New(hold) = admitted else { panic!("{admitted:?}") };
    // As if its commit had failed after it reached the disk: nobody has the evidence.
    bench.writer.shared.adopt(vec![Unheard::Hold(HoldName::of(&hold))]);
    assert_eq!(stored(&bench.writer, 1).await, Some(GIVEN_BACK));
    assert!(matches!(admit(&bench.writer, 1).await, Ok(Admitted::New(_))));
}

#[tokio::test]
async fn a_broken_rule_is_corruption_and_not_bad_luck() {
    let bench = Bench::new();
    drop(admit(&bench.writer, 1).await.unwrap());
    let work = |it: &mut Rows<'_>| -> Done<()> {
        it.connection.execute_batch("UPDATE payments SET state = 'settled'")?;
        Ok(())
    };
    let error = bench.writer.call(Asked::new(work)).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(13), None);
    assert_eq!(full.sqlite_error_code(), Some(ErrorCode::DiskFull));
    assert!(is_full(&full));
    assert!(matches!(Fault::from(full).into_store_error(), StoreError::Unavailable(_)));
}

#[test]
fn every_connection_forces_its_log_to_the_disk() {
    let directory = TempDir::new().unwrap();
    let opened = open::open(&directory.path().join("farebox.db")).unwrap();
    let again = open::reconnect(&opened.path).unwrap();
    for connection in [&opened.connection, &again] {
        let pragma = |name| -> String {
            let read = |row: &rusqlite::Row<'_>| {
                let number = row.get::<_, i64>(0).map(|it| it.to_string());
                number.or_else(|_| row.get(0))
            };
            connection.pragma_query_value(None, name, read).unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal");
        assert_eq!(pragma("synchronous"), "2", "FULL");
        assert_eq!(pragma("foreign_keys"), "1");
    }
    // Older ones can damage a log that two connections write and checkpoint.
    assert!(3_051_003 <= rusqlite::version_number());
}
