//! `farebox ledger` as a process, beside whoever has the ledger open.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use farebox_billing::Release;
use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId, Timestamp};
use farebox_store::{
    Admit, Admitted, AnswerMark, Hold, Ledger as _, Resolution, SettleMode, SqliteLedger,
    SqliteOptions, Terms,
};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::farebox::{Ran, run};

const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const STRANGE: &str = "0x00000000000000000000000000000000000000aa";
const PAYER: &str = "0xAb5801a7D398351b8bE11C439e05C5B3259aeC9B";
/// 2026-11-21T00:00:00Z.
const MIDNIGHT: u64 = 1_795_219_200_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(MIDNIGHT).plus(Duration::from_millis(millis))
}

fn id(number: u8) -> PaymentId {
    PaymentId::from_bytes([number; 32])
}

fn terms(number: u8, token: &str) -> Terms {
    Terms {
        id: id(number),
        fingerprint: Digest::of(&[number]),
        route: "POST /v1/chat/completions".to_owned(),
        scheme: "exact".to_owned(),
        asset: Asset::new(Network::eip155(84532), token).unwrap(),
        payer: PAYER.to_owned(),
        pay_to: "0x2222222222222222222222222222222222222222".to_owned(),
        limit: Amount::from_units(10_000),
        settle: SettleMode::Background,
        price_version: "v1".to_owned(),
        settle_by: at(300_000),
        payload: "{\"signature\":\"canary\"}".to_owned(),
        requirements: "{}".to_owned(),
    }
}

/// A ledger that is open, as a gateway's is, with a payment in each of four states.
struct Shop {
    directory: TempDir,
    ledger: SqliteLedger,
}

impl Shop {
    fn file(&self) -> PathBuf {
        self.directory.path().join("farebox.db")
    }

    fn run(&self, arguments: &str) -> Ran {
        let mut all = vec!["ledger"];
        all.extend(arguments.split_whitespace());
        all.extend(["--data-dir", "."]);
        run(self.directory.path(), &all)
    }

    fn json(&self, arguments: &str) -> Value {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    async fn open() -> Self {
        let directory = TempDir::new().unwrap();
        let ledger =
            SqliteLedger::open(directory.path().join("farebox.db"), SqliteOptions::default());
        let shop = Self { directory, ledger: ledger.unwrap() };
        let held = shop.hold(terms(1, USDC), 0).await;
        shop.ledger.release(&held, Release::UpstreamFailed, at(5)).await.unwrap();
        drop(shop.hold(terms(2, USDC), 10).await);
        for number in [3, 4] {
            let hold = shop.hold(terms(number, USDC), 20).await;
            shop.ledger.begin_serve(&hold, at(21)).await.unwrap();
            let charge = Amount::from_units(1_234);
            let mark = AnswerMark::Sent;
            drop(shop.ledger.capture(hold, charge, mark, at(22)).await.unwrap());
            assert_eq!(shop.ledger.lease_jobs(Some(id(number)), 1, at(23)).await.unwrap().len(), 1);
        }
        let settled = Resolution::Settled { transaction: "0xbeef".to_owned() };
        drop(shop.ledger.resolve_job(id(3), settled, at(2_000)).await.unwrap());
        let rejected = Resolution::Rejected { reason: "=1+1, \"expired\"".to_owned() };
        drop(shop.ledger.resolve_job(id(4), rejected, at(2_000)).await.unwrap());
        drop(shop.hold(Terms { route: "GET /b".to_owned(), ..terms(5, STRANGE) }, 3_600_000).await);
        shop
    }

    async fn hold(&self, terms: Terms, millis: u64) -> Hold {
        let ask = Admit { terms, keys: Vec::new(), exposure_limit: None, now: at(millis) };
        match self.ledger.admit(ask).await.unwrap() {
            Admitted::New(hold) => hold,
            Admitted::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
}

#[tokio::test]
async fn a_payment_has_its_whole_story() {
    let shop = Shop::open().await;
    let ran = shop.run(&format!("payment {}", id(3)));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("ledger_payment", ran.stdout);
    let told = shop.json(&format!("payment {} --json", id(4)));
    assert_eq!(told["payment"]["state"], "lost");
    assert_eq!(told["payment"]["limit_units"], "10000");
    assert_eq!(told["payment"]["decimals"], 6);
    assert_eq!(told["settlements"][0]["status"], "done");
    let states: Vec<_> =
        told["journal"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["held", "serving", "captured", "captured", "settling", "lost"]);
    assert_eq!(told["journal"][2]["at"], "2026-11-21T00:00:00.022Z");
    let ran = shop.run(&format!("payment {}", id(9)));
    assert_eq!((ran.code, ran.stdout.as_str()), (4, ""));
    assert_eq!(shop.run("payment 12").code, 2);
}

#[tokio::test]
async fn lists_and_balances_are_readable() {
    let shop = Shop::open().await;
    insta::assert_snapshot!("ledger_list", shop.run("list").stdout);
    insta::assert_snapshot!("ledger_balances", shop.run("balances").stdout);
    let told = shop.json("balances --json");
    let settled = told["payments"].as_array().unwrap().iter().find(|it| it["state"] == "settled");
    assert_eq!(settled.unwrap()["units"], "1234");
    let accounts = told["accounts"].as_array().unwrap();
    let account = |name: &str| accounts.iter().find(|it| it["account"] == name).unwrap();
    assert_eq!(account("chain:0x2222222222222222222222222222222222222222")["decimals"], 6);
    assert_eq!(account("loss:*")["debits_posted_units"], "1234");
    let each = shop.run("balances --each-payer").stdout;
    assert!(each.contains(&format!("loss:{}", PAYER.to_ascii_lowercase())), "{each}");
    let two = shop.json("list --limit 2 --json");
    assert_eq!((two["payments"].as_array().unwrap().len(), &two["more"]), (2, &Value::Bool(true)));
    assert_eq!(two["payments"][0]["payment"], id(5).to_string());
    assert_eq!(two["payments"][0]["decimals"], Value::Null, "nobody knows this token");
}

#[tokio::test]
async fn filters_leave_what_they_say() {
    let shop = Shop::open().await;
    let lower = PAYER.to_ascii_lowercase();
    let cases: [(&str, &[u8]); 8] = [
        ("--state held", &[2, 5]),
        ("--state released", &[1]),
        ("--route GET_/b", &[5]),
        ("--payer 0x1111111111111111111111111111111111111111", &[]),
        (&format!("--payer {lower}"), &[1, 2, 3, 4, 5]),
        ("--since 2026-11-21T00:00:00.020Z", &[3, 4, 5]),
        ("--since 2026-11-21 --until 2026-11-21T00:00:00.020Z", &[1, 2]),
        ("--state lost --since 2026-11-22", &[]),
    ];
    for (filter, expected) in cases {
        let mut arguments = vec!["ledger", "export", "--format", "jsonl", "--data-dir", "."];
        let words: Vec<String> =
            filter.split_whitespace().map(|it| it.replace("GET_", "GET ")).collect();
        arguments.extend(words.iter().map(String::as_str));
        let ran = run(shop.directory.path(), &arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{filter}");
        let lines = ran.stdout.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
        let found: Vec<_> = lines.map(|it| it["payment"].as_str().unwrap().to_owned()).collect();
        let expected: Vec<_> = expected.iter().map(|it| id(*it).to_string()).collect();
        assert_eq!(found, expected, "{filter}");
    }
    for wrong in ["--state gone", "--since yesterday", "--limit 0"] {
        assert_eq!(shop.run(&format!("list {wrong}")).code, 2, "{wrong}");
    }
    assert_eq!(shop.run("export journal --state held").code, 1);
}

/// Others rely on names and order.
#[tokio::test]
async fn exports_keep_their_columns() {
    let shop = Shop::open().await;
    let payments = shop.run("export").stdout;
    insta::assert_snapshot!("ledger_export", payments);
    assert!(!payments.contains("canary"), "a payload is a signature");
    insta::assert_snapshot!("ledger_export_journal", shop.run("export journal").stdout);
    let lines = shop.run("export journal --format jsonl").stdout;
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let names: Vec<_> = first.as_object().unwrap().keys().cloned().collect();
    let head = shop.run("export journal").stdout;
    assert_eq!(head.lines().next().unwrap(), names.join(","));
}

#[tokio::test]
async fn more_than_a_page_is_exported_once() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("farebox.db");
    let ledger = SqliteLedger::open(file, SqliteOptions::default()).unwrap();
    let shop = Shop { directory, ledger };
    for number in 0..1_201_u16 {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        let terms = Terms { id: PaymentId::from_bytes(bytes), ..terms(1, USDC) };
        drop(shop.hold(terms, number.into()).await);
    }
    for what in ["payments", "journal"] {
        let ran = shop.run(&format!("export {what}"));
        let mut lines: Vec<_> = ran.stdout.lines().collect();
        assert_eq!(lines.len(), 1_202, "{what}");
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 1_202, "{what}");
    }
}

#[tokio::test]
async fn a_check_has_an_exit_code_of_its_own() {
    let shop = Shop::open().await;
    let ran = shop.run("check");
    assert!(ran.code == 0 && ran.stdout.starts_with("sound  5 payments, "), "{}", ran.stdout);
    let raw = Connection::open(shop.file()).unwrap();
    let forged = "UPDATE payments SET \"transaction\" = '0xother' WHERE state = 'settled'";
    raw.execute_batch(forged).unwrap();
    let ran = shop.run("check");
    assert_eq!(ran.code, 3);
    assert!(ran.stdout.contains("NOT SOUND") && ran.stdout.contains("0xother"), "{}", ran.stdout);
    let ran = shop.run("check --json");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &told["sound"]), (3, &Value::Bool(false)));
    assert_eq!(told["problems"][0]["payment"], id(3).to_string());
}

/// One changed line, a journal that was cut, and one that was sealed by somebody else.
#[tokio::test]
async fn an_audit_names_the_first_thing_that_is_wrong() {
    let shop = Shop::open().await;
    let audit = |arguments: &str| {
        let mut all = vec!["audit"];
        all.extend(arguments.split_whitespace());
        all.extend(["--data-dir", "."]);
        run(shop.directory.path(), &all)
    };
    let verify = |code: i32, arguments: &str, says: &str| {
        let ran = audit(&format!("verify {arguments}"));
        assert_eq!((ran.code, ran.stderr.as_str()), (code, ""), "{}", ran.stdout);
        assert!(ran.stdout.contains(says), "{}", ran.stdout);
    };
    verify(0, "", "by the key beside the ledger");
    let head = audit("head").stdout;
    drop(shop.hold(terms(6, USDC), 3_700_000).await);
    fs::write(shop.directory.path().join("heads"), format!("{head}\n{}", audit("head").stdout))
        .unwrap();
    verify(0, "--heads heads", "as 2 given heads say");
    let told: Value = serde_json::from_str(&audit("verify --json").stdout).unwrap();
    assert_eq!(
        (&told["verified"], &told["keys_from"]),
        (&true.into(), &"beside_the_ledger".into())
    );
    let key = head.split_whitespace().nth(4).unwrap();
    verify(0, &format!("--key {key}"), "by the given key");
    verify(3, &format!("--key {}", "00".repeat(32)), "is signed with the key");
    let raw = Connection::open(shop.file()).unwrap();
    raw.execute_batch(
        "DROP TRIGGER journal_is_not_rewritten; DROP TRIGGER journal_is_for_ever;
         DROP TRIGGER seals_are_for_ever; UPDATE journal SET at = at + 1 WHERE seq = 3;",
    )
    .unwrap();
    verify(3, "", "NOT VERIFIED  the journal was changed between line 3 and line 3");
    let told: Value = serde_json::from_str(&audit("verify --json").stdout).unwrap();
    assert_eq!(told["verified"], false);
    assert_eq!(shop.run("check").code, 3);
    raw.execute_batch("UPDATE journal SET at = at - 1 WHERE seq = 3").unwrap();
    verify(0, "--heads heads", "verified");
    let cut = "DELETE FROM seals WHERE last_seq = (SELECT max(seq) FROM journal);
               DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal);";
    raw.execute_batch(cut).unwrap();
    verify(0, "", "no head from elsewhere");
    verify(3, "--heads heads", "the journal was cut");
    fs::write(shop.directory.path().join("heads"), "farebox-head-1 nonsense").unwrap();
    let ran = audit("verify --heads heads");
    assert!(ran.code == 1 && ran.stderr.contains("see line 1"), "{}", ran.stderr);
    fs::remove_file(shop.directory.path().join("farebox.db.audit-key")).unwrap();
    verify(0, "", "none was given");
}

#[tokio::test]
async fn a_ledger_is_found_by_its_configuration() {
    let shop = Shop::open().await;
    // Secrets that are not there, and nothing else: the ledger is all that is asked about.
    let token = format!("asset = {{ address = \"{STRANGE}\", decimals = 2 }}\n");
    let config = format!(
        "[ledger]\nurl = \"sqlite:farebox.db\"\n[network.\"eip155:84532\"]\nrpc = [{{ env = \"X\" }}]\n{token}"
    );
    fs::write(shop.directory.path().join("shop.toml"), config).unwrap();
    let elsewhere = TempDir::new().unwrap();
    let config = shop.directory.path().join("shop.toml");
    let list = ["ledger", "list", "--limit", "1", "--config", config.to_str().unwrap()];
    let ran = run(elsewhere.path(), &list);
    assert_eq!((ran.code, ran.stderr.lines().count()), (0, 1), "{}", ran.stderr);
    assert!(ran.stdout.contains(" 100.00 "), "{}", ran.stdout);
    let both = ["ledger", "list", "--data-dir", ".", "--config", "shop.toml"];
    assert_eq!(run(shop.directory.path(), &both).code, 2);
    assert_eq!(run(shop.directory.path(), &["ledger", "list"]).code, 2);
    fs::write(&config, "[ledger]\nurl = \"sqlite:\"\n").unwrap();
    let ran = run(elsewhere.path(), &list);
    assert!(ran.code == 1 && ran.stderr.contains("bad value of `url`"), "{}", ran.stderr);
}

#[test]
fn what_is_no_ledger_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let check = |prepare: &dyn Fn(), expected: &str| {
        prepare();
        let ran = run(directory.path(), &["ledger", "list", "--data-dir", "."]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    };
    let file = directory.path().join("farebox.db");
    check(&|| {}, "No such file or directory");
    assert!(!file.exists(), "looking makes no ledger");
    check(&|| fs::write(&file, "no database ".repeat(99)).unwrap(), "damaged or no ledger");
    let open = || Connection::open(&file).unwrap();
    let remove = || fs::remove_file(&file).unwrap();
    check(
        &|| {
            remove();
            open().execute_batch("CREATE TABLE cats (name TEXT)").unwrap();
        },
        "not a Farebox ledger",
    );
    let versioned = |version: i64| {
        remove();
        drop(SqliteLedger::open(&file, SqliteOptions::default()).unwrap());
        open().pragma_update(None, "user_version", version).unwrap();
    };
    check(&|| versioned(1), "start `farebox serve` once");
    check(&|| versioned(99), "or a newer one");
}

#[tokio::test]
async fn a_backup_is_made_beside_a_gateway_and_overwrites_nothing() {
    let shop = Shop::open().await;
    let ran = shop.run("backup copy.db");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.starts_with("sound  5 payments, "), "{}", ran.stdout);
    assert!(ran.stdout.contains("copy.db, "), "{}", ran.stdout);
    let ran = shop.run("backup copy.db");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("is there already"), "{}", ran.stderr);
    let copies = TempDir::new().unwrap();
    fs::rename(shop.directory.path().join("copy.db"), copies.path().join("farebox.db")).unwrap();
    let ran = run(copies.path(), &["ledger", "check", "--data-dir", "."]);
    assert!(ran.code == 0 && ran.stdout.starts_with("sound"), "{}", ran.stdout);
    assert!(ran.stderr.contains("in quarantine: it is a backup"), "{}", ran.stderr);
    let told = shop.json("backup again.db --json");
    assert_eq!(told["payments"], 5);
    let forged = "UPDATE payments SET \"transaction\" = '0xother' WHERE state = 'settled'";
    Connection::open(shop.file()).unwrap().execute_batch(forged).unwrap();
    assert_eq!(shop.run("backup bad.db").code, 3);
    assert!(!shop.directory.path().join("bad.db").exists());
    let ran = shop.run("accept-restore");
    assert!(ran.code == 1 && ran.stderr.contains("stop that process first"), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("process {}", std::process::id())), "{}", ran.stderr);
}
