//! Opening a ledger file: one process at a time, the right schema, settings that survive a power
//! cut.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farebox_billing::audit::Wrong;
use rusqlite::{Connection, OpenFlags};

use crate::sqlite::audit_key::{self, Origin};
use crate::sqlite::check::fill_accounts;
use crate::sqlite::copy::{self, BackupError, Verify};
use crate::sqlite::fault::{Done, Fault, is_damage, is_full};
use crate::sqlite::mark::Mark;
use crate::sqlite::quarantine;
use crate::sqlite::seals::Sealer;

/// What the file says it is: `Fare` in ASCII.
const APPLICATION_ID: i32 = 0x4661_7265;

/// The schema, one step after the other; `user_version` counts those taken.
const MIGRATIONS: [Migration; 8] = [
    Migration { sql: include_str!("migrations/0001_payments.sql"), fill: None },
    Migration { sql: include_str!("migrations/0002_withdrawals.sql"), fill: None },
    Migration { sql: include_str!("migrations/0003_accounts.sql"), fill: Some(fill_accounts) },
    Migration { sql: include_str!("migrations/0004_request_keys.sql"), fill: None },
    Migration { sql: include_str!("migrations/0005_transactions.sql"), fill: None },
    Migration { sql: include_str!("migrations/0006_seals.sql"), fill: None },
    Migration { sql: include_str!("migrations/0007_watches.sql"), fill: None },
    Migration { sql: include_str!("migrations/0008_restored.sql"), fill: None },
];

/// One step of the schema.
struct Migration {
    sql: &'static str,
    /// What no statement can do; reads no column of a later step.
    fill: Option<fn(&Connection) -> Done<()>>,
}

/// How long a statement waits for a lock; there is one writer, so only recovery of the log and
/// foreign tools ever hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of the file the writer keeps in memory; negative is SQLite's way to say kibibytes.
const CACHE_KIBIBYTES: i64 = -65_536;

/// Prepared statements that a connection keeps: more than there are. One too few, and the writer would
/// parse each of them anew for every operation.
const STATEMENTS: usize = 64;

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it: stop that one first.
    #[error("the ledger {path} is in use by another process{}", in_words(*pid))]
    InUse {
        /// The file.
        path: PathBuf,
        /// Which process, if it has said so.
        pid: Option<u32>,
    },
    /// The file or its directory cannot be used.
    #[error("the ledger {path} cannot be opened")]
    Io {
        /// The file, or the lock beside it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is an SQLite database of something else.
    #[error("{path} is a database, but not a Farebox ledger")]
    NotALedger {
        /// The file.
        path: PathBuf,
    },
    /// A newer Farebox has written it: use that one.
    #[error("the ledger {path} has schema {found}, and this Farebox knows {known} and older only")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// It was written by an older Farebox, and this opening may not migrate it: let `serve` do so.
    #[error("the ledger {path} has schema {found} and was not migrated to {known} yet")]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: usize,
        /// The one that is read here.
        known: usize,
    },
    /// The file is damaged, or no database at all: restore it, or let a person look.
    #[error("the ledger {path} is damaged or no ledger at all")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The end of its journal is not what was sealed: somebody has written to the file. Keep it as it
    /// is, and let a person look.
    #[error("the journal of the ledger {path} was tampered with")]
    Tampered {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        wrong: Wrong,
    },
    /// It is of an older schema, and no copy of it as it is can be kept: without one it is not
    /// migrated.
    #[error("the ledger {path} is not migrated to a newer schema without a copy of it")]
    NotCopied {
        /// The file.
        path: PathBuf,
        /// Why there is no copy.
        #[source]
        source: Box<BackupError>,
    },
    /// SQLite cannot open it for another reason.
    #[error("the ledger {path} cannot be opened")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
}

/// Copies of older schemas that are kept; the oldest one goes when there are more.
const COPIES_KEPT: usize = 3;

fn in_words(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |it| format!(" (process {it})"))
}

/// A ledger file that is locked for this process and has the current schema.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) lock: File,
    pub(super) connection: Connection,
    pub(super) sealer: Sealer,
    pub(super) mark: Mark,
}

/// Locks the file, makes it if it is not there, checks what it is, and migrates it.
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let path = resolve(path).map_err(|source| io_error(path, source))?;
    let lock = lock(&path)?;
    create(&path).map_err(|source| io_error(&path, source))?;
    let mut connection = connect_unchecked(&path).map_err(|it| sqlite_error(&path, it))?;
    let version = identify(&path, &connection)?;
    configure(&connection).map_err(|it| sqlite_error(&path, it))?;
    begin_log_anew(&connection).map_err(|it| sqlite_error(&path, it))?;
    if 0 < version && version < MIGRATIONS.len() {
        keep_copy(&path, &connection)?;
    }
    migrate(&mut connection, version, MIGRATIONS.len()).map_err(|it| sqlite_error(&path, it))?;
    let sealer = go_on_sealing(&path, &mut connection)?;
    let mark = quarantine::judge(&path, &connection)?;
    Ok(Opened { path, lock, connection, sealer, mark })
}

/// Takes the journal's chain up where it ends, unless somebody else has put his hand to that end.
fn go_on_sealing(path: &Path, connection: &mut Connection) -> Result<Sealer, OpenError> {
    let key = audit_key::load_or_make(path);
    let (key, origin) = key.map_err(|source| io_error(&audit_key::place(path), source))?;
    let public = key.public();
    let begun = Sealer::begin(key, connection);
    let begun = begun.map_err(|it| sqlite_error(path, it.into_sqlite()))?;
    let (sealer, before) = begun.map_err(|wrong| {
        let path = path.to_owned();
        OpenError::Tampered { path, wrong }
    })?;
    if let (Origin::Made, Some(head)) = (origin, before) {
        tracing::warn!(old = %head.key, new = %public, "the audit key was gone: a new one signs");
    }
    Ok(sealer)
}

/// Keeps the file as it is before it is migrated: `farebox.db.before-v5`, or `-v5.2` if that is taken.
fn keep_copy(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let failed = |source| OpenError::NotCopied { path: path.to_owned(), source: Box::new(source) };
    let first = format!(".before-v{}", MIGRATIONS.len());
    let name = |number: u32| match number {
        0 | 1 => beside(path, &first),
        _ => beside(path, &format!("{first}.{number}")),
    };
    let last = (1..1_000).rev().find(|it| name(*it).symlink_metadata().is_ok()).unwrap_or(0);
    let to = name(last.saturating_add(1));
    // Twice: the migration itself writes anew what it changes.
    copy::check_room(connection, &to, 2).map_err(failed)?;
    let kept = copy::copy(connection, &to, Verify::File, None).map_err(failed)?;
    tracing::info!(file = %kept.path.display(), bytes = kept.bytes, "a copy was kept before migrating");
    forget_old_copies(path).map_err(|source| io_error(path, source))
}

fn forget_old_copies(path: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let mut prefix = name.to_os_string();
    prefix.push(".before-v");
    let mut copies = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            copies.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    copies.sort();
    let surplus = copies.len().saturating_sub(COPIES_KEPT);
    copies.into_iter().take(surplus).try_for_each(|(_, old)| fs::remove_file(old))
}

/// A file beside the ledger's, named after it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source }
}

pub(super) fn sqlite_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(code) if is_damage(code) => OpenError::Corrupt { path, source },
        Some(_) | None => OpenError::Sqlite { path, source },
    }
}

/// One name for one file, so that two spellings meet at the same lock.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
            Ok(fs::canonicalize(directory.unwrap_or(Path::new(".")))?.join(name))
        }
        found => found,
    }
}

/// Takes the lock beside the file. It ends with the process, however that ends; SQLite's own locks
/// would let a second writer in between two transactions.
fn lock(path: &Path) -> Result<File, OpenError> {
    let name = beside(path, ".lock");
    let failed = |source| io_error(&name, source);
    let mut file = private().truncate(false).open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only a help: the lock is what counts.
            let read = file.read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::InUse { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// The log and its index get the permissions of the file.
fn create(path: &Path) -> io::Result<()> {
    private().truncate(false).open(path).map(drop)
}

/// Opens or makes a file that nobody else can read: it holds signed payments and secrets.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

/// A connection that can write, to whatever the file is.
pub(super) fn connect_unchecked(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The schema of a ledger, 0 if it is new.
fn identify(path: &Path, connection: &Connection) -> Result<usize, OpenError> {
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|it| sqlite_error(path, it))
    };
    let count = "SELECT count(*) FROM sqlite_schema";
    let objects: i64 =
        connection.query_row(count, [], |row| row.get(0)).map_err(|it| sqlite_error(path, it))?;
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if application == 0 && version == 0 && objects == 0 {
        return Ok(0);
    }
    if application != i64::from(APPLICATION_ID) {
        return Err(OpenError::NotALedger { path: path.to_owned() });
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        Ok(_) | Err(_) => Err(OpenError::Newer { path: path.to_owned(), found: version, known }),
    }
}

/// Refuses what is no ledger of the current schema.
pub(super) fn identify_current(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let known = MIGRATIONS.len();
    match identify(path, connection)? {
        0 => Err(OpenError::NotALedger { path: path.to_owned() }),
        found if found < known => Err(OpenError::Older { path: path.to_owned(), found, known }),
        _ => Ok(()),
    }
}

/// What makes `Ok` mean durable, and the database refuse a bug.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        let why = format!("the file system has no shared memory: journal mode is {mode}");
        return Err(rusqlite::Error::ToSqlConversionFailure(why.into()));
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    // What a savepoint sets aside stays in memory, and so do the pages that requests meet again.
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "cache_size", CACHE_KIBIBYTES)?;
    // A log that had to grow for once does not stay large for ever.
    connection.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))
}

/// Each step and its number in one transaction: a crash in between leaves the step before.
fn migrate(connection: &mut Connection, from: usize, to: usize) -> rusqlite::Result<()> {
    for (done, step) in MIGRATIONS.iter().enumerate().take(to).skip(from) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step.sql)?;
        if let Some(fill) = step.fill {
            fill(&transaction).map_err(Fault::into_sqlite)?;
        }
        let version = i64::try_from(done.saturating_add(1)).unwrap_or(i64::MAX);
        transaction.pragma_update(None, "user_version", version)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Another connection for the writer, to a file that was opened before.
pub(super) fn reconnect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect_unchecked(path)?;
    configure(&connection)?;
    Ok(connection)
}

/// Moves what an earlier process has left in the log into the file, and empties the log.
///
/// When a sync had failed, the kernel may show pages of the log that the disk never got. This
/// process reads and believes them; appended to them, what it acknowledges would be lost with them
/// when the power is cut. Written to the file they are as good as any.
fn begin_log_anew(connection: &Connection) -> rusqlite::Result<()> {
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        // There is no room to put things in order, but perhaps for what has been promised.
        Err(error) if is_full(&error) => {
            tracing::warn!(%error, "the ledger's log could not be moved into its file");
            Ok(())
        }
        moved => moved,
    }
}

/// Makes sure that what this connection reads is what there is after a crash, when a commit has
/// failed whose pages may be in the log all the same.
///
/// Either the log still ends before them for everybody, and then what is written now takes their
/// place; or this connection has found them there and believes them, and then the file gets them
/// and the log begins anew, so that nothing later depends on pages that the kernel may have dropped.
pub(super) fn settle_doubt(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    connection.pragma_update(None, "user_version", version)
}

/// A connection that cannot write to the file, but to a copy of it.
pub(super) fn connect_to_copy(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// A connection that cannot write.
pub(super) fn connect_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use farebox_billing::Release;
    use farebox_protocol::{PaymentId, Timestamp};
    use tempfile::TempDir;

    use super::*;
    use crate::book::holds::{self, HoldName};
    use crate::sqlite::check::check;
    use crate::sqlite::rows::{Rows, alone};

    /// A payment that is held, as every schema could have it, and what the journal says of it.
    const HELD: &str = "
        INSERT INTO payments (seq, id, fingerprint, generation, network, asset, payer, limit_units,
                              settle, state, answer, answer_waits, admitted_at, changed_at,
                              exposed_units)
        VALUES (1, :id, zeroblob(32), 1, 'eip155:1', '0x036cbd53842c5426634e7929541ec2318f3dcf7e',
                '0xAb', :limit, 'after', 'held', 'withheld', 'no', 5, 5, :limit);
        INSERT INTO terms VALUES (1, 'r', 'exact', '0xCd', 'v1', 9, '{}', '{}');
        INSERT INTO journal VALUES (1, :id, 5, 'admitted', :limit, NULL);";

    /// The first schema whose payments are on accounts from the start.
    const BOOKED_FROM: usize = 3;

    #[test]
    fn a_ledger_of_every_older_schema_is_carried_over() {
        for version in 1..MIGRATIONS.len() {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("farebox.db");
            let mut old = Connection::open(&path).unwrap();
            configure(&old).unwrap();
            migrate(&mut old, 0, version).unwrap();
            let id = PaymentId::from_bytes([7; 32]);
            let held = HELD.replace(":id", &format!("x'{}'", "07".repeat(32)));
            let held = held.replace(":limit", &format!("x'{:032x}'", 100));
            old.execute_batch(&held).unwrap();
            if BOOKED_FROM <= version {
                fill_accounts(&old).unwrap();
            }
            old.close().unwrap();
            let opened = open(&path).unwrap();
            let is_sound = || check(&opened.connection).unwrap();
            assert_eq!((is_sound().payments, is_sound().entries), (1, 1));
            assert_eq!(is_sound().problems, [], "schema {version}");
            assert_eq!(is_sound().accounts, 5, "schema {version}");
            let hold = HoldName { id, generation: 1 };
            let (why, now) = (Release::UpstreamFailed, Timestamp::from_millis(5));
            let withdraw = |it: &mut Rows<'_>| holds::withdraw(it, hold, why, now);
            drop(alone(&opened.connection, withdraw).unwrap());
            assert_eq!(is_sound().problems, [], "schema {version}");
            assert_eq!(is_sound().entries, 2);
            let rewritten = opened.connection.execute_batch("DELETE FROM journal");
            assert!(rewritten.is_err(), "schema {version}");
        }
    }
}
