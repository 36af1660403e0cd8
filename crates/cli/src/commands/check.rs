//! `farebox config check`: what a configuration means, or all that is wrong with it.

use std::sync::Arc;

use farebox_chains::MemoryTransactionLog;

use crate::args::{CheckArgs, Reach};
use crate::config::{self, Purpose};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Stream};
use crate::startup::{self, Background};

/// Reads the file and prints what it sells, or its mistakes.
pub(crate) async fn run(args: &CheckArgs, output: &Output) -> Result<Exit, Failure> {
    let Some(config) = startup::load(&args.file, Purpose::AsWritten, output)? else {
        return Ok(Exit::Failed);
    };
    output.result(config::summary(&config));
    if args.reach() == Reach::Online {
        let routes = config.selling.map(|it| it.gateway.routes).unwrap_or_default();
        let background = Background::default();
        // Nothing is settled by looking.
        let log = Arc::new(MemoryTransactionLog::default());
        let (plan, networks) = (config.facilitator, &config.networks);
        let checked = startup::facilitator(plan, networks, &routes, log, &background).await;
        background.end().await;
        checked?;
        output.result("\nThe networks are what the file says.");
    }
    output.result(format!("\n{}", output.paint(Stream::Result).green("OK")));
    Ok(Exit::Done)
}
