//! Starts the processes of a scenario and stops them when it ends.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A server process; killed when dropped.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    /// The processor time that it has used, in its own code and in the kernel for it.
    pub fn processor_time(&self) -> Result<Duration> {
        let pid = self.child.id().context("the server has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Fields 14 and 15 of proc_pid_stat(5), counted behind the name, which may hold anything.
        let behind = stat.rsplit_once(')').context("stat")?.1;
        let ticks = behind.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        // A tick is 10 ms wherever user space looks (USER_HZ).
        Ok(Duration::from_millis(ticks * 10))
    }
}

/// Which cores a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// All of them, shared with everything else.
    All,
    /// The first, where nothing else of the run is.
    First,
    /// All but the first.
    Others,
}

impl Cores {
    /// As `taskset` writes it.
    fn list(self) -> Result<String> {
        let last = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
        let last: usize = last.trim().rsplit(['-', ',']).next().context("cores")?.parse()?;
        ensure!(0 < last, "one core: there is no other for the generator, use --shared");
        Ok(match self {
            Self::All => format!("0-{last}"),
            Self::First => "0".to_owned(),
            Self::Others => format!("1-{last}"),
        })
    }

    fn command(self, program: &Path) -> Result<Command> {
        if self == Self::All {
            return Ok(Command::new(program));
        }
        let mut command = Command::new("taskset");
        command.arg("-c").arg(self.list()?).arg(program);
        Ok(command)
    }

    /// Moves this process there, with all its threads.
    pub async fn enter(self) -> Result<()> {
        let pid = std::process::id().to_string();
        let mut taskset = Command::new("taskset");
        taskset.args(["-a", "-c", "-p", &self.list()?, &pid]).stdout(Stdio::null());
        ensure!(taskset.status().await?.success(), "taskset failed");
        Ok(())
    }
}

/// Starts a role of this very binary.
pub async fn role(cores: Cores, arguments: &[&str]) -> Result<Server> {
    let mut command = cores.command(&std::env::current_exe()?)?;
    command.args(arguments);
    start(command, "listening ").await
}

/// Starts the binary under test; it says where it listens in a line that contains `mark`.
pub async fn farebox(binary: &Path, arguments: &[&str], mark: &str) -> Result<Server> {
    farebox_on(Cores::All, binary, arguments, mark).await
}

async fn farebox_on(cores: Cores, binary: &Path, arguments: &[&str], mark: &str) -> Result<Server> {
    let mut command = cores.command(binary)?;
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
    Ok(Server { child, address })
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

/// The binary under test as a seller on a dev chain of its own; the gateway is where `cores` says.
pub async fn seller(cores: Cores, binary: &Path, upstream: &str, settle: &str) -> Result<Seller> {
    let directory = tempfile::tempdir()?;
    let chain =
        farebox(binary, &["devnet", "--listen", "127.0.0.1:0", "--block-time", "1"], "http://")
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
    let gateway = farebox_on(cores, binary, &["serve", "--config", &path], "http://").await?;
    Ok(Seller { gateway, chain, _directory: directory })
}
