//! The engines, and what all of them are put through: one line each at the end of this file.

use std::any::Any;

use farebox_store::{
    CheckReport, Ledger, MemoryLedger, PostgresLedger, PostgresOptions, SqliteLedger,
    SqliteOptions, Unsure,
};
use farebox_testdb::PostgresServer;

use crate::resolute::Resolute;
use crate::support::Place;
use crate::{contract, property, recovery};

/// How to get a ledger of one kind.
pub(crate) trait Engine {
    type Ledger: Ledger;

    /// An empty one, and what must live as long as it is used.
    async fn start() -> (Self::Ledger, Box<dyn Any>);

    /// Its own audit.
    async fn check(ledger: &Self::Ledger) -> CheckReport;
}

/// One file; in memory where the system has such a place, for nothing here is about the disk.
pub(crate) struct Sqlite;

impl Engine for Sqlite {
    type Ledger = SqliteLedger;

    async fn start() -> (SqliteLedger, Box<dyn Any>) {
        let place = Place::in_memory();
        let ledger = SqliteLedger::open(place.file(), SqliteOptions::default()).unwrap();
        (ledger, Box::new(place))
    }

    async fn check(ledger: &SqliteLedger) -> CheckReport {
        ledger.check().await.unwrap()
    }
}

/// Maps.
pub(crate) struct Memory;

impl Engine for Memory {
    type Ledger = MemoryLedger;

    async fn start() -> (MemoryLedger, Box<dyn Any>) {
        (MemoryLedger::default(), Box::new(()))
    }

    async fn check(ledger: &MemoryLedger) -> CheckReport {
        ledger.check().unwrap()
    }
}

/// A database of its own on a server of its own, in memory like SQLite's file.
pub(crate) struct Postgres;

impl Engine for Postgres {
    type Ledger = PostgresLedger;

    async fn start() -> (PostgresLedger, Box<dyn Any>) {
        let server = PostgresServer::start_in_memory().unwrap();
        let url = server.database().await.unwrap();
        let ledger = PostgresLedger::open(PostgresOptions::new(url, "a")).await.unwrap();
        (ledger, Box::new(server))
    }

    async fn check(ledger: &PostgresLedger) -> CheckReport {
        ledger.check().await.unwrap()
    }
}

#[track_caller]
fn assert_sound(report: &CheckReport) {
    assert!(report.is_sound(), "{:?}", report.problems);
    assert!(17 <= report.payments, "{report:?}");
}

/// The contract, by callers who are told the truth.
async fn keeps_the_contract<E: Engine>() {
    let (ledger, _keeper) = E::start().await;
    contract::run(&ledger).await;
    assert_sound(&E::check(&ledger).await);
    ledger.close().await.unwrap();
}

/// What a crash leaves behind.
async fn recovers<E: Engine>() {
    let (ledger, _keeper) = E::start().await;
    recovery::run(&ledger).await;
    assert_sound(&E::check(&ledger).await);
    ledger.close().await.unwrap();
}

/// Both, where every third answer is `Unknown`, before or after the fact: callers who do what the
/// port says come to the same end.
async fn is_the_same_to_callers_who_are_not_told<E: Engine>() {
    for seed in 0..8 {
        let (ledger, _keeper) = E::start().await;
        let callers = Resolute::new(Unsure::new(ledger, seed, 3));
        if seed % 2 == 0 {
            contract::run(&callers).await;
        } else {
            recovery::run(&callers).await;
        }
        let unsure = callers.inner();
        assert!(20 < unsure.doubts(), "{} doubts", unsure.doubts());
        assert_sound(&E::check(unsure.inner()).await);
        callers.close().await.unwrap();
    }
}

macro_rules! engines {
    ($($name:ident: $engine:ty;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn keeps_the_contract() {
                super::keeps_the_contract::<$engine>().await;
            }

            #[tokio::test]
            async fn recovers() {
                super::recovers::<$engine>().await;
            }

            #[tokio::test]
            async fn is_the_same_to_callers_who_are_not_told() {
                super::is_the_same_to_callers_who_are_not_told::<$engine>().await;
            }

            #[test]
            fn random_histories_go_as_the_model_says_1() {
                property::histories::<$engine>();
            }

            #[test]
            fn random_histories_go_as_the_model_says_2() {
                property::histories::<$engine>();
            }

            #[test]
            fn random_histories_go_as_the_model_says_to_callers_who_are_not_told() {
                property::doubtful_histories::<$engine>();
            }
        }
    )*};
}

engines! {
    sqlite: Sqlite;
    memory: Memory;
    postgres: Postgres;
}
