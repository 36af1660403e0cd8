//! The binary: reads the command line, runs one command, tells how it went.

mod args;
mod books;
mod commands;
mod config;
mod demo;
mod env;
mod failure;
mod files;
mod logging;
mod moment;
mod node;
mod output;
mod pay;
mod shutdown;
mod startup;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, ConfigCommand};
use crate::failure::{Exit, Failure};
use crate::output::{Colours, Output, Stream};
use crate::pay::Out;

/// A request makes a dozen small allocations, often freed by another thread: see ADR 0008.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let colours =
        if env::var("NO_COLOR").is_some() { Colours::Never } else { Colours::OnTerminals };
    let output = Output::new(colours);
    match start(cli, &output) {
        Ok(_) if output.broken() => Exit::Failed.into(),
        Ok(code) => code,
        Err(failure) => {
            let paint = output.paint(Stream::Progress);
            output.progress(format!("{} {failure}", paint.red("error:")));
            Exit::Failed.into()
        }
    }
}

fn start(cli: Cli, output: &Output) -> Result<ExitCode, Failure> {
    logging::start(&cli.log, default_log(&cli.command))?;
    // Every TLS connection of the process uses this provider (ADR 0006). It fails only if another
    // one is installed already, and then TLS works as well.
    let installed = rustls::crypto::ring::default_provider().install_default();
    tracing::debug!(fresh = installed.is_ok(), "TLS provider installed");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("the runtime could not be started").because(error))?;
    runtime.block_on(Box::pin(run(cli.command, output)))
}

/// Long-running commands log what they do; the others have their own words for it.
fn default_log(command: &Command) -> &'static str {
    match command {
        Command::Serve(_) | Command::Facilitator(_) => "info",
        Command::Demo(_)
        | Command::Devnet(_)
        | Command::Pay(_)
        | Command::Config(_)
        | Command::Ledger(_)
        | Command::Audit(_)
        | Command::Init(_) => "error",
    }
}

async fn run(command: Command, output: &Output) -> Result<ExitCode, Failure> {
    let exit = match command {
        Command::Demo(args) => commands::demo::run(&args, output).await?,
        Command::Serve(args) => commands::serve::run(&args, output).await?,
        Command::Facilitator(args) => commands::facilitator::run(&args, output).await?,
        Command::Devnet(args) => commands::devnet::run(&args, output).await?,
        Command::Pay(args) => {
            let (mut answer, mut report) = output::streams();
            let out = Out { answer: &mut answer, report: &mut report };
            return Ok(pay::run(&args, out).await.into());
        }
        Command::Config(ConfigCommand::Check(args)) => commands::check::run(&args, output).await?,
        Command::Ledger(command) => commands::ledger::run(&command, output)?,
        Command::Audit(command) => commands::audit::run(&command, output)?,
        Command::Init(args) => commands::init::run(&args, output)?,
    };
    Ok(exit.into())
}
