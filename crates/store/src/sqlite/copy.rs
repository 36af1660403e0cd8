//! Copies of a ledger's file that are whole, verified and on the disk, or not there at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use farebox_protocol::Timestamp;
use rusqlite::Connection;

use crate::book::audit::CheckReport;
use crate::port::StoreError;
use crate::sqlite::fault::Fault;
use crate::sqlite::open::{beside, private};
use crate::sqlite::{check, open, quarantine};

/// Why there is no copy; then there is no file of that name either.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there already; nothing is ever overwritten.
    #[error("{path} is there already")]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// It would not fit.
    #[error("{path} would need {needed} bytes, and there are {available}")]
    NoRoom {
        /// Which file would not.
        path: PathBuf,
        /// At most.
        needed: u64,
        /// What is free for this user.
        available: u64,
    },
    /// It cannot be written.
    #[error("{path} cannot be written")]
    Io {
        /// What cannot.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The ledger cannot be read, or the copy not be written.
    #[error("the copy {path} could not be made")]
    Store {
        /// Which file could not.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The copy is not sound: nor is the ledger, most likely.
    #[error("the copy {path} is not sound: {} problems", report.problem_count)]
    Unsound {
        /// Which file is not.
        path: PathBuf,
        /// What was found.
        report: Box<CheckReport>,
    },
}

/// A backup that was made and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What its check found, which is nothing wrong.
    pub report: CheckReport,
}

/// How far a copy is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// SQLite's own checks, and every row against its journal.
    Books,
    /// SQLite's own checks: it has an older schema.
    File,
}

/// Copies what `connection` sees to `to`, as of one moment, while others write.
pub(super) fn copy(
    connection: &Connection,
    to: &Path,
    verify: Verify,
    now: Option<Timestamp>,
) -> Result<Backup, BackupError> {
    let io = |source| BackupError::Io { path: to.to_owned(), source };
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let partial = beside(to, &format!(".partial-{}", std::process::id()));
    // Made here, so that nobody else can read it; VACUUM writes into a file that is empty.
    let made = private().create_new(true).open(&partial);
    drop(made.map_err(io)?);
    let written = write(connection, &partial, verify, now).and_then(|report| {
        let bytes = fs::metadata(&partial).map_err(io)?.len();
        publish(&partial, to).map_err(|source| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                return BackupError::Exists { path: to.to_owned() };
            }
            io(source)
        })?;
        Ok(Backup { path: to.to_owned(), bytes, report })
    });
    if written.is_err() {
        // It was never complete. If it cannot be removed, its name says what it is.
        for file in [beside(&partial, "-journal"), partial] {
            drop(fs::remove_file(file));
        }
    }
    written
}

fn write(
    connection: &Connection,
    partial: &Path,
    verify: Verify,
    now: Option<Timestamp>,
) -> Result<CheckReport, BackupError> {
    let io = |source| BackupError::Io { path: partial.to_owned(), source };
    let failed = |fault: Fault| BackupError::Store {
        path: partial.to_owned(),
        source: fault.into_store_error(),
    };
    check_room(connection, partial, 1)?;
    let name = partial.to_str().ok_or_else(|| io(io::ErrorKind::InvalidFilename.into()))?;
    connection.execute("VACUUM INTO ?1", [name]).map_err(|it| failed(it.into()))?;
    let copied = open::connect_unchecked(partial).map_err(|it| failed(it.into()))?;
    let report = match verify {
        Verify::Books => {
            quarantine::mark_copy(&copied, now).map_err(|it| failed(it.into()))?;
            check::check(&copied)
        }
        Verify::File => check::check_file_alone(&copied),
    };
    let report = report.map_err(failed)?;
    copied.close().map_err(|(_, error)| failed(error.into()))?;
    if !report.is_sound() {
        let path = partial.to_owned();
        return Err(BackupError::Unsound { path, report: Box::new(report) });
    }
    File::open(partial).and_then(|it| it.sync_all()).map_err(io)?;
    Ok(report)
}

/// Gives a finished file its name, which nobody may have.
fn publish(partial: &Path, to: &Path) -> io::Result<()> {
    // Taken first: a rename alone would replace whatever came there meanwhile.
    drop(private().create_new(true).open(to)?);
    fs::rename(partial, to)?;
    let directory = to.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Whether so many copies would fit; none is larger than its original.
pub(super) fn check_room(
    connection: &Connection,
    to: &Path,
    copies: u64,
) -> Result<(), BackupError> {
    let pragma = |name| -> rusqlite::Result<u64> {
        let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
        Ok(u64::try_from(value).unwrap_or(0))
    };
    let size = pragma("page_count")
        .and_then(|pages| Ok(pages.saturating_mul(pragma("page_size")?).saturating_mul(copies)));
    let needed = size.map_err(|error| BackupError::Store {
        path: to.to_owned(),
        source: Fault::from(error).into_store_error(),
    })?;
    let available =
        available(to).map_err(|source| BackupError::Io { path: to.to_owned(), source })?;
    if available < needed {
        return Err(BackupError::NoRoom { path: to.to_owned(), needed, available });
    }
    Ok(())
}

/// What is free for this user on the file system of `path`, in bytes.
pub(super) fn available(path: &Path) -> io::Result<u64> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    let found = rustix::fs::statvfs(directory.unwrap_or(Path::new(".")))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
