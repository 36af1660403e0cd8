//! The life of payments through the books: whatever happens, the balances are what the states say.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use farebox_protocol::{Amount, PaymentId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{asset, units};
use crate::ledger::{
    Account, Books, Happening, Impossible, NotBooked, Outcome, Parties, Refund, Standing, book,
    open_hold, post, transfers_of, trial_balance,
};
use crate::{Event, Payment, Release};

/// A payment, as an engine keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    id: PaymentId,
    parties: Parties,
    generation: u64,
    reopened: u32,
    state: Option<Payment>,
    refund: Refund,
    /// What earlier holds of it have left: paid back for nothing.
    sunk: u128,
}

impl Kept {
    fn new(number: u8) -> Self {
        let payer = if number.is_multiple_of(2) { "0xAA" } else { "0xbb" };
        let id = PaymentId::from_bytes([number; 32]);
        let parties = Parties::new(asset(1), payer, "0xCC", "chat");
        let (state, refund) = (None, Refund::None);
        Self { id, parties, generation: 0, reopened: 0, state, refund, sunk: 0 }
    }

    fn standing(&self) -> Standing<'_> {
        let (payment, state, refund) = (self.id, self.state.as_ref(), self.refund);
        Standing { payment, generation: self.generation, reopened: self.reopened, state, refund }
    }

    /// Loads what its parties have, as an engine does.
    fn load(&self, books: &mut Books) {
        for key in self.parties.accounts() {
            if books.account(&key).is_none() {
                books.load_account(key, Account::ZERO);
            }
        }
    }

    fn book(&self, books: &mut Books, happening: &Happening<'_>) -> Result<(), NotBooked> {
        self.load(books);
        book(books, &self.parties, &self.standing(), happening)
    }

    fn admit(&mut self, books: &mut Books, limit: u128) {
        if !matches!(self.state, None | Some(Payment::Released { .. })) {
            let happening = Happening::Admitted { limit: units(limit), exposure_limit: None };
            assert!(matches!(self.book(books, &happening), Err(NotBooked::Impossible(_))));
            return;
        }
        if self.refund == Refund::Paid {
            self.sunk += self.charge();
        }
        (self.generation, self.reopened, self.refund) = (self.generation + 1, 0, Refund::None);
        let limit = units(limit);
        self.book(books, &Happening::Admitted { limit, exposure_limit: None }).unwrap();
        self.state = Some(Payment::Held { limit });
    }

    fn step(&mut self, books: &mut Books, event: &Event) {
        let Some(state) = self.state.clone() else { return };
        let Ok(next) = state.on(event.clone()) else { return };
        if self.refund == Refund::Paid && matches!(next, Payment::Released { .. }) {
            // It keeps its charge in mind: the money is gone.
            self.sunk += self.charge();
            self.book(books, &Happening::Stepped(event)).unwrap();
            (self.state, self.refund) = (Some(next), Refund::None);
            return;
        }
        self.book(books, &Happening::Stepped(event)).unwrap();
        self.state = Some(next);
    }

    fn charge(&self) -> u128 {
        match &self.state {
            Some(
                Payment::Captured { charge }
                | Payment::Settling { charge }
                | Payment::Unknown { charge, .. }
                | Payment::Settled { charge, .. }
                | Payment::Lost { charge, .. },
            ) => charge.units(),
            _ => 0,
        }
    }

    fn is_settled(&self) -> bool {
        matches!(self.state, Some(Payment::Settled { .. }))
    }

    fn owe(&mut self, books: &mut Books) {
        let done = self.book(books, &Happening::RefundOwed);
        assert_eq!(done.is_ok(), self.is_settled());
        if self.is_settled() && self.refund == Refund::None {
            self.refund = Refund::Owed;
        }
    }

    fn pay_back(&mut self, books: &mut Books) {
        let done = self.book(books, &Happening::Refunded);
        assert_eq!(done.is_ok(), self.is_settled() && self.refund == Refund::Owed);
        if done.is_ok() {
            self.refund = Refund::Paid;
        }
    }

    fn reopen(&mut self, books: &mut Books) {
        let done = self.book(books, &Happening::Reopened);
        assert_eq!(done.is_ok(), self.is_settled());
        if let Some(Payment::Settled { charge, transaction }) = self.state.clone() {
            self.reopened += 1;
            self.state = Some(Payment::Unknown { charge, transaction: Some(transaction) });
            if self.refund == Refund::Owed {
                self.refund = Refund::None;
            }
        }
    }

    /// What the state says that the balances are: of the posted sides debits less credits, and what
    /// is pending.
    fn adds(&self, to: &mut BTreeMap<String, (i128, u128)>) {
        let mut add = |name: String, balance: u128, sign: i128, pending: u128| {
            let it = to.entry(name).or_default();
            it.0 += i128::try_from(balance).unwrap() * sign;
            it.1 += pending;
        };
        let names = self.parties.accounts().map(|it| it.name.to_string());
        let [payer, loss, refund, revenue, chain] = names;
        let charge = self.charge();
        // What was paid back left the chain's account and not the route's.
        let against = if self.refund == Refund::Paid { chain.clone() } else { revenue.clone() };
        add(loss.clone(), self.sunk, 1, 0);
        add(chain.clone(), self.sunk, -1, 0);
        match self.state.as_ref().unwrap_or(&Payment::Released { why: Release::Crashed }) {
            Payment::Held { limit } | Payment::Serving { limit, .. } => {
                add(payer, 0, 1, limit.units());
                add(revenue, 0, 1, limit.units());
            }
            Payment::Captured { .. } | Payment::Settling { .. } | Payment::Unknown { .. } => {
                add(payer, charge, 1, 0);
                add(against, charge, -1, 0);
            }
            Payment::Lost { .. } => {
                add(loss, charge, 1, 0);
                add(against, charge, -1, 0);
            }
            Payment::Settled { .. } => {
                add(chain, charge, 1, 0);
                let owed = self.refund == Refund::Owed;
                add(if owed { refund } else { against }, charge, -1, 0);
            }
            Payment::Released { .. } => {}
        }
    }
}

/// Every balance is the sum of what the payments' states say, and exposure is what they say, too.
fn check(books: &Books, all: &[Kept]) {
    let mut expected = BTreeMap::new();
    for it in all {
        it.adds(&mut expected);
    }
    for (key, account) in books.accounts() {
        let signed = |it: Amount| i128::try_from(it.units()).unwrap();
        let balance = signed(account.debits_posted) - signed(account.credits_posted);
        let pending = account.debits_pending.units() + account.credits_pending.units();
        let told = expected.get(&key.name.to_string()).copied().unwrap_or_default();
        assert_eq!((balance, pending), told, "{key}: {all:?}");
    }
    assert!(trial_balance(books.accounts()).unwrap().values().all(Account::is_even));
    for it in all {
        let mine = |other: &&Kept| other.parties == it.parties;
        let told: u128 = all
            .iter()
            .filter(mine)
            .map(|it| it.sunk + it.state.as_ref().map_or(0, |it| it.exposure().units()))
            .sum();
        let [payer, loss, ..] = it.parties.accounts();
        let of = |key| books.account(key).map_or(0, |it| it.exposure().units());
        assert_eq!(of(&payer) + of(&loss), told, "the exposure of {payer}");
    }
}

#[derive(Clone, Debug)]
enum Act {
    Admit(u128),
    Step(Event),
    Owe,
    PayBack,
    Reopen,
}

/// Everything that can be tried, in an order that starts at random.
fn acts(seed: u64) -> impl Iterator<Item = Act> {
    let amount = u128::from(seed / 7 % 6);
    let why = Release::UpstreamFailed;
    let mut acts: Vec<Act> = [
        Event::ServeBegan,
        Event::Delivered(units(amount.min(1))),
        Event::Priced(units(amount)),
        Event::SettlementBegan,
        Event::Unanswered(None),
        Event::Confirmed("0x1".to_owned()),
        Event::Rejected("expired".to_owned()),
        Event::NotSent,
    ]
    .map(Act::Step)
    .into();
    acts.extend([Act::Admit(amount), Act::Owe, Act::PayBack, Act::Reopen]);
    // The ways out, less often.
    if seed.is_multiple_of(5) {
        acts.extend([Event::Abandoned(why), Event::Withdrawn(why)].map(Act::Step));
    }
    let start = usize::try_from(seed / 100 % 14).unwrap();
    let all = acts.len();
    (0..all).map(move |at| acts[(start + at) % all].clone())
}

fn act_on(it: &mut Kept, books: &mut Books, act: &Act) {
    match act {
        Act::Admit(limit) => it.admit(books, *limit),
        Act::Step(event) => it.step(books, event),
        Act::Owe => it.owe(books),
        Act::PayBack => it.pay_back(books),
        Act::Reopen => it.reopen(books),
    }
}

/// A state by its name, with what stands beside it.
type Seen = (&'static str, Refund, bool);

#[test]
fn whatever_happens_the_balances_are_what_the_states_say() {
    let config = Config { cases: 160, failure_persistence: None, ..Config::default() };
    let taken = Cell::new(0_u32);
    let seen = RefCell::new(BTreeSet::<Seen>::new());
    let result = TestRunner::new(config).run(&vec(any::<u64>(), 100), |seeds| {
        let mut books = Books::new();
        let mut all: Vec<Kept> = (0..6).map(Kept::new).collect();
        for seed in seeds {
            let it = &mut all[usize::try_from(seed % 6).unwrap()];
            let before = it.clone();
            // The first that can happen to it does.
            let happened = acts(seed / 6).any(|act| {
                act_on(it, &mut books, &act);
                *it != before
            });
            if !happened {
                continue;
            }
            taken.set(taken.get() + 1);
            let name = it.state.as_ref().map_or("new", Payment::name);
            seen.borrow_mut().insert((name, it.refund, 0 < it.reopened));
            check(&books, &all);
        }
        Ok(())
    });
    result.unwrap();
    assert!(10_000 <= taken.get(), "only {} transitions", taken.get());
    // Every state was met, and after a reorganisation and a refund, too.
    let seen = seen.into_inner();
    for name in ["held", "serving", "captured", "settling", "unknown", "settled", "released"] {
        assert!(seen.contains(&(name, Refund::None, false)), "{name} was not met");
    }
    for name in ["captured", "settling", "unknown", "settled", "released", "lost"] {
        assert!(seen.contains(&(name, Refund::None, true)), "{name} was not met after a reopening");
    }
    for name in ["captured", "settling", "unknown", "settled", "lost"] {
        assert!(seen.contains(&(name, Refund::Paid, true)), "{name} was not met after a refund");
    }
}

/// Walks one payment of 4 out of a hold of 10 through its life.
#[track_caller]
fn walk(steps: &[Act], expected: &[(&str, i128)]) {
    let mut books = Books::new();
    let mut it = Kept::new(2);
    it.admit(&mut books, 10);
    for act in steps {
        let before = it.clone();
        act_on(&mut it, &mut books, act);
        assert_ne!(before, it, "{act:?} did not happen");
    }
    let mut balances = Vec::new();
    for key in it.parties.accounts() {
        let account = books.account(&key).unwrap();
        assert_eq!((account.debits_pending, account.credits_pending), Default::default());
        let signed = |it: Amount| i128::try_from(it.units()).unwrap();
        let balance = signed(account.debits_posted) - signed(account.credits_posted);
        if balance != 0 {
            balances.push((key.name.to_string(), balance));
        }
    }
    let expected: Vec<_> = expected.iter().map(|it| (it.0.to_owned(), it.1)).collect();
    assert_eq!(balances, expected, "{steps:?}");
}

#[test]
fn every_way_out_ends_with_its_balances() {
    let step = |event| Act::Step(event);
    let captured = || vec![step(Event::ServeBegan), step(Event::Priced(units(4)))];
    let settling = || [captured(), vec![step(Event::SettlementBegan)]].concat();
    let unknown = || [settling(), vec![step(Event::Unanswered(None))]].concat();
    let settled = || [settling(), vec![step(Event::Confirmed("0x1".to_owned()))]].concat();
    let rejected = || step(Event::Rejected("expired".to_owned()));
    let gone = || step(Event::Abandoned(Release::Crashed));
    let withdrawn = || step(Event::Withdrawn(Release::UpstreamFailed));
    let (chain, revenue) = (("chain:0xcc", 4), ("revenue:chat", -4));
    let (loss, payer) = (("loss:0xaa", 4), ("payer:0xaa", 4));
    for end in [gone(), withdrawn(), step(Event::Priced(units(0)))] {
        walk(&[end], &[]);
    }
    walk(&[step(Event::ServeBegan), gone()], &[]);
    walk(&captured(), &[payer, revenue]);
    walk(&[captured(), vec![gone()]].concat(), &[]);
    walk(&[captured(), vec![withdrawn()]].concat(), &[]);
    walk(&[settling(), vec![step(Event::NotSent)]].concat(), &[payer, revenue]);
    walk(&[settling(), vec![gone()]].concat(), &[]);
    walk(&[unknown(), vec![gone()]].concat(), &[]);
    walk(&unknown(), &[payer, revenue]);
    walk(&settled(), &[revenue, chain]);
    walk(&[unknown(), vec![step(Event::Confirmed("0x1".to_owned()))]].concat(), &[revenue, chain]);
    walk(&[settling(), vec![rejected()]].concat(), &[loss, revenue]);
    walk(&[unknown(), vec![rejected()]].concat(), &[loss, revenue]);
    walk(&[settling(), vec![rejected(), withdrawn()]].concat(), &[]);
    walk(&[settled(), vec![Act::Owe]].concat(), &[("refund:0xaa", -4), chain]);
    walk(&[settled(), vec![Act::Owe, Act::PayBack]].concat(), &[]);
    walk(&[settled(), vec![Act::Reopen]].concat(), &[payer, revenue]);
    walk(&[settled(), vec![Act::Owe, Act::Reopen]].concat(), &[payer, revenue]);
    walk(&[settled(), vec![Act::Owe, Act::Reopen, gone()]].concat(), &[]);
    let paid_back = || [settled(), vec![Act::Owe, Act::PayBack, Act::Reopen]].concat();
    walk(&paid_back(), &[payer, ("chain:0xcc", -4)]);
    walk(&[paid_back(), vec![gone()]].concat(), &[loss, ("chain:0xcc", -4)]);
    walk(&[vec![gone(), Act::Admit(10)], settled()].concat(), &[revenue, chain]);
}

#[test]
fn what_an_engine_asks_again_is_booked_once() {
    let mut books = Books::new();
    let mut it = Kept::new(2);
    it.admit(&mut books, 10);
    let before = it.clone();
    let priced = Event::Priced(units(4));
    it.step(&mut books, &priced);
    let once = super::snapshot(&books);
    // As it stood before, the very same transfers come out.
    before.book(&mut books, &Happening::Stepped(&priced)).unwrap();
    assert_eq!(super::snapshot(&books), once);
    // Another charge under the same name is a contradiction.
    let other = before.book(&mut books, &Happening::Stepped(&Event::Priced(units(5))));
    let different = |it| matches!(it, NotBooked::Refused { outcome: Outcome::ExistsDifferent, .. });
    assert!(other.is_err_and(different));
    assert_eq!(super::snapshot(&books), once);
}

#[test]
fn a_hold_is_known_by_its_state_alone() {
    let mut first = Books::new();
    let mut it = Kept::new(2);
    it.admit(&mut first, 10);
    // Another process has the accounts and the payment, and no transfers.
    let mut second = Books::new();
    for (key, account) in first.accounts() {
        second.load_account(key.clone(), *account);
    }
    assert!(open_hold(&it.parties, &it.standing()).is_some());
    it.step(&mut second, &Event::Priced(units(4)));
    assert!(open_hold(&it.parties, &it.standing()).is_none());
    check(&second, &[it]);
    let more = Kept { state: Some(Payment::Held { limit: units(3) }), ..Kept::new(2) };
    let too_much = more.book(&mut second, &Happening::Stepped(&Event::Priced(units(4))));
    let exceeds =
        |it| matches!(it, NotBooked::Refused { outcome: Outcome::ExceedsPending { .. }, .. });
    assert!(too_much.is_err_and(exceeds));
}

#[test]
fn an_admission_is_within_the_limit_of_its_payer() {
    let mut books = Books::new();
    let mut first = Kept::new(2);
    first.admit(&mut books, 10);
    let ask = |limit| Happening::Admitted { limit: units(5), exposure_limit: Some(units(limit)) };
    let second = Kept { generation: 1, ..Kept::new(4) };
    let refused = NotBooked::WouldExceed { open: units(10), limit: units(14) };
    assert_eq!(second.book(&mut books, &ask(14)), Err(refused));
    second.book(&mut books, &ask(15)).unwrap();
    // Another payer is another matter.
    Kept { generation: 1, ..Kept::new(3) }.book(&mut books, &ask(5)).unwrap();
}

#[test]
fn what_cannot_happen_is_told() {
    let it = Kept::new(2);
    let priced = Event::Priced(units(1));
    let told = transfers_of(&it.parties, &it.standing(), &Happening::Stepped(&priced));
    let Err(Impossible { state, what, .. }) = told else { panic!("{told:?}") };
    assert_eq!((state, what.contains("Priced")), ("not admitted", true));
    let nothing = transfers_of(
        &it.parties,
        &it.standing(),
        &Happening::Admitted { limit: units(0), exposure_limit: None },
    );
    assert_eq!(nothing, Ok(Vec::new()));
    assert_eq!(post(&mut Books::new(), &[]), Ok(Vec::new()));
}
