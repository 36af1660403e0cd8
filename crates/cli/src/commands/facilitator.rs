//! `farebox facilitator`: verifies and settles for any x402 server, until it is told to stop.

use std::sync::Arc;

use farebox_gateway::{FacilitatorServer, SystemClock};

use crate::args::ServeArgs;
use crate::config::Purpose;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::shutdown::{StopSignals, stopped_early};
use crate::startup::{self, Background};

/// Starts it once every network was reached, then waits.
pub(crate) async fn run(args: &ServeArgs, output: &Output) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen()?;
    let Some(config) = startup::load(&args.config, Purpose::Facilitator, output)? else {
        return Ok(Exit::Failed);
    };
    startup::announce(&config, output);
    let background = Background::default();
    let facilitator = tokio::select! {
        ready = startup::facilitator(config.facilitator, &config.networks, &[], &background) => ready?,
        signal = signals.next() => return Ok(stopped_early(signal)),
    };
    let server =
        FacilitatorServer::start(config.server.listen, facilitator, Arc::new(SystemClock)).await;
    let server = server.map_err(|error| {
        Failure::new(format!("cannot listen on {}", config.server.listen))
            .because(error)
            .help("check `listen` in [server], and that nothing else uses the port")
    })?;
    output.result(format!("farebox settles on http://{}", server.local_addr()));
    let signal = signals.next().await;
    tracing::info!(%signal, "stopping: running requests are finished");
    let close = async {
        server.shutdown(config.drain).await;
        background.end().await;
    };
    tokio::select! {
        () = close => Ok(Exit::Done),
        signal = signals.next() => {
            tracing::warn!(%signal, "stopped at once; what was sent to the chain is on its way");
            Ok(Exit::Failed)
        }
    }
}
