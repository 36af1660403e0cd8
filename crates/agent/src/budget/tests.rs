//! The caps hold under every order of events and under real threads.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn limits(per_payment: u128, total: u128) -> Limits {
    Limits { per_payment: Usd::from_micros(per_payment), total: Usd::from_micros(total) }
}

fn usd(micros: u128) -> Usd {
    Usd::from_micros(micros)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

#[test]
fn each_cap_is_named() {
    let mut budget = Budget::new(limits(10, 25));
    assert_eq!(
        budget.reserve(usd(11), at(0)).unwrap_err(),
        OverBudget::PerPayment { asked: usd(11), cap: usd(10) }
    );
    let first = budget.reserve(usd(10), at(0)).unwrap();
    let second = budget.reserve(usd(10), at(0)).unwrap();
    assert_eq!(
        budget.reserve(usd(6), at(0)).unwrap_err(),
        OverBudget::Total { asked: usd(6), left: usd(5), cap: usd(25) }
    );
    budget.settle(first, usd(4)).unwrap();
    budget.release(second);
    let standing = Standing { spent: usd(4), reserved: usd(0), left: usd(21) };
    assert_eq!(budget.standing(), standing);
}

#[test]
fn a_dropped_reservation_stays_reserved() {
    let mut budget = Budget::new(limits(10, 10));
    drop(budget.reserve(usd(10), at(0)).unwrap());
    assert!(budget.reserve(usd(1), at(u64::MAX)).is_err());
}

#[test]
fn what_is_kept_is_reserved_for_good() {
    let mut budget = Budget::new(limits(10, 20));
    let reservation = budget.reserve(usd(10), at(0)).unwrap();
    budget.keep(reservation);
    let standing = Standing { spent: usd(0), reserved: usd(10), left: usd(10) };
    assert_eq!(budget.standing(), standing);
    drop(budget.reserve(usd(10), at(u64::MAX)).unwrap());
    assert!(budget.reserve(usd(1), at(u64::MAX)).is_err());
}

#[test]
fn what_was_disclaimed_counts_until_it_expires() {
    let mut budget = Budget::new(limits(10, 10));
    let reservation = budget.reserve(usd(10), at(0)).unwrap();
    budget.release_at(reservation, at(60));
    assert!(budget.reserve(usd(1), at(59)).is_err());
    assert!(budget.reserve(usd(10), at(60)).is_ok());
}

#[test]
fn a_charge_over_the_reservation_changes_nothing() {
    let mut budget = Budget::new(limits(10, 10));
    let reservation = budget.reserve(usd(5), at(0)).unwrap();
    let error = budget.settle(reservation, usd(6)).unwrap_err();
    assert_eq!(budget.standing().reserved, usd(5));
    budget.settle(error.reservation, usd(5)).unwrap();
    assert_eq!(budget.standing().spent, usd(5));
}

#[test]
fn a21_500_parallel_payments_never_exceed_a_dollar() {
    let budget = Arc::new(SharedBudget::new(Budget::new(limits(10_000, 1_000_000))));
    let threads: Vec<_> = (0..10_u128)
        .map(|thread| {
            let budget = Arc::clone(&budget);
            std::thread::spawn(move || {
                let mut signed = 0;
                for call in 0..50 {
                    let amount = usd(1_000 + (thread * 50 + call) * 17 % 9_000);
                    if let Ok(reservation) = budget.reserve(amount, at(0)) {
                        signed += amount.micros();
                        // Every third is charged, the next disclaimed, the last never heard of.
                        match call % 3 {
                            0 => budget.settle(reservation, amount).unwrap(),
                            1 => budget.release_at(reservation, at(1)),
                            _ => drop(reservation),
                        }
                    }
                }
                signed
            })
        })
        .collect();
    let signed: u128 = threads.into_iter().map(|it| it.join().unwrap()).sum();
    assert!(signed <= 1_000_000, "signed for {signed}");
    assert!(signed > 900_000, "the budget was hardly used: {signed}");
    let standing = budget.standing();
    assert_eq!(standing.spent.micros() + standing.reserved.micros(), signed);
}

/// One thing that happens; numbers pick among the open reservations.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u128),
    Settle(usize, u128),
    SettlePart(usize, u128),
    Release(usize),
    Disclaim(usize, u64),
    Forget(usize),
    Keep(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u128..600).prop_map(Step::Reserve),
        2 => (any::<usize>(), 0_u128..600).prop_map(|(which, charge)| Step::Settle(which, charge)),
        2 => (any::<usize>(), 0_u128..600)
            .prop_map(|(which, charge)| Step::SettlePart(which, charge)),
        1 => any::<usize>().prop_map(Step::Release),
        1 => (any::<usize>(), 0_u64..50).prop_map(|(which, span)| Step::Disclaim(which, span)),
        1 => any::<usize>().prop_map(Step::Forget),
        1 => any::<usize>().prop_map(Step::Keep),
        1 => (0_u64..50).prop_map(Step::Wait),
    ]
}

/// What a budget must say, kept naively: everything whose signature was or could still be charged.
#[derive(Default)]
struct Model {
    clock: u64,
    charged: u128,
    chargeable: Vec<(u128, Option<u64>)>,
    open: Vec<Reservation>,
}

impl Model {
    /// Whether a payment of `amount` is within the caps now.
    fn allows(&mut self, amount: u128) -> bool {
        let clock = self.clock;
        self.chargeable.retain(|(_, until)| until.is_none_or(|it| clock < it));
        let signed: u128 = self.chargeable.iter().map(|it| it.0).sum();
        let taken = self.charged.checked_add(signed).unwrap();
        amount <= 500 && taken.checked_add(amount).unwrap() <= 2_000
    }

    /// Takes one of the open reservations, with its place among the chargeable ones.
    fn pick(&mut self, which: usize) -> Option<(Reservation, usize)> {
        let place = which.checked_rem(self.open.len())?;
        let reservation = self.open.swap_remove(place);
        let entry = (reservation.amount().micros(), None);
        Some((reservation, self.chargeable.iter().position(|it| *it == entry).unwrap()))
    }

    fn play(&mut self, step: Step, budget: &mut Budget) {
        match step {
            Step::Reserve(amount) => {
                let outcome = budget.reserve(usd(amount), at(self.clock));
                assert_eq!(outcome.is_ok(), self.allows(amount));
                if let Ok(reservation) = outcome {
                    self.open.push(reservation);
                    self.chargeable.push((amount, None));
                }
            }
            Step::Settle(which, charge) => {
                let Some((reservation, place)) = self.pick(which) else { return };
                let amount = reservation.amount().micros();
                match budget.settle(reservation, usd(charge)) {
                    Ok(()) => {
                        self.chargeable.swap_remove(place);
                        self.charged = self.charged.checked_add(charge).unwrap();
                    }
                    Err(error) => {
                        assert!(amount < charge);
                        self.open.push(error.reservation);
                    }
                }
            }
            Step::SettlePart(which, charge) => {
                let Some((reservation, place)) = self.pick(which) else { return };
                let amount = reservation.amount().micros();
                match budget.settle_part(reservation, usd(charge)) {
                    Ok(rest) => {
                        self.chargeable[place].0 = amount.checked_sub(charge).unwrap();
                        self.charged = self.charged.checked_add(charge).unwrap();
                        self.open.push(rest);
                    }
                    Err(error) => {
                        assert!(amount < charge);
                        self.open.push(error.reservation);
                    }
                }
            }
            Step::Release(which) => {
                let Some((reservation, place)) = self.pick(which) else { return };
                self.chargeable.swap_remove(place);
                budget.release(reservation);
            }
            Step::Disclaim(which, span) => {
                let Some((reservation, place)) = self.pick(which) else { return };
                let until = self.clock.checked_add(span).unwrap();
                self.chargeable[place].1 = Some(until);
                budget.release_at(reservation, at(until));
            }
            Step::Forget(which) => drop(self.pick(which)),
            Step::Keep(which) => {
                let Some((reservation, _)) = self.pick(which) else { return };
                budget.keep(reservation);
            }
            Step::Wait(span) => self.clock = self.clock.checked_add(span).unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn no_order_of_events_exceeds_the_caps(steps in prop::collection::vec(step(), 0..200)) {
        let mut budget = Budget::new(limits(500, 2_000));
        let mut model = Model::default();
        for step in steps {
            model.play(step, &mut budget);
            let standing = budget.standing();
            prop_assert_eq!(standing.spent.micros(), model.charged);
            prop_assert!(standing.spent.saturating_add(standing.reserved) <= usd(2_000));
        }
    }
}
