//! A dev chain, facilitators on it, and somebody who signs.

use std::sync::Arc;
use std::time::Duration;

use farebox_chains::{
    AuthorizationWindow, EvmKey, LocalFacilitator, MemoryTransactionLog, NetworkConfig,
    TransactionLog, find_network, scheme_of, sign_exact, sign_upto,
};
use farebox_devnet::{DEV_ACCOUNTS, Devnet, DevnetConfig, PERMIT2_ADDRESS, TOKEN_ADDRESS};
use farebox_gateway::{Clock as _, SystemClock};
use farebox_protocol::Timestamp;
use farebox_protocol::wire::{Object, PaymentPayload, PaymentRequirements};
use farebox_testkit::rpc::JsonRpc;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const CHAIN: &str = "eip155:84532";
/// What the buyer has at first, in token units.
pub(crate) const FUNDS: u128 = 1_000_000_000;

/// A chain in this process.
#[derive(Debug)]
pub(crate) struct TestChain {
    pub(crate) devnet: Devnet,
    pub(crate) rpc: JsonRpc,
    pub(crate) buyer: EvmKey,
}

impl TestChain {
    pub(crate) async fn start() -> Self {
        Self::with(DevnetConfig::default()).await
    }

    pub(crate) async fn with(config: DevnetConfig) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let devnet = Devnet::start(config).await.unwrap();
        let rpc = JsonRpc::new(devnet.url()).unwrap();
        let buyer = EvmKey::from_bytes([0x42; 32]).unwrap();
        devnet.set_token_balance(buyer.address().as_bytes().into(), FUNDS);
        Self { devnet, rpc, buyer }
    }

    /// Lets Permit2 spend the buyer's tokens.
    pub(crate) async fn approve_permit2(&self) {
        let owner = self.buyer.address().to_string();
        let permit2 = PERMIT2_ADDRESS.to_string().trim_start_matches("0x").to_lowercase();
        let data = format!("0x095ea7b3{permit2:0>64}{}", "f".repeat(64));
        let approve = json!([{"from": owner, "to": TOKEN_ADDRESS, "data": data}]);
        for (method, params) in [
            ("anvil_impersonateAccount", json!([owner])),
            ("anvil_setBalance", json!([owner, "0xde0b6b3a7640000"])),
            ("eth_sendTransaction", approve),
        ] {
            self.rpc.call(method, params).await.unwrap();
        }
    }

    /// What an address has of the token.
    pub(crate) async fn tokens_of(&self, address: &str) -> u128 {
        self.rpc.tokens_of(address.parse().unwrap()).await.unwrap().units()
    }

    /// What the buyer has of the token.
    pub(crate) async fn buyer_has(&self) -> u128 {
        self.tokens_of(&self.buyer.address().to_string()).await
    }
}

/// A facilitator on the chain at this URL, paying gas with the first dev account.
pub(crate) fn facilitator(url: &str) -> LocalFacilitator {
    facilitator_that_waits(url, Duration::from_secs(20))
}

/// The same, with another patience for settlements.
pub(crate) fn facilitator_that_waits(url: &str, settle_wait: Duration) -> LocalFacilitator {
    let log = Arc::new(MemoryTransactionLog::default());
    let background = (TaskTracker::new(), CancellationToken::new());
    facilitator_with(url, log, background, |config| NetworkConfig { settle_wait, ..config })
}

/// The same, with another log of what it signs.
pub(crate) fn facilitator_that_keeps(url: &str, log: Arc<dyn TransactionLog>) -> LocalFacilitator {
    facilitator_with(url, log, (TaskTracker::new(), CancellationToken::new()), |config| config)
}

/// The same, with another configuration, on tasks that can be stopped.
pub(crate) fn facilitator_with(
    url: &str,
    log: Arc<dyn TransactionLog>,
    (tasks, stop): (TaskTracker, CancellationToken),
    change: impl FnOnce(NetworkConfig) -> NetworkConfig,
) -> LocalFacilitator {
    let row = find_network(CHAIN).unwrap();
    let config = NetworkConfig::from_row(row, CHAIN.parse().unwrap(), vec![url.parse().unwrap()]);
    let config = change(NetworkConfig {
        block_time: Duration::from_millis(200),
        gas_price_cap_wei: 1 << 50,
        settle_wait: Duration::from_secs(20),
        ..config
    });
    let signer = EvmKey::from_bytes(DEV_ACCOUNTS[0].private_key.0).unwrap();
    LocalFacilitator::new(vec![config], vec![signer], log, tasks, stop).unwrap()
}

/// Takes an offer, from now for as long as it allows.
pub(crate) fn sign(key: &EvmKey, offer: &PaymentRequirements, nonce: [u8; 32]) -> PaymentPayload {
    let lifetime = Duration::from_secs(offer.max_timeout_seconds);
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: SystemClock.now().plus(lifetime),
    };
    PaymentPayload {
        x402_version: 2,
        payload: match scheme_of(offer).unwrap().word() {
            "upto" => sign_upto(key, offer, window, nonce).unwrap(),
            _ => sign_exact(key, offer, window, nonce).unwrap(),
        },
        resource: None,
        accepted: offer.clone(),
        extensions: None,
        rest: Object::new(),
    }
}
