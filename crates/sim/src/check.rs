//! The invariants, as set arithmetic over what happened, the ledger and the chain.
//!
//! The numbers are those of the list of invariants that the project keeps: 1 conservation, 3 durable
//! before serve, 4 acknowledged survives, 5 served at most once, 6 charged at most once, 8 bounded
//! and explainable charges, 10 every serve ends, 11 unknown is not failure, 12 settled once, 13
//! settlement happens, 14 atomic queue, 19 audit equals state, 20 recovery is idempotent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, Digest, PaymentId};
use farebox_store::{AnswerMark, StoredPayment};

use crate::chain::Chain;
use crate::event::{Event, Fit};
use crate::world::World;

/// Events that are shown of a run that failed.
const SHOWN: usize = 60;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The number of the invariant.
    pub invariant: u8,
    /// Of which payment, if it is about one.
    pub payment: Option<PaymentId>,
    /// What was found.
    pub what: String,
}

impl Breach {
    pub(crate) fn new(invariant: u8, payment: Option<PaymentId>, what: impl Into<String>) -> Self {
        Self { invariant, payment, what: what.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}", self.invariant)?;
        if let Some(payment) = self.payment {
            write!(f, ", payment {payment}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// The ledger's own audit: accounts, journal, rows, queue.
pub(crate) fn ledger(world: &World) -> Vec<Breach> {
    match world.disk.check() {
        Ok(report) => report
            .problems
            .into_iter()
            .map(|it| Breach::new(if it.payment.is_some() { 19 } else { 1 }, it.payment, it.what))
            .collect(),
        Err(error) => vec![Breach::new(19, None, error.to_string())],
    }
}

/// The last events, for people: payments by the order in which they came up.
pub(crate) fn tell(events: &[(u64, Event)]) -> Vec<String> {
    let began = events.first().map_or(0, |it| it.0);
    let mut names: Vec<PaymentId> = Vec::new();
    for (_, event) in events {
        names.extend(event.payment().filter(|it| !names.contains(it)));
    }
    let first = events.len().saturating_sub(SHOWN);
    let line = |(at, event): &(u64, Event)| {
        let place = event.payment().and_then(|it| names.iter().position(|name| *name == it));
        let name = place.map_or_else(String::new, |it| format!("p{it}"));
        let text = format!("{event:?}");
        let text = event.payment().map_or(text.clone(), |it| text.replace(&it.to_string(), &name));
        format!("{:>9} ms {text}", at.saturating_sub(began))
    };
    events.get(first..).unwrap_or_default().iter().map(line).collect()
}

/// Everything, when a run is over.
pub(crate) fn check(world: &World, chain: &Chain) -> Vec<Breach> {
    let mut breaches = ledger(world);
    let mut court = Court::default();
    world.history(|log| {
        for (_, event) in log.events() {
            court.hear(event);
        }
    });
    let Court { cases, names, breaches: found, .. } = court;
    breaches.extend(found);
    breaches.extend(check_names(world, &names));
    let mut landed: BTreeMap<_, _> =
        chain.landed().into_iter().map(|it| (it.payment, it.transactions)).collect();
    for stored in world.disk.payments() {
        let id = stored.terms.id;
        let moved = landed.remove(&id).unwrap_or_default();
        let case = cases.get(&id);
        let mut report = |invariant, what: String| {
            breaches.push(Breach::new(invariant, Some(id), what));
        };
        check_end(&stored, &moved, &mut report);
        if let Some(case) = case {
            check_case(&stored, case, &mut report);
        }
    }
    for (payment, moved) in landed {
        let what = format!("{moved:?} moved for a payment that the ledger does not know");
        breaches.push(Breach::new(12, Some(payment), what));
    }
    breaches
}

/// A request of one name is charged once, whatever was signed for it.
fn check_names(world: &World, names: &BTreeMap<u64, BTreeSet<PaymentId>>) -> Vec<Breach> {
    let payments = world.disk.payments();
    let charged: BTreeSet<PaymentId> =
        payments.iter().filter(|it| is_charged(&it.state)).map(|it| it.terms.id).collect();
    let mut breaches = Vec::new();
    for (name, signed) in names {
        let twice: Vec<_> = signed.intersection(&charged).collect();
        if 1 < twice.len() {
            let what = format!("request {name} was charged {} times: {twice:?}", twice.len());
            breaches.push(Breach::new(6, None, what));
        }
    }
    breaches
}

/// A payment's end, against what has landed of it.
fn check_end(
    stored: &StoredPayment,
    moved: &[(String, Amount)],
    report: &mut impl FnMut(u8, String),
) {
    if 1 < moved.len() {
        report(6, format!("the money moved more than once: {moved:?}"));
    }
    match &stored.state {
        Payment::Settled { charge, transaction } => {
            if stored.terms.limit < *charge {
                report(8, format!("charged {charge} of {}", stored.terms.limit));
            }
            let nothing = charge.is_zero() && moved.is_empty();
            let seen = moved.iter().any(|it| it.0 == *transaction && it.1 == *charge);
            if !seen && !nothing {
                report(12, format!("settled {charge} in {transaction}; the chain has {moved:?}"));
            }
        }
        Payment::Released { .. } | Payment::Lost { .. } => {
            if !moved.is_empty() {
                report(12, format!("{:?}, and {moved:?} moved", stored.state));
            }
        }
        Payment::Captured { .. } | Payment::Settling { .. } | Payment::Unknown { .. } => {
            report(13, format!("still {:?}", stored.state));
        }
        Payment::Held { .. } | Payment::Serving { .. } => {
            report(10, format!("still {:?}", stored.state));
        }
    }
}

/// What is known of a payment's service, against its end.
fn check_case(stored: &StoredPayment, case: &Case, report: &mut impl FnMut(u8, String)) {
    let paid = matches!(stored.state, Payment::Settled { .. } | Payment::Lost { .. });
    if case.left != 0 && !paid {
        report(4, format!("served, and now {:?}", stored.state));
    }
    if 1 < case.left {
        report(5, format!("served {} times", case.left));
    }
    let settled = matches!(stored.state, Payment::Settled { .. });
    let unanswered = stored.answer == AnswerMark::Withheld && case.left == 0;
    if settled && unanswered && stored.refund_owed.is_none() {
        report(10, "settled, nothing left, and it is not owed back".to_owned());
    }
    let charge = match &stored.state {
        Payment::Settled { charge, .. } | Payment::Lost { charge, .. } => *charge,
        Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. }
        | Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Released { .. } => return,
    };
    if stored.terms.scheme == "exact" {
        if charge != stored.terms.limit {
            report(8, format!("exact charged {charge} of {}", stored.terms.limit));
        }
        return;
    }
    // What a crash left behind is charged by its checkpoint.
    if let (Some(cost), Lost::No) = (case.cost, case.lost)
        && case.finished != 0
        && charge != cost.min(stored.terms.limit)
    {
        report(8, format!("charged {charge}; by its usage it costs {cost}"));
    }
}

/// What is known of one payment.
#[derive(Clone, Debug, Default)]
struct Case {
    state: Option<Payment>,
    answer: Option<AnswerMark>,
    /// The upstream was asked since the last hold.
    asked: bool,
    left: u64,
    finished: u64,
    cost: Option<Amount>,
    /// Whether its process was lost after something had left.
    lost: Lost,
    captures: u64,
    settling: Settling,
    /// What was asked to be settled: the payload, and the amount since the last hold.
    payload: Option<Digest>,
    amount: Option<Amount>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lost {
    #[default]
    No,
    Yes,
}

/// What the gateway knows of a settlement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Settling {
    /// Nothing is on its way.
    #[default]
    No,
    /// It waits for the answer.
    Asked,
    /// It may have been sent: look before anything else.
    Unknown,
}

/// Hears everything in its order.
#[derive(Debug, Default)]
struct Court {
    cases: BTreeMap<PaymentId, Case>,
    costs: BTreeMap<u64, Amount>,
    /// Requests with a payment that was signed for another one.
    unfit: BTreeSet<u64>,
    /// What was signed for each request that has a name.
    names: BTreeMap<u64, BTreeSet<PaymentId>>,
    ready: bool,
    breaches: Vec<Breach>,
}

impl Court {
    fn report(&mut self, invariant: u8, payment: PaymentId, what: impl Into<String>) {
        self.breaches.push(Breach::new(invariant, Some(payment), what));
    }

    fn case(&mut self, payment: PaymentId) -> &mut Case {
        self.cases.entry(payment).or_default()
    }

    fn hear(&mut self, event: &Event) {
        match event {
            Event::Opened => self.ready = false,
            Event::Ready => self.ready = true,
            Event::Crashed => self.crash(),
            Event::Row { payment, state, answer, .. } => self.row(*payment, state, *answer),
            Event::Forgotten { payment } => {
                self.report(4, *payment, "is not what it was before the crash");
            }
            Event::UpstreamAsked { payment: Some(payment), .. } => self.asked(*payment),
            Event::Used { attempt, cost } => {
                self.costs.insert(*attempt, *cost);
            }
            Event::Answered { attempt, payment: Some(payment), status: 402, .. } => {
                self.refused(*attempt, *payment);
            }
            Event::Left { attempt, payment } => self.left(*attempt, *payment),
            Event::Finished { attempt, payment } => {
                let cost = self.costs.get(attempt).copied();
                let case = self.case(*payment);
                case.finished = case.finished.saturating_add(1);
                case.cost = cost;
            }
            Event::SettleAsked { payment, payload, amount } => {
                self.settle(*payment, *payload, *amount);
            }
            Event::SettleTold { payment, told } => {
                let unknown = told.contains("Unknown");
                self.case(*payment).settling =
                    if unknown { Settling::Unknown } else { Settling::No };
            }
            Event::LookedUp { payment, told } if told.starts_with("Ok") => {
                self.case(*payment).settling = Settling::No;
            }
            Event::Requested { attempt, fit: Fit::Other, .. } => {
                self.unfit.insert(*attempt);
            }
            Event::Requested { payment: Some(payment), name: Some(name), .. } => {
                self.names.entry(*name).or_default().insert(*payment);
            }
            Event::Requested { .. }
            | Event::LookedUp { .. }
            | Event::Healed
            | Event::Mishap { .. }
            | Event::HungUp { .. }
            | Event::UpstreamAsked { payment: None, .. }
            | Event::Answered { .. }
            | Event::Broadcast { .. } => {}
        }
    }

    fn crash(&mut self) {
        self.ready = false;
        for case in self.cases.values_mut() {
            if case.left != 0 {
                case.lost = Lost::Yes;
            }
            if case.settling == Settling::Asked {
                case.settling = Settling::Unknown;
            }
        }
    }

    /// A payment has changed.
    fn row(&mut self, payment: PaymentId, state: &Payment, answer: AnswerMark) {
        if self.ready && *state == (Payment::Released { why: Release::Crashed }) {
            self.report(10, payment, "taken for crashed while its process lives");
        }
        let case = self.case(payment);
        let was_charged = case.state.as_ref().is_some_and(is_charged);
        let is_charged = is_charged(state);
        if matches!(state, Payment::Held { .. }) {
            (case.asked, case.captures, case.amount) = (false, 0, None);
            case.settling = Settling::No;
        }
        if matches!(state, Payment::Released { .. }) {
            case.asked = false;
            case.captures = 0;
        }
        if is_charged && !was_charged {
            case.captures = case.captures.saturating_add(1);
        }
        let captures = case.captures;
        case.state = Some(state.clone());
        case.answer = Some(answer);
        if 1 < captures {
            self.report(6, payment, "captured twice");
        }
    }

    /// The upstream is called for it.
    fn asked(&mut self, payment: PaymentId) {
        let case = self.case(payment);
        let again = std::mem::replace(&mut case.asked, true);
        let begun = matches!(
            case.state,
            Some(Payment::Serving { .. } | Payment::Settled { .. } | Payment::Settling { .. })
        );
        let state = case.state.clone();
        if again {
            self.report(5, payment, "the upstream was called twice for one hold");
        }
        if !begun {
            self.report(3, payment, format!("the upstream was called for what is {state:?}"));
        }
    }

    /// The first byte leaves.
    fn left(&mut self, _attempt: u64, payment: PaymentId) {
        let case = self.case(payment);
        case.left = case.left.saturating_add(1);
        let marked = case.answer.is_some_and(|it| AnswerMark::Leaving <= it);
        let good = match &case.state {
            Some(Payment::Serving { delivered, .. }) => !delivered.is_zero(),
            Some(Payment::Settled { .. }) => true,
            Some(
                Payment::Captured { .. }
                | Payment::Settling { .. }
                | Payment::Unknown { .. }
                | Payment::Lost { .. },
            ) => marked,
            Some(Payment::Held { .. } | Payment::Released { .. }) | None => false,
        };
        let state = case.state.clone();
        if !good {
            self.report(3, payment, format!("a byte left of what is {state:?}"));
        }
    }

    /// A client is told to pay again, or otherwise.
    fn refused(&mut self, attempt: u64, payment: PaymentId) {
        if self.unfit.contains(&attempt) {
            // Another request than the one that was paid for.
            return;
        }
        let state = self.case(payment).state.clone();
        let taken = match &state {
            None | Some(Payment::Released { .. }) => false,
            Some(_) => true,
        };
        if taken {
            self.report(11, payment, format!("answered 402 while it is {state:?}"));
        }
    }

    fn settle(&mut self, payment: PaymentId, payload: Digest, amount: Amount) {
        let case = self.case(payment);
        let unknown = std::mem::replace(&mut case.settling, Settling::Asked) == Settling::Unknown;
        let other = case.payload.is_some_and(|it| it != payload)
            || case.amount.is_some_and(|it| it != amount);
        case.payload = Some(payload);
        case.amount = Some(amount);
        if unknown {
            self.report(11, payment, "sent again without a look");
        }
        if other {
            self.report(12, payment, "something else was sent than before");
        }
    }
}

fn is_charged(state: &Payment) -> bool {
    match state {
        Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. }
        | Payment::Settled { .. }
        | Payment::Lost { .. } => true,
        Payment::Held { .. } | Payment::Serving { .. } | Payment::Released { .. } => false,
    }
}
