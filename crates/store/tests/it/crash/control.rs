//! The controls: a ledger or a worker that is wrong in a known way is found out.
//!
//! Without them "nothing was lost" could mean that nobody looked.

use std::collections::BTreeMap;

use farebox_billing::{Payment, Release};
use farebox_store::{AnswerMark, StoredPayment};

use crate::crash::disk::Honesty;
use crate::crash::event::{Event, What};
use crate::crash::history::History;
use crate::crash::load::Conduct;
use crate::crash::{kill, power, strace};
use crate::support::{at, payment_id, terms, units};

/// Kills children that are wrong until it is noticed, on some files at most.
#[track_caller]
fn check_noticed_by_kills(conduct: Conduct, expected: &[&str]) {
    let (mut kills, mut found) = (0, Vec::new());
    for seed in 0..10 {
        let (tally, breaches) = kill::torment(seed, 12, conduct);
        kills += tally.kills;
        found = breaches;
        if !found.is_empty() {
            break;
        }
    }
    let is_expected = |it: &String| expected.iter().any(|what| it.contains(what));
    assert!(found.iter().any(is_expected), "{conduct:?}: {kills} kills, found {found:?}");
    println!("{conduct:?} is noticed by kill {kills}: {} breaches", found.len());
}

/// Cuts the power of children that are wrong until it is noticed, on some disks at most.
#[track_caller]
fn check_noticed_by_power_cuts(conduct: Conduct, honesty: Honesty) {
    strace::require();
    let (mut cuts, mut found) = (0, Vec::new());
    for seed in 0..10 {
        let (tally, breaches) = power::torment(seed, conduct, honesty);
        cuts += tally.cuts;
        found = breaches;
        if !found.is_empty() {
            break;
        }
    }
    assert!(!found.is_empty(), "{conduct:?}, {honesty:?}: {cuts} cuts and nothing found");
    println!("{conduct:?}, {honesty:?} is noticed by cut {cuts}: {} breaches", found.len() - 1);
}

#[test]
fn a_ledger_that_is_never_forced_to_the_disk_is_noticed() {
    check_noticed_by_power_cuts(Conduct::NeverForces, Honesty::Honest);
}

#[test]
fn a_ledger_that_is_forced_to_the_disk_now_and_then_is_noticed() {
    check_noticed_by_power_cuts(Conduct::ForcesAtTimes, Honesty::Honest);
}

#[test]
fn a_disk_that_lies_is_noticed() {
    check_noticed_by_power_cuts(Conduct::Sound, Honesty::Lying);
}

#[test]
fn serving_before_the_hold_is_noticed() {
    let expected = ["was served and is not there", "served and not charged", "served twice"];
    check_noticed_by_kills(Conduct::ServesFirst, &expected);
}

#[test]
fn signing_anew_on_a_retry_is_noticed() {
    check_noticed_by_kills(Conduct::Resigns, &["on the chain twice"]);
}

/// A row in that state, as recovery would leave it.
fn stored(state: Payment, answer: AnswerMark) -> StoredPayment {
    let terms = terms(1, farebox_store::SettleMode::After);
    StoredPayment { terms, state, answer, refund_owed: None, admitted_at: at(1), changed_at: at(2) }
}

#[track_caller]
fn check_breach(said: &[What], stored: Option<StoredPayment>, expected: &str) {
    let mut history = History::default();
    for what in said {
        history.add(&Event { number: 1, what: what.clone() });
    }
    let stored: BTreeMap<_, _> = stored.into_iter().map(|it| (payment_id(1), it)).collect();
    let breaches = history.breaches(&stored);
    if expected.is_empty() {
        assert_eq!(breaches, Vec::<String>::new(), "{said:?}");
    } else {
        assert!(breaches.iter().any(|it| it.contains(expected)), "{said:?}: {breaches:?}");
    }
}

#[test]
fn every_claim_that_is_not_true_is_noticed() {
    use What::*;
    let captured = || Some(stored(Payment::Captured { charge: units(60) }, AnswerMark::Leaving));
    let released = |why| Some(stored(Payment::Released { why }, AnswerMark::Withheld));
    let crashed = || released(Release::Crashed);
    let settled = |nonce| {
        let transaction = crate::crash::worker::transaction(1, nonce);
        let state = Payment::Settled { charge: units(60), transaction };
        Some(stored(state, AnswerMark::Sent))
    };
    let held = || Some(stored(Payment::Held { limit: units(100) }, AnswerMark::Withheld));
    let rows: &[(&[What], Option<StoredPayment>, &str)] = &[
        (&[Asked], None, ""),
        (&[Asked, Held], crashed(), ""),
        (&[Asked, Held], None, "was held and is not there"),
        (&[Asked, Held], held(), "left in the middle"),
        (&[Asked, Held, Released], released(Release::UpstreamFailed), ""),
        (&[Asked, Held, Released], crashed(), "released and not given back"),
        (&[Asked, Held, Metered(60)], captured(), ""),
        (&[Asked, Held, Metered(61)], captured(), "metered and not charged"),
        (&[Asked, Held, Metered(10)], crashed(), "metered and not charged"),
        (&[Asked, Left], None, "was served and is not there"),
        (&[Asked, Held, Left], crashed(), "served and not charged"),
        (&[Asked, Held, Left, Held, Left], captured(), "served twice"),
        (&[Asked, Held, Left, Chunk(60)], captured(), ""),
        (&[Asked, Held, Left, Chunk(61)], captured(), "charged less than was served"),
        (&[Asked, Held, Captured(60)], captured(), ""),
        (&[Asked, Held, Captured(59)], captured(), "charged otherwise"),
        (&[Asked, Held, Captured(60)], crashed(), "charged otherwise"),
        (&[Asked, Held, Withheld(60)], crashed(), ""),
        (&[Asked, Held, Withheld(60), Broadcast(1)], crashed(), "charged otherwise"),
        (&[Asked, Held, Withheld(60), Broadcast(1)], captured(), "as the chain says"),
        (&[Asked, Held, Captured(60), Broadcast(1)], settled(1), ""),
        (&[Asked, Held, Captured(60)], settled(1), "as the chain says"),
        (&[Asked, Held, Broadcast(1), Settled(1)], settled(2), "as the chain says"),
        (&[Asked, Held, Broadcast(1), Broadcast(2)], settled(2), "on the chain twice"),
        (&[Asked, Held, Broadcast(1), Settled(1)], captured(), "as the chain says"),
        (&[Asked, Held, Captured(60), Rejected], captured(), "rejected and not ended"),
        (&[Asked, Held, Captured(60), Sent], settled(1), "as the chain says"),
        (&[Asked, Held, Captured(60), Sent], captured(), "sent and not marked"),
        (&[Asked, Held, Broadcast(1), Settled(1), Owed], settled(1), "owed back and forgotten"),
        (&[], captured(), "nobody asked"),
    ];
    for (said, stored, expected) in rows {
        check_breach(said, stored.clone(), expected);
    }
}
