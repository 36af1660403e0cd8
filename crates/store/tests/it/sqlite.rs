//! What the SQLite engine has to show beyond the contract.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use farebox_store::{
    Admitted, AnswerMark, Ledger, OpenError, Refusal, Resolution, SettleMode, SqliteLedger,
    SqliteOptions, StoreError,
};
use rusqlite::Connection;

use crate::support::{Place, ask, at, hold, payment_id, serving, terms, units};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_operations_share_a_commit() {
    let place = Place::new();
    let ledger = Arc::new(place.open());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..256 {
        let ledger = Arc::clone(&ledger);
        tasks.spawn(async move { hold(&*ledger, number, SettleMode::After).await.id() });
    }
    let mut ids = tasks.join_all().await;
    let counts = ledger.writer_counts();
    assert_eq!(counts.operations, 256);
    assert!(counts.commits <= 64, "{counts:?}");
    ledger.close().await.unwrap();
    drop(ledger);
    ids.sort();
    let stored = place.open().list(None, 1_000).await.unwrap();
    let mut found: Vec<_> = stored.iter().map(|it| it.terms.id).collect();
    found.sort();
    assert_eq!(found, ids);
}

#[tokio::test]
async fn a1_one_payload_in_parallel_is_held_once() {
    let place = Place::new();
    let ledger = place.open();
    let terms = terms(1, SettleMode::After);
    let asks = (0..1_000).map(|_| ledger.admit(ask(&terms, at(1_000))));
    let (mut held, mut refused) = (0, 0);
    for answer in all_of(asks).await {
        match answer.unwrap() {
            Admitted::New(_) => held += 1,
            Admitted::Refused(refusal) => {
                assert!(matches!(refusal, Refusal::InProgress));
                refused += 1;
            }
        }
    }
    assert_eq!((held, refused), (1, 999));
}

#[tokio::test]
async fn a5_parallel_holds_stay_within_the_exposure() {
    let place = Place::new();
    let ledger = place.open();
    let asks = (0..50).map(|number| {
        let mut ask = ask(&terms(number, SettleMode::After), at(1_000));
        ask.exposure_limit = Some(units(799));
        ledger.admit(ask)
    });
    let answers = all_of(asks).await;
    let held = answers.iter().filter(|it| matches!(it, Ok(Admitted::New(_)))).count();
    assert_eq!(held, 7, "holds of 100 under a limit of 799");
}

/// The answers of all of them, asked at once.
pub(crate) async fn all_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|it| (Box::pin(it), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().filter(|it| it.1.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *output = Some(value),
                std::task::Poll::Pending => pending = true,
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|it| it.1).collect()
}

#[tokio::test]
async fn a_closed_ledger_has_written_everything_and_refuses_the_rest() {
    let place = Place::new();
    let ledger = place.open();
    let held = hold(&ledger, 1, SettleMode::After).await;
    let asks = (2..50).map(|number| {
        let terms = terms(number, SettleMode::After);
        let ledger = &ledger;
        async move { ledger.admit(ask(&terms, at(1_000))).await }
    });
    let (answers, closed) = tokio::join!(all_of(asks), ledger.close());
    closed.unwrap();
    let accepted = answers.iter().filter(|it| it.is_ok()).count();
    assert!(0 < accepted, "the close came first");
    let refused = ledger.begin_serve(&held, at(1_001)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let refused = ledger.lookup(held.id()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    ledger.close().await.unwrap();
    // The file is free again while the closed ledger still exists.
    let again = place.open();
    let stored = again.list(None, 1_000).await.unwrap();
    let others = stored.iter().filter(|it| it.terms.id != held.id());
    assert_eq!(others.count(), accepted);
}

#[test]
fn one_file_has_one_process() {
    let place = Place::new();
    let ledger = place.open();
    let link = place.directory.path().join("link.db");
    std::os::unix::fs::symlink(place.file(), &link).unwrap();
    for path in [place.file(), link, place.directory.path().join("./farebox.db")] {
        let error = SqliteLedger::open(&path, SqliteOptions::default()).unwrap_err();
        assert!(matches!(&error, OpenError::InUse { path, pid: Some(pid) }
            if path.ends_with("farebox.db") && *pid == std::process::id()));
        assert!(error.to_string().contains("farebox.db is in use by another process (process "));
    }
    drop(ledger);
    drop(place.open());
}

#[test]
fn only_its_owner_can_read_it() {
    let place = Place::new();
    let ledger = place.open();
    for entry in fs::read_dir(place.directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
    assert_eq!(
        fs::read_dir(place.directory.path()).unwrap().count(),
        6,
        "db, wal, shm, lock, mark, key"
    );
    drop(ledger);
}

#[track_caller]
fn check_refused(prepare: impl FnOnce(&Place), expected: fn(&OpenError) -> bool, says: &str) {
    let place = Place::new();
    prepare(&place);
    let error = SqliteLedger::open(place.file(), SqliteOptions::default()).unwrap_err();
    assert!(expected(&error), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("farebox.db") && text.contains(says), "{text}");
}

#[test]
fn what_is_no_ledger_of_ours_is_refused() {
    check_refused(
        |place| {
            drop(place.open());
            let raw = Connection::open(place.file()).unwrap();
            raw.pragma_update(None, "user_version", 99).unwrap();
        },
        |it| matches!(it, OpenError::Newer { found: 99, .. }),
        "has schema 99",
    );
    check_refused(
        |place| fs::write(place.file(), "not a database, but long enough\n".repeat(99)).unwrap(),
        |it| matches!(it, OpenError::Corrupt { .. }),
        "is damaged or no ledger at all",
    );
    check_refused(
        |place| {
            drop(place.open());
            let bytes = fs::read(place.file()).unwrap();
            fs::write(place.file(), &bytes[..bytes.len() / 3]).unwrap();
        },
        |it| matches!(it, OpenError::Corrupt { .. }),
        "is damaged",
    );
    check_refused(
        |place| {
            let raw = Connection::open(place.file()).unwrap();
            raw.execute_batch("CREATE TABLE cats (name TEXT)").unwrap();
        },
        |it| matches!(it, OpenError::NotALedger { .. }),
        "not a Farebox ledger",
    );
    check_refused(
        |place| fs::create_dir(place.file()).unwrap(),
        |it| matches!(it, OpenError::Io { .. }),
        "cannot be opened",
    );
    let place = Place::new();
    let nowhere = place.directory.path().join("missing/farebox.db");
    let error = SqliteLedger::open(nowhere, SqliteOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }));
}

/// One payment in each state.
async fn settle_some(ledger: &SqliteLedger) {
    drop(hold(ledger, 1, SettleMode::After).await);
    drop(serving(ledger, 2, SettleMode::After).await);
    for number in 3..7 {
        let hold = serving(ledger, number, SettleMode::After).await;
        drop(ledger.capture(hold, units(60), AnswerMark::Leaving, at(2_000)).await.unwrap());
    }
    for number in 4..7 {
        let jobs = ledger.lease_jobs(Some(payment_id(number)), 1, at(2_000)).await.unwrap();
        assert_eq!(jobs.len(), 1);
    }
    let settled = Resolution::Settled { transaction: "0x5".to_owned() };
    drop(ledger.resolve_job(payment_id(5), settled, at(2_001)).await.unwrap());
    let rejected = Resolution::Rejected { reason: "expired".to_owned() };
    drop(ledger.resolve_job(payment_id(6), rejected, at(2_001)).await.unwrap());
}

#[tokio::test]
async fn totals_add_up() {
    let place = Place::new();
    let ledger = place.open();
    settle_some(&ledger).await;
    ledger.owe_refund(payment_id(5), "upstream_failed", at(2_002)).await.unwrap();
    let totals = ledger.totals().await.unwrap();
    let totals: Vec<_> = totals
        .iter()
        .map(|it| (it.state, it.payments, it.units.units(), it.refund_units.units()))
        .collect();
    let expected = [
        ("captured", 1, 60, 0),
        ("held", 1, 100, 0),
        ("lost", 1, 60, 0),
        ("serving", 1, 100, 0),
        ("settled", 1, 60, 60),
        ("settling", 1, 60, 0),
    ];
    assert_eq!(totals, expected);
    assert_eq!(ledger.check().await.unwrap().totals.len(), expected.len());
}

/// Each of these is a bug or a forgery; the schema itself must refuse it.
#[tokio::test]
async fn the_schema_refuses_a_bug() {
    let place = Place::new();
    let ledger = place.open();
    settle_some(&ledger).await;
    ledger.close().await.unwrap();
    let raw = Connection::open(place.file()).unwrap();
    let refused = [
        "UPDATE journal SET amount = zeroblob(16) WHERE seq = 1",
        "DELETE FROM journal WHERE seq = 1",
        "INSERT INTO journal (payment, at, event) VALUES (zeroblob(32), 1, 'invented')",
        "DELETE FROM payments",
        "DELETE FROM terms",
        "DELETE FROM outbox",
        "UPDATE payments SET fingerprint = zeroblob(32) WHERE state = 'held'",
        "UPDATE payments SET state = 'gone' WHERE state = 'held'",
        "UPDATE payments SET state = 'captured' WHERE state = 'held'",
        "UPDATE payments SET state = 'settled' WHERE state = 'captured'",
        "UPDATE payments SET charge = NULL WHERE state = 'captured'",
        "UPDATE payments SET charge = x'000000000000000000000000000000ff' WHERE state = 'captured'",
        "UPDATE payments SET charge = x'01' WHERE state = 'captured'",
        "UPDATE payments SET delivered = x'000000000000000000000000000000ff'
          WHERE state = 'serving'",
        "UPDATE payments SET answer = 'sent' WHERE state = 'serving'",
        "UPDATE payments SET answer = 'withheld' WHERE state = 'lost'",
        "UPDATE payments SET refund_owed = 'x' WHERE state = 'captured'",
        "UPDATE payments SET \"transaction\" = NULL WHERE state = 'settled'",
        "UPDATE payments SET exposed_units = zeroblob(16) WHERE state = 'held'",
        "UPDATE payments SET exposed_units = NULL WHERE state = 'captured'",
        "UPDATE outbox SET status = 'gone'",
        "INSERT INTO payments (id) VALUES (zeroblob(32))",
    ];
    raw.pragma_update(None, "foreign_keys", true).unwrap();
    for sql in refused {
        assert!(raw.execute_batch(sql).is_err(), "{sql}");
    }
}

/// The schema lets these pass, because each is a good row; the check must not.
#[tokio::test]
async fn the_check_finds_a_forgery() {
    let forgeries = [
        (
            "the row says",
            "UPDATE payments SET charge = zeroblob(16), exposed_units = zeroblob(16)
               WHERE state = 'captured'",
        ),
        ("the row says", "UPDATE payments SET delivered = limit_units WHERE state = 'serving'"),
        ("the row says", "UPDATE payments SET \"transaction\" = '0xother' WHERE state = 'settled'"),
        ("the row says", "UPDATE payments SET refund_owed = 'x' WHERE state = 'settled'"),
        ("the row says", "UPDATE payments SET answer = 'sent' WHERE state = 'captured'"),
        ("the row says", "UPDATE payments SET generation = 2 WHERE state = 'held'"),
        ("stands elsewhere", "UPDATE outbox SET status = 'done'"),
        ("without exactly one settlement", "UPDATE outbox SET generation = 7 WHERE attempts = 0"),
        (
            "illegal transition",
            "INSERT INTO journal (payment, at, event) SELECT id, 1, 'settlement_began'
               FROM payments WHERE state = 'held'",
        ),
        ("gaps", "DROP TRIGGER journal_is_for_ever; DELETE FROM journal WHERE seq = 2"),
        ("has no terms", "DROP TRIGGER terms_are_for_ever; DELETE FROM terms WHERE seq = 3"),
        (
            "the row says",
            "DROP TRIGGER journal_is_not_rewritten;
             UPDATE journal SET amount = zeroblob(16) WHERE event = 'priced'",
        ),
    ];
    for (expected, sql) in forgeries {
        let place = Place::new();
        let ledger = place.open();
        settle_some(&ledger).await;
        assert!(ledger.check().await.unwrap().is_sound());
        let raw = Connection::open(place.file()).unwrap();
        raw.execute_batch(sql).unwrap();
        let report = ledger.check().await.unwrap();
        let texts: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        assert!(texts.iter().any(|it| it.contains(expected)), "{sql}: {texts:?}");
        assert!(!report.is_sound());
    }
}

/// What runs for each request must not read what is closed, however much of it there is.
#[test]
fn what_is_frequent_reads_an_index() {
    let place = Place::new();
    drop(place.open());
    let raw = Connection::open(place.file()).unwrap();
    let plans = [
        (
            "USING PRIMARY KEY (network=? AND asset=? AND name=?)",
            "SELECT * FROM accounts WHERE network = ?1 AND asset = ?2 AND name = ?3",
        ),
        (
            "USING INDEX payments_open",
            "SELECT p.*, t.route FROM payments AS p JOIN terms AS t USING (seq)
              WHERE state IN ('held', 'serving', 'captured', 'settling', 'unknown')",
        ),
        (
            "USING INDEX payments_waiting",
            "SELECT p.*, t.route FROM payments AS p JOIN terms AS t USING (seq)
              WHERE state = 'settled' AND answer_waits <> 'no'",
        ),
        (
            "USING INDEX outbox_due (due_at<?)",
            "SELECT * FROM outbox WHERE status = 'queued' AND due_at <= ?1 ORDER BY due_at LIMIT ?2",
        ),
        (
            "USING COVERING INDEX outbox_due",
            "SELECT due_at FROM outbox WHERE status = 'queued' ORDER BY due_at LIMIT 1",
        ),
        ("USING INTEGER PRIMARY KEY (rowid>?)", include_str!("../../src/sqlite/sql/list.sql")),
    ];
    for (expected, sql) in plans {
        let mut statement = raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        for index in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(index, 1).unwrap();
        }
        let mut rows = statement.raw_query();
        let mut plan = String::new();
        while let Some(row) = rows.next().unwrap() {
            plan.push_str(&row.get::<_, String>("detail").unwrap());
            plan.push('\n');
        }
        assert!(plan.contains(expected), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
