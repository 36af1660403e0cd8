//! The command line: what can be asked for, and the help that explains it.

pub(crate) mod audit;
pub(crate) mod ledger;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::audit::AuditCommand;
use self::ledger::LedgerCommand;
use crate::pay::PayArgs;

/// Shown under the list of commands.
const AFTER_HELP: &str = "\
Begin here:
  farebox demo                     watch a whole economy run on this machine, offline
  farebox init shop                write a configuration and a settler's key into ./shop
  farebox serve --config shop/farebox.toml

Environment:
  FAREBOX_LOG    log filter, as --log
  NO_COLOR       never colour anything
  (Secrets are read from the variables that the configuration names; nothing else is.)

Exit codes:
  0  done
  1  failed; a message on standard error says why and what to do
  2  the command line was wrong
  (`farebox pay`, `ledger` and `audit` have more: see their `--help`.)";

/// The fare box in front of AI APIs.
///
/// Farebox takes a signed stablecoin payment inside the HTTP exchange (402, x402), holds it, lets
/// the upstream do the work, meters it, charges for it, and settles the charge on chain. The same
/// binary sells (serve), settles (facilitator) and buys (pay).
#[derive(Debug, Parser)]
#[command(name = "farebox", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What the log tells and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    /// What is logged to standard error: a level (`error`, `warn`, `info`, `debug`, `trace`), or
    /// targets with levels such as `warn,farebox_gateway=debug`.
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Log")]
    pub(crate) log: Option<String>,
    /// How log lines look; `auto` is text on a terminal and JSON otherwise.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    #[arg(help_heading = "Log")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole economy on this machine, with no network and no set-up.
    ///
    /// Starts a dev chain, a facilitator, a gateway, a small model that streams and an agent with a
    /// budget of $0.05, all in this process and on loopback. The agent buys completions; one
    /// purchase is over its budget, one payment is replayed, one upstream fails. Ends with what was
    /// quoted, charged and settled, and checks that the balances on chain add up. Takes less than a
    /// minute; exits with 1 if anything does not add up.
    Demo(DemoArgs),
    /// Sell an API: the gateway in front of the upstreams of a configuration.
    ///
    /// Answers 402 with a price, takes x402 payments, forwards paid requests, meters and settles
    /// them. SIGTERM or SIGINT stops it after the running requests are done; a second one stops it
    /// at once (a restart then puts everything in order).
    Serve(ServeArgs),
    /// Verify and settle x402 payments for any server.
    ///
    /// Serves POST /verify, POST /settle and GET /supported. A configuration with `listen` in
    /// `[server]`, a `[network."…"]` with `rpc`, and `signers` in `[facilitator]` is enough.
    Facilitator(ServeArgs),
    /// Run an EVM chain in this process, for tests of code that pays or is paid.
    ///
    /// A JSON-RPC node with chain id 84532 (Base Sepolia), a USDC-like token at its known address
    /// (EIP-3009, EIP-2612, ERC-1271), funded accounts, and the helpers known from anvil
    /// (`evm_mine`, `evm_snapshot`, `anvil_setBalance`, …). Prints the accounts with their keys.
    Devnet(DevnetArgs),
    /// Buy something: a request whose 402 is paid.
    Pay(Box<PayArgs>),
    /// Work with a configuration.
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Look at the books, check them, export them, back them up.
    #[command(subcommand, arg_required_else_help = true, after_help = ledger::AFTER_HELP)]
    Ledger(LedgerCommand),
    /// Show that nobody has changed the journal behind your back.
    #[command(subcommand, arg_required_else_help = true, after_help = audit::AFTER_HELP)]
    Audit(AuditCommand),
    /// Write a commented configuration and a settler's key, to begin with.
    ///
    /// Writes farebox.toml and settler.key (readable by you alone) and prints what to do next.
    /// Overwrites nothing.
    Init(InitArgs),
}

/// Arguments of `demo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the ledger and the configuration: each run in a new directory below this one, which is
    /// made if need be. Without it they are temporary.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print the result as one JSON document on standard output, and progress on standard error.
    #[arg(long = "json")]
    json: bool,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl DemoArgs {
    /// How the result is printed.
    pub(crate) fn report(&self) -> Report {
        if self.json { Report::Json } else { Report::Text }
    }
}

/// Arguments of `serve` and `facilitator`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration, a TOML file; `farebox config check FILE` explains what it means.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Arguments of `devnet`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DevnetArgs {
    /// Where JSON-RPC listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8545")]
    pub(crate) listen: SocketAddr,
    /// Seconds from block to block, such as 2 or 0.25; without it every transaction is mined at
    /// once.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) block_time: Option<Duration>,
}

/// What can be done with a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Tell whether a configuration can be served, what it sells, or everything that is wrong.
    ///
    /// All mistakes are told at once, each with its line. Secrets are looked up but never shown.
    Check(CheckArgs),
}

/// Arguments of `config check`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Also ask the networks whether they are what the file says: chain id, token, decimals,
    /// EIP-712 domain, and gas of the settling accounts.
    #[arg(long = "online")]
    online: bool,
}

/// How far a check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The file and the secrets it names.
    Offline,
    /// The networks too.
    Online,
}

impl CheckArgs {
    /// How far the check goes.
    pub(crate) fn reach(&self) -> Reach {
        if self.online { Reach::Online } else { Reach::Offline }
    }
}

/// Arguments of `init`.
#[derive(Clone, Debug, Args)]
pub(crate) struct InitArgs {
    /// Where to write; it is made if need be.
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
}

/// A positive number of seconds with at most three digits after the point.
fn seconds(text: &str) -> Result<Duration, String> {
    let expected = || "expected seconds from 0.05 to 3600, such as 2 or 0.25".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || 3 < fraction.len() {
        return Err(expected());
    }
    let millis = format!("{whole}{fraction:0<3}").parse().map_err(|_| expected())?;
    if (50..=3_600_000).contains(&millis) {
        Ok(Duration::from_millis(millis))
    } else {
        Err(expected())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn block_times() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["", "0", "0.001", "-1", "1.", ".5", "1e3", "3601", "0.0001", "2s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
