//! The facilitators that are compared, each a process of its own with an account of its own.

use std::path::Path;
use std::process::Stdio;

use alloy_primitives::{Address, keccak256};
use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::node::{Rpc, project};

/// Which facilitator.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The binary under test; with `batching`, more lines of its `[network]` section.
    Farebox { batching: Option<String> },
    /// x402-rs 2.0.2.
    X402Rs,
    /// npm `@x402/evm`.
    TypeScript,
}

/// A running one.
pub struct Side {
    pub kind: Kind,
    pub address: String,
    pub pay_to: Address,
    _child: Child,
    _directory: tempfile::TempDir,
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Farebox { batching: None } => "farebox",
            Self::Farebox { batching: Some(_) } => "farebox, batching",
            Self::X402Rs => "x402-rs 2.0.2",
            Self::TypeScript => "@x402/evm",
        }
    }

    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Farebox { .. })
    }
}

/// The key of the account that sends for side `index`.
pub fn signer(index: usize) -> String {
    keccak256(format!("signer {index}")).to_string()
}

/// Whom the payments of side `index` go to.
pub fn pay_to(index: usize) -> Address {
    Address::from_word(keccak256(format!("pay to {index}")))
}

impl Side {
    /// Starts it on the chain behind `rpc`, which it reaches at `url`.
    pub async fn start(
        kind: Kind,
        index: usize,
        binary: &Path,
        rpc: &Rpc,
        url: &str,
    ) -> Result<Self> {
        let key = signer(index);
        rpc.fill(key.parse::<PrivateKeySigner>()?.address()).await?;
        let pay_to = pay_to(index);
        // Payments to somebody who has nothing cost more.
        rpc.set_tokens(pay_to, 1).await?;
        let directory = tempfile::tempdir()?;
        let (command, mark) = match &kind {
            Kind::Farebox { batching } => {
                let lines = batching.as_deref().unwrap_or("batch_max = 1");
                (farebox(binary, directory.path(), url, &key, lines)?, "http://")
            }
            Kind::X402Rs => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["x402-facilitator", url, &key]);
                (command, "listening ")
            }
            Kind::TypeScript => {
                let mut command = Command::new("node");
                command.current_dir(project().join("tests/clients/js"));
                command.args(["facilitator.mjs", "--rpc", url, "--key", &key]);
                // Without a nonce manager it loses nine payments of ten at 16 in flight.
                command.args(["--poll", "10", "--nonces", "managed"]);
                (command, "\"listening\":")
            }
        };
        let (child, address) = start(command, mark).await?;
        Ok(Self { kind, address, pay_to, _child: child, _directory: directory })
    }
}

fn farebox(binary: &Path, directory: &Path, url: &str, key: &str, lines: &str) -> Result<Command> {
    let file = directory.join("settler.key");
    std::fs::write(&file, key)?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let config = directory.join("facilitator.toml");
    // A tenth of it is how often receipts are looked for; the others are told to look every 10 ms, too.
    std::fs::write(
        &config,
        format!(
            r#"[server]
listen = "127.0.0.1:0"
[network."eip155:84532"]
rpc = ["{url}"]
asset = "usdc"
block_time = "100ms"
{lines}
[facilitator]
signers = [{{ file = "settler.key" }}]
"#
        ),
    )?;
    let mut command = Command::new(binary);
    command.args(["facilitator", "--config"]).arg(config);
    Ok(command)
}

/// Starts a server and reads where it listens behind `mark`.
async fn start(mut command: Command, mark: &str) -> Result<(Child, String)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let address = loop {
        let line = lines.next_line().await?.context("the server ended before it listened")?;
        if let Some((_, rest)) = line.split_once(mark) {
            let end = rest.find(|it: char| it != '.' && it != ':' && !it.is_ascii_digit());
            let address = &rest[..end.unwrap_or(rest.len())];
            break if address.contains(':') {
                address.to_owned()
            } else {
                format!("127.0.0.1:{address}")
            };
        }
    };
    // Keep the pipe empty, or the server would block on it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, address))
}
