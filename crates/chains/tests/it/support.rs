//! A dev chain, a facilitator on it, and payers who sign.

use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farebox_chains::{
    AuthorizationWindow, Batching, EvmKey, ExactPermit2, LocalFacilitator, MemoryTransactionLog,
    NetworkConfig, Scheme, Upto, find_network, sign_exact, sign_permit2_exact, sign_upto,
};
use farebox_devnet::{DEV_ACCOUNTS, Devnet, DevnetConfig, Mining};
use farebox_protocol::wire::{
    Object, PaymentPayload, PaymentRequirements, Raw, SettleRequest, X402_VERSION,
};
use farebox_protocol::{Amount, Network, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

pub(crate) const CHAIN: &str = "eip155:84532";
pub(crate) const TOKEN: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
pub(crate) const PAY_TO: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

/// A chain with one facilitator whose signers are the dev accounts from 0 on.
pub(crate) struct World {
    pub(crate) devnet: Devnet,
    pub(crate) facilitator: LocalFacilitator,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) http: reqwest::Client,
}

impl World {
    pub(crate) async fn start(mining: Mining, signers: usize) -> Self {
        let keys = DEV_ACCOUNTS.iter().take(signers).map(|it| key(it.private_key.0)).collect();
        Self::with(mining, keys, |config| config).await
    }

    /// With other keys, and a configuration that is changed before use.
    pub(crate) async fn with(
        mining: Mining,
        keys: Vec<EvmKey>,
        change: impl FnOnce(NetworkConfig) -> NetworkConfig,
    ) -> Self {
        use_tls();
        let devnet = Devnet::start(DevnetConfig { mining, ..Default::default() }).await.unwrap();
        let config = change(network_config(&[devnet.url()]));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let facilitator =
            LocalFacilitator::new(vec![config], keys, memory(), tasks.clone(), stop.clone())
                .unwrap();
        let http = http();
        Self { devnet, facilitator, tasks, stop, http }
    }

    /// Another facilitator on the same chain, whose signer is the first dev account.
    pub(crate) fn with_config(&self, config: NetworkConfig) -> LocalFacilitator {
        let keys = vec![key(DEV_ACCOUNTS[0].private_key.0)];
        LocalFacilitator::new(vec![config], keys, memory(), self.tasks.clone(), self.stop.clone())
            .unwrap()
    }

    /// What the chain answers to a call of JSON-RPC.
    pub(crate) async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let response = self.http.post(self.devnet.url()).json(&body).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// What an account holds of the token.
    pub(crate) async fn balance(&self, account: &str) -> u128 {
        let digits = account.trim_start_matches("0x").to_lowercase();
        let data = format!("0x70a08231{digits:0>64}");
        let answer = self.rpc("eth_call", json!([{"to": TOKEN, "data": data}, "latest"])).await;
        u128::from_str_radix(answer.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// How many transactions an account has in blocks.
    pub(crate) async fn transactions_of(&self, account: &str) -> u64 {
        let answer = self.rpc("eth_getTransactionCount", json!([account, "latest"])).await;
        u64::from_str_radix(answer.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.devnet.shutdown().await;
    }
}

/// A log of transactions that nobody looks into.
pub(crate) fn memory() -> Arc<MemoryTransactionLog> {
    Arc::new(MemoryTransactionLog::default())
}

/// The table's row for the dev chain's id, served by these endpoints, with quick blocks.
pub(crate) fn network_config(urls: &[String]) -> NetworkConfig {
    let row = find_network(CHAIN).unwrap();
    let urls = urls.iter().map(|it| it.parse::<Url>().unwrap()).collect();
    let config = NetworkConfig::from_row(row, CHAIN.parse().unwrap(), urls);
    NetworkConfig {
        block_time: Duration::from_millis(200),
        gas_price_cap_wei: 1 << 50,
        // Where transactions are counted; `batching` has tests of its own.
        batching: Batching::Off,
        batch_wait: None,
        ..config
    }
}

pub(crate) fn key(bytes: [u8; 32]) -> EvmKey {
    EvmKey::from_bytes(bytes).unwrap()
}

/// A payer with dev money.
pub(crate) fn payer() -> EvmKey {
    key(DEV_ACCOUNTS[9].private_key.0)
}

pub(crate) fn http() -> reqwest::Client {
    use_tls();
    reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap()
}

pub(crate) fn use_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().unwrap();
    });
}

#[expect(clippy::disallowed_methods, reason = "the dev chain's blocks carry the time of today")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

/// A demand for so many units.
pub(crate) fn demand(units: u128) -> PaymentRequirements {
    let extra = json!({"name": "USDC", "version": "2"});
    PaymentRequirements {
        scheme: "exact".to_owned(),
        network: CHAIN.parse::<Network>().unwrap(),
        amount: Amount::from_units(units),
        asset: TOKEN.to_owned(),
        pay_to: PAY_TO.to_owned(),
        max_timeout_seconds: 300,
        extra: extra.as_object().unwrap().clone(),
        rest: Object::new(),
    }
}

/// A payment of the demand, good from now for five minutes. The nonce is made of `number`.
pub(crate) fn pay(key: &EvmKey, demand: &PaymentRequirements, number: u64) -> SettleRequest {
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: now().plus(Duration::from_mins(5)),
    };
    request(demand, sign_exact(key, demand, window, nonce(number)).unwrap())
}

pub(crate) fn nonce(number: u64) -> [u8; 32] {
    let mut nonce = [0x5a; 32];
    nonce[24..].copy_from_slice(&number.to_be_bytes());
    nonce
}

/// The body of `/verify` and `/settle` for a payload.
pub(crate) fn request(demand: &PaymentRequirements, payload: Value) -> SettleRequest {
    let payload = PaymentPayload {
        x402_version: X402_VERSION,
        payload,
        resource: None,
        accepted: demand.clone(),
        extensions: None,
        rest: Object::new(),
    };
    SettleRequest {
        x402_version: X402_VERSION,
        payment_payload: Raw::new(payload).unwrap(),
        payment_requirements: Raw::new(demand.clone()).unwrap(),
    }
}

/// The same request with its payload changed.
pub(crate) fn altered(request: &SettleRequest, change: impl FnOnce(&mut Value)) -> SettleRequest {
    let mut json = serde_json::to_value(request).unwrap();
    change(&mut json);
    serde_json::from_value(json).unwrap()
}

/// Polls until something holds, at most ten seconds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come about: {what}");
}

/// The contract that payers of Permit2 payments must let spend their token.
pub(crate) const PERMIT2: &str = "0x000000000022D473030F116dDEE9F6B43aC78BA3";

/// A demand for so many units by Permit2: `exact`, or `upto` where this facilitator is named.
pub(crate) fn demand_by_permit2(units: u128, facilitator: Option<&str>) -> PaymentRequirements {
    let scheme: &dyn Scheme = if facilitator.is_some() { &Upto } else { &ExactPermit2 };
    let mut demand = demand(units);
    demand.scheme = scheme.name().to_owned();
    demand.extra.extend(scheme.extra(facilitator));
    demand
}

/// The same at another amount: what is to be settled of an `upto` payment.
pub(crate) fn at_amount(request: &SettleRequest, units: u128) -> SettleRequest {
    altered(request, |it| it["paymentRequirements"]["amount"] = json!(units.to_string()))
}

/// A payment of the demand by Permit2, good from now for five minutes.
pub(crate) fn pay_by_permit2(
    key: &EvmKey,
    demand: &PaymentRequirements,
    number: u64,
) -> SettleRequest {
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: now().plus(Duration::from_mins(5)),
    };
    let sign = if demand.scheme == "upto" { sign_upto } else { sign_permit2_exact };
    request(demand, sign(key, demand, window, nonce(number)).unwrap())
}

/// The first dev account: the facilitator of most worlds.
pub(crate) fn facilitator() -> String {
    DEV_ACCOUNTS[0].address.to_string()
}

impl World {
    /// Another facilitator on the same chain, which has seen nothing.
    pub(crate) fn another(&self, keys: Vec<EvmKey>) -> LocalFacilitator {
        let config = network_config(&[self.devnet.url()]);
        LocalFacilitator::new(vec![config], keys, memory(), self.tasks.clone(), self.stop.clone())
            .unwrap()
    }

    /// Lets Permit2 spend all that the payer has.
    pub(crate) async fn approve_permit2(&self) {
        let spender = PERMIT2.trim_start_matches("0x").to_lowercase();
        let data = format!("0x095ea7b3{spender:0>64}{}", "f".repeat(64));
        self.send(9, TOKEN, &data).await;
    }

    /// A transaction by a dev account; its hash.
    pub(crate) async fn send(&self, account: usize, to: &str, data: &str) -> String {
        let from = DEV_ACCOUNTS[account].address;
        let call = json!([{
            "from": from,
            "to": to,
            "data": data,
            "gas": "0x7a120",
            "maxFeePerGas": "0x174876e800",
            "maxPriorityFeePerGas": "0x174876e800",
        }]);
        self.rpc("eth_sendTransaction", call).await.as_str().unwrap().to_owned()
    }
}
