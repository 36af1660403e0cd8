//! `farebox ledger backup`: a copy that is on the disk and sound, or none.

use farebox_gateway::{Clock as _, SystemClock};
use farebox_store::{BackupError, LedgerFile};
use serde_json::json;

use super::check;
use crate::args::Report;
use crate::args::ledger::BackupArgs;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Copies, checks, and tells what the copy is.
pub(super) fn run(
    ledger: &LedgerFile,
    args: &BackupArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let backup = match ledger.backup(&args.to, SystemClock.now()) {
        Ok(backup) => backup,
        Err(BackupError::Unsound { report, .. }) => {
            output.result(check::text(&report, output));
            output.progress("There is no backup: what would have been copied is not sound.");
            return Ok(Exit::Unsound);
        }
        Err(error) => return Err(failed(error)),
    };
    match args.form.report() {
        Report::Json => output.result(json!({
            "file": backup.path,
            "bytes": backup.bytes,
            "payments": backup.report.payments,
            "journal_entries": backup.report.entries,
        })),
        Report::Text => {
            let sound = check::text(&backup.report, output);
            output.result(format!("{sound}\n{}, {} bytes", backup.path.display(), backup.bytes));
        }
    }
    Ok(Exit::Done)
}

fn failed(error: BackupError) -> Failure {
    let help = match &error {
        BackupError::Exists { .. } => "nothing is ever overwritten: choose another name",
        BackupError::NoRoom { .. } => "choose another disk, which a backup should be on anyway",
        BackupError::Io { .. } => "check the directory and its permissions",
        BackupError::Store { .. } | BackupError::Unsound { .. } => {
            "`farebox ledger check` tells more"
        }
    };
    Failure::new("no backup was made").because(error).help(help)
}
