//! Every exit code, against a seller on this machine.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use clap::Parser;
use farebox_protocol::header;
use futures_util::{StreamExt as _, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;

const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const TRANSACTION: &str = "0xa7227545fdf08b8326e0d1290123ab278f47b25910dbe239b8a9a6d8c019f32c";

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    pay: PayArgs,
}

/// How the seller takes a payment.
#[derive(Clone, Copy, Debug)]
enum Selling {
    /// Asks for nothing.
    Free(StatusCode),
    /// Settles, and answers so.
    Honest(StatusCode),
    /// Answers without a receipt, as streams do.
    Later,
    /// Says why not.
    Rejects,
    /// Breaks.
    Breaks,
    /// Settles, promises more than it sends, and closes.
    CutsOff,
}

async fn sell(
    State(selling): State<Selling>,
    method: Method,
    headers: reqwest::header::HeaderMap,
    body: Bytes,
) -> Response {
    let demand = |error: &str| {
        let offer = json!({
            "scheme": "exact", "network": "eip155:84532", "amount": "10000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "maxTimeoutSeconds": 60,
            "extra": { "name": "USDC", "version": "2" },
        });
        let required = json!({
            "x402Version": 2, "error": error, "resource": { "url": "u" }, "accepts": [offer],
        });
        let value = header::encode(&required).unwrap();
        (StatusCode::PAYMENT_REQUIRED, [("payment-required", value)], "pay").into_response()
    };
    let kind = headers.get("content-type").map_or("", |it| it.to_str().unwrap());
    let said = format!("{method} {kind} {}\n", String::from_utf8_lossy(&body));
    let Some(payment) = headers.get("payment-signature") else {
        return match selling {
            Selling::Free(status) => (status, said).into_response(),
            Selling::Honest(_)
            | Selling::Later
            | Selling::Rejects
            | Selling::Breaks
            | Selling::CutsOff => demand("Payment required"),
        };
    };
    let payment = header::decode::<Value>(payment.as_bytes()).unwrap();
    let receipt = header::encode(&json!({
        "success": true, "transaction": TRANSACTION, "network": "eip155:84532",
        "payer": payment.value()["payload"]["authorization"]["from"],
    }));
    let receipt = [("payment-response", receipt.unwrap())];
    match selling {
        Selling::Free(status) => (status, said).into_response(),
        Selling::Honest(status) => (status, receipt, said).into_response(),
        Selling::Later => said.into_response(),
        // A terminal must not act on what a seller writes.
        Selling::Rejects => demand("insufficient_funds\u{1b}[2J"),
        Selling::Breaks => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Selling::CutsOff => {
            let half = stream::once(async { Ok(Bytes::from("half")) });
            // What is there is sent while the rest is waited for.
            let cut = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::other("cut"))
            });
            (receipt, axum::body::Body::from_stream(half.chain(cut))).into_response()
        }
    }
}

/// What a run wrote, and how it ended.
struct Ran {
    exit: PayExit,
    answer: String,
    report: String,
}

/// Runs `pay` with these arguments (`URL` is the seller, `DIR` a fresh directory with `key`).
async fn run_in(directory: &Path, selling: Selling, args: &[&str]) -> Ran {
    drop(rustls::crypto::ring::default_provider().install_default());
    let key = directory.join("key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let router = Router::new().fallback(sell).with_state(selling);
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
    let args = args.iter().map(|it| {
        it.replace("URL", &format!("http://{address}/x"))
            .replace("DIR", directory.to_str().unwrap())
    });
    let cli = Cli::try_parse_from(std::iter::once("pay".to_owned()).chain(args)).unwrap();
    let (mut answer, mut report) = (Vec::new(), Vec::new());
    let exit = run(&cli.pay, Out { answer: &mut answer, report: &mut report }).await;
    stop.cancel();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { exit, answer: text(answer), report: text(report) }
}

async fn check(selling: Selling, args: &[&str], exit: PayExit, expected: [&str; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let ran = run_in(directory.path(), selling, args).await;
    assert_eq!(ran.exit, exit, "{args:?}: {}", ran.report);
    assert!(ran.answer.contains(expected[0]), "{args:?}: {}", ran.answer);
    assert!(ran.report.contains(expected[1]), "{args:?}: {}", ran.report);
    assert!(!ran.report.contains(KEY.split_at(16).0) && !ran.report.contains('\u{1b}'));
}

const PAYING: [&str; 3] = ["--key-file", "DIR/key", "URL"];

#[tokio::test]
async fn every_exit_code() {
    let ok = StatusCode::OK;
    check(Selling::Honest(ok), &PAYING, PayExit::Answered, ["GET", "paid 0.010000 USDC"]).await;
    check(Selling::Honest(ok), &PAYING, PayExit::Answered, ["GET", TRANSACTION]).await;
    check(Selling::Honest(ok), &PAYING, PayExit::Answered, ["", "$0.040000 left"]).await;
    check(Selling::Later, &PAYING, PayExit::Answered, ["GET", "it settles later"]).await;
    check(Selling::Free(ok), &PAYING, PayExit::Answered, ["GET", ""]).await;
    check(Selling::Free(StatusCode::NOT_FOUND), &PAYING, PayExit::HttpError, ["GET", ""]).await;
    let teapot = StatusCode::IM_A_TEAPOT;
    check(Selling::Honest(teapot), &PAYING, PayExit::HttpError, ["GET", "paid 0.01"]).await;
    let rejected = "not charged, says the seller: insufficient_funds\\u{1b}[2J";
    check(Selling::Rejects, &PAYING, PayExit::Rejected, ["pay", rejected]).await;
    check(Selling::Breaks, &PAYING, PayExit::Unknown, ["", "UNKNOWN whether charged"]).await;
    check(Selling::CutsOff, &PAYING, PayExit::AnswerLost, ["half", "paid 0.010000"]).await;
    check(Selling::Honest(ok), &["URL"], PayExit::Usage, ["", "a key is needed"]).await;
    let unreachable = ["--key-file", "DIR/key", "http://127.0.0.1:1/"];
    check(Selling::Later, &unreachable, PayExit::Failed, ["", "nothing was signed"]).await;
    let none = ["--key-file", "DIR/none", "URL"];
    check(Selling::Honest(ok), &none, PayExit::Failed, ["", "cannot read"]).await;
    check(Selling::Later, &["ftp://x/"], PayExit::Usage, ["", "expected a URL with http"]).await;
}

#[tokio::test]
async fn caps_and_networks_are_kept() {
    let refused = async |extra: &[&str], expected: &str| {
        let args = [&PAYING[..], extra].concat();
        let honest = Selling::Honest(StatusCode::OK);
        check(honest, &args, PayExit::Refused, ["", expected]).await;
    };
    refused(&["--max-payment", "0.009999"], "$0.010000 is over the cap of $0.009999").await;
    refused(&["--budget", "0.005"], "left of the budget of $0.005000").await;
    refused(&["--network", "eip155:8453"], "offer 1: network: expected one").await;
    refused(&["--max-validity", "30"], "expected 10 to 30, found 60").await;
    let args = [&PAYING[..], &["--network", "eip155:4"]].concat();
    check(Selling::Later, &args, PayExit::Usage, ["", "no token is known there"]).await;
}

#[tokio::test]
async fn a_dry_run_pays_nothing_and_needs_no_key() {
    let honest = Selling::Honest(StatusCode::OK);
    let would = "would pay 0.010000 USDC (10000 units) on eip155:84532";
    check(honest, &["--dry-run", "URL"], PayExit::Answered, ["", would]).await;
    let capped = ["--dry-run", "--max-payment", "0.001", "URL"];
    check(honest, &capped, PayExit::Refused, ["", "over the cap"]).await;
    let free = Selling::Free(StatusCode::OK);
    check(free, &["--dry-run", "URL"], PayExit::Answered, ["", "nothing to pay"]).await;
}

#[tokio::test]
async fn requests_in_the_words_of_curl() {
    let told = async |extra: &[&str], expected: &str| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("body"), "{\"a\":\n1}").unwrap();
        let args = [&PAYING[..], extra].concat();
        let ran = run_in(directory.path(), Selling::Honest(StatusCode::OK), &args).await;
        assert!(ran.answer.contains(expected), "{extra:?}: {}", ran.answer);
    };
    told(&["-d", "a=1", "-d", "b=2"], "POST application/x-www-form-urlencoded a=1&b=2\n").await;
    told(&["--json", "-d", "@DIR/body"], "POST application/json {\"a\":\n1}\n").await;
    told(&["-X", "PUT", "-d", "x", "-H", "content-type: text/plain"], "PUT text/plain x\n").await;
    told(&["-i"], "HTTP/1.1 200 OK\n").await;
    told(&["-i"], "payment-response: ").await;
}

#[tokio::test]
async fn the_answer_can_go_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let args = [&PAYING[..], &["-o", "DIR/answer"]].concat();
    let ran = run_in(directory.path(), Selling::Honest(StatusCode::OK), &args).await;
    assert_eq!((ran.exit, ran.answer.as_str()), (PayExit::Answered, ""));
    let answer = fs::read_to_string(directory.path().join("answer")).unwrap();
    assert!(answer.starts_with("GET"), "{answer}");
    // A file that cannot be written is noticed before anything is paid.
    let args = [&PAYING[..], &["-o", "DIR/none/answer"]].concat();
    let ran = run_in(directory.path(), Selling::Honest(StatusCode::OK), &args).await;
    assert_eq!(ran.exit, PayExit::Failed);
    assert!(!ran.report.contains("paid"), "{}", ran.report);
}

#[test]
fn keys_exclude_each_other() {
    let parse = |args: &[&str]| Cli::try_parse_from([&["pay", "http://x/"], args].concat()).is_ok();
    assert!(parse(&["--key-file", "k"]));
    assert!(parse(&["--keystore", "k", "--password-file", "p"]));
    assert!(!parse(&["--key-file", "k", "--key-env", "K"]));
    assert!(!parse(&["--keystore", "k", "--password-file", "p", "--password-env", "P"]));
    assert!(!parse(&["--key-file", "k", "--password-file", "p"]));
    assert!(!parse(&["-H", "no colon"]));
    assert!(!parse(&["--max-payment", "1e3"]));
}
