//! The servers as processes: what keeps them from starting, and how they end.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::farebox::run;

const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// A server that was started and is ended with the test.
struct Server {
    child: Child,
    /// The address in the line that tells where it listens.
    url: String,
}

impl Server {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_farebox"))
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|it| it.unwrap().split("http://").nth(1).map(ToOwned::to_owned));
        let Some(address) = line else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{arguments:?} did not start: {said}");
        };
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://{}", address.trim()) }
    }

    fn stop(mut self, signal: &str) -> (i32, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code().unwrap(), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where the test got as far as `stop`.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}

fn shop(chain: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    let key = directory.path().join("settler.key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = include_str!("config/good.toml")
        .replace("\"127.0.0.1:8402\"", "\"127.0.0.1:0\"\nlame_duck = \"0s\"")
        .replace("http://127.0.0.1:8545", chain);
    fs::write(directory.path().join("farebox.toml"), config).unwrap();
    directory
}

fn devnet(directory: &Path) -> Server {
    Server::start(directory, &["devnet", "--listen", "127.0.0.1:0", "--block-time", "0.5"])
}

fn client() -> reqwest::Client {
    // Another test of this process may have installed it before.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap()
}

/// `GET` of an address.
async fn get(url: String) -> reqwest::Response {
    client().get(url).send().await.unwrap()
}

const SERVE: [&str; 3] = ["serve", "--config", "farebox.toml"];

#[test]
fn a_bad_configuration_starts_nothing_and_tells_everything() {
    let directory = shop("wss://127.0.0.1:8545");
    let file = directory.path().join("farebox.toml");
    let config = fs::read_to_string(&file).unwrap().replace("\"llm\"\nformat", "\"lmm\"\nformat");
    fs::write(&file, config).unwrap();
    let ran = run(directory.path(), &SERVE);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    for expected in ["farebox.toml:9:8", "there is no upstream `lmm`", "farebox.toml: 2 errors"] {
        assert!(ran.stderr.contains(expected), "no {expected:?} in\n{}", ran.stderr);
    }
    assert!(!directory.path().join("farebox.db").exists(), "no ledger was made");
}

#[test]
fn an_unreachable_network_starts_nothing() {
    let directory = shop("http://127.0.0.1:1");
    let ran = run(directory.path(), &SERVE);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("no RPC endpoint answers"), "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing was started"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_asks_for_money_and_ends_when_told() {
    let directory = TempDir::new().unwrap();
    let chain = devnet(directory.path());
    let shop = shop(&chain.url);
    for signal in ["-TERM", "-INT"] {
        let gateway = Server::start(shop.path(), &SERVE);
        let url = format!("{}/premium/x", gateway.url);
        let answer = get(url).await;
        assert_eq!(answer.status(), 402);
        assert!(answer.headers().contains_key("payment-required"));
        let (code, log) = gateway.stop(signal);
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("gateway stopped"), "{log}");
        let first = log.lines().find(|it| it.starts_with('{')).unwrap();
        assert!(serde_json::from_str::<Value>(first).is_ok(), "logs are JSON: {first}");
    }
    assert_eq!(chain.stop("-TERM").0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_cannot_share_a_ledger() {
    let directory = TempDir::new().unwrap();
    let chain = devnet(directory.path());
    let shop = shop(&chain.url);
    let gateway = Server::start(shop.path(), &SERVE);
    let second = run(shop.path(), &SERVE);
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("cannot be opened"), "{}", second.stderr);
    assert_eq!(gateway.stop("-TERM").0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_facilitator_says_what_it_supports() {
    let directory = TempDir::new().unwrap();
    let chain = devnet(directory.path());
    let shop = shop(&chain.url);
    let arguments = ["facilitator", "--config", "farebox.toml"];
    let facilitator = Server::start(shop.path(), &arguments);
    let supported = get(format!("{}/supported", facilitator.url)).await;
    let supported: Value = supported.json().await.unwrap();
    let kinds = supported["kinds"].as_array().unwrap();
    let ours = |it: &&Value| it["network"] == "eip155:84532" && it["scheme"] == "exact";
    assert!(kinds.iter().any(|it| ours(&it)), "{supported}");
    assert_eq!(
        supported["signers"]["eip155:*"],
        json!(["0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"])
    );
    assert_eq!(facilitator.stop("-TERM").0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_shows_its_facilitator_where_it_is_told_to() {
    let directory = TempDir::new().unwrap();
    let chain = devnet(directory.path());
    let shop = shop(&chain.url);
    let gateway = Server::start(shop.path(), &SERVE);
    assert_eq!(get(format!("{}/supported", gateway.url)).await.status(), 404);
    assert_eq!(gateway.stop("-TERM").0, 0);
    let file = shop.path().join("farebox.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.replace("[facilitator]\n", "[facilitator]\nserve = true\n")).unwrap();
    let gateway = Server::start(shop.path(), &SERVE);
    let supported: Value = get(format!("{}/supported", gateway.url)).await.json().await.unwrap();
    assert!(supported["kinds"].as_array().is_some_and(|it| !it.is_empty()), "{supported}");
    let settle = client().post(format!("{}/settle", gateway.url)).json(&json!({})).send().await;
    assert_eq!(settle.unwrap().status(), 400, "it is there, and understands nothing");
    assert_eq!(get(format!("{}/premium/x", gateway.url)).await.status(), 402);
    assert_eq!(gateway.stop("-TERM").0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_can_settle_through_a_facilitator() {
    let directory = TempDir::new().unwrap();
    let chain = devnet(directory.path());
    let shop = shop(&chain.url);
    let arguments = ["facilitator", "--config", "farebox.toml"];
    let facilitator = Server::start(shop.path(), &arguments);
    let file = shop.path().join("farebox.toml");
    let config = fs::read_to_string(&file).unwrap();
    let local = "signers = [{ file = \"settler.key\" }]";
    let remote = format!("url = [\"{}\"]", facilitator.url);
    fs::write(&file, config.replace(local, &remote)).unwrap();
    let gateway = Server::start(shop.path(), &SERVE);
    assert_eq!(gateway.stop("-TERM").0, 0);

    // One that does not settle what is offered is found out before anything is sold.
    let base = config.replace(local, &remote).replace("eip155:84532", "eip155:8453");
    let rpc = format!("rpc = [\"{}\"]\n", chain.url);
    // Where nobody looks at balances, something else has to bound what one payer may owe (A5).
    fs::write(&file, base.replace(&rpc, "")).unwrap();
    let refused = run(shop.path(), &SERVE);
    assert!(refused.stderr.contains("neither `rpc` nor `exposure_limit`"), "{}", refused.stderr);
    let base = base.replace(&rpc, "exposure_limit = \"1.00\"\n");
    fs::write(&file, base).unwrap();
    let refused = run(shop.path(), &SERVE);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("does not settle `exact` on eip155:8453"),
        "{}",
        refused.stderr
    );
    assert_eq!(facilitator.stop("-TERM").0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settler_without_gas_is_found_out_before_anything_is_sold() {
    let directory = TempDir::new().unwrap();
    let chain = devnet(directory.path());
    let shop = shop(&chain.url);
    let online = ["config", "check", "--online", "farebox.toml"];
    assert_eq!(run(shop.path(), &online).code, 0, "with gas");

    let account = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    let poor = json!({
        "jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [account, "0x0"],
    });
    let answer = client().post(&chain.url).json(&poor).send().await.unwrap();
    assert!(answer.status().is_success());
    for arguments in [&online[..], &SERVE] {
        let ran = run(shop.path(), arguments);
        assert_eq!(ran.code, 1, "{arguments:?}: {}", ran.stdout);
        let expected = format!("no signer has money for gas; send some to {account}");
        assert!(ran.stderr.contains(&expected), "{arguments:?}: {}", ran.stderr);
    }
}

/// A node that takes the question and never answers must not keep anybody from stopping.
#[test]
fn a_start_that_hangs_can_be_stopped() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let shop = shop(&format!("http://{}", silent.local_addr().unwrap()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_farebox"))
        .args(SERVE)
        .current_dir(shop.path())
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Asked: from here on it waits.
    let asked = silent.accept().unwrap();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("stopped before anything was served"), "{said}");
    drop(asked);
}
