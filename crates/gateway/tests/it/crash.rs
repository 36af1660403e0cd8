//! The process is killed at every named step of a payment; what the ledger and the chain say after
//! the restart is told row by row (ADR 0005).
//!
//! The chain and the upstream live here and survive. Of each payment: it is charged whole if a byte
//! may have left, not at all otherwise, and its payload buys one answer in all.

mod crowd;
mod process;
mod purchase;
mod world;

use farebox_store::SettleMode;

use self::process::{Paid, SETTLE_CALLED, SETTLE_RETURNED, TRANSACTION_KEPT, TRANSACTION_SENT};
use self::purchase::Goods;
use self::world::World;

/// What a kill leaves, once the gateway has started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The ledger has never heard of it; the payload buys the answer now.
    Unheard,
    /// Given back; the payload buys the answer now.
    Released,
    /// Charged whole and settled; the payload buys nothing more.
    Settled,
    /// Settled for an answer that nobody has in full, so owed back; it buys nothing more.
    Owed,
}

/// What the client has of the answer when the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// The client had at least one byte of the body: waited for before the kill.
    Bytes,
}

/// Where the process dies, what has left by then, and what becomes of the payment.
type Row = (&'static str, Left, Then);

async fn check(settle: SettleMode, goods: Goods, rows: &[Row]) {
    check_paid(Paid::Exact, settle, goods, rows).await;
}

#[expect(clippy::print_stdout, reason = "the table is for people to read")]
async fn check_paid(paid: Paid, settle: SettleMode, goods: Goods, rows: &[Row]) {
    let mut world = World::paid(paid, settle, goods).await;
    let mut table = Vec::new();
    for row in rows {
        table.push(world.kill_at(row).await);
    }
    println!("{paid:?} {settle:?} {goods:?}\n{}", table.join("\n"));
    world.balances_agree().await;
    // Each was sent again and again at most, never signed anew.
    assert_eq!(world.transactions().await, rows.len());
    world.end().await;
}

#[tokio::test]
async fn killed_while_a_json_answer_waits_for_its_settlement() {
    let rows = [
        ("decoded", Left::Nothing, Then::Unheard),
        ("verified", Left::Nothing, Then::Unheard),
        ("held", Left::Nothing, Then::Released),
        ("serving", Left::Nothing, Then::Released),
        ("upstream-answered", Left::Nothing, Then::Released),
        ("captured", Left::Nothing, Then::Released),
        // Signed, so it can land; the same bytes are sent until it does.
        (TRANSACTION_KEPT, Left::Nothing, Then::Owed),
        (TRANSACTION_SENT, Left::Nothing, Then::Owed),
        (SETTLE_RETURNED, Left::Nothing, Then::Owed),
        ("settled", Left::Nothing, Then::Owed),
        // Between the last byte and its mark nobody can tell: the payer gets the doubt.
        ("answered", Left::Bytes, Then::Owed),
    ];
    check(SettleMode::After, Goods::Json, &rows).await;
}

#[tokio::test]
async fn killed_while_a_stream_is_served() {
    let rows = [
        ("decoded", Left::Nothing, Then::Unheard),
        ("verified", Left::Nothing, Then::Unheard),
        ("held", Left::Nothing, Then::Released),
        ("serving", Left::Nothing, Then::Released),
        ("upstream-answered", Left::Nothing, Then::Released),
        ("metered", Left::Nothing, Then::Settled),
        ("first-byte", Left::Bytes, Then::Settled),
        ("captured", Left::Bytes, Then::Settled),
        ("answered", Left::Bytes, Then::Settled),
        (SETTLE_CALLED, Left::Bytes, Then::Settled),
        (TRANSACTION_KEPT, Left::Bytes, Then::Settled),
        (TRANSACTION_SENT, Left::Bytes, Then::Settled),
        (SETTLE_RETURNED, Left::Bytes, Then::Settled),
    ];
    check(SettleMode::After, Goods::Stream, &rows).await;
}

#[tokio::test]
async fn killed_while_a_json_answer_is_settled_in_the_background() {
    let rows = [
        ("decoded", Left::Nothing, Then::Unheard),
        ("verified", Left::Nothing, Then::Unheard),
        ("held", Left::Nothing, Then::Released),
        ("serving", Left::Nothing, Then::Released),
        ("upstream-answered", Left::Nothing, Then::Released),
        // Captured as leaving: from this commit on it may have.
        ("captured", Left::Nothing, Then::Settled),
        ("answered", Left::Bytes, Then::Settled),
        (SETTLE_CALLED, Left::Bytes, Then::Settled),
        (TRANSACTION_KEPT, Left::Bytes, Then::Settled),
        (TRANSACTION_SENT, Left::Bytes, Then::Settled),
        (SETTLE_RETURNED, Left::Bytes, Then::Settled),
    ];
    check(SettleMode::Background, Goods::Json, &rows).await;
}

/// `upto` charges the price of what was used; after a crash, that of the last checkpoint.
#[tokio::test]
async fn killed_while_what_was_used_is_paid_for() {
    let json = [
        ("held", Left::Nothing, Then::Released),
        ("upstream-answered", Left::Nothing, Then::Released),
        ("captured", Left::Nothing, Then::Released),
        (SETTLE_RETURNED, Left::Nothing, Then::Owed),
        ("answered", Left::Bytes, Then::Owed),
    ];
    check_paid(Paid::Upto, SettleMode::After, Goods::Json, &json).await;
    let stream = [
        ("upstream-answered", Left::Nothing, Then::Released),
        ("metered", Left::Nothing, Then::Settled),
        ("first-byte", Left::Bytes, Then::Settled),
        ("captured", Left::Bytes, Then::Settled),
        (SETTLE_CALLED, Left::Bytes, Then::Settled),
        (SETTLE_RETURNED, Left::Bytes, Then::Settled),
    ];
    check_paid(Paid::Upto, SettleMode::After, Goods::Stream, &stream).await;
}

/// Paid before the work, so whatever the crash cut off is owed back.
const BEFORE: [Row; 12] = [
    ("decoded", Left::Nothing, Then::Unheard),
    ("verified", Left::Nothing, Then::Unheard),
    ("held", Left::Nothing, Then::Released),
    ("captured", Left::Nothing, Then::Released),
    (TRANSACTION_KEPT, Left::Nothing, Then::Owed),
    (TRANSACTION_SENT, Left::Nothing, Then::Owed),
    (SETTLE_RETURNED, Left::Nothing, Then::Owed),
    ("settled", Left::Nothing, Then::Owed),
    ("serving", Left::Nothing, Then::Owed),
    ("upstream-answered", Left::Nothing, Then::Owed),
    ("first-byte", Left::Bytes, Then::Owed),
    ("answered", Left::Bytes, Then::Owed),
];

#[tokio::test]
async fn killed_around_a_json_answer_that_was_paid_before() {
    check(SettleMode::Before, Goods::Json, &BEFORE).await;
}

#[tokio::test]
async fn killed_around_a_stream_that_was_paid_before() {
    check(SettleMode::Before, Goods::Stream, &BEFORE).await;
}

#[tokio::test]
async fn killed_again_and_again_while_it_recovers() {
    let mut world = World::start(SettleMode::After, Goods::Stream).await;
    world.kill_again_and_again().await;
    world.balances_agree().await;
    world.end().await;
}

/// Leased, perhaps sent, and nothing had left: it is neither sent again nor given back as long as
/// it could still land.
#[tokio::test]
async fn killed_while_settling_a_withheld_answer() {
    for settle in [SettleMode::After, SettleMode::Before] {
        let mut world = World::start(settle, Goods::Json).await;
        println!("{settle:?} {}", world.kill_settling().await);
        world.balances_agree().await;
        world.end().await;
    }
}
