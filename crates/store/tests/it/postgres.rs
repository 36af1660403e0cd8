//! What PostgreSQL alone has to show: several gateways on one database, and what becomes of commits
//! whose answer is lost.

mod faults;
mod nodes;
mod open;

use std::sync::Arc;
use std::time::Duration;

use farebox_store::{PostgresLedger, PostgresOptions};
use farebox_testdb::PostgresServer;

/// The first database that a server makes.
const DATABASE: &str = "test_0";

/// A server with one empty database.
struct World {
    server: PostgresServer,
    url: String,
}

impl World {
    async fn new() -> Self {
        let server = PostgresServer::start_in_memory().unwrap();
        let url = server.database().await.unwrap();
        Self { server, url }
    }

    fn options(&self, node: &str) -> PostgresOptions {
        PostgresOptions::new(self.url.as_str(), node)
    }

    async fn open(&self, node: &str) -> Arc<PostgresLedger> {
        Arc::new(PostgresLedger::open(self.options(node)).await.unwrap())
    }

    async fn execute(&self, sql: &str) {
        self.server.execute(DATABASE, sql).await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        let asked = self.server.with_client(DATABASE, async |it| it.query_one(sql, &[]).await);
        asked.await.unwrap().get(0)
    }

    /// Until a query says so, at most half a minute.
    async fn until(&self, sql: &str) {
        for _ in 0..3_000 {
            if self.number(sql).await != 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never came to {sql}");
    }
}

async fn assert_sound(ledger: &PostgresLedger) {
    let report = ledger.check().await.unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
}
