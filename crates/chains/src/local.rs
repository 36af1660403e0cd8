//! The facilitator in this process: it asks the chains itself and pays their gas.

use std::sync::Arc;

use async_trait::async_trait;
use farebox_protocol::wire::{
    Object, SettleRequest, SupportedKind, SupportedResponse, VerifyRequest, X402_VERSION,
};
use farebox_protocol::{Amount, Network, Reason, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::config::{NetworkConfig, PermitSponsoring};
use crate::evm::{
    Chain, ChainParts, EIP2612, ERC20_APPROVAL, EvmAddress, EvmKey, EvmPayment, EvmToken, METHODS,
    NoStanding, Problem, Refusal, SignerStatus, SigningKeys,
};
use crate::facilitator::{
    Facilitator, FacilitatorError, Lookup, NetworkReadiness, Permanence, SettleError, Settlement,
    Verification,
};
use crate::rpc::{RpcError, node_client};
use crate::scheme::Scheme;
use crate::schemes::SCHEMES;
use crate::transaction_log::{MemoryTransactionLog, TransactionLog};
use crate::v1::kind_in_v1;

/// Verifies and settles on every configured network.
///
/// One transaction is sent for each payment, however often and however concurrently it is asked
/// for. What is signed is kept before it is sent, and gone on with after a restart.
#[derive(Clone, Debug)]
pub struct LocalFacilitator {
    chains: Chains,
    signers: SigningKeys,
}

/// Looks payments up on the configured networks; has no keys and sends nothing.
#[derive(Clone, Debug)]
pub struct ChainReader(Chains);

/// What cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no HTTP client to ask nodes with.
    #[error("the HTTP client for RPC endpoints could not be made")]
    Http(#[source] reqwest::Error),
    /// Payments are verified and settled on `eip155` networks only.
    #[error("{0} is not an EVM network with a chain id")]
    NotEvm(Network),
    /// A network is configured twice.
    #[error("{0} is configured twice")]
    Twice(Network),
    /// Nobody could be asked.
    #[error("{0} has no RPC endpoint")]
    NoEndpoint(Network),
    /// Plain http or https is spoken with nodes.
    #[error("{network}: an RPC endpoint must be an http or https URL, found `{found}:`")]
    Scheme {
        /// Whose.
        network: Network,
        /// What its URL begins with.
        found: String,
    },
    /// Nothing could be settled.
    #[error("a facilitator in this process needs at least one signing key")]
    NoSigner,
}

#[derive(Clone, Debug)]
struct Chains(Arc<[Arc<Chain>]>);

impl LocalFacilitator {
    /// A facilitator for these networks, whose gas these keys pay. What it signs is kept in `log` first, and
    /// what is found there is gone on with. Its watchers run on `tasks` until `stop` is cancelled;
    /// settlements under way end as unknown then.
    ///
    /// The process must have a default TLS provider installed.
    pub fn new(
        networks: Vec<NetworkConfig>,
        signers: Vec<EvmKey>,
        log: Arc<dyn TransactionLog>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, SetupError> {
        if signers.is_empty() {
            return Err(SetupError::NoSigner);
        }
        let http = node_client().map_err(SetupError::Http)?;
        let signers = SigningKeys::new(signers);
        let keys = signers.clone();
        let chains = Chains::new(networks, &ChainParts { http, keys, log, tasks, stop })?;
        Ok(Self { chains, signers })
    }

    /// Asks every network whether it is what the configuration says. Every problem is reported; any
    /// of them is a reason not to start.
    pub async fn check(&self) -> Vec<Problem> {
        self.chains.check().await
    }

    /// How each of them is on each network: what it has, and how much is on its way.
    pub fn signer_status(&self) -> Vec<SignerStatus> {
        self.chains.0.iter().flat_map(|it| it.signer_status()).collect()
    }

    /// The accounts that pay the gas.
    pub fn signers(&self) -> Vec<EvmAddress> {
        self.signers.addresses().collect()
    }
}

impl ChainReader {
    /// A reader of these networks; `tasks` and `stop` as for [`LocalFacilitator::new`].
    pub fn new(
        networks: Vec<NetworkConfig>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, SetupError> {
        let http = node_client().map_err(SetupError::Http)?;
        let keys = SigningKeys::new(Vec::new());
        // It signs nothing, so there is nothing to keep.
        let log = Arc::new(MemoryTransactionLog::default());
        Chains::new(networks, &ChainParts { http, keys, log, tasks, stop }).map(Self)
    }

    /// As [`LocalFacilitator::check`].
    pub async fn check(&self) -> Vec<Problem> {
        self.0.check().await
    }

    /// What became of a payment, as its chain tells it; [`Lookup::CannotTell`] for other networks.
    pub async fn lookup(&self, request: &SettleRequest) -> Result<Lookup, FacilitatorError> {
        match self.0.of(request) {
            Ok(chain) => {
                chain.look_up(request).await.map_err(|error| asked(chain.network(), error))
            }
            Err(_) => Ok(Lookup::CannotTell),
        }
    }

    /// How firmly a settlement is in its chain; [`Permanence::CannotTell`] for other networks.
    pub async fn permanence(
        &self,
        request: &SettleRequest,
        transaction: &str,
    ) -> Result<Permanence, FacilitatorError> {
        self.0.permanence(request, transaction).await
    }

    /// The token that a payment is demanded in, if it is one of the configured.
    pub(crate) fn token(&self, request: &VerifyRequest) -> Option<&EvmToken> {
        let chain = self.0.of(request).ok()?;
        chain.token(request.payment_requirements.value()).ok()
    }

    /// Why a payment is refused whose payer must be a contract: there is none, or it says that it did not
    /// sign. Whether one may be deployed is for whoever pays for that to say.
    pub(crate) async fn ask_wallet(
        &self,
        request: &VerifyRequest,
        payment: &EvmPayment,
    ) -> Result<Option<Refusal>, FacilitatorError> {
        let Ok(chain) = self.0.of(request) else { return Ok(None) };
        match chain.unless_doubted(payment, chain.ask_wallet(payment)).await {
            Ok(()) => Ok(None),
            Err(NoStanding::Refused(it)) if it.reason == Reason::Eip6492FactoryNotAllowed => {
                Ok(None)
            }
            Err(NoStanding::Refused(refusal)) => Ok(Some(refusal)),
            Err(NoStanding::Rpc(error)) => Err(asked(chain.network(), error)),
        }
    }

    /// The most that can be collected of the payer in this way; `None` on other networks.
    pub(crate) async fn collectable(
        &self,
        request: &VerifyRequest,
        payment: &EvmPayment,
    ) -> Result<Option<Amount>, FacilitatorError> {
        let Ok(chain) = self.0.of(request) else { return Ok(None) };
        let collectable = chain.collectable(payment).await;
        collectable.map(Some).map_err(|error| asked(chain.network(), error))
    }
}

impl Chains {
    fn new(networks: Vec<NetworkConfig>, parts: &ChainParts) -> Result<Self, SetupError> {
        let mut chains: Vec<Arc<Chain>> = Vec::with_capacity(networks.len());
        for config in networks {
            let network = config.network.clone();
            check_endpoints(&config.network, &config.rpc)?;
            if chains.iter().any(|it| *it.network() == network) {
                return Err(SetupError::Twice(network));
            }
            let chain = Chain::new(config, parts.clone());
            chains.push(chain.ok_or(SetupError::NotEvm(network))?);
        }
        Ok(Self(chains.into()))
    }

    async fn permanence(
        &self,
        request: &SettleRequest,
        transaction: &str,
    ) -> Result<Permanence, FacilitatorError> {
        let Ok(chain) = self.of(request) else { return Ok(Permanence::CannotTell) };
        let found = chain.permanence(request, transaction).await;
        found.map_err(|error| asked(chain.network(), error))
    }

    async fn check(&self) -> Vec<Problem> {
        let checks = self.0.iter().map(|chain| chain.check());
        futures_util::future::join_all(checks).await.into_iter().flatten().collect()
    }

    /// The chain that a payment is on, or why it is refused.
    fn of(&self, request: &VerifyRequest) -> Result<&Arc<Chain>, (Reason, String)> {
        let requirements = request.payment_requirements.value();
        let (scheme, network) = (&requirements.scheme, &requirements.network);
        if !SCHEMES.iter().any(|it| it.name() == scheme) {
            let message = format!("expected a scheme that is served here, found `{scheme}`");
            return Err((Reason::UnsupportedScheme, message));
        }
        self.0.iter().find(|it| it.network() == network).ok_or_else(|| {
            let message = format!("expected a network that is served here, found {network}");
            (Reason::InvalidNetwork, message)
        })
    }
}

#[async_trait]
impl Facilitator for LocalFacilitator {
    async fn verify(
        &self,
        request: &VerifyRequest,
        now: Timestamp,
    ) -> Result<Verification, FacilitatorError> {
        match self.chains.of(request) {
            Ok(chain) => {
                chain.verify(request, now).await.map_err(|error| asked(chain.network(), error))
            }
            Err((reason, message)) => Ok(Verification::Invalid { reason, message, payer: None }),
        }
    }

    async fn settle(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        match self.chains.of(request) {
            Ok(chain) => chain.settle(request, now).await,
            Err((reason, message)) => Err(SettleError::NotServed { reason, message }),
        }
    }

    async fn lookup(
        &self,
        request: &SettleRequest,
        _now: Timestamp,
    ) -> Result<Lookup, FacilitatorError> {
        match self.chains.of(request) {
            Ok(chain) => {
                chain.look_up(request).await.map_err(|error| asked(chain.network(), error))
            }
            // It may have been settled while that network was still configured.
            Err(_) => Ok(Lookup::CannotTell),
        }
    }

    async fn permanence(
        &self,
        request: &SettleRequest,
        transaction: &str,
    ) -> Result<Permanence, FacilitatorError> {
        self.chains.permanence(request, transaction).await
    }

    async fn supported(&self) -> Result<SupportedResponse, FacilitatorError> {
        let asked = self.chains.0.iter().map(|chain| self.kinds_of(chain));
        let kinds: Vec<SupportedKind> =
            futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        let by_permit2 = kinds.iter().any(|it| it.extra.is_some());
        let sponsored = |on: &dyn Fn(&NetworkConfig) -> bool| {
            by_permit2 && self.chains.0.iter().any(|it| on(it.config()))
        };
        let extensions = [
            (EIP2612, sponsored(&|it| it.sponsoring.permits == PermitSponsoring::Submitted)),
            (ERC20_APPROVAL, sponsored(&|it| it.sponsoring.approvals.is_some())),
        ];
        let extensions = extensions.into_iter().filter(|(_, on)| *on);
        let extensions = extensions.map(|(name, _)| name.to_owned()).collect();
        let in_v1 = kinds.iter().filter(|it| it.extra.is_none()).filter_map(kind_in_v1);
        let in_v1: Vec<SupportedKind> = in_v1.collect();
        let addresses = self.signers.addresses().map(|it| Value::String(it.to_string())).collect();
        let mut signers = Object::new();
        signers.insert("eip155:*".to_owned(), Value::Array(addresses));
        let kinds = [kinds, in_v1].concat();
        Ok(SupportedResponse { kinds, extensions, signers, rest: Object::new() })
    }

    fn readiness(&self) -> Vec<NetworkReadiness> {
        let of = |chain: &Arc<Chain>| NetworkReadiness {
            network: chain.network().clone(),
            obstacle: chain.obstacle(),
        };
        self.chains.0.iter().map(of).collect()
    }
}

impl LocalFacilitator {
    /// The schemes whose contracts are on a network. One that cannot be asked has those that need
    /// none.
    async fn kinds_of(&self, chain: &Chain) -> Vec<SupportedKind> {
        let mut kinds = Vec::new();
        for method in METHODS {
            match chain.missing_contract(*method).await {
                Ok(None) => kinds.push(self.kind(chain, *method)),
                Ok(Some(contract)) => {
                    let (network, scheme) = (chain.network(), method.word());
                    tracing::debug!(%network, scheme, contract, "not there, so not served");
                }
                Err(error) => {
                    let (network, scheme) = (chain.network(), method.word());
                    tracing::warn!(%network, scheme, %error, "whether it is served is not known");
                }
            }
        }
        kinds
    }

    fn kind(&self, chain: &Chain, scheme: &dyn Scheme) -> SupportedKind {
        let facilitator = self.signers.addresses().next().map(|it| it.to_string());
        let extra = scheme.extra(facilitator.as_deref());
        SupportedKind {
            x402_version: X402_VERSION,
            scheme: scheme.name().to_owned(),
            network: chain.network().to_string(),
            extra: Some(extra).filter(|it| !it.is_empty()),
            rest: Object::new(),
        }
    }
}

/// Whether these can be asked about a network.
pub(crate) fn check_endpoints(network: &Network, rpc: &[Url]) -> Result<(), SetupError> {
    let network = network.clone();
    if rpc.is_empty() {
        return Err(SetupError::NoEndpoint(network));
    }
    match rpc.iter().find(|it| !matches!(it.scheme(), "http" | "https")) {
        Some(url) => Err(SetupError::Scheme { network, found: url.scheme().to_owned() }),
        None => Ok(()),
    }
}

fn asked(network: &Network, error: RpcError) -> FacilitatorError {
    FacilitatorError { context: format!("{network} by JSON-RPC"), source: Some(Box::new(error)) }
}
