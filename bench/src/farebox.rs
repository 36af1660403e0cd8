//! Starts the processes of a scenario and stops them when it ends.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A server process; killed when dropped.
pub struct Server {
    _child: Child,
    pub address: String,
}

/// Starts a role of this very binary.
pub async fn role(arguments: &[&str]) -> Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    start(command, "listening ").await
}

/// Starts the binary under test; it says where it listens in a line that contains `mark`.
pub async fn farebox(binary: &Path, arguments: &[&str], mark: &str) -> Result<Server> {
    let mut command = Command::new(binary);
    command.args(arguments);
    start(command, mark).await
}

async fn start(mut command: Command, mark: &str) -> Result<Server> {
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let stdout = child.stdout.take().context("no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let address = loop {
        let line = lines.next_line().await?.context("the server ended before it listened")?;
        if let Some((_, rest)) = line.split_once(mark) {
            let rest = rest.trim_start_matches("http://");
            let end = rest.find(|it: char| it.is_whitespace() || it == '/').unwrap_or(rest.len());
            break rest[..end].to_owned();
        }
    };
    // Keep the pipe empty, or the server would block on it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(Server { _child: child, address })
}

/// A gateway with its dev chain and its directory.
pub struct Seller {
    pub gateway: Server,
    pub chain: Server,
    _directory: tempfile::TempDir,
}

/// The first two of the well-known development keys: the settler and the payer.
pub const KEYS: [&str; 2] = [
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
];
/// Who is paid: the third account.
pub const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

/// The binary under test as a seller on a dev chain of its own.
pub async fn seller(binary: &Path, upstream: &str, settle: &str) -> Result<Seller> {
    let directory = tempfile::tempdir()?;
    let chain = farebox(
        binary,
        &["devnet", "--listen", "127.0.0.1:0", "--block-time", "1"],
        "http://",
    )
    .await?;
    let key = directory.path().join("settler.key");
    std::fs::write(&key, KEYS[0])?;
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let config = directory.path().join("farebox.toml");
    std::fs::write(
        &config,
        format!(
            r#"[server]
listen = "127.0.0.1:0"
public_url = "http://127.0.0.1:8402"
[ledger]
url = "sqlite:farebox.db"
[network."eip155:84532"]
rpc = ["http://{}"]
asset = "usdc"
pay_to = "{PAY_TO}"
[facilitator]
signers = [{{ file = "settler.key" }}]
[[upstream]]
name = "upstream"
url = "http://{upstream}"
[[route]]
match = "GET /premium/*"
upstream = "upstream"
price = {{ per_request = "0.01" }}
offer = ["exact"]
settle = "{settle}"
[[route]]
match = "GET /free/*"
upstream = "upstream"
price = "free"
"#,
            chain.address
        ),
    )?;
    let path = config.to_string_lossy().into_owned();
    let gateway = farebox(binary, &["serve", "--config", &path], "http://").await?;
    Ok(Seller { gateway, chain, _directory: directory })
}
