//! A disk that is really full: a file system of a few mebibytes in a mount namespace of the child's
//! own, which any user may make where the kernel lets him.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use farebox_store::{
    AnswerMark, Intake, Ledger, LedgerFile, Resolution, SettleMode, SqliteLedger, SqliteOptions,
    StoreError,
};
use tempfile::TempDir;

use crate::support::{ask, at, hold, payment_id, serving, terms, units};

const PLACE: &str = "FAREBOX_TEST_FULL_DISK";
const BALLAST: u64 = 4 << 20;
const NAMESPACE: [&str; 4] = ["--user", "--map-root-user", "--mount", "--"];

#[test]
fn i17_a_full_disk_finishes_what_is_held_and_refuses_the_rest() {
    let permitted = Command::new("unshare").args(NAMESPACE).arg("true").status();
    if !permitted.is_ok_and(|it| it.success()) {
        // The same without a disk of its own is in the writer's tests.
        return println!("not run: this kernel gives users no mount namespaces");
    }
    let place = TempDir::new().unwrap();
    let mount = "mount -t tmpfs -o size=24m farebox \"$0\" && exec \"$@\"";
    let ran = Command::new("unshare")
        .args(NAMESPACE)
        .args(["sh", "-c", mount])
        .arg(place.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full_disk::child", "--nocapture", "--test-threads", "1"])
        .env(PLACE, place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let complained = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}\n{complained}");
    assert!(said.contains("went through"), "{said}");
}

/// Not a test of its own: what the one above runs.
#[tokio::test]
async fn child() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = PathBuf::from(place);
    let ledger = open(&place);
    assert_eq!(ledger.intake(), Intake::Open);
    let mut held = Vec::new();
    for number in 0..20 {
        held.push(serving(&ledger, number, SettleMode::After).await);
    }
    fill(&place);
    let mut admitted = 100;
    let refused = loop {
        // Until the log has to grow, there is room in it.
        match ledger.admit(ask(&terms(admitted, SettleMode::After), at(1_500))).await {
            Ok(it) => drop(it),
            Err(error) => break error,
        }
        admitted += 1;
    };
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
    assert_eq!(ledger.intake(), Intake::Full);
    assert!(!ballast(&place).exists());
    for hold in held {
        drop(ledger.capture(hold, units(60), AnswerMark::Sent, at(2_000)).await.unwrap());
    }
    for number in 0..20 {
        let jobs = ledger.lease_jobs(Some(payment_id(number)), 1, at(2_001)).await.unwrap();
        assert_eq!(jobs.len(), 1);
        let settled = Resolution::Settled { transaction: "0x5".to_owned() };
        drop(ledger.resolve_job(payment_id(number), settled, at(2_002)).await.unwrap());
    }
    // The others fill the disk again; that is no reason to take more.
    assert_eq!(ledger.intake(), Intake::Full);
    let again = ledger.admit(ask(&terms(900, SettleMode::After), at(2_003))).await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
    ledger.close().await.unwrap();
    drop(ledger);

    let ledger = open(&place);
    assert_eq!(ledger.intake(), Intake::Full, "nor is a restart");
    ledger.recover(at(3_000)).await.unwrap();
    fs::remove_file(place.join("filler")).unwrap();
    let mut looks = 0;
    while ledger.intake() == Intake::Full {
        looks += 1;
        assert!(looks < 1_000, "it stays full");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fs::metadata(ballast(&place)).unwrap().len(), BALLAST);
    drop(hold(&ledger, 901, SettleMode::After).await);
    let report = LedgerFile::open(place.join("farebox.db")).unwrap().check().unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    println!("went through");
}

fn open(place: &Path) -> SqliteLedger {
    let options = SqliteOptions { ballast: BALLAST, ..SqliteOptions::default() };
    SqliteLedger::open(place.join("farebox.db"), options).unwrap()
}

fn ballast(place: &Path) -> PathBuf {
    place.join("farebox.db.ballast")
}

/// Somebody else's file takes all there is, to the last byte.
fn fill(place: &Path) {
    let mut filler = File::create(place.join("filler")).unwrap();
    let mut size = 1 << 20;
    while size != 0 {
        if filler.write_all(&vec![7; size]).is_err() {
            size /= 2;
        }
    }
}
