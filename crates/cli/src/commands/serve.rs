//! `farebox serve`: the gateway of a configuration, until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::{
    Entropy, FacilitatorParts, Gateway, KeptTransactions, NoProbe, Parts, Running, StartError,
    SystemClock, facilitator_mount,
};
use tokio::net::TcpListener;
use url::Url;

use crate::args::ServeArgs;
use crate::books::OpenLedger;
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
    let lame_duck = config.server.lame_duck;
    let (gateway, ledger) = tokio::select! {
        started = start(config, &background) => started?,
        signal = signals.next() => return Ok(stopped_early(signal)),
    };
    output.result(format!("farebox sells on http://{}", gateway.local_addr()));
    let (exit, notice) = tokio::select! {
        signal = signals.next() => {
            tracing::info!(%signal, "stopping: running requests are finished");
            (Exit::Done, signal.notice(lame_duck))
        }
        () = ledger.failed() => {
            tracing::error!("the ledger cannot be written any more: stopping, to be started anew");
            (Exit::Failed, Duration::ZERO)
        }
    };
    let end = async {
        gateway.leave();
        tokio::select! {
            () = tokio::time::sleep(notice) => {}
            () = ledger.failed() => {}
        }
        close(gateway, background, &ledger).await
    };
    tokio::select! {
        closed = end => closed.map(|()| exit),
        signal = signals.next() => {
            tracing::warn!(%signal, "stopped at once; the next start puts in order what was running");
            Ok(Exit::Failed)
        }
    }
}

/// Drains, then closes what the requests ran on.
async fn close(
    gateway: Running,
    background: Background,
    ledger: &OpenLedger,
) -> Result<(), Failure> {
    gateway.shutdown().await;
    background.end().await;
    ledger.ledger().close().await.map_err(|error| {
        Failure::new("the ledger was not closed cleanly")
            .because(error)
            .help("what was acknowledged is safe; the next start puts the rest in order")
    })
}

/// Opens the ledger, reaches the networks, and listens.
pub(crate) async fn start(
    config: Config,
    background: &Background,
) -> Result<(Running, OpenLedger), Failure> {
    let Some(mut selling) = config.selling else {
        return Err(Failure::new("the configuration sells nothing"));
    };
    let listener = listen(config.server.listen, &mut selling.gateway.public_url).await?;
    // First, because it also keeps a second gateway from the same ledger.
    let ledger = OpenLedger::open(selling.ledger).await?;
    let routes = &selling.gateway.routes;
    let own = config.networks.iter().filter_map(|it| it.pay_to).collect();
    let terms = config.facilitator.shown().map(|it| it.terms(&config.networks, own));
    let log = KeptTransactions::new(ledger.transactions());
    let (plan, networks) = (config.facilitator, &config.networks);
    let facilitator = startup::facilitator(plan, networks, routes, log, background).await?;
    let entropy = Entropy::from_os()
        .map_err(|error| Failure::new("the system gives no random numbers").because(error))?;
    let mount = terms.map(|terms| {
        let (facilitator, clock) = (Arc::clone(&facilitator), Arc::new(SystemClock));
        facilitator_mount(FacilitatorParts { facilitator, clock, terms: Arc::new(terms) })
    });
    let parts = Parts {
        ledger: ledger.ledger(),
        facilitator,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(entropy),
        probe: Arc::new(NoProbe),
        mounts: mount.into_iter().collect(),
    };
    let gateway = Gateway::start(listener, selling.gateway, parts).await.map_err(not_started)?;
    Ok((gateway, ledger))
}

fn not_started(error: StartError) -> Failure {
    let help = match &error {
        StartError::Listen(_) => "the system has closed the port: start again",
        StartError::Ledger(_) => {
            "keep the ledger as it is, and look at it before anything is changed"
        }
        StartError::Tls(_) => "this is a defect of the build: report it, with the reason above",
        StartError::Facilitator(_) => {
            "offers over Permit2 depend on what the facilitator settles: check [facilitator]"
        }
        StartError::Route(_) => "change the route in the configuration",
    };
    Failure::new("the gateway did not start").because(error).help(help)
}

/// Listens from here on: with port 0 a free one is chosen, and offers and receipts carry the address.
async fn listen(address: SocketAddr, public_url: &mut Url) -> Result<TcpListener, Failure> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        Ok::<_, io::Error>((listener, port))
    };
    let (listener, port) = bound.await.map_err(|error| {
        Failure::new(format!("cannot listen on {address}"))
            .because(error)
            .help("check `listen` in [server], and that nothing else uses the port")
    })?;
    if public_url.port() == Some(0) {
        let set = public_url.set_port(Some(port));
        set.map_err(|()| Failure::new("the public address takes no port"))?;
    }
    Ok(listener)
}
