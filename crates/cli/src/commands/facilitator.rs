//! `farebox facilitator`: verifies and settles for any x402 server, until it is told to stop.

use std::sync::Arc;

use farebox_gateway::{FacilitatorServer, SystemClock};

use crate::args::ServeArgs;
use crate::config::{self, Purpose};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::shutdown::StopSignals;
use crate::startup::{self, Background};

/// Starts it once every network was reached, then waits.
pub(crate) async fn run(args: &ServeArgs, output: &Output) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen()
        .map_err(|error| Failure::new("signals cannot be listened to").because(error))?;
    let Some(config) = startup::load(&args.config, Purpose::Facilitator, output)? else {
        return Ok(Exit::Failed);
    };
    output.progress(config::summary(&config));
    let background = Background::default();
    let facilitator =
        startup::facilitator(config.facilitator, &config.networks, &[], &background).await?;
    let server =
        FacilitatorServer::start(config.server.listen, facilitator, Arc::new(SystemClock)).await;
    let server = server.map_err(|error| {
        Failure::new(format!("cannot listen on {}", config.server.listen))
            .because(error)
            .help("check `listen` in [server], and that nothing else uses the port")
    })?;
    output.result(format!("farebox settles on http://{}", server.local_addr()));
    let signal = signals.next().await;
    tracing::info!(signal, "stopping: running requests are finished");
    let exit = tokio::select! {
        () = server.shutdown(config.drain) => Exit::Done,
        signal = signals.next() => {
            tracing::warn!(signal, "stopped at once; what was sent to the chain is on its way");
            Exit::Failed
        }
    };
    background.end().await;
    Ok(exit)
}
