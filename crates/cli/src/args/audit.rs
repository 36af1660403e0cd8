//! The command line of `farebox audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use farebox_billing::audit::PublicKey;

use super::Report;
use super::ledger::{Form, LedgerPlace};

/// Shown under the list of the audit's commands.
pub(super) const AFTER_HELP: &str = "\
Every commit of a ledger seals the lines that it adds to the journal: a hash over all lines so far, signed
with the ledger's key (farebox.db.audit-key, beside the ledger; keep a copy of it elsewhere). A changed,
missing or added line breaks a seal.

Who has that key can write the journal anew and seal it. A head that was kept elsewhere finds that out, and
finds a journal that was cut:
  farebox audit head --data-dir DIR >> heads.txt           now and then, to another machine
  farebox audit verify --data-dir DIR --heads heads.txt    whenever somebody asks

Both only read, and can run while a gateway serves from the same ledger.

Exit codes:
  0  verified
  1  failed; a message on standard error says why and what to do
  2  the command line was wrong
  3  something is wrong with the journal; standard output says what comes first";

/// What can be asked of a journal.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Whether every line of the journal is what was written: names the first thing that is wrong.
    Verify(VerifyArgs),
    /// The signed head of the journal, one line, to be kept elsewhere.
    Head(HeadArgs),
}

impl AuditCommand {
    /// Where the ledger is.
    pub(crate) fn place(&self) -> &LedgerPlace {
        match self {
            Self::Verify(args) => &args.place,
            Self::Head(args) => &args.place,
        }
    }
}

/// Arguments of `audit verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    place: LedgerPlace,
    /// Believe the seals of this key alone, the fifth word of a head; may be given again. Without it:
    /// of the key beside the ledger.
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) keys: Vec<PublicKey>,
    /// Hold the journal against the heads in this file, one a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) heads: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

impl VerifyArgs {
    /// For people or for programs.
    pub(crate) fn report(&self) -> Report {
        self.form.report()
    }
}

/// Arguments of `audit head`.
#[derive(Clone, Debug, Args)]
pub(crate) struct HeadArgs {
    #[command(flatten)]
    place: LedgerPlace,
}
