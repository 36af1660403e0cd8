//! Exact set arithmetic over what was said and what the ledger has.
//!
//! Ids are unique and nothing said is ever taken back, so no search is needed: each payment is
//! judged by itself.

use std::collections::{BTreeMap, BTreeSet};

use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId};
use farebox_store::{AnswerMark, StoredPayment};

use crate::crash::event::{Event, What};
use crate::crash::worker::{is_rejected, transaction};
use crate::support::{payment_id, units};

/// All that was ever said about one file.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    told: BTreeMap<u64, Told>,
    /// What was said, `Asked` and `Trouble` not counted.
    pub(super) claims: u64,
    pub(super) troubles: Vec<String>,
    /// What lookups said after an unknown outcome.
    pub(super) seen: Vec<(u64, String)>,
}

/// All that was ever said about one payment.
#[derive(Clone, Debug, Default)]
struct Told {
    held: u32,
    hold: Hold,
    /// How often a first byte left.
    left: u32,
    /// What the bytes that left are worth.
    delivered: u64,
    /// What is on the chain, by nonce.
    broadcast: BTreeSet<u64>,
    settled: Option<u64>,
    sent: u32,
    owed: u32,
    /// Nobody waits for it any more.
    over: bool,
}

/// What was said since the payment was last held.
#[derive(Clone, Debug, Default)]
struct Hold {
    metered: u64,
    charge: Option<u64>,
    /// The charge was captured before anything had left.
    withheld: bool,
    end: End,
    /// Its client has asked anew, and perhaps got a new hold that nobody has heard of.
    asked_again: bool,
}

/// How a hold is known to have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Unknown,
    Released,
    Rejected,
}

impl History {
    pub(super) fn add(&mut self, event: &Event) {
        if let What::Trouble(text) = &event.what {
            self.troubles.push(format!("{}: {text}", event.number));
        }
        if let What::Seen(text) = &event.what {
            self.seen.push((event.number, text.clone()));
        }
        if matches!(
            event.what,
            What::Opened | What::Recovered | What::Done | What::Seen(_) | What::Trouble(_)
        ) {
            return;
        }
        self.claims += u64::from(event.what != What::Asked);
        self.told.entry(event.number).or_default().add(&event.what);
    }

    /// The last payments whose fate their client does not know.
    pub(super) fn open(&self, max: usize) -> Vec<u64> {
        let open = self.told.iter().filter(|(_, told)| !told.over).map(|(number, _)| *number);
        open.rev().take(max).collect()
    }

    /// What is on the chain and not known to be settled.
    pub(super) fn on_chain(&self) -> Vec<(u64, u64)> {
        let unknown = self.told.iter().filter(|(_, told)| told.settled.is_none());
        unknown.filter_map(|(number, told)| Some((*number, *told.broadcast.first()?))).collect()
    }

    /// The nonce under which a payment is on the chain.
    pub(super) fn nonce(&self, number: u64) -> Option<u64> {
        self.told.get(&number).and_then(|it| it.broadcast.first().copied())
    }

    /// Payments of which something left.
    pub(super) fn served(&self) -> usize {
        self.told.values().filter(|it| it.left != 0).count()
    }

    /// What is not true of a ledger that has been put in order after all of this.
    pub(super) fn breaches(&self, stored: &BTreeMap<PaymentId, StoredPayment>) -> Vec<String> {
        let mut breaches = Vec::new();
        for (number, told) in &self.told {
            for what in told.breaches(*number, stored.get(&payment_id(*number))) {
                breaches.push(format!("{number}: {what}"));
            }
        }
        let asked: BTreeSet<_> = self.told.keys().map(|it| payment_id(*it)).collect();
        let invented = stored.keys().filter(|it| !asked.contains(it));
        breaches.extend(invented.map(|it| format!("{it}: nobody asked for it")));
        breaches
    }
}

impl Told {
    fn add(&mut self, what: &What) {
        let hold = &mut self.hold;
        match what {
            What::Held => {
                self.held += 1;
                self.over = false;
                *hold = Hold::default();
            }
            What::Asked => hold.asked_again = true,
            What::Metered(upto) => hold.metered = *upto,
            What::Left => self.left += 1,
            What::Chunk(upto) => self.delivered = self.delivered.max(*upto),
            What::Captured(charge) => hold.charge = Some(*charge),
            What::Withheld(charge) => (hold.charge, hold.withheld) = (Some(*charge), true),
            What::Released => (hold.end, self.over) = (End::Released, true),
            What::Broadcast(nonce) => drop(self.broadcast.insert(*nonce)),
            What::Settled(nonce) => self.settled = Some(*nonce),
            What::Rejected => hold.end = End::Rejected,
            What::Sent => (self.sent, self.over) = (self.sent + 1, true),
            What::Owed => (self.owed, self.over) = (self.owed + 1, true),
            What::Used => self.over = true,
            What::Opened
            | What::Recovered
            | What::Done
            | What::Refused
            | What::Serving
            | What::Seen(_)
            | What::Trouble(_) => {}
        }
    }

    fn breaches(&self, number: u64, stored: Option<&StoredPayment>) -> Vec<&'static str> {
        let mut rules =
            vec![("served twice", 1 < self.left), ("on the chain twice", 1 < self.broadcast.len())];
        let Some(it) = stored else {
            rules.push(("was held and is not there", self.held != 0));
            rules.push(("was served and is not there", self.left != 0));
            rules.push(("is on the chain and not there", !self.broadcast.is_empty()));
            return broken(rules);
        };
        let charge = charge(&it.state);
        let served = self.left != 0 || self.delivered != 0;
        let open = matches!(it.state, Payment::Held { .. } | Payment::Serving { .. });
        let (released, rejected) = (self.hold.end == End::Released, self.hold.end == End::Rejected);
        rules.extend([
            ("left in the middle of its life", open),
            ("served and not charged", served && charge.is_none()),
            ("charged less than was served", charge.is_some_and(|it| it < value(self.delivered))),
            ("metered and not charged", charge.unwrap_or_default() < value(self.hold.metered)),
            ("captured and charged otherwise", !self.capture_stands(number, &it.state)),
            ("released and not given back", released && !given_back(&it.state)),
            ("settled or not as the chain says", !self.agrees_with_chain(number, &it.state)),
            ("rejected and not ended", rejected && !self.may_be_given_back(number, &it.state)),
            ("sent and not marked", self.sent != 0 && it.answer != AnswerMark::Sent),
            ("owed back and forgotten", self.owed != 0 && it.refund_owed.is_none()),
            ("sent and owed back", self.sent != 0 && it.refund_owed.is_some()),
        ]);
        broken(rules)
    }

    /// What was captured is charged; only what never left and was never sent to the chain may have
    /// been given back.
    fn capture_stands(&self, number: u64, state: &Payment) -> bool {
        let untouched = self.hold.withheld && self.left == 0 && self.broadcast.is_empty();
        let Some(charged) = self.hold.charge else { return true };
        charge(state) == Some(value(charged))
            || (untouched && self.may_be_given_back(number, state))
    }

    /// Whether a charge of which nothing left may stand there.
    fn may_be_given_back(&self, number: u64, state: &Payment) -> bool {
        let by_crash = self.hold.end != End::Rejected || self.hold.asked_again;
        let crashed = *state == Payment::Released { why: Release::Crashed };
        (crashed && by_crash) || (ended(state) && is_rejected(number))
    }

    /// What is on the chain is settled or known to be unsure; what is settled is on the chain.
    fn agrees_with_chain(&self, number: u64, state: &Payment) -> bool {
        let on_chain = |it: &String| self.broadcast.iter().any(|n| transaction(number, *n) == *it);
        match state {
            Payment::Settled { transaction, .. } => on_chain(transaction),
            Payment::Unknown { .. } => self.settled.is_none(),
            Payment::Held { .. }
            | Payment::Serving { .. }
            | Payment::Captured { .. }
            | Payment::Settling { .. }
            | Payment::Released { .. }
            | Payment::Lost { .. } => self.broadcast.is_empty(),
        }
    }
}

fn broken(rules: Vec<(&'static str, bool)>) -> Vec<&'static str> {
    rules.into_iter().filter(|(_, broken)| *broken).map(|(what, _)| what).collect()
}

fn value(amount: u64) -> Amount {
    units(amount.into())
}

fn given_back(state: &Payment) -> bool {
    *state == Payment::Released { why: Release::UpstreamFailed }
}

pub(super) fn ended(state: &Payment) -> bool {
    let given_back = Payment::Released { why: Release::SettlementRejected };
    matches!(state, Payment::Lost { .. }) || *state == given_back
}

/// What was charged, in every state that follows a capture.
pub(super) fn charge(state: &Payment) -> Option<Amount> {
    match state {
        Payment::Captured { charge }
        | Payment::Unknown { charge, .. }
        | Payment::Settling { charge }
        | Payment::Settled { charge, .. }
        | Payment::Lost { charge, .. } => Some(*charge),
        Payment::Held { .. } | Payment::Serving { .. } | Payment::Released { .. } => None,
    }
}
