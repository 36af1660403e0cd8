//! The official clients and servers as their users install them, driven as programs (`tests/clients`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::process::{Process, StartError, installed, workspace};

/// A purchase through a stock client, retries and streaming included, takes a few seconds at most.
const DONE_WITHIN: Duration = Duration::from_mins(2);

/// The installed packages.
#[derive(Clone, Debug)]
pub struct Clients {
    js: PathBuf,
    py: PathBuf,
    python: PathBuf,
}

/// The stock buyers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buyer {
    /// The npm package `@x402/fetch`.
    Fetch,
    /// The Python package `x402` over httpx.
    Httpx,
    /// The npm package `openai` over `@x402/fetch`. The order's URL is the base URL, `…/v1`.
    OpenAiNpm,
    /// The Python package `openai` over `x402` and httpx. The order's URL is the base URL, `…/v1`.
    OpenAiPython,
}

/// The official packages of an API's vendor, paying as [`Buyer::OpenAiNpm`] and
/// [`Buyer::OpenAiPython`] do. The order's URL is the base URL, `…/v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// Of npm: `openai`, `@anthropic-ai/sdk`.
    Npm,
    /// Of Python's index: `openai`, `anthropic`.
    Python,
}

/// What the official packages buy besides chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/messages`
    Messages,
}

impl Api {
    /// Its word in the scripts, and the last part of its path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }
}

/// What to buy: the arguments of a buying script.
#[derive(Clone, Debug)]
pub struct Order(Vec<String>);

/// What a buying script reports: what its caller saw, and what went over the wire.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// The packages in use.
    pub client: String,
    /// Whether every purchase ended without an exception and below status 400.
    pub served: bool,
    /// One entry a purchase.
    pub purchases: Vec<Purchase>,
}

/// One purchase as the client's caller saw it. Absent is what does not apply.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Purchase {
    /// Status of the final answer.
    pub status: Option<u16>,
    /// The body, from [`Buyer::Fetch`] and [`Buyer::Httpx`].
    pub body: Option<String>,
    /// The lines of an event stream, likewise.
    pub frames: Option<Vec<Frame>>,
    /// The completion's text, from the OpenAI packages.
    pub content: Option<String>,
    /// Why the completion ended, likewise.
    pub finish_reason: Option<String>,
    /// The completion's `usage`, likewise.
    pub usage: Option<Value>,
    /// How many pieces the body came in; OpenAI: how many chunks the stream yielded.
    pub chunks: Option<u64>,
    /// Milliseconds from the first request, unpaid, to the first piece of the paid body.
    pub first_chunk_ms: Option<u64>,
    /// Milliseconds from the first request to the end.
    pub total_ms: Option<u64>,
    /// What the client threw instead.
    pub error: Option<Failure>,
    /// The HTTP exchanges, in order.
    pub attempts: Vec<Attempt>,
}

/// A line of an event stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frame {
    /// `data: …`
    Data(String),
    /// `: …`, which clients do not show.
    Comment(String),
    /// `event: …`
    Event(String),
    /// `id: …`
    Id(String),
    /// `retry: …`
    Retry(String),
}

/// An exception of the client.
#[derive(Clone, Debug, Deserialize)]
pub struct Failure {
    /// Its class.
    pub name: String,
    /// Its text.
    pub message: String,
    /// The HTTP status it carries, if it does.
    pub status: Option<u16>,
    /// What it carries of the answer's body, if it does.
    pub body: Option<Value>,
}

/// One HTTP exchange, with the payment headers decoded.
#[derive(Clone, Debug, Deserialize)]
pub struct Attempt {
    /// Request method.
    pub method: String,
    /// Request URL.
    pub url: String,
    /// `PAYMENT-SIGNATURE` (v2) or `X-PAYMENT` (v1), if it was sent.
    pub signed: Option<Value>,
    /// Status, absent where no answer came.
    pub status: Option<u16>,
    /// `PAYMENT-REQUIRED`, if it was there.
    pub required: Option<Value>,
    /// `PAYMENT-RESPONSE`, if it was there.
    pub settled: Option<Value>,
    /// All headers of the answer, names in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// A stock server program, ended on drop.
#[derive(Debug)]
pub struct Server {
    process: Process,
    url: String,
}

/// Why a script gave no report.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It does not run.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It could not be run to its end.
    #[error("{script} could not be run")]
    Run {
        /// Its file name.
        script: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It did not end in time.
    #[error("{script} did not end within two minutes")]
    Hung {
        /// Its file name.
        script: String,
    },
    /// It broke: what it printed is no report.
    #[error("{script} printed {stdout:?}\n{stderr}")]
    NoReport {
        /// Its file name.
        script: String,
        /// Its standard output.
        stdout: String,
        /// Its standard error.
        stderr: String,
        /// What is wrong with the output.
        #[source]
        source: serde_json::Error,
    },
}

impl Clients {
    /// The packages that `./test` installed; the error says so if it did not.
    pub fn installed() -> Result<Self, StartError> {
        let scripts = workspace().join("tests/clients");
        let (js, py) = (scripts.join("js"), scripts.join("py"));
        installed(js.join("node_modules/@x402/fetch"))?;
        let venv = chosen_venv().unwrap_or_else(|| py.join(".venv"));
        let python = installed(venv.join("bin/python"))?;
        Ok(Self { js, py, python })
    }

    /// Lets a stock client buy. A refused purchase is a report too.
    pub async fn buy(&self, buyer: Buyer, order: &Order) -> Result<Report, ClientError> {
        let arguments = order.0.iter().map(String::as_str).collect::<Vec<_>>();
        match buyer {
            Buyer::Fetch => run(Path::new("node"), &self.js.join("buy.mjs"), &arguments).await,
            Buyer::OpenAiNpm => {
                run(Path::new("node"), &self.js.join("openai_buy.mjs"), &arguments).await
            }
            Buyer::Httpx => run(&self.python, &self.py.join("buy.py"), &arguments).await,
            Buyer::OpenAiPython => {
                run(&self.python, &self.py.join("openai_buy.py"), &arguments).await
            }
        }
    }

    /// Lets an official package buy from another API than chat.
    pub async fn buy_from(&self, api: Api, sdk: Sdk, order: &Order) -> Result<Report, ClientError> {
        let order = order.clone().with(&["--api", api.as_str()]);
        let arguments = order.0.iter().map(String::as_str).collect::<Vec<_>>();
        match sdk {
            Sdk::Npm => run(Path::new("node"), &self.js.join("api_buy.mjs"), &arguments).await,
            Sdk::Python => run(&self.python, &self.py.join("api_buy.py"), &arguments).await,
        }
    }

    /// Lets the stock x402 v1 client, the npm package `x402-fetch` 1.2.0, buy.
    pub async fn buy_v1(&self, order: &Order) -> Result<Report, ClientError> {
        let arguments = order.0.iter().map(String::as_str).collect::<Vec<_>>();
        run(Path::new("node"), &self.js.join("buy_v1.mjs"), &arguments).await
    }

    /// Starts the stock x402 v1 server, the npm package `x402-express` 1.2.0, as
    /// [`Clients::seller`] starts the one of v2 (routes in `seller_v1.mjs`).
    pub async fn seller_v1(&self, facilitator: &str, pay_to: &str) -> Result<Server, StartError> {
        self.serve("seller_v1.mjs", &["--facilitator", facilitator, "--pay-to", pay_to]).await
    }

    /// Starts the stock express server, selling for 0.001 USDC a request on its own routes (listed
    /// in `seller.mjs`) through the facilitator at a URL.
    pub async fn seller(&self, facilitator: &str, pay_to: &str) -> Result<Server, StartError> {
        self.serve("seller.mjs", &["--facilitator", facilitator, "--pay-to", pay_to]).await
    }

    /// Starts the stock facilitator on a chain; `key` (0x and hexadecimal) pays the gas.
    pub async fn facilitator(&self, rpc: &str, key: &str) -> Result<Server, StartError> {
        self.serve("facilitator.mjs", &["--rpc", rpc, "--key", key]).await
    }

    /// Starts an OpenAI-compatible API to put behind a gateway (`model.mjs`): a token is a word,
    /// words come `pace` apart, and only this API key is let in.
    pub async fn model(&self, pace: Duration, api_key: &str) -> Result<Server, StartError> {
        let pace_ms = pace.as_millis().to_string();
        self.serve("model.mjs", &["--pace-ms", &pace_ms, "--api-key", api_key]).await
    }

    /// Uses a chain as viem and ethers do; `key` needs ether and token units. `{viem, ethers}`.
    pub async fn chain(&self, rpc: &str, key: &str) -> Result<Value, ClientError> {
        let script = self.js.join("chain.mjs");
        run(Path::new("node"), &script, &["--rpc", rpc, "--key", key]).await
    }

    async fn serve(&self, script: &str, arguments: &[&str]) -> Result<Server, StartError> {
        #[derive(Deserialize)]
        struct Ready {
            listening: u16,
        }
        let script = self.js.join(script).display().to_string();
        let arguments = [&[script.as_str()], arguments].concat();
        let (process, ready) = Process::start(Path::new("node"), &arguments, |output| {
            output.lines().find_map(|line| serde_json::from_str::<Ready>(line).ok())
        })
        .await?;
        Ok(Server { process, url: format!("http://127.0.0.1:{}", ready.listening) })
    }
}

impl Order {
    /// A `GET` of a URL, or of an OpenAI base URL; `key` (0x and hexadecimal) pays.
    pub fn new(url: &str, key: &str) -> Self {
        Self(["--url", url, "--key", key].map(ToOwned::to_owned).into())
    }

    /// A `POST` of a JSON body instead.
    #[must_use]
    pub fn post(self, body: &Value) -> Self {
        self.with(&["--body", &body.to_string()])
    }

    /// As an event stream.
    #[must_use]
    pub fn streamed(self) -> Self {
        self.with(&["--stream"])
    }

    /// So many times, one after the other.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        self.with(&["--times", &times.to_string()])
    }

    /// By a client that can read the chain, as signing for an allowance takes.
    #[must_use]
    pub fn reading(self, rpc: &str) -> Self {
        self.with(&["--rpc", rpc])
    }

    /// By a client that knows the scheme `upto` as well.
    #[must_use]
    pub fn upto(self) -> Self {
        self.with(&["--upto"])
    }

    /// With other arguments of the script, e.g. `["--max-tokens", "5"]`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.0.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }
}

impl Purchase {
    /// The exchanges that carried a signed payment. A client that pays once has one.
    pub fn paid(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.signed.is_some())
    }
}

impl Server {
    /// Where it listens, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it logged so far, for a failing test.
    pub fn log(&self) -> String {
        self.process.output()
    }
}

/// Runs a script to its end and reads the one JSON value it prints.
async fn run<T: for<'de> Deserialize<'de>>(
    interpreter: &Path,
    script: &Path,
    arguments: &[&str],
) -> Result<T, ClientError> {
    let name = script.display().to_string();
    let mut command = tokio::process::Command::new(interpreter);
    command.arg(script).args(arguments).kill_on_drop(true);
    let Ok(ended) = tokio::time::timeout(DONE_WITHIN, command.output()).await else {
        return Err(ClientError::Hung { script: name });
    };
    let output = ended.map_err(|source| ClientError::Run { script: name.clone(), source })?;
    serde_json::from_slice(&output.stdout).map_err(|source| ClientError::NoReport {
        script: name,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        source,
    })
}

/// The Python environment to use instead of the one in the checkout.
#[expect(clippy::disallowed_methods, reason = "a choice of the machine that tests run on")]
fn chosen_venv() -> Option<PathBuf> {
    std::env::var("FAREBOX_TEST_VENV").ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests;
