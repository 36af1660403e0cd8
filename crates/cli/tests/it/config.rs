//! `farebox config check`: all mistakes at once, each with its line; and what a right file means.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::farebox::{Ran, run, run_with};

const MISTAKES: &str = include_str!("config/mistakes.toml");
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
/// A file without mistakes, to be spoiled in one place.
const GOOD: &str = include_str!("config/good.toml");

/// A directory with a configuration and a settler's key in it.
fn directory(config: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("farebox.toml"), config).unwrap();
    let key = directory.path().join("settler.key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    directory
}

fn check_file(config: &str) -> Ran {
    let directory = directory(config);
    run(directory.path(), &["config", "check", "farebox.toml"])
}

/// Spoils the good file in one place; the report must have this line and column, and these words.
#[track_caller]
fn check(from: &str, to: &str, place: &str, words: &[&str]) {
    assert!(GOOD.contains(from), "{from} is not in the good file");
    let ran = check_file(&GOOD.replacen(from, to, 1));
    assert_eq!(ran.code, 1, "{to}: {}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "", "{to}");
    let place = format!("farebox.toml:{place}\n");
    for expected in words.iter().copied().chain([place.as_str()]) {
        assert!(ran.stderr.contains(expected), "{to}: no {expected:?} in\n{}", ran.stderr);
    }
    assert!(ran.stderr.contains("\nfarebox.toml: 1 error"), "{to}:\n{}", ran.stderr);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let ran = check_file(MISTAKES);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    insta::assert_snapshot!("mistakes", ran.stderr);
}

#[test]
fn a_secret_in_the_file_is_not_repeated() {
    let ran = check_file(MISTAKES);
    assert!(MISTAKES.contains("hunter2") && MISTAKES.contains(KEY.trim_start_matches("0x")));
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(KEY.trim_start_matches("0x")), "{}", ran.stderr);
    let key_as_account = GOOD.replacen("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", KEY, 1);
    let ran = check_file(&key_as_account);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("length of a private key"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(KEY.trim_start_matches("0x")), "{}", ran.stderr);
}

#[test]
fn a_right_file_is_summed_up() {
    let ran = check_file(GOOD);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("good", ran.stdout);
}

#[test]
fn each_table_is_needed() {
    for (from, words) in [
        ("[server]", "`[server]` is missing"),
        ("[ledger]", "`[ledger]` is missing"),
        ("[facilitator]", "`[facilitator]` is missing"),
        ("[[upstream]]", "`[[upstream]]` is missing"),
        ("[network.\"eip155:84532\"]", "`[network]` is missing"),
    ] {
        let ran = check_file(&GOOD.replacen(from, "[elsewhere]", 1));
        assert_eq!(ran.code, 1, "{from}");
        assert!(ran.stderr.contains(words), "{from}: {}", ran.stderr);
        assert!(ran.stderr.contains("unknown key `elsewhere`"), "{from}: {}", ran.stderr);
    }
}

#[test]
fn server_and_ledger() {
    check("127.0.0.1:8402", "0.0.0.0:8402", "1:1", &["`public_url` is missing in [server]"]);
    check("sqlite:farebox.db", "sqlite::memory:", "5:7", &["would forget who paid"]);
    check("sqlite:farebox.db", "postgres://db/x", "4:1", &["`node` is missing in [ledger]"]);
    let postgres = |rest: &str| format!("url = \"postgres://db/x\"\n{rest}");
    let url = "url = \"sqlite:farebox.db\"";
    let bad = postgres("node = \"a\"\nreplication = \"yes\"");
    check(url, &bad, "7:15", &["or \"synchronous\" if each commit"]);
    let bad = postgres("node = \"a\"\nroot_certificates = \"none.pem\"");
    check(url, &bad, "5:7", &["the certificates in", "none.pem cannot be used"]);
    check(url, &postgres("node = \"a\"\nnodes = 3"), "7:1", &["unknown key `nodes`"]);
    check(url, "url = { env = \"NOWHERE_SET\" }\nnode = \"a\"", "5:15", &["is not set"]);
    let bad = "url = \"postgres://u:hunter2@db/x\"\nnode = \"a\"";
    check(url, bad, "5:7", &["there is a password in this address"]);
    check(
        url,
        "url = \"postgres://db:x/x\"\nnode = \"a\"",
        "5:7",
        &["invalid value for option `port`"],
    );
    check("sqlite:farebox.db", "sqlite://db/x", "5:7", &["expected `sqlite:`"]);
    check("sqlite:farebox.db", "farebox.db", "5:7", &["expected `sqlite:`"]);
    let v1 = "listen = \"127.0.0.1:8402\"\nx402_v1 = \"no\"";
    check("listen = \"127.0.0.1:8402\"", v1, "3:11", &["expected `true` or `false`"]);
    let route = "offer = [\"exact\"]\nx402_v1 = 0";
    check("offer = [\"exact\"]", route, "26:11", &["expected `true` or `false`"]);
}

#[test]
fn networks() {
    check("\"usdc\"", "\"eurc\"", "9:9", &["`eurc` is not a known token on Base Sepolia"]);
    let asset = "{ address = \"0x1\", decimals = 6, name = \"A\", version = \"1\" }";
    check("\"usdc\"", asset, "9:21", &["expected an address"]);
    check("[\"http://127.0.0.1:8545\"]", "[]", "8:7", &["expected a list of JSON-RPC addresses"]);
    let token = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
    let account = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    check(account, token, "10:10", &["`pay_to` is the token's own contract"]);
    let zero = format!("0x{}", "0".repeat(40));
    check(account, &zero, "10:10", &["expected an account's address, not zero"]);
    let small = "exposure_limit = \"0.009\"\nasset =";
    check("asset =", small, "31:9", &["nobody may ever owe this much", "eip155:84532"]);
    let list = "smart_wallet_factories = \"0x1\"\nasset =";
    check("asset =", list, "9:26", &["expected a list of the factories' addresses"]);
    let entry = "smart_wallet_factories = [\"0x1\"]\nasset =";
    check("asset =", entry, "9:27", &["expected an address"]);
    check("asset =", "exposure_limit = \"0\"\nasset =", "9:18", &["expected an amount above zero"]);
}

#[test]
fn who_settles() {
    check("{ file = \"settler.key\" }", "{ file = \"none\" }", "13:21", &["cannot be read"]);
    check(
        "{ file = \"settler.key\" }",
        "{ env = \"NOT_SET\" }",
        "13:20",
        &["`NOT_SET` is not set"],
    );
    check("{ file = \"settler.key\" }", "{ file = \"farebox.toml\" }", "13:12", &["not the key"]);
    let remote = "url = [\"http://facilitator.example.com\"]";
    let signers = "signers = [{ file = \"settler.key\" }]";
    check(signers, remote, "13:8", &["expected https"]);
    check(signers, "", "12:1", &["names nobody who settles"]);
    let serve = |it: &str| format!("{it}\nserve = true");
    let ran = check_file(&GOOD.replacen(signers, &serve(signers), 1));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let remote = serve("url = [\"https://facilitator.example.com\"]");
    check(signers, &remote, "14:1", &["unknown key `serve`"]);
    let twice = "{ file = \"settler.key\" }, { file = \"./settler.key\" }";
    check("{ file = \"settler.key\" }", twice, "13:38", &["is given twice"]);
}

/// The good file with this after the signers, checked with a key in the environment.
fn check_signed(more: &str, listen: &str) -> Ran {
    let signers = "signers = [{ file = \"settler.key\" }]";
    let config = GOOD.replacen(signers, &format!("{signers}\n{more}"), 1);
    let directory = directory(&config.replacen("listen = \"127.0.0.1:8402\"", listen, 1));
    let variables = [("KEY_A", "0123456789abcdef"), ("KEY_B", "fedcba9876543210"), ("SHORT", "x")];
    run_with(directory.path(), &["config", "check", "farebox.toml"], &variables)
}

const HERE: &str = "listen = \"127.0.0.1:8402\"";
const ANYWHERE: &str = "listen = \"0.0.0.0:8402\"\npublic_url = \"https://api.example.com\"";
const BEHIND_A_PROXY: &str =
    "listen = \"127.0.0.1:8402\"\npublic_url = \"https://api.example.com\"";

#[test]
fn sellers_of_a_facilitator() {
    let account = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
    let a = "{ name = \"a\", key = { env = \"KEY_A\" } }";
    let b = format!("{{ name = \"b\", key = {{ env = \"KEY_B\" }}, pay_to = [\"{account}\"] }}");
    let serve = |keys: &str| format!("serve = true\nkeys = [{keys}]\nmin_amount = \"0.001\"");
    for listen in [HERE, ANYWHERE, BEHIND_A_PROXY] {
        let ran = check_signed(&serve(&format!("{a}, {b}")), listen);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{listen}");
    }
    for (keys, words) in [
        ("7".to_owned(), "a table with `name` and `key`"),
        ("{ name = \"a\" }".to_owned(), "`key` is missing"),
        (a.replace("name = \"a\", ", ""), "`name` is missing"),
        (a.replace("{ env = \"KEY_A\" }", "\"0123456789abcdef\""), "must not stand"),
        (a.replace("KEY_A", "SHORT"), "a key of at least 16 characters"),
        (a.replace("KEY_A", "NONE"), "`NONE` is not set"),
        (format!("{a}, {}", b.replace("KEY_B", "KEY_A")), "`a` and `b` have the same key"),
        (format!("{a}, {}", b.replace("\"b\"", "\"a\"")), "the name `a` is given twice"),
        (b.replace(account, "0x12"), "expected an address"),
        (b.replace(&format!("\"{account}\""), ""), "at least one; without the key, any"),
        (b.replace("pay_to", "pays_to"), "unknown key `pays_to`"),
    ] {
        let ran = check_signed(&serve(&keys), HERE);
        assert_eq!(ran.code, 1, "{keys}");
        assert!(ran.stderr.contains(words), "{keys}: no {words:?} in\n{}", ran.stderr);
        assert!(!ran.stderr.contains("0123456789abcdef"), "{}", ran.stderr);
    }
}

#[test]
fn a_facilitator_without_keys_that_others_reach_is_warned_of() {
    for listen in [ANYWHERE, BEHIND_A_PROXY] {
        let ran = check_signed("serve = true", listen);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("warning: anybody may settle here"), "{}", ran.stderr);
        assert!(ran.stderr.contains("`upto` is not settled until then"), "{}", ran.stderr);
        assert_eq!(check_signed("", listen).stderr, "");
    }
    assert_eq!(check_signed("serve = true", HERE).stderr, "");
    let unused = check_signed("min_amount = \"1\"", HERE);
    assert!(unused.stderr.contains("warning: `min_amount` has no effect"), "{}", unused.stderr);
}

#[test]
fn the_key_for_remote_facilitators() {
    let signers = "signers = [{ file = \"settler.key\" }]";
    let remote = |urls: &str| format!("url = [{urls}]\napi_key = {{ file = \"settler.key\" }}");
    let one = remote("\"https://one.example.com\", \"https://one.example.com/2\"");
    let ran = check_file(&GOOD.replacen(signers, &one, 1));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let two = remote("\"https://one.example.com\", \"https://two.example.com\"");
    let ran = check_file(&GOOD.replacen(signers, &two, 1));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("warning: one `api_key` is sent to all"), "{}", ran.stderr);
    let literal = one.replace("{ file = \"settler.key\" }", "\"sk-secret\"");
    check(signers, &literal, "14:11", &["must not stand"]);
    check(signers, &format!("{signers}\napi_key = {{ env = \"A\" }}"), "14:1", &["unknown key"]);
}

#[test]
fn a_route_where_the_facilitator_answers() {
    let config = GOOD.replacen("GET /premium/*", "POST /verify", 1);
    let ran = check_file(&config);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let signers = "signers = [{ file = \"settler.key\" }]";
    let ran = check_file(&config.replacen(signers, &format!("{signers}\nserve = true"), 1));
    assert_eq!(ran.code, 1);
    for words in ["the route `POST /verify` is never reached", "farebox.toml:29:9", "serve = true"]
    {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

#[test]
fn upstreams_and_routes() {
    check("api_key = { file", "api_key = { fiel", "18:13", &["unknown key `fiel`", "`file`"]);
    check("{ file = \"settler.key\" }\n", "\"sk-secret\"\n", "18:11", &["must not stand"]);
    check("GET /premium/*", "GET premium/*", "28:9", &["begins with `/`"]);
    check("GET /premium/*", "GET /premium*", "28:9", &["`*` only after a slash"]);
    check("GET /premium/*", "GET /readyz", "28:9", &["the gateway's own"]);
    check("GET /premium/*", "POST /v1/chat/completions", "28:9", &["stands twice", "21 | match"]);
    check("per_request = \"0.01\"", "per_request = 0.01", "30:25", &["put it in quotes"]);
    check("{ per_request = \"0.01\" }", "\"free\"", "31:9", &["nothing to offer payments for"]);
    check("\"openai-chat\"", "\"opaque\"", "24:9", &["a format that counts them", "23 | format"]);
    check("[\"exact\"]", "[\"exact\", \"exact\"]", "25:19", &["is offered twice"]);
    check("[\"exact\"]", "[\"uptoo\"]", "25:10", &["unknown scheme `uptoo`", "`upto`"]);
    let elsewhere = "[{ scheme = \"exact\", network = \"eip155:1\" }]";
    check("[\"exact\"]", elsewhere, "25:40", &["the network `eip155:1` is not configured"]);
}

#[test]
fn formats() {
    let path = "POST /v1/chat/completions";
    check("\"openai-chat\"", "\"anthropic-mesages\"", "23:10", &["`anthropic-messages`"]);
    check(path, "GET /v1/chat", "23:10", &["`opaque`: `openai-chat` is asked for by POST"]);
    // What is missing is named by the path.
    for (own, format) in [
        ("/v1/messages", "anthropic-messages"),
        ("/openai/v1/completions", "openai-completions"),
        ("/v1/embeddings", "openai-embeddings"),
        ("/v1/responses", "openai-responses"),
        ("/v1/chat/completions", "openai-chat"),
        ("/anything", "openai-chat"),
    ] {
        let config = GOOD.replacen(path, &format!("POST {own}"), 1);
        let ran = check_file(&config.replacen("format = \"openai-chat\"", "", 1));
        assert_eq!(ran.code, 1, "{own}");
        let words = format!("add `format = \"{format}\"`");
        assert!(ran.stderr.contains(&words), "{own}: {}", ran.stderr);
        let ran = check_file(&config.replacen("openai-chat", format, 1));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{own}");
    }
    let bound = |it: &str| format!("\"openai-embeddings\"\n{it}");
    for key in ["max_output_tokens = 5", "max_choices = 2", "output_limit = \"max_tokens\""] {
        check("\"openai-chat\"", &bound(key), "24:1", &["no effect", "`openai-embeddings` has"]);
    }
    let embeddings = GOOD.replacen("POST /v1/chat/completions", "POST /v1/embeddings", 1);
    let passing = bound("pass_fields = [\"vendor_option\"]");
    let ran = check_file(&embeddings.replacen("\"openai-chat\"", &passing, 1));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let wrong = "\"openai-chat\"\npass_fields = [\"\"]";
    check("\"openai-chat\"", wrong, "24:16", &["a string that is not empty"]);
    let flat = "price = { per_request = \"0.01\" }";
    let opaque = format!("pass_fields = [\"a\"]\n{flat}");
    check(flat, &opaque, "30:1", &["`pass_fields` has no effect here"]);
    let messages = "\"anthropic-messages\"\nmax_choices = 2";
    check("\"openai-chat\"", messages, "24:1", &["`max_choices` has no effect here"]);
}

#[test]
fn answers_are_kept_within_bounds() {
    let chat = |kept: &str| format!("\"openai-chat\"\nidempotency = {kept}");
    let right = chat("{ keep = \"10m\", max_bytes = \"64KiB\" }");
    let ran = check_file(&GOOD.replacen("\"openai-chat\"", &right, 1));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for (wrong, place, words) in [
        ("true", "24:15", "expected a table such as { keep = \"10m\", max_bytes = \"64KiB\" }"),
        ("{ keep = \"10m\" }", "24:15", "`max_bytes` is missing"),
        ("{ keep = \"25h\", max_bytes = 4096 }", "24:24", "at most \"24h\""),
        ("{ keep = \"1m\", max_bytes = 5 }", "24:42", "at least \"1KiB\""),
        ("{ keep = \"1m\", max_bytes = 4096, on = 1 }", "24:48", "unknown key `on`"),
    ] {
        check("\"openai-chat\"", &chat(wrong), place, &[words]);
    }
    let flat = "price = { per_request = \"0.01\" }";
    let free = "idempotency = { keep = \"1m\", max_bytes = 4096 }\nprice = \"free\"";
    let ran = check_file(&GOOD.replacen(flat, free, 1).replace("offer = [\"exact\"]", ""));
    assert!(ran.stderr.contains("`idempotency` has no effect here"), "{}", ran.stderr);
}

#[test]
fn models() {
    let chat = |models: &str| format!("\"openai-chat\"\nmodels = {models}");
    let ran = check_file(&GOOD.replacen("\"openai-chat\"", &chat("[\"a\", \"b-*\"]"), 1));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for (wrong, place, words) in [
        ("[]", "24:10", "leave the key out"),
        ("\"a\"", "24:10", "a list of names"),
        ("[\"*\"]", "24:11", "not alone"),
        ("[\"a\", \"b*c\"]", "24:16", "a `*` stands at the end"),
        ("[7]", "24:11", "a model's name"),
    ] {
        check("\"openai-chat\"", &chat(wrong), place, &[words]);
    }
    let flat = "\"GET /premium/*\"\nmodels = [\"a\"]";
    check("\"GET /premium/*\"", flat, "29:1", &["no effect", "only bodies of a metered format"]);
}

#[test]
fn where_an_upstream_looks_for_its_key() {
    let key = |header: &str| format!("{{ file = \"settler.key\", header = {header} }}\n");
    let from = "{ file = \"settler.key\" }\n";
    let ran = check_file(&GOOD.replacen(from, &key("\"x-api-key\""), 1));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    check(from, &key("\"x api key\""), "18:44", &["the name of a header such as `x-api-key`"]);
    check(from, &key("\"Host\""), "18:44", &["not part of HTTP itself"]);
    check(from, &key("7"), "18:44", &["the name of a header"]);
    let anthropic = GOOD.replacen("http://127.0.0.1:8000", "https://api.anthropic.com", 1);
    let ran = check_file(&anthropic);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("add `header = \"x-api-key\"`"), "{}", ran.stderr);
    let ran = check_file(&anthropic.replacen(from, &key("\"x-api-key\""), 1));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn what_approvals_may_cost_has_two_bounds() {
    let with = |lines: &str| GOOD.replacen("asset =", &format!("{lines}\nasset ="), 1);
    let (payer, day) = ("sponsor_approvals_gwei = \"20\"", "sponsor_approvals_gwei_per_day");
    for lines in [payer.to_owned(), format!("{payer}\n{day} = \"20\"")] {
        let ran = check_file(&with(&lines));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    }
    let bad = [
        (format!("{day} = \"20\""), "`sponsor_approvals_gwei` beside it"),
        (format!("{payer}\n{day} = \"19\""), "at least `sponsor_approvals_gwei`"),
        (format!("{payer}\n{day} = true"), "bad value of `sponsor_approvals_gwei_per_day`"),
    ];
    for (lines, expected) in bad {
        let ran = check_file(&with(&lines));
        assert_eq!(ran.code, 1, "{lines}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{lines}: {}", ran.stderr);
    }
}

#[test]
fn offers_that_stock_clients_can_take_where_none_are_written() {
    let silent = GOOD.replace("offer = [\"exact\"]\n", "");
    let offered = |config: &str, expected: &[&str]| {
        let ran = check_file(config);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        let paid: Vec<&str> = ran.stdout.lines().filter(|it| it.contains("eip155:84532")).collect();
        for (line, expected) in paid.iter().rev().zip(expected) {
            assert!(line.contains(expected), "{expected}: {}", ran.stdout);
        }
    };
    let both = "upto eip155:84532, exact eip155:84532";
    offered(&silent, &["exact eip155:84532", both]);
    let unsponsored = silent.replacen("asset =", "sponsor_permits = false\nasset =", 1);
    assert!(!check_file(&unsponsored).stdout.contains("upto"));
    let first = silent.replacen(
        "format = \"openai-chat\"",
        "format = \"openai-chat\"\nsettle = \"before\"",
        1,
    );
    assert!(!check_file(&first).stdout.contains("upto"));
    let early = "[\"upto\"]\nsettle = \"before\"";
    check("[\"exact\"]", early, "21:9", &["cannot settle before the work"]);
}

#[test]
fn an_offer_that_no_proxy_would_pass() {
    let story = format!("description = \"{}\"\nmatch = \"GET /premium/*\"", "x".repeat(7_000));
    check("match = \"GET /premium/*\"", &story, "29:9", &["cannot work", "more than 8 kB"]);
}

#[test]
fn toml_itself() {
    check("asset = \"usdc\"", "asset = usdc", "9:9", &["this is not TOML"]);
    check("asset = \"usdc\"", "asset = \"usdc\"\nasset = \"usdc\"", "10:1", &["duplicate key"]);
}

#[test]
fn what_is_only_doubtful_is_a_warning() {
    let public = "listen = \"0.0.0.0:8402\"\npublic_url = \"http://api.example.com\"";
    let config = GOOD.replacen("listen = \"127.0.0.1:8402\"", public, 1);
    let ran = check_file(&config);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("warning: clients are told to come over plain http"));
    assert!(ran.stderr.contains("farebox.toml: 0 errors, 1 warning"), "{}", ran.stderr);

    let directory = directory(GOOD);
    let key = directory.path().join("settler.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = run(directory.path(), &["config", "check", "farebox.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("warning: others can read settler.key"), "{}", ran.stderr);
}

#[test]
fn a_facilitator_needs_little() {
    let config = "[server]\nlisten = \"127.0.0.1:0\"\n[network.\"eip155:8453\"]\n\
                  rpc = [\"http://127.0.0.1:1\"]\n[facilitator]\nsigners = [{ file = \"settler.key\" }]\n";
    let ran = check_file(config);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let ran = check_file(&config.replace("rpc =", "#rpc ="));
    assert!(ran.stderr.contains("`rpc` is missing"), "{}", ran.stderr);
}

#[test]
fn a_network_that_does_not_answer_is_told_online() {
    let config = GOOD.replacen("http://127.0.0.1:8545", "http://127.0.0.1:1", 1);
    let directory = directory(&config);
    let ran = run(directory.path(), &["config", "check", "--online", "farebox.toml"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("eip155:84532: no RPC endpoint answers"), "{}", ran.stderr);
}

#[test]
fn a_file_that_is_not_there() {
    let ran = run(Path::new("."), &["config", "check", "no-such-file.toml"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("cannot read the configuration no-such-file.toml"));
    assert!(ran.stderr.contains("farebox init"), "{}", ran.stderr);
}
