//! `farebox serve`: the gateway of a configuration, until it is told to stop.

use std::net::TcpListener;
use std::sync::Arc;

use farebox_gateway::{Entropy, Gateway, GatewayConfig, NoProbe, Parts, Running, SystemClock};
use farebox_store::{Ledger, SqliteLedger, SqliteOptions};

use crate::args::ServeArgs;
use crate::config::{self, Config, Purpose};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::shutdown::StopSignals;
use crate::startup::{self, Background};

/// Starts everything in the order in which it can fail, then waits.
pub(crate) async fn run(args: &ServeArgs, output: &Output) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen()
        .map_err(|error| Failure::new("signals cannot be listened to").because(error))?;
    let Some(config) = startup::load(&args.config, Purpose::Serve, output)? else {
        return Ok(Exit::Failed);
    };
    output.progress(config::summary(&config));
    let background = Background::default();
    let (gateway, ledger) = start(config, &background).await?;
    output.result(format!("farebox sells on http://{}", gateway.local_addr()));
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping: running requests are finished"),
        () = ledger.failed() => tracing::error!("the ledger cannot be written any more; stopping"),
    }
    let exit = stop(gateway, &mut signals).await;
    background.end().await;
    match ledger.close().await {
        Ok(()) => Ok(exit),
        Err(error) => Err(Failure::new("the ledger was not closed cleanly")
            .because(error)
            .help("what was acknowledged is safe; the next start puts the rest in order")),
    }
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
    let gateway = Gateway::start(selling.gateway, parts)
        .await
        .map_err(|error| Failure::new("the gateway did not start").because(error))?;
    Ok((gateway, ledger))
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

/// Drains, unless a second signal asks for an end at once.
async fn stop(gateway: Running, signals: &mut StopSignals) -> Exit {
    tokio::select! {
        () = gateway.shutdown() => Exit::Done,
        signal = signals.next() => {
            tracing::warn!(signal, "stopped at once; the next start puts in order what was running");
            Exit::Failed
        }
    }
}
