//! Sets up the log: for people on a terminal, JSON lines otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::args::{LogArgs, LogFormat};
use crate::env;
use crate::failure::Failure;

/// The environment variable that `--log` overrides.
const VARIABLE: &str = "FAREBOX_LOG";

/// Starts the log on standard error; `default` applies where neither `--log` nor `FAREBOX_LOG` is
/// given.
pub(crate) fn start(args: &LogArgs, default: &str) -> Result<(), Failure> {
    let filter = args.log.clone().or_else(|| env::var(VARIABLE));
    let filter = filter.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(format!("`{filter}` is not a log filter")).because(error).help(
            "write a level such as `info`, or targets with levels such as \
             `warn,farebox_gateway=debug`",
        )
    })?;
    let terminal = io::stderr().is_terminal();
    let human = match args.log_format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if human {
        builder.with_ansi(terminal && env::var("NO_COLOR").is_none()).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    started.map_err(|error| Failure::new("the log could not be started").because(error))
}
