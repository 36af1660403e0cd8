//! `farebox serve`: the gateway of a configuration, until it is told to stop.

use std::net::TcpListener;
use std::sync::Arc;

use farebox_gateway::{
    Entropy, Gateway, GatewayConfig, NoProbe, Parts, Running, StartError, SystemClock,
};
use farebox_store::{Ledger, SqliteLedger, SqliteOptions};

use crate::args::ServeArgs;
use crate::config::{Config, Purpose};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::shutdown::{StopSignals, stopped_early};
use crate::startup::{self, Background};

/// Starts everything in the order in which it can fail, then waits.
pub(crate) async fn run(args: &ServeArgs, output: &Output) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen()?;
    let Some(config) = startup::load(&args.config, Purpose::Serve, output)? else {
        return Ok(Exit::Failed);
    };
    startup::announce(&config, output);
    let background = Background::default();
    let (gateway, ledger) = tokio::select! {
        started = start(config, &background) => started?,
        signal = signals.next() => return Ok(stopped_early(signal)),
    };
    output.result(format!("farebox sells on http://{}", gateway.local_addr()));
    let exit = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping: running requests are finished");
            Exit::Done
        }
        () = ledger.failed() => {
            tracing::error!("the ledger cannot be written any more: stopping, to be started anew");
            Exit::Failed
        }
    };
    tokio::select! {
        closed = close(gateway, background, &ledger) => closed.map(|()| exit),
        signal = signals.next() => {
            tracing::warn!(signal, "stopped at once; the next start puts in order what was running");
            Ok(Exit::Failed)
        }
    }
}

/// Drains, then closes what the requests ran on.
async fn close(
    gateway: Running,
    background: Background,
    ledger: &SqliteLedger,
) -> Result<(), Failure> {
    gateway.shutdown().await;
    background.end().await;
    ledger.close().await.map_err(|error| {
        Failure::new("the ledger was not closed cleanly")
            .because(error)
            .help("what was acknowledged is safe; the next start puts the rest in order")
    })
}

/// Opens the ledger, reaches the networks, and listens.
pub(crate) async fn start(
    config: Config,
    background: &Background,
) -> Result<(Running, Arc<SqliteLedger>), Failure> {
    let Some(mut selling) = config.selling else {
        return Err(Failure::new("the configuration sells nothing"));
    };
    choose_port(&mut selling.gateway)?;
    // First, because it also keeps a second gateway from the same ledger.
    let ledger = SqliteLedger::open(&selling.ledger, SqliteOptions::default());
    let ledger = Arc::new(ledger.map_err(|error| {
        Failure::new(format!("the ledger {} cannot be opened", selling.ledger.display()))
            .because(error)
            .help("check `url` in [ledger], the directory's permissions, and that no other farebox runs")
    })?);
    let routes = &selling.gateway.routes;
    let facilitator =
        startup::facilitator(config.facilitator, &config.networks, routes, background).await?;
    let entropy = Entropy::from_os()
        .map_err(|error| Failure::new("the system gives no random numbers").because(error))?;
    let parts = Parts {
        ledger: Arc::<SqliteLedger>::clone(&ledger),
        facilitator,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(entropy),
        probe: Arc::new(NoProbe),
        mounts: Vec::new(),
    };
    let gateway = Gateway::start(selling.gateway, parts).await.map_err(not_started)?;
    Ok((gateway, ledger))
}

fn not_started(error: StartError) -> Failure {
    let help = match &error {
        StartError::Listen { .. } => {
            "check `listen` in [server], and that nothing else uses the port"
        }
        StartError::Ledger(_) => {
            "keep the ledger's file, and look at it before anything is changed"
        }
        StartError::Tls(_) => "this is a defect of the build: report it, with the reason above",
        StartError::Facilitator(_) => {
            "offers over Permit2 depend on what the facilitator settles: check [facilitator]"
        }
        StartError::Route(_) => "change the route in the configuration",
    };
    Failure::new("the gateway did not start").because(error).help(help)
}

/// With port 0 a free one is chosen here, because offers and receipts carry the address.
fn choose_port(gateway: &mut GatewayConfig) -> Result<(), Failure> {
    if gateway.listen.port() != 0 {
        return Ok(());
    }
    let chosen = TcpListener::bind(gateway.listen).and_then(|it| it.local_addr());
    let chosen = chosen.map_err(|error| {
        Failure::new(format!("there is no free port on {}", gateway.listen.ip())).because(error)
    })?;
    gateway.listen = chosen;
    if gateway.public_url.port() == Some(0) {
        let set = gateway.public_url.set_port(Some(chosen.port()));
        set.map_err(|()| Failure::new("the public address takes no port"))?;
    }
    Ok(())
}
