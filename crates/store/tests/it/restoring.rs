//! Backups, and what becomes of a ledger that was restored from one, or by other means.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farebox_store::{
    AcceptError, AnswerMark, BackupError, Forgotten, Intake, Ledger, LedgerFile, OpenError,
    Quarantine, QuarantineReason, SettleMode, SqliteLedger, SqliteOptions, StoreError,
    accept_restored,
};
use rusqlite::Connection;

use crate::support::{Place, ask, at, hold, payment_id, serving, terms, units};

/// Payment 1 is held, payment 2 captured and its settlement queued.
async fn some(ledger: &SqliteLedger) {
    drop(hold(ledger, 1, SettleMode::After).await);
    let served = serving(ledger, 2, SettleMode::After).await;
    drop(ledger.capture(served, units(60), AnswerMark::Leaving, at(2_000)).await.unwrap());
}

fn open(file: &Path) -> SqliteLedger {
    SqliteLedger::open(file, SqliteOptions::default()).unwrap()
}

fn quarantine(ledger: &SqliteLedger) -> Option<Quarantine> {
    match ledger.intake() {
        Intake::Quarantined(it) => Some(it),
        Intake::Open => None,
        Intake::Full => panic!("full"),
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_is_whole_private_and_made_while_the_ledger_is_written() {
    let place = Place::new();
    let ledger = place.open();
    some(&ledger).await;
    let to = place.directory.path().join("copy.db");
    let file = LedgerFile::open(place.file()).unwrap();
    let mut writes = tokio::task::JoinSet::new();
    let ledger = std::sync::Arc::new(ledger);
    for number in 10..200 {
        let ledger = std::sync::Arc::clone(&ledger);
        writes.spawn(async move { drop(hold(&*ledger, number, SettleMode::After).await) });
    }
    let copied = tokio::task::spawn_blocking(move || file.backup(to, at(5_000))).await.unwrap();
    let backup = copied.unwrap();
    writes.join_all().await;
    assert!(backup.report.is_sound() && 2 <= backup.report.payments, "{backup:?}");
    assert_eq!(fs::metadata(&backup.path).unwrap().len(), backup.bytes);
    assert_eq!(fs::metadata(&backup.path).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = LedgerFile::open(&backup.path).unwrap();
    assert!(copy.story(payment_id(2)).unwrap().is_some());
    let expected = Quarantine {
        reason: QuarantineReason::Backup,
        copied_at: Some(at(5_000)),
        safe_from: None,
    };
    assert_eq!(copy.quarantine().unwrap(), Some(expected));
    assert_eq!(ledger.intake(), Intake::Open, "the original is no backup");
    assert!(!names(place.directory.path()).iter().any(|it| it.contains("partial")));
}

#[tokio::test]
async fn a_backup_overwrites_nothing_and_leaves_nothing_half_done() {
    let place = Place::new();
    let ledger = place.open();
    some(&ledger).await;
    let file = LedgerFile::open(place.file()).unwrap();
    let directory = place.directory.path();
    let before = names(directory);
    let error = file.backup(place.file(), at(1)).unwrap_err();
    assert!(matches!(error, BackupError::Exists { .. }), "{error:?}");
    std::os::unix::fs::symlink("nowhere", directory.join("link")).unwrap();
    let error = file.backup(directory.join("link"), at(1)).unwrap_err();
    assert!(matches!(error, BackupError::Exists { .. }), "{error:?}");
    let error = file.backup(directory.join("missing/copy.db"), at(1)).unwrap_err();
    assert!(matches!(error, BackupError::Io { .. }), "{error:?}");
    // A forgery is found in the copy, which is then no backup.
    let raw = Connection::open(place.file()).unwrap();
    raw.execute_batch("UPDATE payments SET generation = 2 WHERE state = 'held'").unwrap();
    let error = file.backup(directory.join("copy.db"), at(1)).unwrap_err();
    assert!(matches!(&error, BackupError::Unsound { report, .. } if !report.is_sound()));
    fs::remove_file(directory.join("link")).unwrap();
    drop(raw);
    assert_eq!(names(directory), before);
}

#[tokio::test]
async fn a_restored_backup_takes_no_payment_until_that_is_accepted() {
    let place = Place::new();
    let ledger = place.open();
    some(&ledger).await;
    let backup = place.directory.path().join("copy.db");
    LedgerFile::open(place.file()).unwrap().backup(&backup, at(5_000)).unwrap();
    drop(hold(&ledger, 3, SettleMode::After).await);
    ledger.close().await.unwrap();
    drop(ledger);
    fs::rename(&backup, place.file()).unwrap();

    // Nobody has looked anything up yet.
    let accept = |how, now| accept_restored(&place.file(), how, now);
    let error = accept(Forgotten::Accept, at(6_000)).unwrap_err();
    assert!(matches!(error, AcceptError::NotLookedUp { .. }), "{error:?}");
    let ledger = place.open();
    assert_eq!(quarantine(&ledger).unwrap().safe_from, None);
    let error = accept(Forgotten::Accept, at(6_000)).unwrap_err();
    assert!(matches!(error, AcceptError::Open(OpenError::InUse { .. })), "{error:?}");

    let recovered = ledger.recover(at(10_000)).await.unwrap();
    assert_eq!(recovered.released, 1, "{recovered:?}");
    let safe_from = quarantine(&ledger).unwrap().safe_from.unwrap();
    assert_eq!(safe_from, at(10_000).plus(Duration::from_mins(65)));
    let refused = ledger.admit(ask(&terms(3, SettleMode::After), at(10_001))).await;
    let Err(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert!(why.to_string().contains("quarantine"), "{why}");
    // What it knows to be owed goes on, and is looked up before it is sent.
    let jobs = ledger.lease_jobs(None, 9, at(10_002)).await.unwrap();
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert!(job.may_have_been_sent && job.terms.id == payment_id(2), "{job:?}");
    ledger.close().await.unwrap();
    drop(ledger);

    // A restart changes nothing, nor when it is safe.
    let ledger = place.open();
    ledger.recover(at(20_000)).await.unwrap();
    assert_eq!(quarantine(&ledger).unwrap().safe_from, Some(safe_from));
    ledger.close().await.unwrap();
    drop(ledger);
    let just_before = safe_from.minus(Duration::from_millis(1));
    let error = accept(Forgotten::Wait, just_before).unwrap_err();
    assert!(matches!(error, AcceptError::TooEarly { safe_from: told, .. } if told == safe_from));
    let accepted = accept(Forgotten::Wait, safe_from).unwrap();
    assert_eq!(accepted.quarantine.reason, QuarantineReason::Backup);
    assert_eq!(accepted.unsettled, 1);
    let error = accept(Forgotten::Wait, safe_from).unwrap_err();
    assert!(matches!(error, AcceptError::NotQuarantined { .. }), "{error:?}");
    let ledger = place.open();
    ledger.recover(at(30_000)).await.unwrap();
    assert_eq!(ledger.intake(), Intake::Open);
    drop(hold(&ledger, 3, SettleMode::After).await);
    assert!(ledger.check().await.unwrap().is_sound());
}

#[tokio::test]
async fn who_cannot_wait_accepts_that_a_forgotten_payment_may_come_again() {
    let place = Place::new();
    let ledger = place.open();
    let backup = place.directory.path().join("copy.db");
    LedgerFile::open(place.file()).unwrap().backup(&backup, at(5_000)).unwrap();
    let restored = open(&backup);
    restored.recover(at(10_000)).await.unwrap();
    drop(restored);
    accept_restored(&backup, Forgotten::Accept, at(10_001)).unwrap();
    assert_eq!(open(&backup).intake(), Intake::Open);
    assert_eq!(ledger.intake(), Intake::Open);
}

/// Closes a ledger with one payment, does something to its files, and opens it again.
async fn reopened(tamper: impl FnOnce(&Place, PathBuf)) -> Option<QuarantineReason> {
    let place = Place::new();
    let ledger = place.open();
    drop(hold(&ledger, 1, SettleMode::After).await);
    ledger.close().await.unwrap();
    drop(ledger);
    let kept = place.directory.path().join("kept");
    fs::copy(place.file(), &kept).unwrap();
    let ledger = place.open();
    drop(hold(&ledger, 2, SettleMode::After).await);
    ledger.close().await.unwrap();
    drop(ledger);
    tamper(&place, kept);
    let ledger = place.open();
    let found = quarantine(&ledger).map(|it| it.reason);
    ledger.close().await.unwrap();
    drop(ledger);
    // To look again changes nothing.
    assert_eq!(quarantine(&place.open()).map(|it| it.reason), found);
    found
}

fn remove(path: impl AsRef<Path>) {
    fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_file_that_was_put_back_by_other_means_is_found_out() {
    use QuarantineReason::{Behind, Stranger, Unmarked};
    let mark = |place: &Place| place.directory.path().join("farebox.db.mark");
    assert_eq!(reopened(|_, _| {}).await, None);
    assert_eq!(reopened(|place, kept| fs::rename(kept, place.file()).unwrap()).await, Some(Behind));
    // No file at all would be a new and empty ledger, which knows even less.
    assert_eq!(reopened(|place, _| remove(place.file())).await, Some(Behind));
    assert_eq!(reopened(|place, _| remove(mark(place))).await, Some(Unmarked));
    assert_eq!(reopened(|place, _| fs::write(mark(place), "?").unwrap()).await, Some(Unmarked));
    let moved_whole = |place: &Place, _| {
        for name in ["farebox.db", "farebox.db.mark"] {
            let there = place.directory.path().join(name);
            let moved = place.directory.path().join(format!("{name}.moved"));
            fs::copy(&there, &moved).unwrap();
            fs::rename(moved, there).unwrap();
        }
    };
    assert_eq!(reopened(moved_whole).await, None);
    let other = Place::new();
    let theirs = other.open();
    for number in 1..9 {
        drop(hold(&theirs, number, SettleMode::After).await);
    }
    theirs.close().await.unwrap();
    drop(theirs);
    let exchanged = |place: &Place, _| {
        fs::copy(other.file(), place.file()).unwrap();
    };
    assert_eq!(reopened(exchanged).await, Some(Stranger));
}

/// The mark is written after the commit, and not forced to the disk.
#[tokio::test]
async fn a_mark_that_stands_too_low_accuses_nobody() {
    let lowered = |place: &Place, _| {
        let file = place.directory.path().join("farebox.db.mark");
        let text = fs::read_to_string(&file).unwrap();
        let (before, _) = text.split_once("journal ").unwrap();
        fs::write(&file, format!("{before}journal {:020}\n", 0)).unwrap();
    };
    assert_eq!(reopened(lowered).await, None);
}

#[tokio::test]
async fn what_is_migrated_is_kept_as_it_was() {
    let place = Place::new();
    let directory = place.directory.path();
    let version = |file: &Path| -> i64 {
        let raw = Connection::open(file).unwrap();
        raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    for round in 1..=5 {
        drop(fs::remove_file(place.file()));
        let old = Connection::open(place.file()).unwrap();
        old.execute_batch(include_str!("../../src/sqlite/migrations/0001_payments.sql")).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.pragma_update(None, "application_id", 0x4661_7265).unwrap();
        drop(old);
        assert_eq!(place.open().intake(), Intake::Open, "round {round}");
    }
    // What is current is not copied.
    drop(place.open());
    let copies: Vec<_> = names(directory).into_iter().filter(|it| it.contains("before")).collect();
    let before = format!("farebox.db.before-v{}", version(&place.file()));
    assert_eq!(copies, [3, 4, 5].map(|number| format!("{before}.{number}")), "the last three");
    assert!(copies.iter().all(|it| version(&directory.join(it)) == 1));
    // Put back, it is known to have forgotten what came after it.
    let ledger = place.open();
    drop(hold(&ledger, 1, SettleMode::After).await);
    ledger.close().await.unwrap();
    drop(ledger);
    fs::rename(directory.join(&copies[0]), place.file()).unwrap();
    let found = quarantine(&place.open()).map(|it| it.reason);
    assert_eq!(found, Some(QuarantineReason::Behind));
}
