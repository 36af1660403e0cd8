//! Sets the stage: a chain, a model, a gateway and an agent, all on loopback, all in this process.

use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farebox_agent::{Limits, PayingClient, Policy, Retry, Usd, Wallet};
use farebox_billing::Payment;
use farebox_chains::{EvmAddress, EvmKey, PayerNode};
use farebox_devnet::{DevAccount, Devnet, DevnetConfig, Mining};
use farebox_gateway::{Clock, Running, SystemClock};
use farebox_protocol::{Amount, Network};
use farebox_store::StoredPayment;
use tempfile::TempDir;

use super::chain::Chain;
use super::model;
use crate::books::OpenLedger;
use crate::commands::serve;
use crate::config::{self, Purpose};
use crate::failure::Failure;
use crate::output::Paint;
use crate::startup::Background;

/// As on Base: purchases that wait for their settlement wait for a real block.
pub(super) const BLOCK_TIME: Duration = Duration::from_secs(2);
/// What the agent may spend in all.
pub(super) const BUDGET: Usd = Usd::from_micros(50_000);
/// The agent's own account, which the dev chain gave nothing: agents sign, the settler pays the gas.
const AGENT_KEY: &[u8; 32] = b"an agent that owns no gas at all";
/// What the agent has: a dollar.
const PURSE: Amount = Amount::from_units(1_000_000);
/// Longer than any settlement takes with these blocks.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// Where the files of the demo are.
#[derive(Debug)]
pub(crate) enum Place {
    /// Gone with the demo.
    Temporary(TempDir),
    /// Kept.
    Kept(PathBuf),
}

impl Place {
    /// A new directory of its own, below `parent` if that is given.
    pub(crate) fn make(parent: Option<&Path>) -> Result<Self, Failure> {
        let failed = |error| Failure::new("the demo has no place for its files").because(error);
        let Some(parent) = parent else {
            return TempDir::with_prefix("farebox-demo-").map(Self::Temporary).map_err(failed);
        };
        fs::create_dir_all(parent).map_err(failed)?;
        // Each run has a chain of its own, so it must not continue the ledger of an earlier one.
        for number in 1..=9_999_u32 {
            let directory = parent.join(format!("run-{number:04}"));
            match fs::create_dir(&directory) {
                Ok(()) => return Ok(Self::Kept(directory)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Failure::new(format!("{} is full of earlier runs", parent.display()))
            .help("remove some of them, or choose another directory"))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(directory) => directory,
        }
    }
}

/// Who takes part.
#[derive(Clone, Copy, Debug)]
pub(super) struct People {
    /// The agent's account.
    pub(super) payer: EvmAddress,
    /// Who is paid.
    pub(super) seller: EvmAddress,
    /// Who pays for gas.
    pub(super) settler: EvmAddress,
}

/// What they have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Balances {
    /// Atomic units of the token.
    pub(super) payer: Amount,
    /// Likewise.
    pub(super) seller: Amount,
    /// Wei.
    pub(super) payer_wei: u128,
    /// Likewise.
    pub(super) settler_wei: u128,
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(super) people: People,
    pub(super) chain: Chain,
    pub(super) ledger: OpenLedger,
    pub(super) agent: PayingClient,
    /// The agent's own node: it reads there what Permit2 may spend, and what became of payments.
    pub(super) node: PayerNode,
    pub(super) token: EvmAddress,
    /// Where the gateway listens: `http://127.0.0.1:…`.
    pub(super) gateway_url: String,
    /// Where the chain listens.
    pub(super) chain_url: String,
    place: Place,
    devnet: Devnet,
    gateway: Running,
    background: Background,
}

impl Stage {
    /// Starts it all.
    pub(crate) async fn set(place: Place) -> Result<Self, Failure> {
        let devnet = Devnet::start(DevnetConfig {
            mining: Mining::Every(BLOCK_TIME),
            ..DevnetConfig::default()
        });
        let devnet = devnet
            .await
            .map_err(|error| Failure::new("the dev chain did not start").because(error))?;
        let [settler, seller, ..] = devnet.accounts() else {
            return Err(Failure::new("the dev chain has too few accounts"));
        };
        let payer = EvmKey::from_bytes(*AGENT_KEY)
            .map_err(|error| Failure::new("the agent's key cannot be used").because(error))?;
        devnet.set_token_balance((*payer.address().as_bytes()).into(), PURSE.units());
        devnet.set_token_balance(seller.address, 0);
        let people = People {
            payer: payer.address(),
            seller: EvmAddress::from_bytes(seller.address.into_array()),
            settler: EvmAddress::from_bytes(settler.address.into_array()),
        };
        let token = EvmAddress::from_bytes(devnet.token().into_array());
        let background = Background::default();
        let model = model::start(&background.tasks, background.stop.clone())
            .await
            .map_err(|error| Failure::new("the demo model did not start").because(error))?;
        let files = Files { chain_url: devnet.url(), model_url: format!("http://{model}") };
        let config = files.write(place.path(), settler, people.seller)?;
        let loaded = config::load(&config, Purpose::Serve, Paint::Plain)?;
        let (gateway, ledger) = serve::start(loaded.config, &background).await?;
        let node = node(&devnet.url())?;
        Ok(Self {
            people,
            chain: Chain::new(&devnet.url(), token)?,
            ledger,
            agent: agent(payer, node.clone())?,
            node,
            token,
            gateway_url: format!("http://{}", gateway.local_addr()),
            chain_url: devnet.url(),
            place,
            devnet,
            gateway,
            background,
        })
    }

    /// Who is where, a line each.
    pub(crate) fn introduction(&self) -> [String; 5] {
        let People { payer, seller, settler } = self.people;
        let seconds = BLOCK_TIME.as_secs();
        [
            format!("chain    {} (eip155:84532, a block every {seconds} s)", self.chain_url),
            format!("gateway  {} (settles by {settler})", self.gateway_url),
            format!("token    {} (USDC)", self.token),
            format!("seller   {seller}"),
            format!(
                "agent    {payer}, has {} USDC and no gas, may spend {BUDGET}",
                PURSE.in_tokens(6)
            ),
        ]
    }

    /// Where the files are, if they are kept.
    pub(super) fn kept_at(&self) -> Option<&Path> {
        match &self.place {
            Place::Kept(path) => Some(path),
            Place::Temporary(_) => None,
        }
    }

    /// What everybody has, as the chain says.
    pub(super) async fn balances(&self) -> Result<Balances, Failure> {
        Ok(Balances {
            payer: self.chain.token_balance(self.people.payer).await?,
            seller: self.chain.token_balance(self.people.seller).await?,
            payer_wei: self.chain.wei(self.people.payer).await?,
            settler_wei: self.chain.wei(self.people.settler).await?,
        })
    }

    /// Every payment of the ledger.
    pub(super) async fn payments(&self) -> Result<Vec<StoredPayment>, Failure> {
        self.ledger
            .ledger()
            .list(None, 1_000)
            .await
            .map_err(|error| Failure::new("the ledger cannot be read").because(error))
    }

    /// The same, once none of them is on its way any more, or after as long as that can take.
    pub(super) async fn settled_payments(&self) -> Result<Vec<StoredPayment>, Failure> {
        let give_up = SystemClock.now().plus(SETTLED_WITHIN);
        loop {
            let payments = self.payments().await?;
            let open = payments.iter().any(|it| match it.state {
                Payment::Settled { .. } | Payment::Released { .. } | Payment::Lost { .. } => false,
                Payment::Held { .. }
                | Payment::Serving { .. }
                | Payment::Captured { .. }
                | Payment::Settling { .. }
                | Payment::Unknown { .. } => true,
            });
            if !open || give_up <= SystemClock.now() {
                return Ok(payments);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes everything down again, in order.
    pub(crate) async fn strike(self) -> Result<(), Failure> {
        self.gateway.shutdown().await;
        self.background.end().await;
        self.devnet.shutdown().await;
        self.ledger
            .ledger()
            .close()
            .await
            .map_err(|error| Failure::new("the ledger was not closed cleanly").because(error))?;
        match self.place {
            Place::Kept(_) => Ok(()),
            Place::Temporary(directory) => directory.close().map_err(|error| {
                Failure::new("the demo's temporary files were not removed").because(error)
            }),
        }
    }
}

/// What the configuration has to say.
struct Files {
    chain_url: String,
    model_url: String,
}

impl Files {
    /// Writes a configuration as a user would, and the settler's key; returns the path.
    fn write(
        &self,
        directory: &Path,
        settler: &DevAccount,
        seller: EvmAddress,
    ) -> Result<PathBuf, Failure> {
        let failed =
            |error| Failure::new("the demo's configuration cannot be written").because(error);
        let key = directory.join("settler.key");
        crate::files::write_new(&key, crate::files::Mode::Private, &settler.private_key_hex())
            .map_err(failed)?;
        let config = directory.join("farebox.toml");
        crate::files::write_new(&config, crate::files::Mode::Public, &self.toml(seller))
            .map_err(failed)?;
        Ok(config)
    }

    fn toml(&self, seller: EvmAddress) -> String {
        let Self { chain_url, model_url } = self;
        format!(
            r#"# What `farebox demo` ran on. The chain and the model are gone with it.
[server]
listen = "127.0.0.1:0"

[ledger]
url = "sqlite:farebox.db"

[network."eip155:84532"]
rpc = ["{chain_url}"]
asset = "usdc"
pay_to = "{seller}"

[facilitator]
signers = [{{ file = "settler.key" }}]

[[upstream]]
name = "model"
url = "{model_url}"

[[route]]
match = "POST /v1/chat/completions"
upstream = "model"
format = "openai-chat"
price = {{ input_per_1m = "5.00", output_per_1m = "25.00" }}
offer = ["upto", "exact"]
description = "Chat completions of the demo model"

[[route]]
match = "GET /reports/*"
upstream = "model"
price = {{ per_request = "0.01" }}
offer = ["exact"]
settle = "before"
description = "A report"

[[route]]
match = "GET /notes/*"
upstream = "model"
price = {{ per_request = "0.002" }}
offer = ["exact"]
settle = "background"
description = "A note"
"#
        )
    }
}

/// The agent's node.
fn node(url: &str) -> Result<PayerNode, Failure> {
    let url = url.parse();
    let url = url.map_err(|error| Failure::new("the dev chain has no address").because(error))?;
    PayerNode::new(Network::eip155(84_532), &[url])
        .map_err(|error| Failure::new("the agent has no node").because(error))
}

/// An agent that may spend the budget, and asks once: the demo wants to see each answer.
fn agent(key: EvmKey, node: PayerNode) -> Result<PayingClient, Failure> {
    let mut policy = Policy::new(Limits { per_payment: BUDGET, total: BUDGET });
    policy.retry = Retry { attempts_max: NonZeroU32::MIN, ..Retry::STANDARD };
    policy.nodes = vec![node];
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30));
    PayingClient::new(http, Wallet::new(key), policy)
        .map_err(|error| Failure::new("the agent's HTTP client could not be made").because(error))
}
