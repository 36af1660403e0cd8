//! `farebox demo`, offline: its sums are added up here once more.

use std::collections::HashSet;

use serde_json::Value;
use tempfile::TempDir;

use crate::farebox::run;

fn units(value: &Value) -> u128 {
    value.as_str().unwrap_or_else(|| panic!("no amount: {value}")).parse().unwrap()
}

fn moved(movement: &Value) -> u128 {
    units(&movement["before"]).abs_diff(units(&movement["after"]))
}

fn all<'a>(report: &'a Value, list: &str) -> &'a Vec<Value> {
    report[list].as_array().unwrap()
}

#[test]
fn the_demo_adds_up() {
    let directory = TempDir::new().unwrap();
    let ran = run(directory.path(), &["demo", "--json", "--data-dir", "data"]);
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["adds_up"], true);
    assert!(report["milliseconds"].as_u64().unwrap() < 60_000, "under a minute");

    let ends: Vec<&str> =
        all(&report, "steps").iter().map(|it| it["end"].as_str().unwrap()).collect();
    let expected = [
        "free",
        "bought",
        "bought",
        "bought",
        "not_charged",
        "bought",
        "refused_by_budget",
        "refused_as_replay",
    ];
    assert_eq!(ends, expected);
    assert_eq!(report["steps"][4]["status"], 500, "of the upstream");
    assert_eq!(report["steps"][7]["status"], 409);

    let payments = all(&report, "payments");
    let states: Vec<&str> = payments.iter().map(|it| it["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["settled", "settled", "settled", "released", "settled"]);
    let charged: u128 = payments.iter().map(|it| units(&it["charged"])).sum();
    assert!(0 < charged && charged <= 50_000, "within the budget: {charged}");
    let schemes: Vec<&str> = payments.iter().map(|it| it["scheme"].as_str().unwrap()).collect();
    assert_eq!(schemes, ["upto", "upto", "exact", "upto", "exact"]);
    for payment in payments.iter().filter(|it| it["state"] == "settled") {
        let (charged, quoted) = (units(&payment["charged"]), units(&payment["quoted"]));
        if payment["scheme"] == "upto" {
            assert!(0 < charged && charged < quoted, "`upto` charges what was used: {payment}");
        } else {
            assert_eq!(charged, quoted, "`exact` charges the quote");
        }
    }
    let transactions: HashSet<&str> =
        payments.iter().filter_map(|it| it["transaction"].as_str()).collect();
    assert_eq!(transactions.len(), 4);
    assert!(transactions.iter().all(|it| it.len() == 66 && it.starts_with("0x")));

    let balances = &report["balances"];
    assert_eq!(moved(&balances["payer"]), charged);
    assert_eq!(moved(&balances["seller"]), charged);
    assert!(units(&balances["payer"]["after"]) < units(&balances["payer"]["before"]));
    assert!(0 < moved(&balances["settler_wei"]), "gas was paid");
    assert_eq!(units(&balances["payer_wei"]["before"]), 0, "and not by the payer");
    assert!(all(&report, "checks").iter().all(|it| it["holds"] == true));

    // The agent bought on blocks that come every two seconds, and waited for them.
    assert!(ran.stderr.contains("It buys a completion"), "progress: {}", ran.stderr);
    let kept = directory.path().join("data/run-0001");
    assert_eq!(report["kept_at"], "data/run-0001");
    assert!(kept.join("farebox.db").is_file() && kept.join("farebox.toml").is_file());
}

#[test]
fn the_demo_for_people_is_plain_and_ends_with_the_sums() {
    let directory = TempDir::new().unwrap();
    let ran = run(directory.path(), &["demo"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "no colours without a terminal");
    let last = ran.stdout.lines().last().unwrap();
    let (payer, rest) = last.strip_prefix("payer -").unwrap().split_once(", seller +").unwrap();
    let (seller, rest) = rest.split_once(" USDC").unwrap();
    assert_eq!(payer, seller);
    assert!(rest.ends_with("It adds up."), "{last}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}
