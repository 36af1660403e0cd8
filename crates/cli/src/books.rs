//! The ledger of a gateway, in whichever engine the configuration says.

use std::sync::Arc;

use farebox_store::{
    CheckReport, Ledger, PostgresLedger, PostgresOpenError, SqliteLedger, SqliteOptions,
    StoreError, Transactions,
};

use crate::config::LedgerAt;
use crate::failure::Failure;

/// An open ledger. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) enum OpenLedger {
    /// In a file.
    Sqlite(Arc<SqliteLedger>),
    /// In a database.
    Postgres(Arc<PostgresLedger>),
}

impl OpenLedger {
    /// Opens it; no other process can have the same file, or the same node.
    pub(crate) async fn open(place: LedgerAt) -> Result<Self, Failure> {
        match place {
            LedgerAt::Sqlite { file, ballast } => {
                let options = SqliteOptions { ballast, ..SqliteOptions::default() };
                let opened = SqliteLedger::open(&file, options);
                let ledger = opened.map_err(|error| {
                    Failure::new(format!("the ledger {} cannot be opened", file.display()))
                        .because(error)
                        .help(
                            "check `url` in [ledger], the directory's permissions, and that no other \
                             farebox runs",
                        )
                })?;
                Ok(Self::Sqlite(Arc::new(ledger)))
            }
            LedgerAt::Postgres(options) => {
                let ledger = PostgresLedger::open(*options).await.map_err(not_opened)?;
                Ok(Self::Postgres(Arc::new(ledger)))
            }
        }
    }

    /// For the payments.
    pub(crate) fn ledger(&self) -> Arc<dyn Ledger> {
        match self {
            Self::Sqlite(it) => Arc::<SqliteLedger>::clone(it),
            Self::Postgres(it) => Arc::<PostgresLedger>::clone(it),
        }
    }

    /// For what is signed.
    pub(crate) fn transactions(&self) -> Arc<dyn Transactions> {
        match self {
            Self::Sqlite(it) => Arc::<SqliteLedger>::clone(it),
            Self::Postgres(it) => Arc::<PostgresLedger>::clone(it),
        }
    }

    /// Waits until it can be written no more; for ever if that never happens.
    pub(crate) async fn failed(&self) {
        match self {
            Self::Sqlite(it) => it.failed().await,
            Self::Postgres(it) => it.failed().await,
        }
    }

    /// Its own audit.
    pub(crate) async fn check(&self) -> Result<CheckReport, StoreError> {
        match self {
            Self::Sqlite(it) => it.check().await,
            Self::Postgres(it) => it.check().await,
        }
    }
}

fn not_opened(error: PostgresOpenError) -> Failure {
    let help = match &error {
        PostgresOpenError::Options(_) | PostgresOpenError::Certificates { .. } => "check [ledger]",
        PostgresOpenError::Server(_) => {
            "check `url` in [ledger], that the server runs, and that this user may make tables there"
        }
        PostgresOpenError::Newer { .. } => "use the farebox that has written it, or a newer one",
        PostgresOpenError::InUse { .. } => {
            "stop the other gateway, or give this one another `node` in [ledger]"
        }
        PostgresOpenError::Thread(_) => "the system has no more threads to give",
    };
    Failure::new("the ledger in PostgreSQL cannot be opened").because(error).help(help)
}
