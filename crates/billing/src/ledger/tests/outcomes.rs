//! Every outcome, and every way in which books are broken.

use farebox_protocol::Amount;

use super::{
    asset, books, hold, id, key, legs, moved, name, post_of, snapshot, sums, units, void_of,
};
use crate::ledger::{
    Account, AccountName, Action, BadAccountName, Books, Broken, Fate, Guard, Outcome, Recorded,
    Step, Transfer, post, trial_balance,
};

const ALL: [&str; 4] = ["payer:a", "loss:a", "revenue:r", "chain:c"];

/// Books in which 10 of payment 1 are pending, 2 was posted with 5 of 10, and 3 was voided.
fn begun() -> Books {
    let mut books = books(&ALL);
    let batch = [hold(1, 10), hold(2, 10), post_of(2, 5), hold(3, 10), void_of(3)];
    assert_eq!(post(&mut books, &batch).unwrap(), [Outcome::Applied; 5]);
    books
}

fn guarded(payment: u8, amount: u128, limit: u128) -> Transfer {
    let guard = Some(Guard { limit: units(limit), beside: name("loss:a") });
    let action = Action::Pend { legs: legs("payer:a", "revenue:r"), amount: units(amount), guard };
    Transfer { id: id(payment, Step::Hold), action }
}

#[track_caller]
fn check(transfer: &Transfer, expected: Outcome) {
    let mut books = begun();
    let before = snapshot(&books);
    let outcomes = post(&mut books, std::slice::from_ref(transfer)).unwrap();
    assert_eq!(outcomes, [expected], "{transfer:?}");
    if expected != Outcome::Applied {
        assert_eq!(snapshot(&books), before, "{transfer:?}");
        return;
    }
    let again = post(&mut books, std::slice::from_ref(transfer)).unwrap();
    assert_eq!(again, [Outcome::Exists], "{transfer:?}");
}

#[test]
fn what_is_applied() {
    check(&hold(4, 1), Outcome::Applied);
    check(&post_of(1, 10), Outcome::Applied);
    check(&post_of(1, 1), Outcome::Applied);
    check(&void_of(1), Outcome::Applied);
    check(&moved(id(2, Step::Settle), "chain:c", "payer:a", 5), Outcome::Applied);
}

#[test]
fn a_name_is_booked_once() {
    check(&hold(1, 10), Outcome::Exists);
    check(&hold(1, 11), Outcome::ExistsDifferent);
    check(&post_of(2, 5), Outcome::Exists);
    check(&post_of(2, 4), Outcome::ExistsDifferent);
    check(&void_of(2), Outcome::ExistsDifferent);
    check(&moved(id(1, Step::Hold), "payer:a", "revenue:r", 10), Outcome::ExistsDifferent);
    // The limit of another day does not make it another hold.
    check(&guarded(1, 10, 0), Outcome::Exists);
}

#[test]
fn a_pending_transfer_ends_once() {
    let resolve = |payment, pending, amount| {
        let pending = id(pending, Step::Hold);
        let action = match amount {
            0 => Action::Void { pending },
            _ => Action::Post { pending, amount: units(amount) },
        };
        Transfer { id: id(payment, Step::Resolve), action }
    };
    check(&post_of(1, 11), Outcome::ExceedsPending { pending: units(10) });
    check(&post_of(1, u128::MAX), Outcome::ExceedsPending { pending: units(10) });
    for amount in [0, 1] {
        check(&resolve(9, 9, amount), Outcome::PendingNotFound);
        check(&resolve(9, 2, amount), Outcome::AlreadyPosted);
        check(&resolve(9, 3, amount), Outcome::AlreadyVoided);
        let pending = id(2, Step::Resolve);
        let action = match amount {
            0 => Action::Void { pending },
            _ => Action::Post { pending, amount: units(amount) },
        };
        check(&Transfer { id: id(9, Step::Resolve), action }, Outcome::NotPending);
    }
}

#[test]
fn exposure_counts_what_is_pending_owed_and_lost() {
    // 10 are pending and 5 owed.
    check(&guarded(4, 5, 20), Outcome::Applied);
    check(&guarded(4, 6, 20), Outcome::WouldExceed { open: units(15), limit: units(20) });
    check(
        &guarded(4, u128::MAX, u128::MAX),
        Outcome::WouldExceed { open: units(15), limit: Amount::MAX },
    );
    let mut books = begun();
    let lost = [moved(id(2, Step::Lose), "loss:a", "payer:a", 5)];
    assert_eq!(post(&mut books, &lost).unwrap(), [Outcome::Applied]);
    let full = Outcome::WouldExceed { open: units(15), limit: units(20) };
    assert_eq!(post(&mut books, &[guarded(4, 6, 20)]).unwrap(), [full]);
    // A refusal is not remembered.
    let batch = [guarded(4, 6, 20), void_of(1), guarded(4, 6, 20)];
    assert_eq!(post(&mut books, &batch).unwrap(), [full, Outcome::Applied, Outcome::Applied]);
}

#[test]
fn what_cannot_be_a_transfer() {
    check(&hold(4, 0), Outcome::ZeroAmount);
    check(&post_of(1, 0), Outcome::ZeroAmount);
    check(&moved(id(4, Step::Settle), "chain:c", "payer:a", 0), Outcome::ZeroAmount);
    check(&moved(id(4, Step::Settle), "chain:c", "chain:c", 1), Outcome::SameAccount);
    check(&hold(4, u128::MAX), Outcome::Overflow);
    // What is pending keeps its place: a later post always fits.
    check(&moved(id(4, Step::Settle), "payer:a", "chain:c", u128::MAX - 14), Outcome::Overflow);
    check(&moved(id(4, Step::Settle), "payer:a", "chain:c", u128::MAX - 15), Outcome::Applied);
}

#[test]
fn later_transfers_of_a_batch_see_the_earlier_ones() {
    let mut books = books(&ALL);
    let batch = [
        post_of(1, 4),
        hold(1, 10),
        post_of(1, 4),
        moved(id(1, Step::Settle), "chain:c", "payer:a", 4),
    ];
    let expected = [Outcome::PendingNotFound, Outcome::Applied, Outcome::Applied, Outcome::Applied];
    assert_eq!(post(&mut books, &batch).unwrap(), expected);
    assert_eq!(sums(&books, "payer:a"), [0, 4, 0, 4]);
    assert_eq!(sums(&books, "revenue:r"), [0, 0, 0, 4]);
    assert_eq!(sums(&books, "chain:c"), [0, 4, 0, 0]);
    let changes = books.take_changes();
    assert_eq!((changes.accounts.len(), changes.transfers.len()), (3, 3));
    let fate = changes.transfers[&id(1, Step::Hold)].fate;
    assert_eq!(fate, Fate::Posted(units(4)));
    assert!(books.take_changes().accounts.is_empty());
}

#[test]
fn what_is_undone_never_was() {
    let mut books = begun();
    let (before, mark) = (snapshot(&books), books.mark());
    let batch = [hold(4, 1), post_of(1, 10), void_of(4)];
    assert_eq!(post(&mut books, &batch).unwrap(), [Outcome::Applied; 3]);
    assert_eq!(post(&mut books, &[hold(5, 1)]).unwrap(), [Outcome::Applied]);
    books.undo_to(mark);
    assert_eq!(snapshot(&books), before);
    assert_eq!(books.transfer(&id(1, Step::Hold)).unwrap().fate, Fate::Open);
    assert_eq!(post(&mut books, &batch).unwrap(), [Outcome::Applied; 3]);
}

#[test]
fn broken_books_are_left_as_they_were() {
    let cases = [
        (vec![hold(1, 1)], Broken::NotLoaded(key("revenue:r"))),
        (
            vec![moved(id(1, Step::Settle), "chain:c", "payer:a", 1), guarded(2, 1, 9)],
            Broken::NotLoaded(key("loss:a")),
        ),
        (
            vec![moved(id(1, Step::Settle), "chain:c", "payer:a", 1), void_of(7)],
            Broken::PendingMissing(key("chain:c")),
        ),
    ];
    for (batch, expected) in cases {
        let mut books = books(&["payer:a", "chain:c"]);
        let action =
            Action::Pend { legs: legs("chain:c", "payer:a"), amount: units(1), guard: None };
        books.load_transfer(id(7, Step::Hold), Recorded { action, fate: Fate::Open });
        let before = snapshot(&books);
        assert_eq!(post(&mut books, &batch), Err(expected));
        assert_eq!(snapshot(&books), before);
        assert_eq!(books.transfer(&id(1, Step::Settle)), None);
    }
}

/// What no transfer explains is found, whichever side it is on: the check after a batch does not
/// believe the code that has changed the accounts.
#[test]
fn a_change_that_no_transfer_explains_is_found() {
    let plus = |account: Account, side: usize| {
        let more = |at: usize, it: Amount| units(it.units() + u128::from(at == side));
        Account {
            debits_pending: more(0, account.debits_pending),
            debits_posted: more(1, account.debits_posted),
            credits_pending: more(2, account.credits_pending),
            credits_posted: more(3, account.credits_posted),
        }
    };
    let batch = [hold(4, 3)];
    let booked = || batch.iter().zip(&[Outcome::Applied]);
    for (account, up) in [("payer:a", true), ("revenue:r", true), ("payer:a", false)] {
        for side in 0..4 {
            let mut books = begun();
            let key = key(account);
            let before = *books.account(&key).unwrap();
            // Where a side falls, it does so from one more.
            let before = if up { before } else { plus(before, side) };
            books.load_account(key.clone(), before);
            let mark = books.begin();
            let outcome = super::super::apply(&mut books, &batch[0]);
            assert_eq!(outcome, Ok(Outcome::Applied));
            assert_eq!(super::super::check(&books, mark, booked()), Ok(()));
            let now = *books.account(&key).unwrap();
            let wrong = if up { plus(now, side) } else { fallen(now, before, side) };
            books.set_account(key.clone(), wrong).unwrap();
            let expected = if up { Broken::Uneven(asset(1)) } else { Broken::Fell(key.clone()) };
            let found = super::super::check(&books, mark, booked());
            assert_eq!(found, Err(expected), "{account} {side} {up}");
        }
    }
}

/// That side lower than it was before.
fn fallen(now: Account, before: Account, side: usize) -> Account {
    let less = |at: usize, now: Amount, before: Amount| {
        if at == side { units(before.units() - 1) } else { now }
    };
    Account {
        debits_pending: less(0, now.debits_pending, before.debits_pending),
        debits_posted: less(1, now.debits_posted, before.debits_posted),
        credits_pending: less(2, now.credits_pending, before.credits_pending),
        credits_posted: less(3, now.credits_posted, before.credits_posted),
    }
}

#[test]
fn names_are_stable() {
    for text in ["payer:0x1f", "loss:0x1f", "refund:0x1f", "revenue:chat:v1", "chain:0x2f"] {
        assert_eq!(text.parse::<AccountName>().unwrap().to_string(), text);
    }
    for bad in ["", "payer", "payer:", ":0x1f", "Payer:0x1f", "bank:0x1f"] {
        assert_eq!(bad.parse::<AccountName>(), Err(BadAccountName), "{bad}");
    }
    let id = id(1, Step::GiveBack).to_string();
    assert_eq!(id, format!("pay_{}/1/0/give_back", "01".repeat(32)));
}

#[test]
fn a_trial_balance_is_by_asset() {
    let mut books = begun();
    let balance = trial_balance(books.accounts()).unwrap();
    assert!(balance[&asset(1)].is_even());
    assert_eq!(balance[&asset(1)].debits_posted, units(5));
    let mut odd = *books.account(&key("payer:a")).unwrap();
    odd.debits_posted = units(6);
    books.load_account(key("payer:a"), odd);
    assert!(!trial_balance(books.accounts()).unwrap()[&asset(1)].is_even());
}
