//! The gateway as a process of its own that can be killed, and this process's hold on it.
//!
//! The child is this very test binary, started with the one ignored test below; its orders come on
//! standard input, so that nobody starts it by accident.

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farebox_chains::{
    Facilitator, FacilitatorError, LocalFacilitator, LogError, LoggedTransaction, Lookup,
    SettleError, Settlement, TransactionEnd, TransactionLog, Verification,
};
use farebox_gateway::{
    Entropy, Gateway, GatewayConfig, KeptTransactions, Parts, Probe, Running, Step, SystemClock,
    Upstream,
};
use farebox_protocol::wire::{SettleRequest, SupportedResponse, VerifyRequest};
use farebox_protocol::{Network, PaymentId, Timestamp};
use farebox_store::{Ledger as _, SettleMode, SqliteLedger, SqliteOptions};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::app::{Setup, routes};
use crate::chain::facilitator_that_keeps;

/// A place within the settlement, beside those that the gateway itself names: leased, not sent.
pub(crate) const SETTLE_CALLED: &str = "settle-called";
/// Signed and kept, not sent.
pub(crate) const TRANSACTION_KEPT: &str = "transaction-kept";
/// The node has it, and its answer did not come.
pub(crate) const TRANSACTION_SENT: &str = "transaction-sent";
/// On chain, and not recorded.
pub(crate) const SETTLE_RETURNED: &str = "settle-returned";

/// How lines of ours differ from those of the test harness.
const MARK: &str = "@child ";
/// Nothing that the child is waited for takes longer, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) directory: PathBuf,
    pub(crate) rpc: String,
    pub(crate) upstream: String,
    pub(crate) settle: String,
    /// How it is paid.
    pub(crate) paid: Paid,
    /// Where the first payment stops for ever.
    pub(crate) stop_at: Option<String>,
}

/// How the gateway is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Paid {
    /// The quote.
    Exact,
    /// What was used.
    Upto,
}

impl Paid {
    pub(crate) fn offers(self) -> &'static [&'static str] {
        match self {
            Self::Exact => &["exact"],
            Self::Upto => &["upto"],
        }
    }
}

/// Where the ledger is within the directory.
pub(crate) fn ledger_path(directory: &Path) -> PathBuf {
    directory.join("ledger.db")
}

/// A child and the ends of its pipes.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Where its gateway listens.
    pub(crate) address: String,
}

impl Process {
    pub(crate) async fn start(orders: &Orders) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::process::gateway", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = serde_json::to_vec(orders).unwrap();
        line.push(b'\n');
        input.write_all(&line).await.unwrap();
        let mut process = Self { child, input, output, address: String::new() };
        process.address = process.line("listens").await;
        process
    }

    /// Waits until a payment has come to where the orders say.
    pub(crate) async fn reached(&mut self) -> String {
        self.line("reached").await
    }

    /// SIGKILL, as the kernel does when memory runs out.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Ends it as a supervisor does.
    pub(crate) async fn stop(self) {
        let Self { mut child, input, mut output, address: _ } = self;
        drop(input);
        // Its pipe is read to the end, or it might wait for a reader.
        while let Ok(Some(_)) = output.next_line().await {}
        let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }

    /// The rest of the next line of ours, which begins with `word`.
    async fn line(&mut self, word: &str) -> String {
        let found = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                let said = line.split_once(MARK).and_then(|(_, it)| it.strip_prefix(word));
                if let Some(said) = said {
                    return said.trim().to_owned();
                }
            }
            panic!("the child ended before it said `{word}`");
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("the child did not say `{word}`"))
    }
}

/// The child.
#[test]
#[ignore = "a process that the crash tests start"]
fn gateway() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let Ok(orders) = serde_json::from_str::<Orders>(&line) else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(serve(orders));
    // A payment that stopped for ever still has its thread.
    runtime.shutdown_timeout(Duration::from_millis(10));
}

async fn serve(orders: Orders) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let path = ledger_path(&orders.directory);
    let ledger = Arc::new(SqliteLedger::open(path, SqliteOptions::default()).unwrap());
    let running = start(&orders, Arc::clone(&ledger)).await;
    say(&format!("listens {}", running.local_addr()));
    let until_closed = || std::io::stdin().lock().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(until_closed).await.unwrap().unwrap();
    running.shutdown().await;
    ledger.close().await.unwrap();
}

async fn start(orders: &Orders, ledger: Arc<SqliteLedger>) -> Running {
    let stop = Arc::new(Stop { at: orders.stop_at.clone(), taken: AtomicBool::new(false) });
    let setup = Setup {
        settle: SettleMode::parse(&orders.settle).unwrap(),
        offers: orders.paid.offers(),
        ..Setup::default()
    };
    let upstream = Arc::new(Upstream {
        name: "parent".to_owned(),
        url: orders.upstream.parse().unwrap(),
        api_key: None,
        head_timeout: Duration::from_secs(20),
        idle_timeout: setup.idle_timeout,
    });
    let config = GatewayConfig {
        public_url: "https://api.example.com".parse().unwrap(),
        routes: routes(&setup, &upstream),
        limits: setup.limits,
    };
    let log = KeptTransactions::new(Arc::<SqliteLedger>::clone(&ledger));
    let log = Arc::new(StoppingLog { inner: log, stop: Arc::clone(&stop) });
    let rpc = stopping_node(&orders.rpc, Arc::clone(&stop)).await;
    let inner = facilitator_that_keeps(&rpc, log);
    let parts = Parts {
        ledger,
        facilitator: Arc::new(Stopping { inner, stop: Arc::clone(&stop) }),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(Entropy::from_os().unwrap()),
        probe: stop,
        mounts: Vec::new(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    Gateway::start(listener, config, parts).await.unwrap()
}

#[expect(clippy::print_stdout, reason = "standard output is the way to the parent")]
fn say(what: &str) {
    println!("{MARK}{what}");
}

/// Stops the first payment that comes to a place, and lets everything else run on.
#[derive(Debug)]
struct Stop {
    at: Option<String>,
    taken: AtomicBool,
}

impl Stop {
    fn here(&self, place: &str) {
        if self.at.as_deref() != Some(place) || self.taken.swap(true, Ordering::SeqCst) {
            return;
        }
        say(&format!("reached {place}"));
        // What was handed to other tasks before this moment is theirs: they are not to be stopped.
        tokio::task::block_in_place(|| {
            loop {
                std::thread::park();
            }
        });
    }
}

impl Probe for Stop {
    fn reached(&self, step: Step, _id: PaymentId) {
        self.here(step.as_str());
    }
}

/// A log whose records have a place to stop at.
#[derive(Debug)]
struct StoppingLog {
    inner: Arc<KeptTransactions>,
    stop: Arc<Stop>,
}

#[async_trait]
impl TransactionLog for StoppingLog {
    async fn record(&self, transaction: &LoggedTransaction) -> Result<(), LogError> {
        self.inner.record(transaction).await?;
        self.stop.here(TRANSACTION_KEPT);
        Ok(())
    }

    async fn open(&self, network: &Network) -> Result<Vec<LoggedTransaction>, LogError> {
        self.inner.open(network).await
    }

    async fn end(
        &self,
        network: &Network,
        ended: &[([u8; 32], TransactionEnd)],
    ) -> Result<(), LogError> {
        self.inner.end(network, ended).await
    }
}

/// The chain's node, with a place to stop at after it has taken a transaction.
async fn stopping_node(url: &str, stop: Arc<Stop>) -> String {
    let (http, url) = (reqwest::Client::builder().build().unwrap(), url.to_owned());
    let forward = async move |body: Bytes| {
        let sends = body.windows(22).any(|it| it == b"eth_sendRawTransaction");
        let post = http.post(&url).header("content-type", "application/json").body(body);
        let answer = post.send().await.unwrap().bytes().await.unwrap();
        if sends {
            stop.here(TRANSACTION_SENT);
        }
        ([("content-type", "application/json")], answer)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = axum::serve(listener, axum::Router::new().fallback(forward));
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(async move { serving.await.unwrap() });
    format!("http://{address}")
}

/// A facilitator whose settlements have places to stop at, too.
#[derive(Debug)]
struct Stopping {
    inner: LocalFacilitator,
    stop: Arc<Stop>,
}

#[async_trait]
impl Facilitator for Stopping {
    async fn verify(
        &self,
        request: &VerifyRequest,
        now: Timestamp,
    ) -> Result<Verification, FacilitatorError> {
        self.inner.verify(request, now).await
    }

    async fn settle(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        self.stop.here(SETTLE_CALLED);
        let settled = self.inner.settle(request, now).await;
        self.stop.here(SETTLE_RETURNED);
        settled
    }

    async fn lookup(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Lookup, FacilitatorError> {
        self.inner.lookup(request, now).await
    }

    async fn supported(&self) -> Result<SupportedResponse, FacilitatorError> {
        self.inner.supported().await
    }
}
