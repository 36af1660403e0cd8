//! Why something failed, inside the engine.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use farebox_billing::Illegal;
use farebox_billing::ledger::Parties;
use farebox_protocol::{Digest, PaymentId, Timestamp};
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::port::StoreError;

/// The failure of one operation on what is loaded; it is undone as a whole.
#[derive(Debug)]
pub(super) enum Fault {
    /// Something is not loaded: to be loaded, and the operation run again.
    Missing(Need),
    /// The port's own answer.
    Store(StoreError),
}

/// What an operation wants to see.
#[derive(Clone, Debug)]
pub(super) enum Need {
    /// A payment, its settlements, and its accounts.
    Payment(PaymentId),
    /// What a payment was admitted with.
    Terms(PaymentId),
    /// What a request key belongs to.
    Key(Digest),
    /// The accounts of a payment between these.
    Accounts(Parties),
    /// Settlements that are due.
    Due(Due),
    /// What this node has left unfinished.
    Unfinished,
}

/// Which settlements are due: those at `now` or before, and those after `far`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) now: Timestamp,
    pub(super) far: Timestamp,
    pub(super) max: usize,
}

impl Due {
    /// Enough for both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            now: self.now.max(other.now),
            far: self.far.min(other.far),
            max: self.max.saturating_add(other.max),
        }
    }

    /// Whether whoever asks for `other` finds it among these.
    pub(super) fn covers(self, other: Self) -> bool {
        other.now <= self.now && self.far <= other.far && other.max <= self.max
    }
}

/// The result of one operation, before anybody knows whether its commit holds.
pub(super) type Done<T> = Result<T, Fault>;

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Illegal> for Fault {
    fn from(illegal: Illegal) -> Self {
        Self::Store(StoreError::Illegal(illegal))
    }
}

/// What went wrong between us and the database.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It refused, or the connection broke.
    #[error("PostgreSQL: {}", in_words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// It did not answer in time.
    #[error("PostgreSQL did not answer within {0:?}")]
    Late(Duration),
    /// It said that a commit may not have reached a second machine.
    #[error("PostgreSQL warned of a commit: {0}")]
    Warned(String),
    /// It is not fit for a ledger.
    #[error("{0}")]
    Unfit(String),
    /// A row is not as it was a moment ago: another node was faster.
    #[error("another node was faster")]
    Overtaken,
    /// This node's name was claimed by another process.
    #[error("another process has claimed the name of this node")]
    Fenced,
    /// A row that no code of ours can have written.
    #[error("column `{0}` holds a value of no known meaning")]
    Column(&'static str),
    /// It is not tried again so soon after a failure.
    #[error("PostgreSQL could not be reached a moment ago")]
    Resting,
}

/// Shared by all callers of a batch.
pub(super) type SharedTrouble = Arc<Trouble>;

impl Trouble {
    /// Whether the same batch may succeed when it is run again as a whole.
    pub(super) fn is_a_race(&self) -> bool {
        match self {
            Self::Overtaken => true,
            Self::Postgres(error) => matches!(
                error.code(),
                Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED)
            ),
            Self::Late(_)
            | Self::Warned(_)
            | Self::Unfit(_)
            | Self::Fenced
            | Self::Column(_)
            | Self::Resting => false,
        }
    }

    /// Whether trying again would not help: a broken constraint or a value out of range is a bug of
    /// ours or a damaged table, never bad luck.
    pub(super) fn is_contradiction(&self) -> bool {
        match self {
            Self::Column(_) => true,
            Self::Postgres(error) => error.code().is_some_and(|it| {
                ["22", "23", "42"].iter().any(|class| it.code().starts_with(class))
            }),
            Self::Late(_)
            | Self::Warned(_)
            | Self::Unfit(_)
            | Self::Overtaken
            | Self::Fenced
            | Self::Resting => false,
        }
    }

    /// Whether a COMMIT that failed so certainly did nothing: the server refused it, and lives.
    pub(super) fn refused_the_commit(&self) -> bool {
        match self {
            Self::Postgres(error) => error
                .as_db_error()
                .and_then(DbError::parsed_severity)
                .is_some_and(|it| it == Severity::Error),
            Self::Late(_)
            | Self::Warned(_)
            | Self::Unfit(_)
            | Self::Overtaken
            | Self::Fenced
            | Self::Column(_)
            | Self::Resting => false,
        }
    }

    /// What the caller of a query gets to see, which changed nothing.
    pub(super) fn into_store_error(self) -> StoreError {
        if self.is_contradiction() {
            StoreError::Corrupt(self.to_string())
        } else {
            StoreError::Unavailable(Box::new(self))
        }
    }
}

/// With what the server said, which the error itself keeps to its source.
fn in_words(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => {
            let detail = said.detail().map(|it| format!(" ({it})")).unwrap_or_default();
            format!("{}{detail}", said.message())
        }
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
