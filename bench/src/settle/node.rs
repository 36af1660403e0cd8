//! The chain that every side settles on: anvil with our token where stock clients look for USDC.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use alloy_sol_types::SolValue as _;
use anyhow::{Context as _, Result, bail, ensure};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

pub const CHAIN_ID: u64 = 84_532;
/// USDC on Base Sepolia.
pub const TOKEN: Address = address!("0x036CbD53842c5426634e7929541eC2318f3dCF7e");
/// Where its code is.
const TOKEN_CODE: Address = address!("0x036C000000000000000000000000000000000002");
/// The slot in which the token keeps balances (`contracts/src/TestUSDC.sol`).
const BALANCES_SLOT: u64 = 9;
/// Contracts that x402-rs wants to see before it starts; none of them is called for these payments.
const WANTED: [Address; 3] = [
    address!("0xdAcD51A54883eb67D95FAEb2BBfdC4a9a6BD2a3B"),
    address!("0x000000000022D473030F116dDEE9F6B43aC78BA3"),
    x402_chain_eip155::chain::permit2::EXACT_PERMIT2_PROXY_ADDRESS,
];
/// Where Multicall3 lies on every chain.
const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");
/// A contract that does nothing.
const NO_OP: &str = "0x00";

pub type Http = Client<HttpConnector, Full<bytes::Bytes>>;

/// A client that keeps its connections.
pub fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A running anvil; ended on drop.
pub struct Node {
    pub rpc: Rpc,
    _child: Child,
}

/// How to ask it.
#[derive(Clone)]
pub struct Rpc {
    url: String,
    http: Http,
}

/// The project's directory.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Node {
    /// On a free port, with the token in place; `block_time` in seconds, or a block a transaction.
    pub async fn start(block_time: Option<u64>) -> Result<Self> {
        let binary = "tests/clients/js/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil";
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(project().join(binary));
        command.args(["--silent", "--prune-history", "64", "--port", &port.to_string()]);
        command.args(["--chain-id", &CHAIN_ID.to_string()]);
        if let Some(seconds) = block_time {
            command.args(["--block-time", &seconds.to_string()]);
        }
        let child = command.stdout(Stdio::null()).kill_on_drop(true).spawn().context("anvil")?;
        let rpc = Rpc { url: format!("http://127.0.0.1:{port}"), http: http() };
        rpc.wait().await?;
        // The genesis block has timestamp 1.
        rpc.call("evm_mine", json!([])).await?;
        // Behind a proxy, as USDC is: so a payment costs what it costs there.
        rpc.call("anvil_setCode", json!([TOKEN, runtime_code("TestUSDCProxy")?])).await?;
        rpc.call("anvil_setCode", json!([TOKEN_CODE, runtime_code("TestUSDC")?])).await?;
        for (name, value) in [
            ("org.zeppelinos.proxy.implementation", TOKEN_CODE),
            ("org.zeppelinos.proxy.admin", Address::repeat_byte(0xff)),
        ] {
            let set = json!([TOKEN, keccak256(name), value.into_word()]);
            rpc.call("anvil_setStorageAt", set).await?;
        }
        rpc.call("anvil_setCode", json!([MULTICALL3, runtime_code("Multicall3")?])).await?;
        for contract in WANTED {
            rpc.call("anvil_setCode", json!([contract, NO_OP])).await?;
        }
        Ok(Self { rpc, _child: child })
    }
}

impl Rpc {
    async fn wait(&self) -> Result<()> {
        for _ in 0..500 {
            if self.call("eth_chainId", json!([])).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("anvil does not answer")
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A call that must succeed.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value> {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut answer = self.post(&call).await?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => bail!("{method}: {answer}"),
        }
    }

    async fn post(&self, body: &Value) -> Result<Value> {
        let request = Request::post(&self.url).header("content-type", "application/json");
        let response = self.http.request(request.body(Full::from(body.to_string()))?).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        Ok(serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?)
    }

    pub async fn send_raw(&self, raw: &Bytes) -> Result<()> {
        self.call("eth_sendRawTransaction", json!([raw])).await.map(drop)
    }

    /// Whether a transaction was mined; an error if it failed.
    pub async fn is_mined(&self, hash: &B256) -> Result<bool> {
        let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await?;
        ensure!(receipt.is_null() || receipt["status"] == "0x1", "{hash} failed: {receipt}");
        Ok(!receipt.is_null())
    }

    /// What all of these used together.
    pub async fn gas(&self, transactions: &BTreeSet<String>) -> Result<u64> {
        let mut sum = 0;
        let all: Vec<&String> = transactions.iter().collect();
        for chunk in all.chunks(200) {
            let call = |hash| {
                let method = "eth_getTransactionReceipt";
                json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": [hash]})
            };
            let answers = self.post(&chunk.iter().map(call).collect()).await?;
            for answer in answers.as_array().context("no batch")? {
                let used = answer["result"]["gasUsed"].as_str().context("no receipt")?;
                sum += u64::from_str_radix(used.trim_start_matches("0x"), 16)?;
            }
        }
        Ok(sum)
    }

    /// What an account holds, in atomic units.
    pub async fn tokens_of(&self, account: Address) -> Result<u128> {
        let data =
            format!("0x70a08231{}", &B256::left_padding_from(account.as_slice()).to_string()[2..]);
        let held = self.call("eth_call", json!([{"to": TOKEN, "data": data}, "latest"])).await?;
        let held: U256 = serde_json::from_value(held)?;
        Ok(u128::try_from(held)?)
    }

    /// Sets what an account holds of the token.
    pub async fn set_tokens(&self, account: Address, units: u128) -> Result<()> {
        let slot = keccak256((account, U256::from(BALANCES_SLOT)).abi_encode());
        let word = B256::from(U256::from(units));
        self.call("anvil_setStorageAt", json!([TOKEN, slot, word])).await.map(drop)
    }

    /// Gives an account more ether than it can spend.
    pub async fn fill(&self, account: Address) -> Result<()> {
        let plenty = U256::from(10).pow(U256::from(30));
        self.call("anvil_setBalance", json!([account, plenty])).await.map(drop)
    }

    /// How many transactions of an account are in blocks.
    pub async fn mined_nonce(&self, account: Address) -> Result<u64> {
        let count = self.call("eth_getTransactionCount", json!([account, "latest"])).await?;
        let count: U256 = serde_json::from_value(count)?;
        Ok(u64::try_from(count)?)
    }
}

fn runtime_code(contract: &str) -> Result<String> {
    let artifact = project().join(format!("contracts/artifacts/{contract}.json"));
    let artifact: Value = serde_json::from_slice(&std::fs::read(artifact)?)?;
    Ok(artifact["deployedBytecode"].as_str().context("no run-time code")?.to_owned())
}
