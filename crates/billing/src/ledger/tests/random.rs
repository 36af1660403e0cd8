//! Random batches over few accounts, against sums made a second time.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

use farebox_protocol::Amount;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{books, id, key, legs, name, snapshot, sums, units};
use crate::ledger::{
    Account, Action, Books, Guard, Legs, Outcome, Step, Transfer, TransferId, post, trial_balance,
};

const ALL: [&str; 7] =
    ["payer:a", "payer:b", "loss:a", "loss:b", "revenue:r", "refund:a", "chain:c"];

/// No payer is ever exposed to more.
const LIMIT: u128 = 40;

/// What may be at risk is only raised by holds and lowered by the rest.
fn transfer() -> impl Strategy<Value = Transfer> {
    let step = prop_oneof![Just(Step::Hold), Just(Step::Resolve), Just(Step::Settle)];
    (0..12_u8, step, 0..6_u8, 0..14_u128, any::<bool>()).prop_map(
        |(payment, step, kind, amount, other)| {
            let payer = if other { "payer:a" } else { "payer:b" };
            let loss = if other { "loss:a" } else { "loss:b" };
            let pending = id(payment, Step::Hold);
            let amount = units(amount);
            let action = match (kind, step) {
                (5, _) => Action::Move { legs: legs(loss, payer), amount },
                (4, _) | (_, Step::Settle) => Action::Move { legs: legs("chain:c", payer), amount },
                (0, _) | (_, Step::Hold) => {
                    let guard = Some(Guard { limit: units(LIMIT), beside: name(loss) });
                    Action::Pend { legs: legs(payer, "revenue:r"), amount, guard }
                }
                (1, _) => Action::Void { pending },
                (_, _) => Action::Post { pending, amount },
            };
            Transfer { id: id(payment, step), action }
        },
    )
}

/// The accounts that a list of booked transfers makes: added up plainly, every pending transfer from
/// its end backwards.
fn added_up(applied: &[Transfer]) -> BTreeMap<String, [u128; 4]> {
    let mut sums: BTreeMap<String, [u128; 4]> = ALL.map(|it| (it.to_owned(), [0; 4])).into();
    let mut add = |legs: &Legs, at: usize, amount: Amount| {
        sums.get_mut(&legs.debit.to_string()).unwrap()[at] += amount.units();
        sums.get_mut(&legs.credit.to_string()).unwrap()[at + 2] += amount.units();
    };
    for Transfer { id, action } in applied {
        match action {
            Action::Move { legs, amount } => add(legs, 1, *amount),
            Action::Pend { legs, amount, .. } => {
                let end = applied.iter().find_map(|it| match &it.action {
                    Action::Post { pending, amount } if pending == id => Some(*amount),
                    Action::Void { pending } if pending == id => Some(Amount::ZERO),
                    Action::Pend { .. }
                    | Action::Post { .. }
                    | Action::Void { .. }
                    | Action::Move { .. } => None,
                });
                match end {
                    Some(posted) => {
                        assert!(posted <= *amount, "{id} was posted with more than was pending");
                        add(legs, 1, posted);
                    }
                    None => add(legs, 0, *amount),
                }
            }
            Action::Post { .. } | Action::Void { .. } => {}
        }
    }
    sums
}

fn exposure(books: &Books, payer: &str) -> u128 {
    let of =
        |kind: &str| books.account(&key(&format!("{kind}:{payer}"))).unwrap().exposure().units();
    of("payer") + of("loss")
}

/// Posts a batch; checks what must hold after each; gives back what was booked.
fn post_and_check(books: &mut Books, batch: &[Transfer], applied: &mut Vec<Transfer>) {
    let risk = ["a", "b"].map(|it| exposure(books, it));
    let outcomes = post(books, batch).unwrap();
    for (transfer, outcome) in batch.iter().zip(outcomes) {
        if outcome == Outcome::Applied {
            applied.push(transfer.clone());
        }
    }
    for (payer, before) in ["a", "b"].into_iter().zip(risk) {
        // A loss beyond what is owed comes from nowhere but these tests; a hold never adds to it.
        let lost = batch.iter().any(|it| matches!(&it.action, Action::Move { .. }));
        let now = exposure(books, payer);
        assert!(now <= LIMIT || now <= before || lost, "{payer}: {before} → {now}");
    }
    for (account, expected) in added_up(applied) {
        assert_eq!(sums(books, &account), expected, "{account}");
    }
    assert!(trial_balance(books.accounts()).unwrap().values().all(Account::is_even));
    let names: HashSet<TransferId> = applied.iter().map(|it| it.id).collect();
    assert_eq!(names.len(), applied.len(), "a name was booked twice");
}

#[test]
fn random_batches_conserve_and_repeat() {
    let config = Config { cases: 800, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let applied_in_all = Cell::new(0);
    let batches = vec(vec(transfer(), 1..8), 1..20);
    let result = runner.run(&(batches, any::<u64>()), |(batches, salt)| {
        let mut books = books(&ALL);
        let mut applied = Vec::new();
        for (at, batch) in batches.iter().enumerate() {
            post_and_check(&mut books, batch, &mut applied);
            // Whoever asks again for what was booked, in whatever order, changes nothing.
            let before = snapshot(&books);
            let mut again = applied.clone();
            if !again.is_empty() {
                let by = usize::try_from(salt % 97).unwrap() * at % again.len();
                again.rotate_left(by);
            }
            let outcomes = post(&mut books, &again).unwrap();
            assert!(outcomes.iter().all(|it| *it == Outcome::Exists));
            assert_eq!(snapshot(&books), before);
        }
        applied_in_all.set(applied_in_all.get() + applied.len());
        Ok(())
    });
    result.unwrap();
    assert!(10_000 <= applied_in_all.get(), "only {} transfers", applied_in_all.get());
}

/// A life of one payment in transfers without conditions: they commute but for what ends a hold, which
/// waits for it.
fn lives() -> impl Strategy<Value = Vec<Transfer>> {
    vec((0..10_u128, 0..10_u128), 1..12).prop_map(|payments| {
        let mut all = Vec::new();
        for ((limit, charge), payment) in payments.into_iter().zip(0..) {
            let limit = limit + 1;
            all.push(super::hold(payment, limit));
            match charge % (limit + 1) {
                0 => all.push(super::void_of(payment)),
                charge => {
                    all.push(super::post_of(payment, charge));
                    let settle = id(payment, Step::Settle);
                    all.push(super::moved(settle, "chain:c", "payer:a", charge));
                }
            }
        }
        all
    })
}

proptest! {
    #[test]
    fn any_order_of_retries_gives_the_same_books(
        lives in lives(),
        order in vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let mut straight = books(&ALL);
        prop_assert!(post(&mut straight, &lives).unwrap().iter().all(|it| *it == Outcome::Applied));
        let mut wild = books(&ALL);
        for index in order {
            let outcome = post(&mut wild, std::slice::from_ref(index.get(&lives))).unwrap()[0];
            let expected = [Outcome::Applied, Outcome::Exists, Outcome::PendingNotFound];
            prop_assert!(expected.contains(&outcome), "{:?}", outcome);
        }
        // In the end each caller gets an answer, the last ones first.
        for _ in 0..2 {
            let backwards: Vec<Transfer> = lives.iter().rev().cloned().collect();
            post(&mut wild, &backwards).unwrap();
        }
        prop_assert_eq!(snapshot(&wild), snapshot(&straight));
    }

    #[test]
    fn holds_alone_never_pass_the_limit(amounts in vec((0..60_u128, any::<bool>()), 1..60)) {
        let mut books = books(&ALL);
        for ((amount, end), payment) in amounts.into_iter().zip(0..) {
            let guard = Some(Guard { limit: units(LIMIT), beside: name("loss:a") });
            let legs = legs("payer:a", "revenue:r");
            let action = Action::Pend { legs, amount: units(amount), guard };
            let open = exposure(&books, "a");
            let fits = open + amount <= LIMIT && amount != 0;
            let hold = Transfer { id: id(payment, Step::Hold), action };
            let outcome = post(&mut books, &[hold]).unwrap()[0];
            prop_assert_eq!(outcome == Outcome::Applied, fits);
            if end && fits {
                post(&mut books, &[super::post_of(payment, amount.div_ceil(2))]).unwrap();
            }
            prop_assert!(exposure(&books, "a") <= LIMIT);
        }
    }
}
