//! The help of every command, as snapshots: a change of the command line is seen in review.

use std::path::Path;

use crate::farebox::run;

#[test]
fn every_command_explains_itself() {
    let commands: [&[&str]; 19] = [
        &["--help"],
        &["demo", "--help"],
        &["serve", "--help"],
        &["facilitator", "--help"],
        &["devnet", "--help"],
        &["config", "--help"],
        &["config", "check", "--help"],
        &["init", "--help"],
        &["ledger", "--help"],
        &["ledger", "balances", "--help"],
        &["ledger", "payment", "--help"],
        &["ledger", "list", "--help"],
        &["ledger", "export", "--help"],
        &["ledger", "check", "--help"],
        &["ledger", "backup", "--help"],
        &["ledger", "accept-restore", "--help"],
        &["audit", "--help"],
        &["audit", "verify", "--help"],
        &["audit", "head", "--help"],
    ];
    for arguments in commands {
        let ran = run(Path::new("."), arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
        let name = arguments.join("_").replace("_--help", "").replace("--help", "farebox");
        insta::assert_snapshot!(format!("help_{name}"), ran.stdout);
    }
}

#[test]
fn a_wrong_command_line_is_told_from_a_failure() {
    let cases: [(&[&str], &str); 5] = [
        (&["sevre"], "serve"),
        (&["serve"], "--config <FILE>"),
        (&["devnet", "--block-time", "0"], "expected seconds"),
        (&["devnet", "--listen", "localhost"], "--listen"),
        (&["demo", "--log-format", "xml"], "auto, text, json"),
    ];
    for (arguments, expected) in cases {
        let ran = run(Path::new("."), arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{arguments:?}: {}", ran.stderr);
    }
    let ran = run(Path::new("."), &["--log", "a=b=c", "config", "check", "x"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("is not a log filter"), "{}", ran.stderr);
}
