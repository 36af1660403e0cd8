//! The rules of double entry: each outcome by name, then everything at random.

#[expect(clippy::arithmetic_side_effects, reason = "sums of a test are small")]
mod life;
#[expect(clippy::arithmetic_side_effects, reason = "sums of a test are small")]
mod outcomes;
#[expect(clippy::arithmetic_side_effects, reason = "sums of a test are small")]
mod random;

use farebox_protocol::{Amount, Asset, Network, PaymentId};

use crate::ledger::{
    Account, AccountKey, AccountName, Action, Books, Legs, Step, Transfer, TransferId,
};

fn units(units: u128) -> Amount {
    Amount::from_units(units)
}

fn asset(chain: u64) -> Asset {
    Asset::new(Network::eip155(chain), &format!("0x{}", "11".repeat(20))).unwrap()
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn key(text: &str) -> AccountKey {
    AccountKey { asset: asset(1), name: name(text) }
}

fn legs(debit: &str, credit: &str) -> Legs {
    Legs { asset: asset(1), debit: name(debit), credit: name(credit) }
}

fn id(payment: u8, step: Step) -> TransferId {
    let payment = PaymentId::from_bytes([payment; 32]);
    TransferId { payment, generation: 1, reopened: 0, step }
}

fn hold(payment: u8, amount: u128) -> Transfer {
    let legs = legs("payer:a", "revenue:r");
    let action = Action::Pend { legs, amount: units(amount), guard: None };
    Transfer { id: id(payment, Step::Hold), action }
}

fn post_of(payment: u8, amount: u128) -> Transfer {
    let action = Action::Post { pending: id(payment, Step::Hold), amount: units(amount) };
    Transfer { id: id(payment, Step::Resolve), action }
}

fn void_of(payment: u8) -> Transfer {
    let action = Action::Void { pending: id(payment, Step::Hold) };
    Transfer { id: id(payment, Step::Resolve), action }
}

fn moved(id: TransferId, debit: &str, credit: &str, amount: u128) -> Transfer {
    Transfer { id, action: Action::Move { legs: legs(debit, credit), amount: units(amount) } }
}

/// Books with these accounts, all of nothing.
fn books(accounts: &[&str]) -> Books {
    let mut books = Books::new();
    for it in accounts {
        books.load_account(key(it), Account::ZERO);
    }
    books
}

/// `[debits pending, debits posted, credits pending, credits posted]`
fn sums(books: &Books, account: &str) -> [u128; 4] {
    let it = books.account(&key(account)).unwrap();
    [it.debits_pending, it.debits_posted, it.credits_pending, it.credits_posted].map(Amount::units)
}

/// All that can be compared of some books.
fn snapshot(books: &Books) -> Vec<(AccountKey, Account)> {
    let mut all: Vec<_> = books.accounts().map(|(key, it)| (key.clone(), *it)).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}
