//! `farebox facilitator`: verifies and settles for any x402 server, until it is told to stop.

use std::sync::Arc;

use farebox_gateway::{FacilitatorParts, FacilitatorServer, SystemClock};

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
    let Some(service) = config.facilitator.service() else {
        return Err(Failure::new("the configuration settles through others"));
    };
    let terms = Arc::new(service.terms(&config.networks, Vec::new()));
    let facilitator = tokio::select! {
        ready = startup::facilitator(config.facilitator, &config.networks, &[], &background) => ready?,
        signal = signals.next() => return Ok(stopped_early(signal)),
    };
    let parts = FacilitatorParts { facilitator, clock: Arc::new(SystemClock), terms };
    let server = FacilitatorServer::start(config.server.listen, parts, config.limits).await;
    let server = server.map_err(|error| {
        Failure::new(format!("cannot listen on {}", config.server.listen))
            .because(error)
            .help("check `listen` in [server], and that nothing else uses the port")
    })?;
    output.result(format!("farebox settles on http://{}", server.local_addr()));
    let signal = signals.next().await;
    tracing::info!(%signal, "stopping: running requests are finished");
    let close = async {
        server.leave();
        tokio::time::sleep(signal.notice(config.server.lame_duck)).await;
        server.shutdown().await;
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
