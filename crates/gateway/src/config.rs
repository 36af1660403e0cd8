//! What the gateway runs on: plain, validated values.
//!
//! Whoever reads a file (the command line) turns it into these and reports every mistake there;
//! nothing here can be wrong any more.

use std::sync::Arc;
use std::time::Duration;

use farebox_billing::{Ceiling, Format, Price};
use farebox_chains::Scheme;
use farebox_protocol::Network;
use farebox_store::SettleMode;
use http::{HeaderName, Method};
use secrecy::SecretString;
use url::Url;

/// The gateway's configuration.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The address that clients use, without a trailing slash: `resource.url` begins with it.
    pub public_url: Url,
    /// Paid and free paths, in the order of the file.
    pub routes: Vec<Arc<Route>>,
    /// Bounds on everything that a client can make large or slow.
    pub limits: Limits,
}

/// One path with its upstream and its price.
#[derive(Clone, Debug)]
pub struct Route {
    /// How logs, receipts and the ledger call it: `POST /v1/chat/completions`.
    pub name: String,
    /// The one method that it serves.
    pub method: Method,
    /// The paths that it serves.
    pub path: PathPattern,
    /// Who does the work.
    pub upstream: Arc<Upstream>,
    /// What its bodies look like.
    pub format: Format,
    /// What it costs.
    pub price: Price,
    /// Ways to pay, best first; empty only where the price is [`Price::Free`].
    pub offers: Vec<OfferTemplate>,
    /// When the money moves.
    pub settle: SettleMode,
    /// For people: `resource.description`.
    pub description: Option<String>,
    /// What one request may use: the quote is made with it and the upstream is held to it.
    pub ceiling: Ceiling,
    /// Which models are sold.
    pub models: Models,
    /// Whose payments are taken.
    pub versions: Versions,
    /// Whether its answers are kept for repeats; not, unless it says so, for they are private.
    pub keep: Option<Keep>,
}

/// How an answer is kept, in memory, for whoever asks again for what it has bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// For how long.
    pub span: Duration,
    /// Longer ones are not kept.
    pub bytes_max: usize,
}

/// The versions of x402 in which a route is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// v2, and v1 where an offer has a v1 form. A v1 payment is bound to its amount and recipient,
    /// not to its request (ADR 0009).
    #[default]
    TwoAndOne,
    /// v2 alone.
    TwoOnly,
}

/// The models of a priced route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Models {
    /// Whatever the upstream has, and requests that name none.
    Any,
    /// These alone.
    Listed(Vec<ModelPattern>),
}

impl Models {
    /// Whether a request that names this model is served.
    pub fn has(&self, model: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => {
                model.is_some_and(|it| listed.iter().any(|one| one.matches(it)))
            }
        }
    }
}

/// One model, or a family of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPattern {
    /// `gpt-4o-mini`.
    Exact(String),
    /// Every name that begins so: `llama-*` is `Prefix("llama-")`.
    Prefix(String),
}

impl ModelPattern {
    /// Whether the name is one of these.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

/// The paths of a route, matched against the normalised path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// This path alone: `/v1/chat/completions`.
    Exact(String),
    /// Every path that begins so; ends in `/`: `/premium/*` is `Prefix("/premium/")`.
    Prefix(String),
}

impl PathPattern {
    /// The path, or how the paths begin.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path,
        }
    }

    /// Whether a normalised path is one of these.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }

    /// Whether every path of `other` is one of these.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(two)) => one == two,
            (Self::Exact(_), Self::Prefix(_)) => false,
            (Self::Prefix(prefix), other) => other.as_str().starts_with(prefix.as_str()),
        }
    }
}

/// One way to pay for a route; the amount comes from the price.
#[derive(Clone, Debug)]
pub struct OfferTemplate {
    /// How.
    pub scheme: &'static dyn Scheme,
    /// Where.
    pub network: Network,
    /// In what.
    pub token: OfferToken,
    /// To whom; as it is written in the offer.
    pub pay_to: String,
    /// How long the authorisation lives.
    pub max_timeout_seconds: u64,
    /// The most that one payer may have open in this token, in atomic units.
    pub exposure_limit: Option<farebox_protocol::Amount>,
}

/// The token of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferToken {
    /// As it is written in the offer: EIP-55 mixed case on EVM networks.
    pub address: String,
    /// Atomic units are 10⁻ⁿ of it.
    pub decimals: u8,
    /// EIP-712 domain name: `extra.name`.
    pub name: String,
    /// EIP-712 domain version: `extra.version`.
    pub version: String,
}

/// An API that does the work.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// How logs call it.
    pub name: String,
    /// Request paths are appended to it.
    pub url: Url,
    /// Sent in place of whatever the client sent.
    pub api_key: Option<ApiKey>,
    /// The longest wait for the head of an answer.
    pub head_timeout: Duration,
    /// The longest silence within the body of an answer.
    pub idle_timeout: Duration,
}

/// What an upstream knows its customer by, and where it looks for it.
#[derive(Clone, Debug)]
pub enum ApiKey {
    /// `Authorization: Bearer …`: what most APIs want.
    Bearer(SecretString),
    /// The key alone in a header of its own: `x-api-key` at Anthropic.
    Header {
        /// Which header.
        name: HeaderName,
        /// What stands in it.
        key: SecretString,
    },
}

/// Bounds on what clients and upstreams can make large or slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a request body.
    pub request_bytes_max: usize,
    /// Of an answer that is kept until it is priced, or settled; longer ones leave as they come.
    pub withheld_bytes_max: usize,
    /// From the first byte of a request to the last one of its head; also the longest silence within
    /// its body.
    pub header_timeout: Duration,
    /// The longest pause between two requests on one connection.
    pub keep_alive: Duration,
    /// How long a client may take nothing of an answer before its connection is dropped. What it has
    /// bought is finished and charged all the same.
    pub write_timeout: Duration,
    /// Of connections at one time.
    pub connections_max: usize,
    /// Of them, those of one address (IPv6: of one /64). A proxy in front is one address, too.
    pub connections_per_address_max: usize,
    /// How long a quote is good.
    pub quote_ttl: Duration,
    /// The longest wait of a client for a settlement.
    pub settle_wait: Duration,
    /// How long running requests may take to finish at a shutdown.
    pub drain: Duration,
}

impl Limits {
    /// What suits most gateways.
    pub const STANDARD: Self = Self {
        request_bytes_max: 8 << 20,
        withheld_bytes_max: 16 << 20,
        header_timeout: Duration::from_secs(5),
        keep_alive: Duration::from_secs(75),
        write_timeout: Duration::from_secs(30),
        connections_max: 10_000,
        connections_per_address_max: 5_000,
        quote_ttl: Duration::from_mins(5),
        settle_wait: Duration::from_secs(30),
        drain: Duration::from_secs(30),
    };
}
