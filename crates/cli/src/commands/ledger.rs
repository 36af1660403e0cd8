//! `farebox ledger`: looks at a ledger, beside the gateway that writes it or without one.

mod accept_restore;
mod backup;
mod balances;
mod check;
mod columns;
mod export;
mod list;
mod payment;
mod tokens;

use std::io;
use std::path::{Path, PathBuf};

use farebox_store::{LedgerFile, OpenError, StoreError};

use self::tokens::Tokens;
use crate::args::ledger::{LedgerCommand, LedgerPlace};
use crate::config::{self, LoadError};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Stream};

/// The file of a ledger in its data directory.
const FILE: &str = "farebox.db";

/// Runs one of them. They read a file and write text: nothing here waits for a network.
pub(crate) fn run(command: &LedgerCommand, output: &Output) -> Result<Exit, Failure> {
    let Some((file, tokens)) = find(command.place(), output)? else { return Ok(Exit::Failed) };
    let ledger = || open(&file, output);
    match command {
        LedgerCommand::Balances(args) => balances::run(&ledger()?, &tokens, args, output),
        LedgerCommand::Payment(args) => payment::run(&ledger()?, &tokens, args, output),
        LedgerCommand::List(args) => list::run(&ledger()?, &tokens, args, output),
        LedgerCommand::Export(args) => export::run(&ledger()?, &tokens, args),
        LedgerCommand::Check(args) => check::run(&ledger()?, args, output),
        LedgerCommand::Backup(args) => backup::run(&ledger()?, args, output),
        LedgerCommand::AcceptRestore(args) => accept_restore::run(&file, args, output),
    }
}

/// Opens a ledger to be read; says so where it may have forgotten something.
fn open(file: &Path, output: &Output) -> Result<LedgerFile, Failure> {
    let ledger = LedgerFile::open(file).map_err(|error| not_opened(file, error))?;
    if let Some(quarantine) = ledger.quarantine().map_err(unreadable)? {
        output.progress(format!("This ledger is in quarantine: {}.", quarantine.reason));
    }
    Ok(ledger)
}

/// Which file, and the tokens that the configuration knows; `None` where that has mistakes, which
/// are told by then.
pub(super) fn find(
    place: &LedgerPlace,
    output: &Output,
) -> Result<Option<(PathBuf, Tokens)>, Failure> {
    let LedgerPlace { config, data_dir } = place;
    if let Some(directory) = data_dir {
        return Ok(Some((directory.join(FILE), Tokens::default())));
    }
    let Some(file) = config else { return Err(Failure::new("no ledger was named")) };
    match config::load_ledger(file, output.paint(Stream::Progress)) {
        Ok(plan) => Ok(Some((plan.file, Tokens::new(plan.tokens)))),
        Err(LoadError::Mistakes(report)) => {
            output.progress(report);
            Ok(None)
        }
        Err(error @ LoadError::Unreadable { .. }) => Err(error.into()),
    }
}

pub(super) fn not_opened(file: &Path, error: OpenError) -> Failure {
    let help = match &error {
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "a ledger is made when `farebox serve` starts for the first time"
        }
        OpenError::Older { .. } => {
            "start `farebox serve` once: it migrates the ledger and keeps a copy of it as it was"
        }
        OpenError::Newer { .. } => "use the farebox that serves from it, or a newer one",
        OpenError::Corrupt { .. } => "keep the file as it is, and restore a backup elsewhere",
        OpenError::Tampered { .. } => "keep the file as it is, and let a person look",
        OpenError::NotALedger { .. } => "check the path",
        OpenError::NotCopied { .. } => {
            "make room on this disk, and keep a copy of the file yourself"
        }
        OpenError::InUse { .. } => "stop that process first",
        OpenError::Io { .. } | OpenError::Sqlite { .. } => {
            "run this as the user of the gateway, or as root: even a reader of a ledger that is being \
             written takes part in the locks beside it (farebox.db-shm)"
        }
    };
    Failure::new(format!("the ledger {} cannot be opened", file.display()))
        .because(error)
        .help(help)
}

pub(super) fn unreadable(error: StoreError) -> Failure {
    let help = match &error {
        StoreError::Corrupt(_) => "`farebox ledger check` tells more; restore a backup elsewhere",
        StoreError::Unavailable(_)
        | StoreError::Unknown(_)
        | StoreError::Fenced(_)
        | StoreError::Illegal(_) => {
            "try again; if it stays so, look at the disk and its permissions"
        }
    };
    Failure::new("the ledger cannot be read").because(error).help(help)
}
