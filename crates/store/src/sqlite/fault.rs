//! Why a statement or an operation failed, inside the engine.

use farebox_billing::Illegal;
use rusqlite::ErrorCode;
use rusqlite::types::Type;

use crate::port::StoreError;

/// The failure of one operation; its savepoint is rolled back, so it was certainly not applied.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite refused a statement.
    Sqlite(rusqlite::Error),
    /// The port's own answer.
    Store(StoreError),
}

/// The result of one operation, before anybody knows whether its commit holds.
pub(super) type Done<T> = Result<T, Fault>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

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

impl Fault {
    /// The ledger contradicts itself.
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Store(StoreError::Corrupt(what.into()))
    }

    /// The same for those who speak SQLite alone.
    pub(super) fn into_sqlite(self) -> rusqlite::Error {
        match self {
            Self::Sqlite(error) => error,
            Self::Store(error) => {
                rusqlite::Error::FromSqlConversionFailure(0, Type::Null, Box::new(error))
            }
        }
    }

    /// What the caller of the port gets to see.
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Sqlite(error) if is_contradiction(&error) => {
                StoreError::Corrupt(error.to_string())
            }
            Self::Sqlite(error) => StoreError::Unavailable(Box::new(error)),
        }
    }
}

/// A broken constraint or a value of the wrong type is a bug of ours or a damaged file, never bad
/// luck: trying again would not help.
fn is_contradiction(error: &rusqlite::Error) -> bool {
    if let Some(code) = error.sqlite_error_code() {
        return code == ErrorCode::ConstraintViolation || is_damage(code);
    }
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::QueryReturnedNoRows
    )
}

/// Whether the file itself is not what it should be.
pub(super) fn is_damage(code: ErrorCode) -> bool {
    code == ErrorCode::DatabaseCorrupt || code == ErrorCode::NotADatabase
}

/// Whether there was no room: nothing is wrong with the ledger, and it goes on when there is room.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
