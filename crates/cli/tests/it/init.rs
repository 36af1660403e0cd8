//! `farebox init`, and whether what it writes can be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::farebox::{run, run_with};

/// The account that is named after these words.
fn account_after<'t>(words: &str, text: &'t str) -> &'t str {
    let rest = text.split(words).nth(1).unwrap();
    rest.split(|it: char| !it.is_ascii_alphanumeric()).next().unwrap()
}

#[test]
fn what_init_writes_is_right_and_private() {
    let directory = TempDir::new().unwrap();
    let ran = run(directory.path(), &["init", "shop"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let key = directory.path().join("shop/settler.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&key).unwrap();
    assert_eq!(secret.trim().len(), 66, "0x and 64 digits");
    let config = fs::read_to_string(directory.path().join("shop/farebox.toml")).unwrap();
    for text in [&ran.stdout, &config] {
        assert!(!text.contains(secret.trim().trim_start_matches("0x")), "the key is in {text}");
    }
    let checked = run(directory.path(), &["config", "check", "shop/farebox.toml"]);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert_eq!(checked.stderr, "", "no warnings");
    assert!(checked.stdout.trim_end().ends_with("OK"), "{}", checked.stdout);
    let settler = account_after("the settler ", &ran.stdout);
    assert!(checked.stdout.contains(&format!("settles     by {settler}")), "{}", checked.stdout);
}

#[test]
fn init_overwrites_nothing() {
    for file in ["farebox.toml", "settler.key"] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(file), "mine").unwrap();
        let ran = run(directory.path(), &["init"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("is there already"), "{}", ran.stderr);
        assert_eq!(fs::read_to_string(directory.path().join(file)).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else was written");
    }
}

#[test]
fn two_shops_have_two_keys() {
    let directory = TempDir::new().unwrap();
    let key = |shop: &str| {
        assert_eq!(run(directory.path(), &["init", shop]).code, 0);
        fs::read_to_string(directory.path().join(shop).join("settler.key")).unwrap()
    };
    assert_ne!(key("one"), key("two"));
}

/// Every key of the example, those included that may be left out, is one that is read.
#[test]
fn the_whole_example_is_right() {
    let directory = TempDir::new().unwrap();
    assert_eq!(run(directory.path(), &["init"]).code, 0);
    let file = directory.path().join("farebox.toml");
    let config = fs::read_to_string(&file).unwrap();
    let optional = |line: &&str| {
        line.strip_prefix('#').is_some_and(|it| it.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    assert!(20 <= config.lines().filter(optional).count(), "keys that may be left out");
    let uncomment = |line| if optional(&line) { line.strip_prefix('#').unwrap() } else { line };
    let lines: Vec<&str> = config.lines().map(uncomment).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    let variables = [("UPSTREAM_KEY", "secret")];
    let checked = run_with(directory.path(), &["config", "check", "farebox.toml"], &variables);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    // The settler's account is another one each time.
    let settler = account_after("settles     by ", &checked.stdout);
    insta::assert_snapshot!("the_example_in_words", checked.stdout.replace(settler, "[settler]"));
}
