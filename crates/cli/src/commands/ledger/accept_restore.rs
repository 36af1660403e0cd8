//! `farebox ledger accept-restore`: somebody takes it upon himself that payments are forgotten.

use std::path::Path;

use farebox_gateway::{Clock as _, SystemClock};
use farebox_store::{AcceptError, accept_restored};

use super::not_opened;
use crate::args::ledger::AcceptRestoreArgs;
use crate::failure::{Exit, Failure};
use crate::moment;
use crate::output::Output;

/// Ends the quarantine, or says what has to come before.
pub(super) fn run(file: &Path, args: &AcceptRestoreArgs, output: &Output) -> Result<Exit, Failure> {
    let accepted = match accept_restored(file, args.forgotten(), SystemClock.now()) {
        Ok(accepted) => accepted,
        Err(AcceptError::Open(error)) => return Err(not_opened(file, error)),
        Err(error) => return Err(refused(error)),
    };
    output.result(format!("The quarantine has ended: {}.", accepted.quarantine.reason));
    if accepted.unsettled != 0 {
        let unsettled = accepted.unsettled;
        output.result(format!("Settlements that are still looked up: {unsettled}."));
    }
    output.result("Start the gateway again: it sells.");
    Ok(Exit::Done)
}

fn refused(error: AcceptError) -> Failure {
    let help = match &error {
        AcceptError::NotQuarantined { .. } => "there is nothing to accept".to_owned(),
        AcceptError::NotLookedUp { .. } => {
            "start the gateway: it sells nothing, and looks up on chain what this ledger knows to \
             be owed; then stop it and come again"
                .to_owned()
        }
        AcceptError::TooEarly { safe_from, .. } => {
            let at = moment::text(*safe_from);
            format!("come again after {at}, or accept that by `--early`")
        }
        AcceptError::Open(_) | AcceptError::Store { .. } => {
            "check the disk and the file's permissions".to_owned()
        }
    };
    Failure::new("the restored ledger was not accepted").because(error).help(help)
}
