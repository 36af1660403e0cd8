//! `farebox serve` as a process, while it sells: how it stops, and what its log never tells.

use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use farebox_billing::Payment;
use farebox_chains::{AuthorizationWindow, EvmKey, sign_exact};
use farebox_gateway::{Clock as _, SystemClock};
use farebox_protocol::wire::{Object, PaymentPayload, PaymentRequired};
use farebox_protocol::{Amount, Timestamp, header};
use farebox_store::{Ledger as _, SqliteLedger, SqliteOptions, StoredPayment};
use farebox_testkit::anvil::Blocks;
use farebox_testkit::evm::{EvmChain, EvmKind, payer, settler};
use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{FakeUpstream, Part, Received, Script};
use reqwest::{RequestBuilder, Response, StatusCode};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &str = "upstream-key-canary-5d41402abc4b2a76b9719d911017c592";
/// Nobody who has tokens already.
const PAY_TO: &str = "0x00000000000000000000000000000000000000fe";
const PROMPT: &str = "prompt-canary-7d793037a0760186574b0282f2f435e7";
const ANSWER: &str = "answer-canary-e4da3b7fbbce2345d7772b0674a318d5";
const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"answer-canary-e4da3b7fbbce2345d7772b0674a318d5\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A chain, an upstream, and a directory with a configuration.
struct Shop {
    chain: EvmChain,
    upstream: FakeUpstream,
    directory: TempDir,
    http: reqwest::Client,
}

/// The binary; killed with the test where it has not ended.
struct Gateway {
    child: Child,
    url: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

impl Gateway {
    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap()
    }
}

impl Shop {
    async fn open(
        lame_duck: &str,
        decide: impl Fn(&Received) -> Script + Send + Sync + 'static,
    ) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let chain = EvmChain::start(EvmKind::Devnet, Blocks::Instant).await.unwrap();
        chain.give_tokens(payer().address, Amount::from_units(10_000_000)).await.unwrap();
        let upstream = FakeUpstream::start(decide).await.unwrap();
        let directory = TempDir::new().unwrap();
        let listen = "listen = \"127.0.0.1:8402\"";
        let config = include_str!("config/good.toml")
            .replace(listen, &format!("listen = \"127.0.0.1:0\"\nlame_duck = \"{lame_duck}\""))
            .replace("http://127.0.0.1:8545", chain.url())
            .replace("http://127.0.0.1:8000", &format!("http://{}", upstream.address()))
            .replace("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", PAY_TO)
            .replace(
                "api_key = { file = \"settler.key\" }",
                "api_key = { file = \"upstream.key\" }",
            );
        fs::write(directory.path().join("farebox.toml"), config).unwrap();
        for (name, secret) in
            [("settler.key", settler().private_key_hex()), ("upstream.key", KEY.to_owned())]
        {
            let file = directory.path().join(name);
            fs::write(&file, secret).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        }
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { chain, upstream, directory, http }
    }

    fn serve(&self, arguments: &[&str]) -> Gateway {
        self.run("serve", arguments)
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Gateway {
        let log = File::create(self.directory.path().join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_farebox"))
            .args([command, "--config", "farebox.toml"])
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|it| it.unwrap().split("http://").nth(1).map(ToOwned::to_owned));
        let Some(address) = line else { panic!("it did not start: {}", self.log()) };
        std::thread::spawn(move || lines.for_each(drop));
        Gateway { child, url: format!("http://{}", address.trim()) }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn chat(&self, gateway: &Gateway, stream: bool) -> RequestBuilder {
        let body = format!(
            "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{PROMPT}\"}}],\
             \"max_tokens\":100,\"stream\":{stream}}}"
        );
        self.http.post(format!("{}/v1/chat/completions", gateway.url)).body(body)
    }

    async fn status(&self, gateway: &Gateway, path: &str) -> StatusCode {
        self.http.get(format!("{}{path}", gateway.url)).send().await.unwrap().status()
    }

    /// Asks, signs, and pays; and the payment that it paid with.
    async fn buy(&self, gateway: &Gateway, stream: bool, nonce: u8) -> (Response, PaymentPayload) {
        let asked = self.chat(gateway, stream).send().await.unwrap();
        assert_eq!(asked.status(), StatusCode::PAYMENT_REQUIRED);
        let offers = asked.headers()["payment-required"].as_bytes();
        let offers = header::decode::<PaymentRequired>(offers).unwrap();
        let payment = sign(&offers.value().accepts[0], nonce);
        let value = header::encode(&payment).unwrap();
        let answer = self.chat(gateway, stream).header("payment-signature", value).send();
        (answer.await.unwrap(), payment)
    }

    /// What the ledger has, once the gateway has ended.
    async fn payments(&self) -> Vec<StoredPayment> {
        let file = self.directory.path().join("farebox.db");
        let ledger = SqliteLedger::open(file, SqliteOptions::default()).unwrap();
        let _recovered = ledger.recover(SystemClock.now()).await.unwrap();
        ledger.list(None, 10).await.unwrap()
    }
}

fn sign(offer: &farebox_protocol::wire::PaymentRequirements, nonce: u8) -> PaymentPayload {
    let mut key = [0; 32];
    let digits = payer().private_key_hex();
    hex::decode_to_slice(digits.trim_start_matches("0x"), &mut key).unwrap();
    let valid_before = SystemClock.now().plus(Duration::from_secs(offer.max_timeout_seconds));
    let window = AuthorizationWindow { valid_after: Timestamp::from_seconds(0), valid_before };
    let key = EvmKey::from_bytes(key).unwrap();
    PaymentPayload {
        x402_version: 2,
        payload: sign_exact(&key, offer, window, [nonce; 32]).unwrap(),
        resource: None,
        accepted: offer.clone(),
        extensions: None,
        rest: Object::new(),
    }
}

/// A stream that stops in its middle until the gate opens.
fn gated(gate: &Arc<Gate>) -> impl Fn(&Received) -> Script + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move |_| {
        let wait = Part::Wait(Arc::clone(&gate));
        Script::events(vec![Part::text(EVENT), wait, Part::text(DONE)])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_announces_the_end_serves_on_and_finishes_what_was_paid_for() {
    let gate = Arc::new(Gate::default());
    let shop = Shop::open("2s", gated(&gate)).await;
    let mut gateway = shop.serve(&[]);
    let (mut stream, _) = shop.buy(&gateway, true, 1).await;
    assert_eq!(stream.status(), StatusCode::OK);
    assert_eq!(stream.chunk().await.unwrap().unwrap(), EVENT);
    assert_eq!(shop.status(&gateway, "/readyz").await, StatusCode::OK);
    gateway.signal("-TERM");
    let announced = async {
        while shop.status(&gateway, "/readyz").await != StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, announced).await.unwrap();
    // Whoever has not noticed yet is served all the same.
    assert_eq!(shop.status(&gateway, "/premium/x").await, StatusCode::PAYMENT_REQUIRED);
    gate.open();
    let mut rest = Vec::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        rest.extend(chunk);
    }
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.ends_with(DONE), "{rest}");
    assert!(gateway.ended().await.success(), "{}", shop.log());
    let payments = shop.payments().await;
    let [payment] = payments.as_slice() else { panic!("{payments:?}") };
    let Payment::Settled { charge, .. } = &payment.state else { panic!("{payment:?}") };
    let seller = payment.terms.pay_to.parse().unwrap();
    assert_eq!(shop.chain.tokens_of(seller).await.unwrap(), *charge);
}

/// The first payment is too late to learn that nobody settles it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_settles_through_a_facilitator_that_knows_its_key_and_starts_by_no_other() {
    const NAMED: &str = "[{ name = \"shop\", key = { file = \"shop.key\" } }]";
    let answer = r#"{"choices":[{"message":{"content":"hi"}}]}"#;
    let shop = Shop::open("0s", move |_| Script::json(answer)).await;
    let secret = |name: &str, key: &str| {
        let file = shop.directory.path().join(name);
        fs::write(&file, key).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    };
    secret("shop.key", "key-of-the-shop-0123456789");
    secret("wrong.key", "key-of-nobody-0123456789");
    let file = shop.directory.path().join("farebox.toml");
    let local = fs::read_to_string(&file).unwrap();
    let signers = "signers = [{ file = \"settler.key\" }]";
    fs::write(&file, local.replace(signers, &format!("{signers}\nkeys = {NAMED}"))).unwrap();
    let facilitator = shop.run("facilitator", &[]);
    let through = |key: &str| {
        let url = format!("url = [\"{}\"]", facilitator.url);
        fs::write(&file, local.replace(signers, &format!("{url}\n{key}"))).unwrap();
    };
    for (key, words) in [
        ("", "asks for a key (HTTP status 401)"),
        ("api_key = { file = \"wrong.key\" }", "does not accept the key"),
    ] {
        through(key);
        let ran = Command::new(env!("CARGO_BIN_EXE_farebox"))
            .args(["serve", "--config", "farebox.toml"])
            .current_dir(shop.directory.path())
            .env_clear()
            .output()
            .unwrap();
        assert!(!ran.status.success());
        let told = String::from_utf8(ran.stderr).unwrap();
        assert!(told.contains(words) && told.contains("127.0.0.1"), "{key}: {told}");
        assert!(!told.contains("key-of"), "{told}");
    }
    through("api_key = { file = \"shop.key\" }");
    let mut gateway = shop.serve(&[]);
    assert_eq!(shop.status(&gateway, "/readyz").await, StatusCode::OK);
    let (answer, _) = shop.buy(&gateway, false, 1).await;
    assert_eq!(answer.status(), StatusCode::OK, "{}", shop.log());
    assert!(answer.headers().contains_key("payment-response"));
    gateway.signal("-TERM");
    assert!(gateway.ended().await.success(), "{}", shop.log());
    let payments = shop.payments().await;
    let [payment] = payments.as_slice() else { panic!("{payments:?}") };
    let Payment::Settled { charge, .. } = &payment.state else { panic!("{payment:?}") };
    let seller = payment.terms.pay_to.parse().unwrap();
    assert_eq!(shop.chain.tokens_of(seller).await.unwrap(), *charge);
}

/// The file of a gateway is good for a facilitator alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_alone_asks_for_keys_and_announces_its_end() {
    let shop = Shop::open("2s", |_| Script::json("{}")).await;
    let file = shop.directory.path().join("farebox.toml");
    let config = fs::read_to_string(&file).unwrap();
    let signers = "signers = [{ file = \"settler.key\" }]";
    assert!(config.contains(signers));
    let keys = "keys = [{ name = \"shop\", key = { file = \"upstream.key\" } }]";
    let limits = "[limits]\nrequest_bytes_max = \"1KiB\"";
    let config = format!("{}\n{limits}\n", config.replace(signers, &format!("{signers}\n{keys}")));
    fs::write(&file, config).unwrap();
    let mut facilitator = shop.run("facilitator", &[]);
    let settle = |length: usize| {
        shop.http.post(format!("{}/settle", facilitator.url)).body(" ".repeat(length))
    };
    let (strange, known) = (settle(9).send(), settle(9).bearer_auth(KEY).send());
    assert_eq!(strange.await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(known.await.unwrap().status(), StatusCode::BAD_REQUEST);
    let large = settle(1_025).bearer_auth(KEY).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(shop.status(&facilitator, "/readyz").await, StatusCode::NO_CONTENT);
    facilitator.signal("-TERM");
    let announced = async {
        while shop.status(&facilitator, "/readyz").await != StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, announced).await.unwrap();
    assert_eq!(shop.status(&facilitator, "/supported").await, StatusCode::OK);
    assert!(facilitator.ended().await.success(), "{}", shop.log());
    assert!(!shop.log().contains(KEY), "{}", shop.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once_and_recovery_charges_what_left() {
    for lame_duck in ["1h", "0s"] {
        let gate = Arc::new(Gate::default());
        let shop = Shop::open(lame_duck, gated(&gate)).await;
        let mut gateway = shop.serve(&[]);
        let (mut stream, _) = shop.buy(&gateway, true, 1).await;
        assert_eq!(stream.chunk().await.unwrap().unwrap(), EVENT);
        gateway.signal("-TERM");
        let begun = async {
            while !shop.log().contains("stopping: running requests are finished") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, begun).await.unwrap();
        assert!(gateway.child.try_wait().unwrap().is_none(), "the stream is still running");
        gateway.signal("-INT");
        assert_eq!(gateway.ended().await.code(), Some(1), "{lame_duck}: {}", shop.log());
        assert!(shop.log().contains("stopped at once"), "{}", shop.log());
        let payments = shop.payments().await;
        let [payment] = payments.as_slice() else { panic!("{payments:?}") };
        assert_eq!(payment.state, Payment::Captured { charge: payment.terms.limit });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_does_not_wait_for_load_balancers() {
    let shop = Shop::open("1h", |_| Script::json("{}")).await;
    let mut gateway = shop.serve(&[]);
    assert_eq!(shop.status(&gateway, "/healthz").await, StatusCode::OK);
    gateway.signal("-INT");
    assert!(gateway.ended().await.success(), "{}", shop.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a30_no_log_tells_prompts_answers_payments_or_keys() {
    let shop = Shop::open("0s", |request| {
        if request.body.windows(13).any(|it| it == b"\"stream\":true") {
            Script::events(vec![Part::text(EVENT), Part::text(DONE)])
        } else {
            Script::json(&format!("{{\"choices\":[{{\"message\":{{\"content\":\"{ANSWER}\"}}}}]}}"))
        }
    })
    .await;
    let mut gateway = shop.serve(&["--log", "trace"]);
    let mut secrets = vec![
        KEY.to_owned(),
        PROMPT.to_owned(),
        ANSWER.to_owned(),
        settler().private_key_hex().trim_start_matches("0x").to_owned(),
    ];
    let mut told = |payment: &PaymentPayload| {
        let encoded = header::encode(payment).unwrap();
        let signature = payment.payload["signature"].as_str().unwrap();
        // Any longer piece of them would be as bad as the whole.
        let pieces = [encoded.get(200..240), signature.get(20..60)];
        secrets.extend(pieces.map(|it| it.unwrap().to_owned()));
    };
    for (stream, nonce) in [(false, 1), (true, 2)] {
        let (answer, payment) = shop.buy(&gateway, stream, nonce).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.text().await.unwrap().contains(ANSWER));
        told(&payment);
        let again = header::encode(&payment).unwrap();
        let again = shop.chat(&gateway, stream).header("payment-signature", again).send().await;
        assert_eq!(again.unwrap().status(), StatusCode::CONFLICT);
    }
    // Signed by somebody else than it says.
    let (_, mut forged) = shop.buy(&gateway, false, 3).await;
    let from = "0x1111111111111111111111111111111111111111";
    forged.payload["authorization"]["from"] = from.into();
    forged.payload["authorization"]["nonce"] = format!("0x{}", "09".repeat(32)).into();
    let refused = shop.chat(&gateway, false);
    let refused = refused.header("payment-signature", header::encode(&forged).unwrap()).send();
    assert_eq!(refused.await.unwrap().status(), StatusCode::PAYMENT_REQUIRED);
    told(&forged);
    assert!(shop.upstream.received().iter().all(|it| {
        it.headers.get("authorization").is_some_and(|it| it == format!("Bearer {KEY}").as_str())
    }));
    gateway.signal("-TERM");
    assert!(gateway.ended().await.success());
    let log = shop.log();
    assert!(log.contains("\"TRACE\"") && log.contains("\"outcome\":\"settled\""), "{log}");
    for secret in secrets {
        let found = log.lines().find(|it| it.contains(&secret));
        assert!(found.is_none(), "{secret} in {found:?}");
    }
}

/// The whole way back: a ledger is lost, a backup restored; nothing is sold until that is accepted, and
/// what was forgotten buys nothing a second time once it is on chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_ledger_sells_nothing_until_it_is_accepted() {
    let answer = "{\"choices\":[{\"message\":{\"content\":\"x\"}}]}";
    let shop = Shop::open("0s", move |_| Script::json(answer)).await;
    let at = shop.directory.path();
    let ledger = |arguments: &[&str]| {
        let all = [&["ledger"], arguments, &["--config", "farebox.toml"]].concat();
        crate::farebox::run(at, &all)
    };
    let mut gateway = shop.serve(&[]);
    assert_eq!(shop.buy(&gateway, false, 1).await.0.status(), StatusCode::OK);
    let ran = ledger(&["backup", "backup.db"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (answer, forgotten) = shop.buy(&gateway, false, 2).await;
    assert_eq!(answer.status(), StatusCode::OK);
    gateway.signal("-INT");
    assert!(gateway.ended().await.success(), "{}", shop.log());
    // The log belongs to the lost file.
    for log in ["farebox.db-wal", "farebox.db-shm"] {
        drop(fs::remove_file(at.join(log)));
    }
    fs::rename(at.join("backup.db"), at.join("farebox.db")).unwrap();

    let ran = ledger(&["accept-restore", "--early"]);
    assert!(ran.code == 1 && ran.stderr.contains("nothing, and looks up"), "{}", ran.stderr);
    let mut gateway = shop.serve(&[]);
    assert!(shop.log().contains("the ledger is in quarantine"), "{}", shop.log());
    let ready = shop.http.get(format!("{}/readyz", gateway.url)).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().await.unwrap().contains("in quarantine"));
    let paid = |gateway: &Gateway| {
        let value = header::encode(&forgotten).unwrap();
        shop.chat(gateway, false).header("payment-signature", value).send()
    };
    for refused in [shop.chat(&gateway, false).send(), paid(&gateway)] {
        let refused = refused.await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        assert!(!refused.headers().contains_key("payment-required"));
    }
    let ran = ledger(&["accept-restore", "--early"]);
    assert!(ran.code == 1 && ran.stderr.contains("(process "), "{}", ran.stderr);
    gateway.signal("-INT");
    assert!(gateway.ended().await.success(), "{}", shop.log());

    let ran = ledger(&["accept-restore"]);
    assert!(ran.code == 1 && ran.stderr.contains("come again after 20"), "{}", ran.stderr);
    let ran = ledger(&["accept-restore", "--early"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let mut gateway = shop.serve(&[]);
    assert_eq!(shop.status(&gateway, "/readyz").await, StatusCode::OK);
    let again = paid(&gateway).await.unwrap();
    assert_eq!(again.status(), StatusCode::PAYMENT_REQUIRED, "its nonce is used on chain");
    assert_eq!(shop.upstream.received().len(), 2);
    assert_eq!(shop.buy(&gateway, false, 3).await.0.status(), StatusCode::OK);
    gateway.signal("-INT");
    assert!(gateway.ended().await.success(), "{}", shop.log());
    assert_eq!(ledger(&["check"]).code, 0);
}
