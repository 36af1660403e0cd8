//! The command line of `farebox ledger`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use farebox_protocol::{PaymentId, Timestamp};
use farebox_store::Forgotten;

use super::Report;
use crate::moment;

/// Shown under the list of the ledger's commands.
pub(super) const AFTER_HELP: &str = "\
Each of them needs to know where the ledger is:
  --config FILE     in [ledger] of this configuration; nothing else of it is looked at
  --data-dir DIR    in the file farebox.db of this directory

All but accept-restore only read, and can run while a gateway serves from the same ledger. SQLite then
shares a little memory in farebox.db-shm: run them as the gateway's user, or as root.

Amounts are whole atomic units; `decimals` says how many of their digits stand behind the point. Times
are UTC. Columns keep their names and their order; new ones come at the end.

Exit codes:
  0  done
  1  failed; a message on standard error says why and what to do
  2  the command line was wrong
  3  `check` found that something is wrong with the ledger
  4  there is no such payment";

/// What can be asked of a ledger.
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// What stands where: the accounts by asset, and the payments by state.
    ///
    /// Double entry. `payer:` is what payers owe (debit; pending: what is held), `loss:` what they
    /// were served and never paid, `revenue:` what was earned by route, `chain:` what was seen to
    /// arrive on chain, `refund:` what is owed back.
    Balances(BalancesArgs),
    /// The whole story of one payment: terms, states with their times, settlement, receipt.
    Payment(PaymentArgs),
    /// Payments, the last one first.
    List(ListArgs),
    /// Everything, for spreadsheets and accounting: CSV or JSON lines, the oldest first.
    ///
    /// Written as it is read, so that no ledger is too large. What is admitted meanwhile is at the
    /// end. In CSV, a text that a spreadsheet would take for a formula begins with an apostrophe.
    Export(ExportArgs),
    /// Whether the ledger is sound: SQLite's own checks, and every row equal to its journal.
    Check(CheckArgs),
    /// Copy the ledger to a new file, while it is being written, and check the copy.
    ///
    /// When this ends well, the copy is on the disk and sound. Nothing is overwritten. The copy knows
    /// that it is one: a gateway that is started on it is in quarantine until `accept-restore`.
    Backup(BackupArgs),
    /// End the quarantine of a ledger that was restored.
    ///
    /// A restored ledger may have forgotten payments, and a gateway on it sells nothing. Start one
    /// all the same: it looks up on chain what the ledger knows to be owed. After an hour and five
    /// minutes no forgotten payment can be presented again; then stop the gateway, run this, and
    /// start it again.
    AcceptRestore(AcceptRestoreArgs),
}

impl LedgerCommand {
    /// Where the ledger is.
    pub(crate) fn place(&self) -> &LedgerPlace {
        match self {
            Self::Balances(args) => &args.place,
            Self::Payment(args) => &args.place,
            Self::List(args) => &args.place,
            Self::Export(args) => &args.place,
            Self::Check(args) => &args.place,
            Self::Backup(args) => &args.place,
            Self::AcceptRestore(args) => &args.place,
        }
    }
}

/// Where the ledger is.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct LedgerPlace {
    /// The configuration of the gateway.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The directory of the ledger, whose file is farebox.db.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Arguments of `ledger balances`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BalancesArgs {
    #[command(flatten)]
    place: LedgerPlace,
    /// Show the accounts of every payer and not their sums.
    #[arg(long)]
    each_payer: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// How the accounts of payers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payers {
    /// As sums.
    Together,
    /// One by one.
    Each,
}

impl BalancesArgs {
    /// How the accounts of payers are shown.
    pub(crate) fn payers(&self) -> Payers {
        if self.each_payer { Payers::Each } else { Payers::Together }
    }
}

/// Arguments of `ledger payment`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PaymentArgs {
    /// The payment's id, as receipts and logs have it.
    #[arg(value_name = "ID")]
    pub(crate) id: PaymentId,
    #[command(flatten)]
    place: LedgerPlace,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// Arguments of `ledger list`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: LedgerPlace,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// Arguments of `ledger export`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ExportArgs {
    /// What is exported; the filters are for payments alone.
    #[arg(value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) what: Exported,
    #[command(flatten)]
    place: LedgerPlace,
    /// How it is written.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExportFormat,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

/// Arguments of `ledger check`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    place: LedgerPlace,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// Arguments of `ledger backup`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write; it must not be there.
    #[arg(value_name = "TO")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    place: LedgerPlace,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// Arguments of `ledger accept-restore`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AcceptRestoreArgs {
    #[command(flatten)]
    place: LedgerPlace,
    /// Do not wait: accept that each payment that was forgotten, and not settled before, could be
    /// served once more.
    #[arg(long)]
    early: bool,
}

impl AcceptRestoreArgs {
    /// What to do about forgotten payments that are still alive.
    pub(crate) fn forgotten(&self) -> Forgotten {
        if self.early { Forgotten::Accept } else { Forgotten::Wait }
    }
}

/// Which payments.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// In this state.
    #[arg(long, value_enum, value_name = "STATE", help_heading = "Filter")]
    pub(crate) state: Option<State>,
    /// Of this payer.
    #[arg(long, value_name = "ADDRESS", help_heading = "Filter")]
    pub(crate) payer: Option<String>,
    /// For this route, by its name: "POST /v1/chat/completions".
    #[arg(long, value_name = "ROUTE", help_heading = "Filter")]
    pub(crate) route: Option<String>,
    /// Admitted then or later: 2026-11-21, or 2026-11-21T09:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment::parse, help_heading = "Filter")]
    pub(crate) since: Option<Timestamp>,
    /// Admitted before.
    #[arg(long, value_name = "TIME", value_parser = moment::parse, help_heading = "Filter")]
    pub(crate) until: Option<Timestamp>,
}

impl Filter {
    /// Whether it leaves nothing out.
    pub(crate) fn is_open(&self) -> bool {
        let Self { state, payer, route, since, until } = self;
        let texts = payer.is_none() && route.is_none();
        state.is_none() && texts && since.is_none() && until.is_none()
    }
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// Funds are reserved; nothing is owed yet.
    Held,
    /// The upstream is at work.
    Serving,
    /// Owed; its settlement is queued.
    Captured,
    /// A settlement is under way.
    Settling,
    /// A settlement was sent and is looked for.
    Unknown,
    /// On chain.
    Settled,
    /// Given back without a charge.
    Released,
    /// Served and not paid.
    Lost,
}

impl State {
    /// Its name in the ledger.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Serving => "serving",
            Self::Captured => "captured",
            Self::Settling => "settling",
            Self::Unknown => "unknown",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }
}

/// What is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Exported {
    /// One row for each payment, as it stands.
    #[default]
    Payments,
    /// One row for each thing that happened.
    Journal,
}

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A line of column names, then a line a row.
    #[default]
    Csv,
    /// One JSON object a line; amounts are strings, as in x402.
    Jsonl,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Form {
    /// Print one JSON document instead of text for people.
    #[arg(long)]
    json: bool,
}

impl Form {
    /// For people or for programs.
    pub(crate) fn report(self) -> Report {
        if self.json { Report::Json } else { Report::Text }
    }
}
