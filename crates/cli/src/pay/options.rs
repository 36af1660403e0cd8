//! With which key, and up to how much.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use farebox_agent::{
    BadVariable, Limits, Permit2Approval, PlainHttp, Policy, Usd, Wallet, WalletError,
    secret_from_env,
};
use farebox_chains::{EvmToken, PayerNode, SetupError, TokenConfig};
use farebox_protocol::Network;
use secrecy::SecretString;
use secrecy::zeroize::Zeroize as _;
use url::Url;

use crate::env;

/// What may be paid.
#[derive(Debug, Args)]
#[command(next_help_heading = "Payment")]
pub(super) struct PolicyArgs {
    /// The most that this request may cost, in US dollars.
    #[arg(long, value_name = "USD", default_value = "0.05")]
    max_payment: Usd,
    /// The most that may be spent in all; one request is one payment, so the smaller of the two
    /// counts. [default: the same as --max-payment]
    #[arg(long, value_name = "USD")]
    budget: Option<Usd>,
    /// Pay on this network alone, by its CAIP-2 id such as eip155:8453; can be repeated. Without it
    /// every network of the built-in table will do.
    #[arg(long, value_name = "ID")]
    network: Vec<Network>,
    /// Also pay with this dollar token: its network, contract, decimals, and EIP-712 name and
    /// version, as eip155:84532/0x036C…dCF7e,6,USDC,2; can be repeated.
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    token: Vec<EvmToken>,
    /// Your own node of a network, as eip155:8453=https://…; can be repeated, also for one network.
    /// It is asked what Permit2 may spend of your token, so that you can pay by upto without gas, and
    /// what became of what you signed. Also read from the environment, with commas between several:
    /// `FAREBOX_RPC_EIP155_8453`.
    #[arg(long, value_name = "ID=URL", value_parser = node)]
    rpc: Vec<(Network, Url)>,
    /// You have approved Permit2 for your tokens: pay over it without asking a node.
    #[arg(long)]
    permit2_approved: bool,
    /// The longest that the signature may stay valid, in seconds.
    #[arg(long, value_name = "S", default_value_t = 600)]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=86_400))]
    max_validity: u64,
    /// Pay over plain http to other machines too: anybody on the way can then swap the recipient.
    #[arg(long)]
    allow_http: bool,
}

/// With which key it is paid.
#[derive(Debug, Args)]
#[command(next_help_heading = "Key")]
pub(super) struct KeyArgs {
    /// A file with 64 hexadecimal digits that only you may read (mode 0600).
    #[arg(long, value_name = "FILE", group = "key")]
    key_file: Option<PathBuf>,
    /// An encrypted Web3 version 3 keystore; its password is asked for on the terminal unless it is
    /// given otherwise.
    #[arg(long, value_name = "FILE", group = "key")]
    keystore: Option<PathBuf>,
    /// The environment variable that holds the key.
    #[arg(long, value_name = "NAME", group = "key")]
    key_env: Option<String>,
    /// A file with the keystore's password in its first line.
    #[arg(long, value_name = "FILE", requires = "keystore")]
    #[arg(conflicts_with_all = ["password_env", "key_file", "key_env"])]
    password_file: Option<PathBuf>,
    /// The environment variable that holds the keystore's password.
    #[arg(long, value_name = "NAME", requires = "keystore")]
    #[arg(conflicts_with_all = ["key_file", "key_env"])]
    password_env: Option<String>,
}

/// These arguments, or the environment beside them, make no policy.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPolicy {
    #[error("--network {0}: no token is known there; name one with --token")]
    Unpayable(Network),
    #[error("--rpc {0}=…: no token may be paid with there; name it with --network or --token")]
    UselessNode(Network),
    #[error("the environment variable {name}: {problem}")]
    Variable { name: String, problem: String },
    #[error("--rpc: {0}")]
    Node(#[source] SetupError),
}

/// Why there is no password for the keystore.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPassword {
    #[error("cannot read the password from {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Variable(#[from] BadVariable),
    #[error("cannot ask for the password: give --password-file or --password-env")]
    Terminal(#[source] io::Error),
}

impl PolicyArgs {
    /// The policy that the arguments describe.
    pub(super) fn build(&self) -> Result<Policy, BadPolicy> {
        let total = self.budget.unwrap_or(self.max_payment);
        let mut policy = Policy::new(Limits { per_payment: self.max_payment, total });
        policy.tokens.extend(self.token.iter().cloned());
        if !self.network.is_empty() {
            policy.tokens.retain(|it| self.network.contains(it.network()));
        }
        let payable = |network: &&Network| !policy.tokens.iter().any(|it| it.network() == *network);
        if let Some(network) = self.network.iter().find(payable) {
            return Err(BadPolicy::Unpayable(network.clone()));
        }
        policy.validity_max = Duration::from_secs(self.max_validity);
        if self.allow_http {
            policy.plain_http = PlainHttp::Allowed;
        }
        if self.permit2_approved {
            policy.permit2_approval = Permit2Approval::Given;
        }
        policy.nodes = self.nodes(&policy)?;
        Ok(policy)
    }

    /// The nodes of the networks on which anything may be paid; arguments go before the environment.
    fn nodes(&self, policy: &Policy) -> Result<Vec<PayerNode>, BadPolicy> {
        let mut networks: Vec<&Network> = policy.tokens.iter().map(EvmToken::network).collect();
        networks.sort();
        networks.dedup();
        if let Some((network, _)) = self.rpc.iter().find(|(it, _)| !networks.contains(&it)) {
            return Err(BadPolicy::UselessNode(network.clone()));
        }
        let mut nodes = Vec::new();
        for network in networks {
            let given = self.rpc.iter().filter(|(it, _)| it == network);
            let mut urls: Vec<Url> = given.map(|(_, url)| url.clone()).collect();
            if urls.is_empty() {
                urls = from_environment(network)?;
            }
            if !urls.is_empty() {
                nodes.push(PayerNode::new(network.clone(), &urls).map_err(BadPolicy::Node)?);
            }
        }
        Ok(nodes)
    }
}

/// What `FAREBOX_RPC_EIP155_8453` says of `eip155:8453`. URLs can hold keys: none is repeated.
fn from_environment(network: &Network) -> Result<Vec<Url>, BadPolicy> {
    let word = network.as_str().replace(|it: char| !it.is_ascii_alphanumeric(), "_");
    let name = format!("FAREBOX_RPC_{}", word.to_ascii_uppercase());
    let Some(text) = env::var(&name) else { return Ok(Vec::new()) };
    let urls: Result<Vec<Url>, _> = text.split(',').map(|it| it.trim().parse()).collect();
    urls.map_err(|error| BadPolicy::Variable { name, problem: error.to_string() })
}

impl KeyArgs {
    /// The wallet that the arguments name, if they name one.
    pub(super) fn wallet(&self) -> Result<Option<Wallet>, super::Failure> {
        if let Some(path) = &self.key_file {
            return Ok(Some(Wallet::from_key_file(path)?));
        }
        if let Some(name) = &self.key_env {
            return Ok(Some(Wallet::from_env(name)?));
        }
        let Some(path) = &self.keystore else { return Ok(None) };
        let wallet: Result<Wallet, WalletError> = Wallet::from_keystore(path, &self.password()?);
        Ok(Some(wallet?))
    }

    fn password(&self) -> Result<SecretString, NoPassword> {
        if let Some(name) = &self.password_env {
            return Ok(secret_from_env(name)?);
        }
        let Some(path) = &self.password_file else {
            let typed = rpassword::prompt_password("Keystore password: ");
            return typed.map(SecretString::from).map_err(NoPassword::Terminal);
        };
        let mut text = fs::read_to_string(path)
            .map_err(|source| NoPassword::File { path: path.clone(), source })?;
        let password = SecretString::from(text.lines().next().unwrap_or(""));
        text.zeroize();
        Ok(password)
    }
}

/// `NETWORK=URL`.
fn node(text: &str) -> Result<(Network, Url), String> {
    let (network, url) = text.split_once('=').ok_or("expected ID=URL, as eip155:8453=https://…")?;
    let network: Network = network.parse().map_err(|it| format!("network: {it}"))?;
    let url: Url = url.parse().map_err(|it| format!("URL: {it}"))?;
    match url.scheme() {
        "http" | "https" => Ok((network, url)),
        other => Err(format!("URL: expected http or https, found {other}")),
    }
}

/// `NETWORK/ADDRESS,DECIMALS,NAME,VERSION`.
fn token(text: &str) -> Result<EvmToken, String> {
    let expected = || "expected NETWORK/ADDRESS,DECIMALS,NAME,VERSION".to_owned();
    let (network, rest) = text.split_once('/').ok_or_else(expected)?;
    let [address, decimals, name, version] =
        <[&str; 4]>::try_from(rest.split(',').collect::<Vec<_>>()).map_err(|_| expected())?;
    let network: Network = network.parse().map_err(|it| format!("network: {it}"))?;
    let config = TokenConfig {
        address: address.parse().map_err(|it| format!("address: {it}"))?,
        decimals: decimals.parse().map_err(|_| "decimals: expected 0 to 255".to_owned())?,
        name: name.to_owned(),
        version: version.to_owned(),
    };
    EvmToken::new(network, config).ok_or_else(|| "network: expected an eip155 one".to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn nodes() {
        let (network, url) = super::node("eip155:84532=http://127.0.0.1:8545/?key=a=b").unwrap();
        assert_eq!(network.as_str(), "eip155:84532");
        assert_eq!(url.as_str(), "http://127.0.0.1:8545/?key=a=b");
        for bad in ["", "eip155:84532", "base=http://x/", "eip155:1=x", "eip155:1=wss://x/"] {
            assert!(super::node(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens() {
        let good = "eip155:84532/0x036CbD53842c5426634e7929541eC2318f3dCF7e,6,USDC,2";
        let token = super::token(good).unwrap();
        assert_eq!(token.config().name, "USDC");
        assert_eq!(token.network().as_str(), "eip155:84532");
        for bad in [
            "",
            "eip155:84532",
            "base/0x036CbD53842c5426634e7929541eC2318f3dCF7e,6,USDC,2",
            "solana:x/0x036CbD53842c5426634e7929541eC2318f3dCF7e,6,USDC,2",
            "eip155:84532/0x036cbD53842c5426634e7929541eC2318f3dCF7e,6,USDC,2",
            "eip155:84532/0x036CbD53842c5426634e7929541eC2318f3dCF7e,256,USDC,2",
            "eip155:84532/0x036CbD53842c5426634e7929541eC2318f3dCF7e,6,USDC",
        ] {
            assert!(super::token(bad).is_err(), "{bad}");
        }
    }
}
