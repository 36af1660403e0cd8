//! Opens what a crash left and holds it against all that was said.

use std::collections::{BTreeMap, BTreeSet};

use farebox_billing::Payment;
use farebox_protocol::{Amount, PaymentId};
use farebox_store::{
    Admitted, Intake, Ledger, Recovered, Refusal, Resolution, SettleMode, SqliteLedger,
    StoredPayment,
};

use crate::crash::history::{History, charge};
use crate::crash::worker::{CAPPED_PAYER, CAPPED_UNITS, key, number, transaction};
use crate::support::{ask, at, terms, units};

/// Later than every life, and later still.
const AFTERWARDS: u64 = 1_000_000_000_000;

/// What is not as it must be in that ledger. It is used up: in the end everything is settled.
pub(super) async fn breaches(ledger: &SqliteLedger, history: &History) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut must = |what: &str, is: bool| {
        if !is {
            breaches.push(what.to_owned());
        }
    };
    let _recovered = ledger.recover(at(AFTERWARDS)).await.unwrap();
    let before = stored(ledger).await;
    let again = ledger.recover(at(AFTERWARDS + 1)).await.unwrap();
    let after = stored(ledger).await;
    must("recovery is not idempotent", again == Recovered::default());
    must("recovery changes what it recovered", are_the_same(&before, &after));
    must("the totals are not the sums of the payments", totals_agree(ledger, &after).await);
    must("a payer has more open than may be", exposure(&after) <= units(CAPPED_UNITS));
    breaches.extend(unsound(ledger).await);
    breaches.extend(history.breaches(&after));
    breaches.extend(drain(ledger, history, &after).await);
    breaches.extend(unbound(ledger, &after).await);
    breaches.extend(unsound(ledger).await);
    breaches
}

async fn stored(ledger: &SqliteLedger) -> BTreeMap<PaymentId, StoredPayment> {
    let all = ledger.list(None, usize::MAX).await.unwrap();
    all.into_iter().map(|it| (it.terms.id, it)).collect()
}

fn are_the_same(
    one: &BTreeMap<PaymentId, StoredPayment>,
    other: &BTreeMap<PaymentId, StoredPayment>,
) -> bool {
    let same = |(one, other): (&StoredPayment, &StoredPayment)| {
        one.terms == other.terms
            && (&one.state, one.answer, &one.refund_owed)
                == (&other.state, other.answer, &other.refund_owed)
            && (one.admitted_at, one.changed_at) == (other.admitted_at, other.changed_at)
    };
    one.len() == other.len() && one.values().zip(other.values()).all(same)
}

/// What the ledger's own audit finds.
async fn unsound(ledger: &SqliteLedger) -> Vec<String> {
    let report = ledger.check().await.unwrap();
    report.problems.iter().map(ToString::to_string).collect()
}

async fn totals_agree(ledger: &SqliteLedger, stored: &BTreeMap<PaymentId, StoredPayment>) -> bool {
    let mut sums: BTreeMap<&str, (u64, Amount)> = BTreeMap::new();
    for it in stored.values() {
        let sum = sums.entry(it.state.name()).or_default();
        let units = charge(&it.state).unwrap_or_default();
        *sum = (sum.0 + 1, sum.1.checked_add(units).unwrap());
    }
    let totals = ledger.totals().await.unwrap();
    sums == totals.into_iter().map(|it| (it.state, (it.payments, it.units))).collect()
}

/// What the payer who is bounded has open, or has had and never paid.
fn exposure(stored: &BTreeMap<PaymentId, StoredPayment>) -> Amount {
    let open = |it: &&StoredPayment| {
        it.terms.payer == CAPPED_PAYER && !matches!(it.state, Payment::Settled { .. })
    };
    let sum = |sum: Amount, it: Amount| sum.checked_add(it).unwrap();
    let open = stored.values().filter(open);
    open.filter_map(|it| charge(&it.state)).fold(Amount::ZERO, sum)
}

/// The queue has exactly what is captured and not settled; all of it can be settled, once.
async fn drain(
    ledger: &SqliteLedger,
    history: &History,
    stored: &BTreeMap<PaymentId, StoredPayment>,
) -> Vec<String> {
    let now = at(AFTERWARDS + 2);
    let jobs = ledger.lease_jobs(None, usize::MAX, now).await.unwrap();
    let queued: BTreeSet<_> = jobs.iter().map(|it| it.terms.id).collect();
    let due = |it: &&StoredPayment| {
        matches!(it.state, Payment::Captured { .. } | Payment::Unknown { .. })
    };
    let expected: BTreeSet<_> = stored.values().filter(due).map(|it| it.terms.id).collect();
    let mut breaches = Vec::new();
    if queued != expected || jobs.len() != queued.len() {
        breaches.push(format!("the queue has {} of {} captured", queued.len(), expected.len()));
    }
    for job in jobs {
        let number = number(job.terms.id);
        let on_chain = history.nonce(number);
        if on_chain.is_some() && !job.may_have_been_sent {
            breaches.push(format!("{number}: on the chain, and its settlement would be sent anew"));
        }
        if Some(job.charge) != stored.get(&job.terms.id).and_then(|it| charge(&it.state)) {
            breaches.push(format!("{number}: queued with another charge"));
        }
        let transaction = transaction(number, on_chain.unwrap_or(1));
        let settled = Resolution::Settled { transaction };
        drop(ledger.resolve_job(job.terms.id, settled, now).await.unwrap());
    }
    if ledger.next_due().await.unwrap().is_some() {
        breaches.push("something is left in the queue".to_owned());
    }
    breaches
}

/// Payments of which it is tried whether their request can be paid for by another.
const KEYS: usize = 8;

/// What was paid for under a name cannot be paid for again under it.
async fn unbound(
    ledger: &SqliteLedger,
    stored: &BTreeMap<PaymentId, StoredPayment>,
) -> Vec<String> {
    // A disk that had failed may have lost the mark beside the file: then nothing is taken at all.
    if matches!(ledger.intake(), Intake::Quarantined(_)) {
        return Vec::new();
    }
    let charged = stored.values().rev().filter(|it| charge(&it.state).is_some());
    let named = charged.filter_map(|it| Some((it.terms.id, key(number(it.terms.id))?)));
    let mut breaches = Vec::new();
    for (id, key) in named.take(KEYS) {
        let other = terms(u64::MAX - number(id), SettleMode::After);
        let mut admit = ask(&other, at(AFTERWARDS + 3));
        admit.keys.push(key);
        let answer = ledger.admit(admit).await.unwrap();
        let refused = matches!(&answer, Admitted::Refused(Refusal::KeyUsed { payment, .. })
            if payment.terms.id == id);
        if !refused {
            breaches.push(format!("{}: its request was paid for again", number(id)));
        }
    }
    breaches
}
