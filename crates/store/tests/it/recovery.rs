//! What every engine must make of what a crash leaves behind. A crash and a call of `recover` in a
//! living process look the same to the rows; the crash itself is in `crash`.

use farebox_billing::{Payment, Release};
use farebox_store::{AnswerMark, Ledger, Recovered, Resolution, SettleMode, StoredPayment};

use crate::support::{at, hold, payment_id, serving, units};

const CRASHED: Payment = Payment::Released { why: Release::Crashed };

async fn stored(ledger: &dyn Ledger, number: u64) -> StoredPayment {
    ledger.lookup(payment_id(number)).await.unwrap().unwrap()
}

async fn captured(ledger: &dyn Ledger, number: u64, mark: AnswerMark) {
    let hold = serving(ledger, number, SettleMode::After).await;
    drop(ledger.capture(hold, units(100), mark, at(2_000)).await.unwrap());
}

async fn leased(ledger: &dyn Ledger, number: u64, mark: AnswerMark) {
    captured(ledger, number, mark).await;
    let jobs = ledger.lease_jobs(Some(payment_id(number)), 1, at(2_000)).await.unwrap();
    assert_eq!(jobs.len(), 1);
}

async fn resolved(ledger: &dyn Ledger, number: u64, mark: AnswerMark, how: Resolution) {
    leased(ledger, number, mark).await;
    drop(ledger.resolve_job(payment_id(number), how, at(2_001)).await.unwrap());
}

fn settled() -> Resolution {
    Resolution::Settled { transaction: "0xabc".to_owned() }
}

fn unknown() -> Resolution {
    Resolution::Unknown { transaction: Some("0xdef".to_owned()), retry_at: at(8_000) }
}

fn not_sent() -> Resolution {
    Resolution::NotSent { retry_at: at(8_000) }
}

fn rejected() -> Resolution {
    Resolution::Rejected { reason: "expired".to_owned() }
}

/// One payment in each place where a crash can find it.
async fn every_place(ledger: &dyn Ledger) {
    drop(hold(ledger, 200, SettleMode::After).await);
    drop(serving(ledger, 201, SettleMode::After).await);
    let metered = serving(ledger, 202, SettleMode::After).await;
    ledger.meter(&metered, units(7), at(1_500)).await.unwrap();
    captured(ledger, 203, AnswerMark::Withheld).await;
    let before = hold(ledger, 204, SettleMode::Before).await;
    drop(ledger.capture(before, units(100), AnswerMark::Withheld, at(2_000)).await.unwrap());
    captured(ledger, 205, AnswerMark::Leaving).await;
    leased(ledger, 206, AnswerMark::Withheld).await;
    leased(ledger, 207, AnswerMark::Leaving).await;
    resolved(ledger, 208, AnswerMark::Withheld, settled()).await;
    resolved(ledger, 209, AnswerMark::Withheld, settled()).await;
    ledger.mark_answer(payment_id(209), AnswerMark::Leaving, at(2_002)).await.unwrap();
    resolved(ledger, 210, AnswerMark::Withheld, settled()).await;
    ledger.mark_answer(payment_id(210), AnswerMark::Sent, at(2_002)).await.unwrap();
    resolved(ledger, 211, AnswerMark::Leaving, settled()).await;
    resolved(ledger, 212, AnswerMark::Withheld, not_sent()).await;
    resolved(ledger, 213, AnswerMark::Withheld, unknown()).await;
    resolved(ledger, 214, AnswerMark::Leaving, rejected()).await;
    resolved(ledger, 215, AnswerMark::Withheld, rejected()).await;
    resolved(ledger, 216, AnswerMark::Withheld, unknown()).await;
    let jobs = ledger.lease_jobs(Some(payment_id(216)), 1, at(8_000)).await.unwrap();
    assert_eq!(jobs.len(), 1);
    drop(ledger.resolve_job(payment_id(216), not_sent(), at(2_003)).await.unwrap());
}

/// On a ledger that is empty at first.
pub(crate) async fn run(ledger: &dyn Ledger) {
    every_place(ledger).await;
    let recovered = ledger.recover(at(3_000)).await.unwrap();
    let expected = Recovered { released: 5, captured: 1, to_reconcile: 2, refunds_owed: 2 };
    assert_eq!(recovered, expected);
    every_place_is_in_order(ledger).await;
    let first: Vec<_> = ledger.list(None, 100).await.unwrap().into_iter().map(all_of).collect();
    assert_eq!(ledger.recover(at(4_000)).await.unwrap(), Recovered::default());
    let second: Vec<_> = ledger.list(None, 100).await.unwrap().into_iter().map(all_of).collect();
    assert_eq!(second, first, "recovering twice is recovering once");
    the_queue_is_in_order(ledger).await;
    late_outcomes_are_booked(ledger).await;
}

fn all_of(it: StoredPayment) -> String {
    format!("{it:?}")
}

async fn every_place_is_in_order(ledger: &dyn Ledger) {
    for number in [200, 201, 203, 204, 212] {
        assert_eq!(stored(ledger, number).await.state, CRASHED, "{number}");
    }
    let metered = stored(ledger, 202).await;
    assert_eq!(metered.state, Payment::Captured { charge: units(7) });
    assert_eq!(metered.answer, AnswerMark::Leaving);
    assert_eq!(stored(ledger, 205).await.state, Payment::Captured { charge: units(100) });
    for number in [206, 207] {
        let expected = Payment::Unknown { charge: units(100), transaction: None };
        assert_eq!(stored(ledger, number).await.state, expected, "{number}");
    }
    for (number, owed) in [(208, true), (209, true), (210, false), (211, false)] {
        let it = stored(ledger, number).await;
        assert!(matches!(it.state, Payment::Settled { .. }));
        let expected = owed.then_some("settled_unanswered");
        assert_eq!(it.refund_owed.as_deref(), expected, "{number}");
    }
    assert!(matches!(stored(ledger, 213).await.state, Payment::Unknown { .. }));
    // Its last try was not sent, but an earlier one may have been: it cannot be given back.
    assert_eq!(stored(ledger, 216).await.state, Payment::Captured { charge: units(100) });
    assert!(matches!(stored(ledger, 214).await.state, Payment::Lost { .. }));
    let given_back = Payment::Released { why: Release::SettlementRejected };
    assert_eq!(stored(ledger, 215).await.state, given_back);
}

async fn the_queue_is_in_order(ledger: &dyn Ledger) {
    let mut jobs = ledger.lease_jobs(None, 100, at(3_000)).await.unwrap();
    jobs.sort_by_key(|job| job.terms.id);
    let jobs: Vec<_> = jobs
        .iter()
        .map(|job| (job.terms.id, job.charge, job.attempts, job.may_have_been_sent))
        .collect();
    let expected = [
        (payment_id(202), units(7), 0, false),
        (payment_id(205), units(100), 0, false),
        (payment_id(206), units(100), 1, true),
        (payment_id(207), units(100), 1, true),
    ];
    assert_eq!(jobs, expected);
    assert_eq!(ledger.next_due().await.unwrap(), Some(at(8_000)), "213 and 216 keep their time");
}

async fn late_outcomes_are_booked(ledger: &dyn Ledger) {
    // Whoever waited with these answers has gone with the process that crashed.
    let mut jobs = ledger.lease_jobs(None, 100, at(8_000)).await.unwrap();
    jobs.sort_by_key(|job| job.terms.id);
    let ids: Vec<_> = jobs.iter().map(|job| job.terms.id).collect();
    assert_eq!(ids, [payment_id(213), payment_id(216)]);
    for job in jobs {
        assert!(job.may_have_been_sent);
        assert_eq!(job.transaction.as_deref(), Some("0xdef"));
    }
    let late = [(206, settled()), (207, settled()), (213, rejected()), (216, settled())];
    for (number, how) in late {
        drop(ledger.resolve_job(payment_id(number), how, at(8_001)).await.unwrap());
    }
    for number in [206, 216] {
        let owed = stored(ledger, number).await.refund_owed;
        assert_eq!(owed.as_deref(), Some("settled_unanswered"), "{number}");
    }
    assert_eq!(stored(ledger, 207).await.refund_owed, None);
    let given_back = Payment::Released { why: Release::SettlementRejected };
    assert_eq!(stored(ledger, 213).await.state, given_back);
}
