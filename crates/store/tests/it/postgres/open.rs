//! Servers and schemas that are refused, and what the tables refuse by themselves.

use std::error::Error as _;

use farebox_store::{
    AnswerMark, Ledger, PostgresLedger, PostgresOpenError, Replication, SettleMode,
};
use farebox_store::{PostgresOptions, StoreError};
use futures_util::future::join_all;

use super::{DATABASE, World, assert_sound};
use crate::support::{ask, at, granted, hold, serving, terms, units};

fn in_words(error: &PostgresOpenError) -> String {
    let source = error.source().map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

async fn refusal(options: PostgresOptions) -> String {
    in_words(&PostgresLedger::open(options).await.unwrap_err())
}

#[tokio::test]
async fn a_server_that_does_not_wait_for_a_second_machine_is_refused_if_asked() {
    let world = World::new().await;
    let cluster =
        || PostgresOptions { replication: Replication::Synchronous, ..world.options("a") };
    let told = refusal(cluster()).await;
    assert!(told.contains("`synchronous_standby_names` is empty"), "{told}");
    world.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    world.execute("SELECT pg_reload_conf()").await;
    world.until("SELECT count(*) WHERE current_setting('synchronous_standby_names') = '*'").await;
    for weak in ["off", "local", "remote_write"] {
        let sql = format!("ALTER DATABASE {DATABASE} SET synchronous_commit = {weak}");
        // Or this would wait for the standby itself.
        world.execute(&format!("SET LOCAL synchronous_commit = off; {sql}")).await;
        let told = refusal(cluster()).await;
        assert!(told.contains(&format!("`synchronous_commit` is {weak}")), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_forces_nothing_to_the_disk_is_refused() {
    let mut world = World::new().await;
    world.execute("ALTER SYSTEM SET fsync = off").await;
    world.server.start_again().unwrap();
    let told = refusal(world.options("a")).await;
    assert!(told.contains("`fsync` is off"), "{told}");
}

#[tokio::test]
async fn a_weak_default_of_the_database_does_not_weaken_a_commit() {
    let world = World::new().await;
    world.execute(&format!("ALTER DATABASE {DATABASE} SET synchronous_commit = off")).await;
    let ledger = world.open("a").await;
    drop(hold(&*ledger, 1, SettleMode::After).await);
    // Whoever commits so has forced the log as far as it was written.
    let sql = "SELECT count(*) WHERE pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()";
    assert_eq!(world.number(sql).await, 1);
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let missing = world.url.replace(DATABASE, "nowhere");
    let cases = [
        (world.url.as_str(), " ", "the node has no name"),
        ("not an address", "a", "the address is not one"),
        ("postgresql:///test", "a", "the address names no host"),
        (missing.as_str(), "a", "does not exist"),
        ("postgresql://u@127.0.0.1:1/d", "a", "error connecting"),
    ];
    for (url, node, expected) in cases {
        let told = refusal(PostgresOptions::new(url, node)).await;
        assert!(told.contains(expected), "{url}: {told}");
        assert!(!format!("{:?}", PostgresOptions::new(url, node)).contains(url));
    }
    let nowhere = Some("/nowhere.pem".into());
    let far = PostgresOptions::new("postgresql://u@db.example/d", "a");
    let told = refusal(PostgresOptions { root_certificates: nowhere, ..far }).await;
    assert!(told.contains("the certificates in /nowhere.pem"), "{told}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let world = World::new().await;
    world.open("a").await.close().await.unwrap();
    world.execute("INSERT INTO schema_steps (step) VALUES (99)").await;
    let error = PostgresLedger::open(world.options("a")).await.unwrap_err();
    assert!(matches!(error, PostgresOpenError::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn nodes_that_start_together_make_one_schema() {
    let world = World::new().await;
    let names = ["a", "b", "c", "d"];
    let nodes = join_all(names.map(|it| world.open(it))).await;
    let secrets = join_all(nodes.iter().map(|it| it.secret("quotes"))).await;
    let first = secrets[0].as_ref().unwrap();
    assert!(secrets.iter().all(|it| it.as_ref().unwrap() == first));
    let steps = "SELECT (count(*) = max(step))::int4::int8 FROM schema_steps";
    assert_eq!(world.number(steps).await, 1);
}

#[tokio::test]
async fn the_tables_refuse_what_no_ledger_does() {
    let world = World::new().await;
    let ledger = world.open("a").await;
    let held = serving(&*ledger, 1, SettleMode::After).await;
    drop(ledger.capture(held, units(40), AnswerMark::Sent, at(2_000)).await.unwrap());
    let wrongs = [
        "DELETE FROM payments",
        "TRUNCATE journal",
        "UPDATE journal SET at = 1",
        "DELETE FROM outbox",
        "DELETE FROM terms",
        "TRUNCATE accounts",
        "UPDATE accounts SET credits_posted = credits_posted - 1 WHERE name LIKE 'revenue:%'",
        "UPDATE payments SET payer = 'x'",
        "UPDATE payments SET charge = 101",
        "UPDATE payments SET charge = -1",
        "UPDATE payments SET charge = 0.5",
        "UPDATE payments SET charge = NULL",
        "UPDATE payments SET state = 'settled', unfinished = false",
        "UPDATE payments SET refund_owed = 'why'",
    ];
    for sql in wrongs {
        let done = world.server.execute(DATABASE, sql).await;
        // A fraction is rounded to what the column holds.
        if sql.contains("0.5") {
            done.unwrap();
            world.execute("UPDATE payments SET charge = 40").await;
        } else {
            assert!(done.is_err(), "{sql}");
        }
    }
    assert_sound(&ledger).await;
}

#[tokio::test]
async fn one_operation_that_cannot_be_written_spoils_no_other() {
    let world = World::new().await;
    let ledger = world.open("a").await;
    let answers = join_all((0..40).map(async |number: u64| {
        let mut terms = terms(number, SettleMode::After);
        if number == 17 {
            // No text of PostgreSQL has this.
            "\0".clone_into(&mut terms.payload);
        }
        ledger.admit(ask(&terms, at(1_000))).await
    }));
    for (number, answer) in answers.await.into_iter().enumerate() {
        if number == 17 {
            let error = answer.unwrap_err();
            assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
        } else {
            drop(granted(answer.unwrap()));
        }
    }
    assert_eq!(world.number("SELECT count(*) FROM payments").await, 39);
    assert_sound(&ledger).await;
}
