//! `farebox pay` buys from `farebox serve`: by `upto` and over Permit2, with an account that has
//! never had any gas, nor approved anything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use alloy_primitives::Address;
use farebox_chains::EvmKey;
use farebox_protocol::Amount;
use farebox_store::{PostgresLedger, PostgresOptions};
use farebox_testdb::PostgresServer;
use farebox_testkit::anvil::Blocks;
use farebox_testkit::evm::{EvmChain, EvmKind, settler};
use farebox_testkit::process::Process;
use farebox_testkit::upstream::{FakeUpstream, Part, Received, Script};
use serde_json::Value;
use tempfile::TempDir;

use crate::farebox::{Ran, run_with};

const PAYER: [u8; 32] = [0x42; 32];
const PAY_TO: &str = "0x00000000000000000000000000000000000000fe";
const FUNDS: u128 = 1_000_000;
/// Six tokens in, four out, at 10 and 100 dollars for a million.
const USED: u128 = 6 * 10 + 4 * 100;
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// Where the binary finds the payer's node, and nothing else.
const RPC: &str = "FAREBOX_RPC_EIP155_84532";

/// A gateway in front of a model, and a payer with tokens alone.
struct Shop {
    chain: EvmChain,
    directory: TempDir,
    url: String,
    gateway: Process,
    _model: FakeUpstream,
}

/// Says four tokens, whole or as a stream.
fn speak(asked: &Received) -> Script {
    let usage = r#""usage":{"prompt_tokens":6,"completion_tokens":4,"total_tokens":10}"#;
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    if body["stream"] == true {
        let event = r#"data: {"choices":[{"index":0,"delta":{"content":"said in four words"}}]}"#;
        let end = format!("data: {{\"choices\":[],{usage}}}\n\ndata: [DONE]\n\n");
        return Script::events(vec![Part::text(&format!("{event}\n\n")), Part::text(&end)]);
    }
    let message = r#"{"role":"assistant","content":"said in four words"}"#;
    Script::json(&format!(r#"{{"choices":[{{"index":0,"message":{message}}}],{usage}}}"#))
}

fn account() -> Address {
    Address::from(*EvmKey::from_bytes(PAYER).unwrap().address().as_bytes())
}

impl Shop {
    async fn open() -> Self {
        Self::open_on("url = \"sqlite:farebox.db\"").await
    }

    /// With a ledger there.
    async fn open_on(ledger: &str) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let chain = EvmChain::start(EvmKind::Devnet, Blocks::Instant).await.unwrap();
        chain.give_tokens(account(), Amount::from_units(FUNDS)).await.unwrap();
        let model = FakeUpstream::start(speak).await.unwrap();
        let directory = TempDir::new().unwrap();
        let chat = |path: &str, offer: &str| {
            format!(
                "[[route]]\nmatch = \"POST {path}\"\nupstream = \"llm\"\nformat = \"openai-chat\"\n\
                 price = {{ input_per_1m = \"10.00\", output_per_1m = \"100.00\" }}\noffer = {offer}\n"
            )
        };
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[ledger]\n{ledger}\n\
             [network.\"eip155:84532\"]\nrpc = [\"{}\"]\nasset = \"usdc\"\npay_to = \"{PAY_TO}\"\n\
             [facilitator]\nsigners = [{{ file = \"settler.key\" }}]\n\
             [[upstream]]\nname = \"llm\"\nurl = \"http://{}\"\n{}{}{}",
            chain.url(),
            model.address(),
            chat("/v1/chat/completions", r#"["exact", "upto"]"#),
            chat("/ceiling/v1/chat/completions", r#"["upto"]"#),
            "[[route]]\nmatch = \"POST /flat\"\nupstream = \"llm\"\n\
             price = { per_request = \"0.01\" }\noffer = [\"exact-permit2\"]\n",
        );
        let file = directory.path().join("farebox.toml");
        fs::write(&file, config).unwrap();
        secret(&directory.path().join("settler.key"), &settler().private_key_hex());
        secret(&directory.path().join("agent.key"), &hex::encode(PAYER));
        let (gateway, url) = serve(&file).await;
        Self { chain, directory, url, gateway, _model: model }
    }

    /// `farebox pay` for a chat at this path.
    async fn pay(&self, path: &str, stream: bool, extra: &[&str], rpc: Option<&str>) -> Ran {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"six"}}],"max_tokens":100,"stream":{stream}}}"#
        );
        let url = format!("{}{path}", self.url);
        let fixed = ["pay", "--key-file", "agent.key", "--json", "-d", &body, &url];
        let arguments: Vec<String> = fixed.iter().chain(extra).map(|it| (*it).to_owned()).collect();
        let variables: Vec<(String, String)> =
            rpc.iter().map(|it| (RPC.to_owned(), (*it).to_owned())).collect();
        let directory = self.directory.path().to_owned();
        // The chain lives in this process, and must go on while the binary asks it.
        let running = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let variables: Vec<(&str, &str)> =
                variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            run_with(&directory, &arguments, &variables)
        });
        running.await.unwrap()
    }

    /// Waits until the seller has so much, and asserts that the payer lost just that.
    async fn assert_earned(&self, expected: u128) {
        let seller: Address = PAY_TO.parse().unwrap();
        let arrived = tokio::time::timeout(SETTLED_WITHIN, async {
            while self.chain.tokens_of(seller).await.unwrap().units() < expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let in_time = arrived.await.is_ok();
        let earned = self.chain.tokens_of(seller).await.unwrap().units();
        let kept = self.chain.tokens_of(account()).await.unwrap().units();
        let spent = FUNDS.checked_sub(kept).unwrap();
        let log = self.gateway.output();
        assert_eq!((earned, spent), (expected, expected), "in time: {in_time}\n{log}");
    }
}

async fn serve(file: &Path) -> (Process, String) {
    let arguments = ["serve", "--config", file.to_str().unwrap()];
    let binary = Path::new(env!("CARGO_BIN_EXE_farebox"));
    Process::start(binary, &arguments, listening).await.unwrap()
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn listening(output: &str) -> Option<String> {
    let (_, rest) = output.split_once("http://127.0.0.1:")?;
    let (port, _) = rest.split_once(|it: char| !it.is_ascii_digit())?;
    (port != "0").then(|| format!("http://127.0.0.1:{port}"))
}

/// What it says, and how it ended.
#[track_caller]
fn says(ran: &Ran, code: i32, expected: &[&str]) {
    assert_eq!(ran.code, code, "{}\n{}", ran.stdout, ran.stderr);
    for text in expected {
        assert!(ran.stderr.contains(text), "no {text:?} in\n{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_without_gas_and_allowance_pays_for_what_was_used() {
    let shop = Shop::open().await;
    let chat = "/v1/chat/completions";
    let rpc = format!("eip155:84532={}", shop.chain.url());
    let with_node = ["--rpc", rpc.as_str()];

    // The node decides: `upto` on a permit, or `exact`, although that comes first.
    let dry = shop.pay(chat, false, &["--rpc", &rpc, "--dry-run"], None).await;
    let permit = "by       upto, offer 2: moved by Permit2, on a permit for this amount alone";
    says(&dry, 0, &["would pay up to 0.0", permit, "not offer 1: exact, at most $0.0", "order:"]);
    let dry = shop.pay(chat, false, &["--dry-run"], None).await;
    says(
        &dry,
        0,
        &["by       exact, offer 1: moved by the token itself", "nobody knows; see --rpc"],
    );
    shop.assert_earned(0).await;

    let bought = shop.pay(chat, false, &with_node, None).await;
    assert!(bought.stdout.contains("said in four words"), "{}", bought.stdout);
    says(&bought, 0, &["paid 0.000460 USDC (460 units)", "signed for up to 0.0", "tx       0x"]);
    // The chain has shown that no more can be charged, so nothing stays reserved.
    says(&bought, 0, &["budget   $0.049540 left\n"]);
    shop.assert_earned(USED).await;

    // A stream, with the node from the environment; the permit's nonce is the next one by now.
    let streamed = shop.pay(chat, true, &[], Some(shop.chain.url())).await;
    assert!(streamed.stdout.contains("data: [DONE]"), "{}", streamed.stdout);
    says(&streamed, 0, &["paid up to 0.0", "it settles later", "charged  460 of"]);
    shop.assert_earned(2 * USED).await;

    // A flat price over Permit2.
    let flat = shop.pay("/flat", false, &with_node, None).await;
    says(&flat, 0, &["paid 0.010000 USDC", "budget   $0.040000 left\n"]);
    shop.assert_earned(2 * USED + 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_sign_for_an_allowance_is_told_what_to_do() {
    let shop = Shop::open().await;
    let ceiling = "/ceiling/v1/chat/completions";
    let refused = shop.pay(ceiling, false, &[], None).await;
    let help = "help: Permit2 may not spend your token: give --rpc";
    says(&refused, 4, &["not charged, says the seller: permit2_allowance_required", help]);
    // Nor is the word of its owner worth more than the chain's.
    let refused = shop.pay(ceiling, false, &["--permit2-approved"], None).await;
    says(&refused, 4, &[help]);
    shop.assert_earned(0).await;
    let wrong = shop.pay(ceiling, false, &[], Some("127.0.0.1")).await;
    says(&wrong, 2, &["the environment variable FAREBOX_RPC_EIP155_84532: "]);
    let useless =
        shop.pay(ceiling, false, &["--rpc", "eip155:4242=http://127.0.0.1:1"], None).await;
    says(&useless, 2, &["--rpc eip155:4242=…: no token may be paid with there"]);
    // Without a node that answers there is nothing better than to try.
    let silent = shop.pay(ceiling, false, &[], Some("http://127.0.0.1:1")).await;
    says(&silent, 4, &[help]);
    shop.assert_earned(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_share_a_database_sell_and_settle_from_it() {
    let server = PostgresServer::start_in_memory().unwrap();
    let address = server.database().await.unwrap();
    let place = TempDir::new().unwrap();
    let file = place.path().join("ledger.url");
    secret(&file, &address);
    let ledger = format!("url = {{ file = \"{}\" }}\nnode = \"a\"", file.display());
    let mut shop = Shop::open_on(&ledger).await;
    let chat = "/v1/chat/completions";
    says(&shop.pay(chat, false, &[], None).await, 0, &[]);
    says(&shop.pay(chat, true, &[], None).await, 0, &[]);
    // Another node of another name, on the same database.
    let config = shop.directory.path().join("farebox.toml");
    let of_b = fs::read_to_string(&config).unwrap().replace("node = \"a\"", "node = \"b\"");
    let config_b = shop.directory.path().join("b.toml");
    fs::write(&config_b, of_b).unwrap();
    let (b, url) = serve(&config_b).await;
    shop.url = url;
    says(&shop.pay(chat, false, &[], None).await, 0, &[]);
    let same = ["config", "check", config.to_str().unwrap()];
    let ran = run_with(shop.directory.path(), &same, &[]);
    says(&ran, 0, &[]);
    assert!(ran.stdout.contains("PostgreSQL, as node a"), "{}", ran.stdout);
    drop((shop.gateway, b));
    let ledger = PostgresLedger::open(PostgresOptions::new(address, "a")).await.unwrap();
    let report = ledger.check().await.unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    let [settled] = report.totals.as_slice() else { panic!("{:?}", report.totals) };
    assert_eq!((settled.state, settled.payments), ("settled", 3));
    let seller: Address = PAY_TO.parse().unwrap();
    assert_eq!(shop.chain.tokens_of(seller).await.unwrap(), settled.units);
}
