//! What every engine must do: plain functions over the port.

mod watches;

use farebox_billing::{Payment, Release};
use farebox_protocol::Digest;
use farebox_store::{
    Admit, AnswerMark, Ledger, Refusal, RequestKey, Resolution, SettleMode, StoreError,
};

use crate::support::{ask, at, granted, hold, payment_id, refused, serving, terms, units};

/// All of it, on one ledger that is empty at first.
pub(crate) async fn run(ledger: &dyn Ledger) {
    a_payment_is_taken_once(ledger).await;
    a_released_payment_may_be_held_again_by_its_own_request(ledger).await;
    a_request_key_buys_once(ledger).await;
    a_request_key_names_one_request(ledger).await;
    exposure_counts_what_is_open(ledger).await;
    a_stale_hold_is_fenced(ledger).await;
    what_was_delivered_is_not_released(ledger).await;
    what_was_only_announced_is_withdrawn(ledger).await;
    captures_repeat_and_do_not_double(ledger).await;
    only_routes_that_settle_first_charge_before_serving(ledger).await;
    a_job_is_leased_once_and_settles(ledger).await;
    not_sent_is_queued_again(ledger).await;
    unknown_is_queued_to_be_looked_up(ledger).await;
    rejected_is_released_or_lost(ledger).await;
    an_answer_of_a_payment_given_back_may_not_leave(ledger).await;
    refunds_are_owed_for_settled_payments_only(ledger).await;
    payments_are_listed_in_the_order_of_admission(ledger).await;
    secrets_stay(ledger).await;
    watches::a_settled_payment_is_watched_until_it_is_final(ledger).await;
    watches::a9_what_the_chain_takes_back_is_owed_again(ledger).await;
    watches::a9_what_was_not_paid_is_not_owed_back(ledger).await;
    watches::only_what_is_settled_is_watched(ledger).await;
}

async fn state(ledger: &dyn Ledger, number: u64) -> Payment {
    ledger.lookup(payment_id(number)).await.unwrap().unwrap().state
}

/// Serves and captures payment `number` whole.
async fn captured(ledger: &dyn Ledger, number: u64, mark: AnswerMark) {
    let hold = serving(ledger, number, SettleMode::After).await;
    let captured = ledger.capture(hold, units(100), mark, at(2_000)).await.unwrap();
    assert_eq!(captured.charge(), units(100));
}

/// Serves, captures and leases payment `number`.
async fn leased(ledger: &dyn Ledger, number: u64, mark: AnswerMark) {
    captured(ledger, number, mark).await;
    let jobs = ledger.lease_jobs(Some(payment_id(number)), 1, at(2_000)).await.unwrap();
    assert_eq!(jobs.len(), 1);
}

async fn a_payment_is_taken_once(ledger: &dyn Ledger) {
    let terms = terms(1, SettleMode::After);
    let mine = granted(ledger.admit(ask(&terms, at(1_000))).await.unwrap());
    assert_eq!((mine.id(), mine.limit()), (terms.id, terms.limit));
    let again = refused(ledger.admit(ask(&terms, at(1_001))).await.unwrap());
    assert!(matches!(again, Refusal::InProgress));
    let mut other = terms.clone();
    other.fingerprint = Digest::of(b"another request");
    let refusal = refused(ledger.admit(ask(&other, at(1_002))).await.unwrap());
    let Refusal::AlreadyUsed { same_request: false, payment } = refusal else {
        panic!("{refusal:?}")
    };
    assert_eq!(payment.terms, terms);
    ledger.begin_serve(&mine, at(1_003)).await.unwrap();
    let again = refused(ledger.admit(ask(&terms, at(1_004))).await.unwrap());
    assert!(matches!(again, Refusal::InProgress));
    let captured = ledger.capture(mine, units(100), AnswerMark::Sent, at(1_005)).await.unwrap();
    assert_eq!((captured.id(), captured.charge()), (terms.id, units(100)));
    let refusal = refused(ledger.admit(ask(&terms, at(1_006))).await.unwrap());
    let Refusal::AlreadyUsed { same_request: true, payment } = refusal else {
        panic!("{refusal:?}")
    };
    assert_eq!(payment.state, Payment::Captured { charge: units(100) });
    assert_eq!((payment.admitted_at, payment.changed_at), (at(1_000), at(1_005)));
}

async fn a_released_payment_may_be_held_again_by_its_own_request(ledger: &dyn Ledger) {
    let first = hold(ledger, 2, SettleMode::After).await;
    ledger.release(&first, Release::UpstreamFailed, at(1_010)).await.unwrap();
    ledger.release(&first, Release::UpstreamFailed, at(1_011)).await.unwrap();
    let mut other = terms(2, SettleMode::After);
    other.fingerprint = Digest::of(b"another request");
    let refusal = refused(ledger.admit(ask(&other, at(1_012))).await.unwrap());
    assert!(matches!(refusal, Refusal::AlreadyUsed { same_request: false, .. }));
    let second = hold(ledger, 2, SettleMode::After).await;
    let stale = ledger.release(&first, Release::UpstreamFailed, at(1_013)).await;
    assert!(matches!(stale, Err(StoreError::Fenced(id)) if id == payment_id(2)));
    ledger.begin_serve(&second, at(1_014)).await.unwrap();
    ledger.release(&second, Release::UpstreamFailed, at(1_015)).await.unwrap();
}

/// A hold asked for by payment `number`, for a request that is called `name`.
fn keyed(number: u64, name: &[u8], request: &[u8]) -> Admit {
    let keys = vec![RequestKey { name: Digest::of(name), request: Digest::of(request) }];
    Admit { keys, ..ask(&terms(number, SettleMode::After), at(1_015)) }
}

async fn a_request_key_buys_once(ledger: &dyn Ledger) {
    let first = granted(ledger.admit(keyed(3, b"once", b"request")).await.unwrap());
    // Signed anew, while the first runs and ever after.
    let same = |refusal| {
        let Refusal::KeyUsed { same_request: true, payment } = refusal else {
            panic!("{refusal:?}")
        };
        payment.terms.id
    };
    let refusal = refused(ledger.admit(keyed(4, b"once", b"request")).await.unwrap());
    assert_eq!(same(refusal), payment_id(3));
    assert!(ledger.lookup(payment_id(4)).await.unwrap().is_none(), "it was not taken");
    let again = refused(ledger.admit(keyed(3, b"once", b"request")).await.unwrap());
    assert!(matches!(again, Refusal::InProgress), "{again:?}");
    // Given back, it has cost nothing: another payment may be tried, and has the name from then on.
    ledger.release(&first, Release::UpstreamFailed, at(1_016)).await.unwrap();
    let second = granted(ledger.admit(keyed(4, b"once", b"request")).await.unwrap());
    let refusal = refused(ledger.admit(keyed(3, b"once", b"request")).await.unwrap());
    assert_eq!(same(refusal), payment_id(4));
    ledger.begin_serve(&second, at(1_017)).await.unwrap();
    drop(ledger.capture(second, units(100), AnswerMark::Sent, at(1_018)).await.unwrap());
    let refusal = refused(ledger.admit(keyed(5, b"once", b"request")).await.unwrap());
    assert_eq!(same(refusal), payment_id(4));
    // Two names of one request: either is enough.
    let mut both = keyed(5, b"new", b"request");
    both.keys.extend(keyed(5, b"once", b"request").keys);
    let refusal = refused(ledger.admit(both).await.unwrap());
    assert_eq!(same(refusal), payment_id(4));
    let new = granted(ledger.admit(keyed(5, b"new", b"request")).await.unwrap());
    ledger.release(&new, Release::UpstreamFailed, at(1_019)).await.unwrap();
}

async fn a_request_key_names_one_request(ledger: &dyn Ledger) {
    let first = granted(ledger.admit(keyed(6, b"name", b"request")).await.unwrap());
    let other = || ledger.admit(keyed(7, b"name", b"other"));
    let refusal = refused(other().await.unwrap());
    assert!(matches!(refusal, Refusal::KeyUsed { same_request: false, .. }), "{refusal:?}");
    ledger.release(&first, Release::UpstreamFailed, at(1_015)).await.unwrap();
    let refusal = refused(other().await.unwrap());
    assert!(matches!(refusal, Refusal::KeyUsed { same_request: false, .. }), "{refusal:?}");
}

async fn exposure_counts_what_is_open(ledger: &dyn Ledger) {
    let payer = "0x3333333333333333333333333333333333333333";
    let ask = |number, limit| {
        let mut terms = terms(number, SettleMode::After);
        terms.payer = payer.to_owned();
        let mut ask = ask(&terms, at(1_020));
        ask.exposure_limit = Some(units(limit));
        ask
    };
    let first = granted(ledger.admit(ask(10, 200)).await.unwrap());
    let second = granted(ledger.admit(ask(11, 200)).await.unwrap());
    let refusal = refused(ledger.admit(ask(12, 299)).await.unwrap());
    let Refusal::ExposureExceeded { open, limit } = refusal else { panic!("{refusal:?}") };
    assert_eq!((open, limit), (units(200), units(299)));
    // Refused for its exposure, it was not taken; and what is given back or charged less counts no
    // more.
    assert!(ledger.lookup(payment_id(12)).await.unwrap().is_none());
    ledger.release(&first, Release::UpstreamFailed, at(1_021)).await.unwrap();
    ledger.begin_serve(&second, at(1_022)).await.unwrap();
    drop(ledger.capture(second, units(40), AnswerMark::Sent, at(1_023)).await.unwrap());
    let third = granted(ledger.admit(ask(12, 140)).await.unwrap());
    ledger.release(&third, Release::UpstreamFailed, at(1_024)).await.unwrap();
    // Another asset is another account.
    let mut elsewhere = ask(13, 100);
    elsewhere.terms.asset = farebox_protocol::Asset::new(
        farebox_protocol::Network::eip155(8453),
        elsewhere.terms.asset.address(),
    )
    .unwrap();
    let elsewhere = granted(ledger.admit(elsewhere).await.unwrap());
    ledger.release(&elsewhere, Release::UpstreamFailed, at(1_025)).await.unwrap();
}

async fn a_stale_hold_is_fenced(ledger: &dyn Ledger) {
    let first = hold(ledger, 20, SettleMode::After).await;
    ledger.release(&first, Release::Shutdown, at(1_030)).await.unwrap();
    let second = hold(ledger, 20, SettleMode::After).await;
    let fenced = |result| assert!(matches!(result, Err(StoreError::Fenced(_))), "{result:?}");
    fenced(ledger.begin_serve(&first, at(1_031)).await);
    fenced(ledger.meter(&first, units(1), at(1_031)).await);
    fenced(ledger.release(&first, Release::Shutdown, at(1_031)).await);
    let failed = ledger.capture(first, units(1), AnswerMark::Sent, at(1_031)).await.unwrap_err();
    assert!(matches!(failed.source, StoreError::Fenced(_)));
    assert_eq!(state(ledger, 20).await, Payment::Held { limit: units(100) });
    ledger.release(&second, Release::Shutdown, at(1_032)).await.unwrap();
}

async fn what_was_delivered_is_not_released(ledger: &dyn Ledger) {
    let hold = serving(ledger, 30, SettleMode::After).await;
    ledger.meter(&hold, units(3), at(1_040)).await.unwrap();
    ledger.meter(&hold, units(3), at(1_041)).await.unwrap();
    let falls = ledger.meter(&hold, units(2), at(1_042)).await;
    assert!(matches!(falls, Err(StoreError::Illegal(_))));
    let past_the_limit = ledger.meter(&hold, units(101), at(1_042)).await;
    assert!(matches!(past_the_limit, Err(StoreError::Illegal(_))));
    let released = ledger.release(&hold, Release::UpstreamFailed, at(1_043)).await;
    assert!(matches!(released, Err(StoreError::Illegal(_))));
    let delivered = Payment::Serving { limit: units(100), delivered: units(3) };
    assert_eq!(state(ledger, 30).await, delivered);
    // Neither for free nor for more than the limit; and the hold comes back.
    let failed = ledger.capture(hold, units(0), AnswerMark::Leaving, at(1_044)).await.unwrap_err();
    let failed = ledger.capture(failed.hold, units(101), AnswerMark::Leaving, at(1_044)).await;
    let hold = failed.unwrap_err().hold;
    // Whatever the caller believes, something has left.
    drop(ledger.capture(hold, units(2), AnswerMark::Withheld, at(1_045)).await.unwrap());
    let stored = ledger.lookup(payment_id(30)).await.unwrap().unwrap();
    assert_eq!(stored.answer, AnswerMark::Leaving);
}

async fn what_was_only_announced_is_withdrawn(ledger: &dyn Ledger) {
    let why = Release::UpstreamFailed;
    let first = hold(ledger, 35, SettleMode::After).await;
    for _ in 0..2 {
        let given_back = ledger.withdraw(&first, why, at(1_046)).await.unwrap();
        assert_eq!(given_back, Payment::Released { why });
    }
    let second = serving(ledger, 35, SettleMode::After).await;
    ledger.meter(&second, units(3), at(1_047)).await.unwrap();
    let stale = ledger.withdraw(&first, why, at(1_048)).await;
    assert!(matches!(stale, Err(StoreError::Fenced(id)) if id == payment_id(35)));
    for _ in 0..2 {
        let given_back = ledger.withdraw(&second, why, at(1_048)).await.unwrap();
        assert_eq!(given_back, Payment::Released { why });
    }
    let late = ledger.meter(&second, units(4), at(1_049)).await;
    assert!(matches!(late, Err(StoreError::Fenced(_))));
    let late = ledger.capture(second, units(4), AnswerMark::Leaving, at(1_049)).await;
    assert!(matches!(late.unwrap_err().source, StoreError::Fenced(_)));
    // Given back, it may be held and charged.
    captured(ledger, 35, AnswerMark::Sent).await;
}

async fn captures_repeat_and_do_not_double(ledger: &dyn Ledger) {
    captured(ledger, 40, AnswerMark::Leaving).await;
    let jobs = ledger.lease_jobs(Some(payment_id(40)), 9, at(2_000)).await.unwrap();
    assert_eq!(jobs.len(), 1, "one capture, one settlement");
    let settled = Resolution::Settled { transaction: "0x40".to_owned() };
    drop(ledger.resolve_job(payment_id(40), settled, at(2_001)).await.unwrap());
}

async fn only_routes_that_settle_first_charge_before_serving(ledger: &dyn Ledger) {
    let first = hold(ledger, 50, SettleMode::Before).await;
    drop(ledger.capture(first, units(100), AnswerMark::Withheld, at(1_050)).await.unwrap());
    let after = hold(ledger, 51, SettleMode::After).await;
    let failed = ledger.capture(after, units(100), AnswerMark::Withheld, at(1_051)).await;
    let failed = failed.unwrap_err();
    assert!(matches!(failed.source, StoreError::Illegal(_)));
    ledger.release(&failed.hold, Release::UpstreamFailed, at(1_052)).await.unwrap();
}

async fn a_job_is_leased_once_and_settles(ledger: &dyn Ledger) {
    captured(ledger, 60, AnswerMark::Sent).await;
    let id = payment_id(60);
    assert!(ledger.next_due().await.unwrap().is_some_and(|due| due <= at(2_000)));
    // Whoever waits for a first try gets it, even if the clock has stepped back.
    let jobs = ledger.lease_jobs(Some(id), 9, at(1_999)).await.unwrap();
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!(job.terms, terms(60, SettleMode::After));
    assert_eq!((job.charge, job.attempts, job.answer), (units(100), 0, AnswerMark::Sent));
    assert!(!job.may_have_been_sent);
    assert_eq!(state(ledger, 60).await, Payment::Settling { charge: units(100) });
    assert!(ledger.lease_jobs(Some(id), 9, at(9_000)).await.unwrap().is_empty());
    let settled = Resolution::Settled { transaction: "0x60".to_owned() };
    let expected = Payment::Settled { charge: units(100), transaction: "0x60".to_owned() };
    for _ in 0..2 {
        let state = ledger.resolve_job(id, settled.clone(), at(2_001)).await.unwrap();
        assert_eq!(state, expected);
    }
    let other = Resolution::Settled { transaction: "0x61".to_owned() };
    let doubled = ledger.resolve_job(id, other, at(2_002)).await;
    assert!(matches!(doubled, Err(StoreError::Illegal(_))));
    assert_eq!(state(ledger, 60).await, expected);
}

async fn not_sent_is_queued_again(ledger: &dyn Ledger) {
    leased(ledger, 70, AnswerMark::Sent).await;
    let id = payment_id(70);
    for _ in 0..2 {
        let again = Resolution::NotSent { retry_at: at(5_000) };
        let state = ledger.resolve_job(id, again, at(2_001)).await.unwrap();
        assert_eq!(state, Payment::Captured { charge: units(100) });
    }
    assert!(ledger.lease_jobs(Some(id), 9, at(4_999)).await.unwrap().is_empty());
    let jobs = ledger.lease_jobs(Some(id), 9, at(5_000)).await.unwrap();
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!((job.attempts, job.may_have_been_sent), (1, false));
    let settled = Resolution::Settled { transaction: "0x70".to_owned() };
    drop(ledger.resolve_job(id, settled, at(5_001)).await.unwrap());
}

async fn unknown_is_queued_to_be_looked_up(ledger: &dyn Ledger) {
    leased(ledger, 80, AnswerMark::Sent).await;
    let id = payment_id(80);
    let transaction = Some("0x80".to_owned());
    for _ in 0..2 {
        let unknown = Resolution::Unknown { transaction: transaction.clone(), retry_at: at(5_000) };
        let state = ledger.resolve_job(id, unknown, at(2_001)).await.unwrap();
        let expected = Payment::Unknown { charge: units(100), transaction: transaction.clone() };
        assert_eq!(state, expected);
    }
    assert!(ledger.lease_jobs(Some(id), 9, at(4_999)).await.unwrap().is_empty());
    let jobs = ledger.lease_jobs(Some(id), 9, at(5_000)).await.unwrap();
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!((job.attempts, job.may_have_been_sent), (1, true));
    assert_eq!(job.transaction, transaction);
    // Nothing was sent this time, but something was before.
    let again = Resolution::NotSent { retry_at: at(6_000) };
    drop(ledger.resolve_job(id, again, at(5_001)).await.unwrap());
    let jobs = ledger.lease_jobs(Some(id), 9, at(6_000)).await.unwrap();
    assert!(jobs.iter().all(|job| job.may_have_been_sent && job.attempts == 2));
    // Nor is the name of what was sent forgotten.
    let unnamed = Resolution::Unknown { transaction: None, retry_at: at(6_000) };
    let state = ledger.resolve_job(id, unnamed, at(6_000)).await.unwrap();
    assert_eq!(state, Payment::Unknown { charge: units(100), transaction: transaction.clone() });
    let jobs = ledger.lease_jobs(Some(id), 9, at(6_000)).await.unwrap();
    assert!(jobs.iter().all(|job| job.transaction == transaction && job.attempts == 3));
    let settled = Resolution::Settled { transaction: "0x80".to_owned() };
    drop(ledger.resolve_job(id, settled, at(6_001)).await.unwrap());
}

async fn rejected_is_released_or_lost(ledger: &dyn Ledger) {
    let rejected = Resolution::Rejected { reason: "insufficient_funds".to_owned() };
    leased(ledger, 90, AnswerMark::Withheld).await;
    leased(ledger, 91, AnswerMark::Leaving).await;
    for _ in 0..2 {
        let given_back = ledger.resolve_job(payment_id(90), rejected.clone(), at(2_001)).await;
        let expected = Payment::Released { why: Release::SettlementRejected };
        assert_eq!(given_back.unwrap(), expected);
        let lost = ledger.resolve_job(payment_id(91), rejected.clone(), at(2_001)).await;
        let reason = "insufficient_funds".to_owned();
        assert_eq!(lost.unwrap(), Payment::Lost { charge: units(100), reason });
    }
    // Given back, it may be held and captured again: that is another settlement.
    leased(ledger, 90, AnswerMark::Sent).await;
    let settled = Resolution::Settled { transaction: "0x90".to_owned() };
    drop(ledger.resolve_job(payment_id(90), settled, at(2_002)).await.unwrap());
    // What never began cannot be rejected.
    captured(ledger, 92, AnswerMark::Withheld).await;
    let early = ledger.resolve_job(payment_id(92), rejected.clone(), at(2_003)).await;
    assert!(matches!(early, Err(StoreError::Illegal(_))));
    let held = hold(ledger, 93, SettleMode::After).await;
    let earlier = ledger.resolve_job(payment_id(93), rejected, at(2_004)).await;
    assert!(matches!(earlier, Err(StoreError::Illegal(_))));
    ledger.release(&held, Release::Shutdown, at(2_005)).await.unwrap();
}

async fn an_answer_of_a_payment_given_back_may_not_leave(ledger: &dyn Ledger) {
    leased(ledger, 100, AnswerMark::Withheld).await;
    let id = payment_id(100);
    let rejected = Resolution::Rejected { reason: "expired".to_owned() };
    drop(ledger.resolve_job(id, rejected, at(2_001)).await.unwrap());
    let leaves = ledger.mark_answer(id, AnswerMark::Leaving, at(2_002)).await;
    assert!(matches!(leaves, Err(StoreError::Fenced(_))));
    // A mark rises and never falls.
    captured(ledger, 101, AnswerMark::Withheld).await;
    for mark in [AnswerMark::Leaving, AnswerMark::Sent, AnswerMark::Leaving] {
        ledger.mark_answer(payment_id(101), mark, at(2_003)).await.unwrap();
    }
    let stored = ledger.lookup(payment_id(101)).await.unwrap().unwrap();
    assert_eq!(stored.answer, AnswerMark::Sent);
}

async fn refunds_are_owed_for_settled_payments_only(ledger: &dyn Ledger) {
    leased(ledger, 110, AnswerMark::Withheld).await;
    let id = payment_id(110);
    let early = ledger.owe_refund(id, "upstream_failed", at(2_001)).await;
    assert!(matches!(early, Err(StoreError::Fenced(_))));
    let settled = Resolution::Settled { transaction: "0x110".to_owned() };
    drop(ledger.resolve_job(id, settled, at(2_002)).await.unwrap());
    ledger.owe_refund(id, "upstream_failed", at(2_003)).await.unwrap();
    ledger.owe_refund(id, "another reason", at(2_004)).await.unwrap();
    let stored = ledger.lookup(id).await.unwrap().unwrap();
    assert_eq!(stored.refund_owed.as_deref(), Some("upstream_failed"));
}

async fn payments_are_listed_in_the_order_of_admission(ledger: &dyn Ledger) {
    let all = ledger.list(None, 10_000).await.unwrap();
    let ids: Vec<_> = all.iter().map(|it| it.terms.id).collect();
    assert_eq!(ids.first(), Some(&payment_id(1)));
    assert_eq!(ids.last(), Some(&payment_id(110)));
    let mut pages = Vec::new();
    loop {
        let page = ledger.list(pages.last().copied(), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.extend(page.iter().map(|it| it.terms.id));
    }
    assert_eq!(pages, ids);
}

async fn secrets_stay(ledger: &dyn Ledger) {
    let seal = ledger.secret("quote seal").await.unwrap();
    assert_eq!(ledger.secret("quote seal").await.unwrap(), seal);
    assert_ne!(ledger.secret("another").await.unwrap(), seal);
    assert_ne!(seal, [0; 32]);
}
