//! What `serve`, `facilitator` and `config check --online` have in common: who settles, checked.

use std::fmt::Display;
use std::sync::Arc;

use farebox_chains::{
    ChainReader, EvmAddress, Facilitator, LocalFacilitator, NetworkConfig, RemoteConfig,
    RemoteFacilitator, SetupError, TransactionLog,
};
use farebox_gateway::Route;
use farebox_protocol::wire::{SupportedResponse, X402_VERSION};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Config, FacilitatorPlan, LoadError, NetworkPlan, Purpose};
use crate::failure::Failure;
use crate::node::Node;
use crate::output::{Audience, Output, Stream};

/// Tasks of the process that end when it does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Background {
    /// They run on it.
    pub(crate) tasks: TaskTracker,
    /// And end when this is cancelled.
    pub(crate) stop: CancellationToken,
}

impl Background {
    /// Ends them all and waits for that.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Reads a configuration; its warnings and mistakes go to standard error.
pub(crate) fn load(
    file: &std::path::Path,
    purpose: Purpose,
    output: &Output,
) -> Result<Option<Config>, Failure> {
    match config::load(file, purpose, output.paint(Stream::Progress)) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                output.progress(&loaded.warnings);
            }
            Ok(Some(loaded.config))
        }
        Err(LoadError::Mistakes(report)) => {
            output.progress(report);
            Ok(None)
        }
        Err(error @ LoadError::Unreadable { .. }) => Err(Failure::from(error)),
    }
}

/// Tells what is about to be served: a summary for a person, log lines for a log.
pub(crate) fn announce(config: &Config, output: &Output) {
    if output.audience(Stream::Progress) == Audience::Person {
        output.progress(config::summary(config));
        return;
    }
    let selling = config.selling.as_ref();
    for route in selling.map(|it| it.gateway.routes.as_slice()).unwrap_or_default() {
        let implied = selling.is_some_and(|it| it.is_implied(route));
        tracing::info!(
            route = route.name,
            upstream = route.upstream.name,
            price = %route.price,
            settle = route.settle.as_str(),
            implied,
            "route"
        );
    }
}

/// Whoever verifies and settles, once everybody who has to be reached was reached and is who the
/// configuration says. `log` keeps what this process signs.
pub(crate) async fn facilitator(
    plan: FacilitatorPlan,
    networks: &[NetworkPlan],
    routes: &[Arc<Route>],
    log: Arc<dyn TransactionLog>,
    background: &Background,
) -> Result<Arc<dyn Facilitator>, Failure> {
    let chains: Vec<NetworkConfig> = networks.iter().map(|it| chain(it, routes)).collect();
    let Background { tasks, stop } = background.clone();
    match plan {
        FacilitatorPlan::InProcess { keys, .. } => {
            let local = LocalFacilitator::new(chains, keys, log, tasks, stop).map_err(set_up)?;
            refuse_if_any(&local.check().await)?;
            refuse_if_any(&without_gas(networks, &local.signers()).await?)?;
            Ok(Arc::new(local))
        }
        FacilitatorPlan::Remote { urls, timeout, api_key: bearer } => {
            let known: Vec<NetworkConfig> =
                chains.into_iter().filter(|it| !it.rpc.is_empty()).collect();
            let reader = if known.is_empty() {
                None
            } else {
                Some(ChainReader::new(known, tasks, stop).map_err(set_up)?)
            };
            if let Some(reader) = &reader {
                refuse_if_any(&reader.check().await)?;
            }
            let remote = RemoteFacilitator::new(RemoteConfig { urls, timeout, bearer }, reader);
            let remote = remote.map_err(|error| {
                Failure::new("the remote facilitator cannot be used").because(error)
            })?;
            let supported = remote.supported().await.map_err(|error| {
                Failure::new("the remote facilitator cannot be asked what it supports")
                    .because(error)
                    .help("check `url` in [facilitator]")
            })?;
            refuse_if_any(&unsupported(&supported, routes))?;
            // `/supported` is open to everybody: a wrong key would show at the first payment.
            refuse_if_any(&remote.check().await)?;
            Ok(Arc::new(remote))
        }
    }
}

/// A network with what is offered on it; whoever only settles for others promises what needs nothing
/// but the token.
fn chain(plan: &NetworkPlan, routes: &[Arc<Route>]) -> NetworkConfig {
    let mut chain = plan.chain.clone();
    let mut schemes = Vec::new();
    for offer in routes.iter().flat_map(|it| &it.offers) {
        if offer.network == chain.network && !schemes.contains(&offer.scheme) {
            schemes.push(offer.scheme);
        }
    }
    if !schemes.is_empty() {
        chain.offers = schemes;
    }
    chain
}

fn set_up(error: SetupError) -> Failure {
    Failure::new("the networks cannot be used").because(error)
}

/// Networks on which no settlement could be sent, because no signer could pay for its gas. A single
/// signer without gas is only warned of: the others go on.
async fn without_gas(
    networks: &[NetworkPlan],
    signers: &[EvmAddress],
) -> Result<Vec<String>, Failure> {
    let silent =
        |error| Failure::new("the gas of the signers could not be asked for").because(error);
    let mut dry = Vec::new();
    for plan in networks {
        let network = &plan.chain.network;
        let node = Node::new(plan.chain.rpc.clone()).map_err(silent)?;
        let mut empty = Vec::new();
        for signer in signers {
            if node.wei(*signer).await.map_err(silent)? == 0 {
                tracing::warn!(%network, %signer, "this signer has no gas money");
                empty.push(signer.to_string());
            }
        }
        if empty.len() == signers.len() {
            let empty = empty.join(", ");
            dry.push(format!("{network}: no signer has money for gas; send some to {empty}"));
        }
    }
    Ok(dry)
}

/// What is offered and nobody would settle.
fn unsupported(supported: &SupportedResponse, routes: &[Arc<Route>]) -> Vec<String> {
    let mut missing: Vec<String> = routes
        .iter()
        .flat_map(|it| &it.offers)
        .filter(|offer| {
            !supported.kinds.iter().any(|kind| {
                kind.x402_version == X402_VERSION
                    && kind.scheme == offer.scheme.name()
                    && kind.network == offer.network.as_str()
            })
        })
        .map(|offer| {
            format!(
                "the remote facilitator does not settle `{}` on {}, which is offered",
                offer.scheme.name(),
                offer.network
            )
        })
        .collect();
    missing.sort();
    missing.dedup();
    missing
}

/// Fails closed, with every problem at once.
fn refuse_if_any<T: Display>(problems: &[T]) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = problems.iter().map(|it| format!("\n  - {it}")).collect();
    Err(Failure::new(format!("payments could not be settled as configured:{}", list.concat()))
        .help("nothing was started: selling without being able to settle would lose money"))
}
