//! What a withdrawal makes of everything that a capture may have led to before its caller gave up.

use tempfile::TempDir;

use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, Timestamp};
use rusqlite::Connection;

use crate::book::holds::{Charge, HoldName, admit, begin_serve, capture, charged, meter, withdraw};
use crate::book::sample::terms;
use crate::book::{existing, settlements};
use crate::port::{Admit, Admitted, AnswerMark, Resolution, StoreError};
use crate::sqlite::check::check;
use crate::sqlite::open;
use crate::sqlite::rows::{self, alone};

const WHY: Release = Release::UpstreamFailed;
const CHARGE: Amount = Amount::from_units(60);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Where the payment got to while its caller did not know.
#[derive(Clone, Copy, Debug)]
enum Far {
    Metered,
    Captured,
    Leased,
    NotSent,
    Unknown,
    NotSentAfterUnknown,
    Settled,
    Rejected,
}

/// A ledger in which payment 1 was captured as `mark` and got that far.
fn ledger(mark: AnswerMark, far: Far) -> (TempDir, Connection, HoldName) {
    let directory = TempDir::new().unwrap();
    let connection = open::open(&directory.path().join("farebox.db")).unwrap().connection;
    let ask = Admit { terms: terms(1), keys: Vec::new(), exposure_limit: None, now: at(1) };
    let Admitted::New(hold) = alone(&connection, |it| admit(it, &ask)).unwrap() else {
        panic!("it is new")
    };
    let hold = HoldName::of(&hold);
    alone(&connection, |it| begin_serve(it, hold, at(2))).unwrap();
    let resolve = |how: Resolution| {
        assert_eq!(
            alone(&connection, |it| settlements::lease(it, None, 1, at(9))).unwrap().len(),
            1
        );
        drop(alone(&connection, |it| settlements::resolve(it, hold.id, &how, at(9))).unwrap());
    };
    if let Far::Metered = far {
        alone(&connection, |it| meter(it, hold, CHARGE, at(3))).unwrap();
    } else {
        drop(
            alone(&connection, |it| capture(it, hold, Charge { units: CHARGE, mark }, at(4)))
                .unwrap(),
        );
    }
    let not_sent = || Resolution::NotSent { retry_at: at(5) };
    let unknown = || Resolution::Unknown { transaction: None, retry_at: at(5) };
    match far {
        Far::Metered | Far::Captured => {}
        Far::Leased => {
            assert_eq!(
                alone(&connection, |it| settlements::lease(it, None, 1, at(9))).unwrap().len(),
                1
            );
        }
        Far::NotSent => resolve(not_sent()),
        Far::Unknown => resolve(unknown()),
        Far::NotSentAfterUnknown => {
            resolve(unknown());
            resolve(not_sent());
        }
        Far::Settled => resolve(Resolution::Settled { transaction: "0x1".to_owned() }),
        Far::Rejected => resolve(Resolution::Rejected { reason: "expired".to_owned() }),
    }
    (directory, connection, hold)
}

fn is_sound(connection: &Connection) {
    let report = check(connection).unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
}

#[test]
fn what_cannot_land_is_given_back() {
    for mark in [AnswerMark::Withheld, AnswerMark::Leaving] {
        for far in [Far::Metered, Far::Captured, Far::NotSent, Far::Rejected] {
            let (_directory, connection, hold) = ledger(mark, far);
            for _ in 0..2 {
                let state = alone(&connection, |it| withdraw(it, hold, WHY, at(10))).unwrap();
                assert!(matches!(state, Payment::Released { .. }), "{far:?}: {state:?}");
            }
            assert!(rows::next_due(&connection).unwrap().is_none(), "{far:?}");
            is_sound(&connection);
        }
    }
}

#[test]
fn what_may_land_is_owed_back_if_it_does_and_released_if_not() {
    let settled = Resolution::Settled { transaction: "0x2".to_owned() };
    let rejected = Resolution::Rejected { reason: "expired".to_owned() };
    for mark in [AnswerMark::Withheld, AnswerMark::Leaving] {
        for far in [Far::Leased, Far::Unknown, Far::NotSentAfterUnknown] {
            for resolution in [&settled, &rejected] {
                let (_directory, connection, hold) = ledger(mark, far);
                for _ in 0..2 {
                    let state = alone(&connection, |it| withdraw(it, hold, WHY, at(10))).unwrap();
                    assert_eq!(charged(&state), Some(CHARGE), "{far:?}: {state:?}");
                }
                let jobs =
                    alone(&connection, |it| settlements::lease(it, None, 1, at(11))).unwrap();
                assert!(jobs.iter().all(|it| it.answer == AnswerMark::Withheld), "{jobs:?}");
                drop(
                    alone(&connection, |it| settlements::resolve(it, hold.id, resolution, at(12)))
                        .unwrap(),
                );
                let row = alone(&connection, |it| existing(it, hold.id)).unwrap();
                if resolution == &settled {
                    assert_eq!(row.refund_owed.as_deref(), Some(settlements::UNANSWERED));
                } else {
                    let why = Release::SettlementRejected;
                    assert_eq!(row.state, Payment::Released { why }, "{far:?}");
                }
                is_sound(&connection);
            }
        }
    }
}

#[test]
fn what_has_landed_is_owed_back() {
    for mark in [AnswerMark::Withheld, AnswerMark::Leaving] {
        let (_directory, connection, hold) = ledger(mark, Far::Settled);
        for _ in 0..2 {
            let state = alone(&connection, |it| withdraw(it, hold, WHY, at(10))).unwrap();
            assert!(matches!(state, Payment::Settled { .. }), "{state:?}");
        }
        let row = alone(&connection, |it| existing(it, hold.id)).unwrap();
        assert_eq!(row.refund_owed.as_deref(), Some(settlements::UNANSWERED));
        is_sound(&connection);
    }
}

#[test]
fn what_was_sent_is_not_withdrawn() {
    for far in [Far::Captured, Far::Leased, Far::Settled, Far::Rejected] {
        let (_directory, connection, hold) = ledger(AnswerMark::Sent, far);
        let before = alone(&connection, |it| existing(it, hold.id)).unwrap();
        let refused = alone(&connection, |it| withdraw(it, hold, WHY, at(10)))
            .unwrap_err()
            .into_store_error();
        assert!(matches!(refused, StoreError::Illegal(_)), "{refused:?}");
        let after = alone(&connection, |it| existing(it, hold.id)).unwrap();
        assert_eq!((after.state, after.answer), (before.state, before.answer));
    }
}
