//! A whole shop on sockets: a chain, a model, and `farebox` in front of it as its users start it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use alloy_primitives::{Address, address};
use farebox_devnet::WALLET_FACTORY_ADDRESS;
use farebox_protocol::Amount;
use farebox_testkit::anvil::Blocks;
use farebox_testkit::clients::{Clients, Order, Server};
use farebox_testkit::evm::{EvmChain, EvmKind, payer, settler};
use farebox_testkit::process::Process;
use serde_json::Value;
use tempfile::TempDir;

/// Who is paid.
pub(crate) const PAY_TO: Address = address!("0x00000000000000000000000000000000000000fe");

/// What the payer owns at the start.
pub(crate) const FUNDS: Amount = Amount::from_units(10_000_000);

const API_KEY: &str = "the-upstream-key";
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// How far apart the model speaks its words.
pub(crate) const PACE: Duration = Duration::from_millis(100);

pub(crate) struct Shop {
    pub(crate) chain: EvmChain,
    pub(crate) clients: Clients,
    pub(crate) model: Server,
    farebox: Farebox,
}

/// How each route is paid, as the configuration has it.
pub(crate) struct Offers {
    pub(crate) metered: &'static str,
    pub(crate) premium: &'static str,
}

/// The binary, running one of its servers.
pub(crate) struct Farebox {
    process: Process,
    url: String,
    _directory: TempDir,
}

impl Shop {
    /// `farebox serve` with its facilitator in process, paid by `exact` alone.
    pub(crate) async fn open(kind: EvmKind) -> Self {
        Self::offering(kind, &Offers { metered: r#"["exact"]"#, premium: r#"["exact"]"# }).await
    }

    /// The same, with these offers.
    pub(crate) async fn offering(kind: EvmKind, offers: &Offers) -> Self {
        let (chain, clients) = foundations(kind).await;
        let model = clients.model(PACE, API_KEY).await.unwrap();
        let model_url = model.url();
        let config = format!(
            r#"
            {}
            [server]
            listen = "127.0.0.1:0"
            [ledger]
            url = "sqlite:farebox.db"
            [[upstream]]
            name = "llm"
            url = "{model_url}"
            api_key = {{ file = "upstream.key" }}
            [[route]]
            match = "POST /v1/chat/completions"
            upstream = "llm"
            format = "openai-chat"
            price = {{ input_per_1m = "10.00", output_per_1m = "100.00" }}
            offer = {metered}
            [[route]]
            match = "POST /v1/completions"
            upstream = "llm"
            format = "openai-completions"
            price = {{ input_per_1m = "10.00", output_per_1m = "100.00" }}
            offer = {metered}
            [[route]]
            match = "POST /v1/embeddings"
            upstream = "llm"
            format = "openai-embeddings"
            price = {{ input_per_1m = "10.00", output_per_1m = "0" }}
            offer = {metered}
            [[route]]
            match = "POST /v1/responses"
            upstream = "llm"
            format = "openai-responses"
            price = {{ input_per_1m = "10.00", output_per_1m = "100.00" }}
            offer = {metered}
            [[upstream]]
            name = "keyed"
            url = "{model_url}"
            api_key = {{ file = "upstream.key", header = "x-api-key" }}
            [[route]]
            match = "POST /v1/messages"
            upstream = "keyed"
            format = "anthropic-messages"
            price = {{ input_per_1m = "10.00", output_per_1m = "100.00" }}
            offer = {metered}
            [[route]]
            match = "GET /premium/first/*"
            upstream = "llm"
            price = {{ per_request = "0.01" }}
            settle = "before"
            offer = ["exact"]
            [[route]]
            match = "GET /premium/*"
            upstream = "llm"
            price = {{ per_request = "0.01" }}
            offer = {premium}
            idempotency = {{ keep = "10m", max_bytes = "64KiB" }}
            "#,
            network(&chain),
            metered = offers.metered,
            premium = offers.premium,
        );
        let farebox = Farebox::start("serve", &config).await;
        Self { chain, clients, model, farebox }
    }

    /// An order of a path.
    pub(crate) fn order(&self, path: &str) -> Order {
        Order::new(&format!("{}{path}", self.farebox.url), &payer().private_key_hex())
    }

    /// An order of a path that another key pays for.
    pub(crate) fn order_paid_by(&self, path: &str, key: &str) -> Order {
        Order::new(&format!("{}{path}", self.farebox.url), key)
    }

    /// What the gateway logged, for a failing test.
    pub(crate) fn log(&self) -> String {
        self.farebox.process.output()
    }

    /// What the model was asked so far.
    pub(crate) async fn asked(&self) -> Vec<Value> {
        let url = format!("{}/asked", self.model.url());
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }

    /// Waits until the seller has earned `expected` on chain: streams settle after they end.
    pub(crate) async fn assert_earned(&self, expected: Amount) {
        assert_earned(&self.chain, expected, || self.log()).await;
    }
}

impl Farebox {
    /// `farebox facilitator` on a chain.
    pub(crate) async fn facilitator(chain: &EvmChain) -> Self {
        let config = format!("{}\n[server]\nlisten = \"127.0.0.1:0\"\n", network(chain));
        Self::start("facilitator", &config).await
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    async fn start(command: &str, config: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("farebox.toml");
        fs::write(&file, config).unwrap();
        write_secret(&directory.path().join("settler.key"), &settler().private_key_hex());
        write_secret(&directory.path().join("upstream.key"), API_KEY);
        let arguments = [command, "--config", file.to_str().unwrap()];
        let binary = Path::new(env!("CARGO_BIN_EXE_farebox"));
        let (process, url) = Process::start(binary, &arguments, listening).await.unwrap();
        Self { process, url, _directory: directory }
    }
}

/// A chain with a rich payer, and the stock packages.
pub(crate) async fn foundations(kind: EvmKind) -> (EvmChain, Clients) {
    let clients = Clients::installed().unwrap();
    let chain = EvmChain::start(kind, Blocks::Instant).await.unwrap();
    chain.give_tokens(payer().address, FUNDS).await.unwrap();
    (chain, clients)
}

/// Waits until the seller's balance is `expected`, and asserts that the payer lost just that.
pub(crate) async fn assert_earned(chain: &EvmChain, expected: Amount, log: impl Fn() -> String) {
    let arrived = tokio::time::timeout(SETTLED_WITHIN, async {
        while chain.tokens_of(PAY_TO).await.unwrap() < expected {
            tokio::time::sleep(POLL_EVERY).await;
        }
    });
    let in_time = arrived.await.is_ok();
    let earned = chain.tokens_of(PAY_TO).await.unwrap();
    assert_eq!(earned, expected, "in time: {in_time}\n{}", log());
    let kept = chain.tokens_of(payer().address).await.unwrap();
    assert_eq!(FUNDS.checked_sub(expected).unwrap(), kept);
}

fn network(chain: &EvmChain) -> String {
    format!(
        r#"
        [network."eip155:84532"]
        rpc = ["{}"]
        asset = "usdc"
        pay_to = "{PAY_TO}"
        smart_wallet_factories = ["{WALLET_FACTORY_ADDRESS}"]
        [facilitator]
        signers = [{{ file = "settler.key" }}]
        "#,
        chain.url()
    )
}

fn write_secret(path: &Path, secret: &str) {
    fs::write(path, secret).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The first address with a port in what a server says at its start.
fn listening(output: &str) -> Option<String> {
    let (line, _) = output.rsplit_once('\n')?;
    line.split("127.0.0.1:").skip(1).find_map(|after| {
        let digits = after.split(|it: char| !it.is_ascii_digit()).next()?;
        let port: u16 = digits.parse().ok()?;
        (port != 0).then(|| format!("http://127.0.0.1:{port}"))
    })
}
