//! Settled payments that their chain can take back.

use farebox_billing::{Payment, Release};
use farebox_store::{AnswerMark, Ledger, Resolution, SettleMode, StoreError};

use super::{leased, state};
use crate::support::{at, hold, payment_id, units};

fn settled_by(transaction: &str) -> Resolution {
    Resolution::Settled { transaction: transaction.to_owned() }
}

async fn watched(ledger: &dyn Ledger, now: u64) -> Vec<String> {
    let due = ledger.due_watches(9, at(now)).await.unwrap();
    due.into_iter().map(|it| it.transaction).collect()
}

pub(super) async fn a_settled_payment_is_watched_until_it_is_final(ledger: &dyn Ledger) {
    leased(ledger, 140, AnswerMark::Sent).await;
    let id = payment_id(140);
    // Said before it is settled, so that no crash comes in between.
    ledger.watch(id, Some(at(5_000))).await.unwrap();
    assert_eq!(watched(ledger, 5_000).await, [""; 0]);
    drop(ledger.resolve_job(id, settled_by("0x140"), at(2_001)).await.unwrap());
    assert_eq!(watched(ledger, 4_999).await, [""; 0]);
    assert!(ledger.next_due().await.unwrap().is_some_and(|it| it <= at(5_000)));
    for _ in 0..2 {
        let due = ledger.due_watches(9, at(5_000)).await.unwrap();
        let [watch] = due.as_slice() else { panic!("{due:?}") };
        assert_eq!((watch.terms.id, watch.charge), (id, units(100)));
        assert_eq!(watch.transaction, "0x140");
    }
    ledger.watch(id, Some(at(6_000))).await.unwrap();
    assert_eq!(watched(ledger, 5_999).await, [""; 0]);
    assert_eq!(watched(ledger, 6_000).await, ["0x140"]);
    for _ in 0..2 {
        ledger.watch(id, None).await.unwrap();
        assert_eq!(watched(ledger, 9_000).await, [""; 0]);
    }
}

pub(super) async fn a9_what_the_chain_takes_back_is_owed_again(ledger: &dyn Ledger) {
    leased(ledger, 141, AnswerMark::Sent).await;
    let id = payment_id(141);
    ledger.watch(id, Some(at(5_000))).await.unwrap();
    drop(ledger.resolve_job(id, settled_by("0x141"), at(2_001)).await.unwrap());
    // Of another transaction nothing is said.
    drop(ledger.reopen(id, "0x999", at(3_000)).await.unwrap());
    let unknown = Payment::Unknown { charge: units(100), transaction: Some("0x141".to_owned()) };
    for _ in 0..2 {
        assert_eq!(ledger.reopen(id, "0x141", at(3_000)).await.unwrap(), unknown);
    }
    assert_eq!(watched(ledger, 9_000).await, [""; 0]);
    let jobs = ledger.lease_jobs(Some(id), 9, at(3_000)).await.unwrap();
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert!(job.may_have_been_sent);
    assert_eq!(job.transaction.as_deref(), Some("0x141"));
    drop(ledger.resolve_job(id, settled_by("0x142"), at(3_001)).await.unwrap());
    drop(ledger.reopen(id, "0x142", at(3_002)).await.unwrap());
    // Twice is no exception, and now the payer has moved the money away.
    let jobs = ledger.lease_jobs(Some(id), 9, at(3_002)).await.unwrap();
    assert_eq!(jobs.len(), 1);
    let reason = "expired".to_owned();
    let rejected = Resolution::Rejected { reason: reason.clone() };
    let lost = ledger.resolve_job(id, rejected, at(3_003)).await.unwrap();
    assert_eq!(lost, Payment::Lost { charge: units(100), reason });
}

pub(super) async fn a9_what_was_not_paid_is_not_owed_back(ledger: &dyn Ledger) {
    leased(ledger, 143, AnswerMark::Withheld).await;
    let id = payment_id(143);
    let owed = async || ledger.lookup(id).await.unwrap().unwrap().refund_owed;
    drop(ledger.resolve_job(id, settled_by("0x143"), at(2_001)).await.unwrap());
    ledger.owe_refund(id, "settled_unanswered", at(2_002)).await.unwrap();
    drop(ledger.reopen(id, "0x143", at(2_003)).await.unwrap());
    assert_eq!(owed().await, None);
    let jobs = ledger.lease_jobs(Some(id), 9, at(2_003)).await.unwrap();
    assert_eq!(jobs.len(), 1);
    drop(ledger.resolve_job(id, settled_by("0x143"), at(2_004)).await.unwrap());
    assert_eq!(owed().await.as_deref(), Some("settled_unanswered"));
}

pub(super) async fn only_what_is_settled_is_watched(ledger: &dyn Ledger) {
    leased(ledger, 144, AnswerMark::Sent).await;
    let id = payment_id(144);
    ledger.watch(id, Some(at(5_000))).await.unwrap();
    // It turns out not to be.
    let unknown = Resolution::Unknown { transaction: None, retry_at: at(7_000) };
    drop(ledger.resolve_job(id, unknown, at(2_001)).await.unwrap());
    assert!(matches!(ledger.watch(id, Some(at(5_000))).await, Err(StoreError::Fenced(_))));
    let jobs = ledger.lease_jobs(Some(id), 9, at(7_000)).await.unwrap();
    assert_eq!(jobs.len(), 1);
    drop(ledger.resolve_job(id, settled_by("0x144"), at(7_001)).await.unwrap());
    assert_eq!(watched(ledger, 9_000).await, [""; 0]);
    let held = hold(ledger, 145, SettleMode::After).await;
    drop(ledger.reopen(payment_id(145), "0x145", at(7_002)).await.unwrap());
    assert_eq!(state(ledger, 145).await, Payment::Held { limit: units(100) });
    ledger.release(&held, Release::Shutdown, at(7_003)).await.unwrap();
}
