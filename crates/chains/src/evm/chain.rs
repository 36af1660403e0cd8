//! One EVM network: its nodes, its tokens, its signers, and what is on its way there.

use std::sync::Arc;
use std::time::Duration;

use farebox_protocol::wire::PaymentRequirements;
use farebox_protocol::{Network, Reason};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::EvmAddress;
use super::approvals::Approvals;
use super::batch_limits::BatchLimits;
use super::batches::Batches;
use super::check::Refusal;
use super::deployed::Deployed;
use super::fees::FeeOracle;
use super::flights::Flights;
use super::resume::Resumption;
use super::signers::{Signers, SigningKeys};
use super::token::EvmToken;
use super::tracker::{Tracker, TrackerParts};
use super::usual_gas::UsualGas;
use super::wallets::Wallets;
use crate::config::NetworkConfig;
use crate::rpc::RpcClient;
use crate::transaction_log::TransactionLog;

/// Bounds of how long a price of gas is good.
const FEES_MIN: Duration = Duration::from_millis(250);
const FEES_MAX: Duration = Duration::from_secs(6);

/// One network that payments are verified and settled on.
#[derive(Debug)]
pub(crate) struct Chain {
    config: NetworkConfig,
    evm_id: u64,
    rpc: RpcClient,
    tokens: Vec<EvmToken>,
    pub(super) signers: Arc<Signers>,
    pub(super) fees: Arc<FeeOracle>,
    pub(super) flights: Arc<Flights>,
    pub(super) approvals: Approvals,
    pub(super) batch_limits: BatchLimits,
    pub(super) batches: Batches,
    pub(super) deployed: Deployed,
    pub(super) usual_gas: UsualGas,
    pub(super) wallets: Wallets,
    pub(super) resumption: Resumption,
    pub(super) tracker: Arc<Tracker>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// What all networks of a process share. Their watchers run on `tasks` until `stop`.
#[derive(Clone, Debug)]
pub(crate) struct ChainParts {
    pub(crate) http: reqwest::Client,
    pub(crate) keys: SigningKeys,
    pub(crate) log: Arc<dyn TransactionLog>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Chain {
    /// A network; `None` if it is not an `eip155` one.
    pub(crate) fn new(config: NetworkConfig, parts: ChainParts) -> Option<Arc<Self>> {
        let ChainParts { http, keys, log, tasks, stop } = parts;
        let chain_id = config.network.evm_chain_id()?;
        let rpc = RpcClient::new(http, &config.rpc);
        let token = |it: &_| EvmToken::new(config.network.clone(), Clone::clone(it));
        let tokens = config.tokens.iter().filter_map(token).collect();
        let signers = Arc::new(Signers::new(&keys, config.signer_reserve_wei));
        let keep = config.block_time.clamp(FEES_MIN, FEES_MAX);
        let (floor, cap) = (config.tip_floor_wei, config.gas_price_cap_wei);
        let fees = Arc::new(FeeOracle::new(rpc.clone(), keep, floor, cap));
        let flights = Arc::new(Flights::default());
        let tracker = Arc::new(Tracker::new(TrackerParts {
            rpc: rpc.clone(),
            fees: Arc::clone(&fees),
            signers: Arc::clone(&signers),
            flights: Arc::clone(&flights),
            log: Arc::clone(&log),
            network: config.network.clone(),
            chain_id,
            block_time: config.block_time,
            confirmations: config.confirmations,
        }));
        tasks.spawn(Arc::clone(&tracker).run(stop.clone()));
        let chain = Arc::new(Self {
            config,
            evm_id: chain_id,
            rpc,
            tokens,
            signers,
            fees,
            flights,
            approvals: Approvals::default(),
            batch_limits: BatchLimits::default(),
            batches: Batches::default(),
            deployed: Deployed::default(),
            usual_gas: UsualGas::default(),
            wallets: Wallets::default(),
            resumption: Resumption::new(log),
            tracker,
            tasks,
            stop,
        });
        chain.tasks.spawn(Arc::clone(&chain).watch_funds(chain.stop.clone()));
        chain.tasks.spawn(Arc::clone(&chain).resume_at_last(chain.stop.clone()));
        Some(chain)
    }

    pub(crate) fn config(&self) -> &NetworkConfig {
        &self.config
    }

    pub(crate) fn network(&self) -> &Network {
        &self.config.network
    }

    pub(crate) fn chain_id(&self) -> u64 {
        self.evm_id
    }

    pub(crate) fn rpc(&self) -> &RpcClient {
        &self.rpc
    }

    pub(crate) fn tokens(&self) -> &[EvmToken] {
        &self.tokens
    }

    /// The token that is demanded, if it is taken here.
    pub(crate) fn token(&self, requirements: &PaymentRequirements) -> Result<&EvmToken, Refusal> {
        let asset = requirements.asset.parse::<EvmAddress>().ok();
        let token = self.tokens.iter().find(|it| Some(it.address()) == asset);
        token.ok_or_else(|| Refusal {
            reason: Reason::InvalidPaymentRequirements,
            message: format!(
                "expected the asset to be one of those taken on {}, found `{}`",
                self.network(),
                requirements.asset
            ),
            payer: None,
        })
    }
}
