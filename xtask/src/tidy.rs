//! Rules that no linter knows: sizes, names, and which crate may know which.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The longest source file, tests not counted.
const SOURCE_LINES_MAX: usize = 600;
/// The largest file in the repository, lock files not counted.
const BLOB_BYTES_MAX: u64 = 256 * 1024;

/// Which of our crates each crate may depend on, development dependencies not counted.
const ARROWS: &[(&str, &[&str])] = &[
    ("farebox-protocol", &[]),
    ("farebox-billing", &["farebox-protocol"]),
    ("farebox-chains", &["farebox-protocol"]),
    ("farebox-store", &["farebox-protocol", "farebox-billing"]),
    ("farebox-devnet", &[]),
    (
        "farebox-gateway",
        &["farebox-protocol", "farebox-billing", "farebox-chains", "farebox-store"],
    ),
    ("farebox-agent", &["farebox-protocol", "farebox-billing", "farebox-store", "farebox-chains"]),
    (
        "farebox",
        &[
            "farebox-protocol",
            "farebox-billing",
            "farebox-chains",
            "farebox-store",
            "farebox-gateway",
            "farebox-agent",
            "farebox-devnet",
        ],
    ),
    (
        "farebox-testkit",
        &[
            "farebox-protocol",
            "farebox-billing",
            "farebox-chains",
            "farebox-store",
            "farebox-devnet",
        ],
    ),
    (
        "farebox-sim",
        &[
            "farebox-protocol",
            "farebox-billing",
            "farebox-chains",
            "farebox-store",
            "farebox-gateway",
        ],
    ),
    ("farebox-testdb", &[]),
    ("xtask", &[]),
];

/// What the pure crates may not mention: they take time, bytes and ids as arguments.
const IMPURE: &[&str] = &[
    "tokio",
    "reqwest",
    "axum",
    "hyper",
    "std::net",
    "std::fs",
    "SystemTime",
    "Instant",
    "async fn",
];

/// Words of other fields for what the glossary names otherwise, as parts of public type names.
const FOREIGN_WORDS: &[&str] = &["Merchant", "Invoice", "Ticket", "Session", "PriceTag", "Backend"];

/// Checks every rule and reports every breach.
pub(crate) fn run() -> Result<()> {
    let files = tracked_files()?;
    let mut breaches = BTreeSet::new();
    for file in &files {
        check_file(file, &mut breaches)?;
    }
    check_arrows(&mut breaches)?;
    check_adrs(&files, &mut breaches)?;
    if breaches.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = breaches.into_iter().collect();
    bail!("{} breaches of the project's rules:\n  {}", list.len(), list.join("\n  "));
}

fn tracked_files() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git ls-files")?;
    let text = String::from_utf8(output.stdout).context("git ls-files printed no UTF-8")?;
    // A file that is deleted and not committed yet is still listed.
    Ok(text.lines().filter(|it| fs::metadata(it).is_ok()).map(str::to_owned).collect())
}

fn check_file(file: &str, breaches: &mut BTreeSet<String>) -> Result<()> {
    let size = fs::metadata(file).with_context(|| file.to_owned())?.len();
    if BLOB_BYTES_MAX < size && !file.ends_with("Cargo.lock") && !file.ends_with("-lock.json") {
        breaches.insert(format!("{file}: {size} bytes; at most {BLOB_BYTES_MAX}"));
    }
    let outside = file.starts_with("xtask/") || file.starts_with("bench/");
    if outside || Path::new(file).extension().is_none_or(|it| it != "rs") {
        return Ok(());
    }
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    if file.ends_with("/mod.rs") {
        breaches.insert(format!("{file}: use `foo.rs` beside `foo/`, not `mod.rs`"));
    }
    if !text.starts_with("//!") {
        breaches.insert(format!("{file}: the first line says what the file is for (`//! …`)"));
    }
    let source = text.split_once("#[cfg(test)]\nmod tests").map_or(text.as_str(), |it| it.0);
    let lines = source.lines().count();
    if SOURCE_LINES_MAX < lines {
        breaches.insert(format!("{file}: {lines} lines without tests; at most {SOURCE_LINES_MAX}"));
    }
    for (index, line) in text.lines().enumerate() {
        for complaint in line_complaints(file, line) {
            breaches.insert(format!("{file}:{}: {complaint}", index.saturating_add(1)));
        }
    }
    Ok(())
}

fn line_complaints(file: &str, line: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let code = line.trim_start();
    let is_comment = code.starts_with("//");
    if code.starts_with("pub use") && code.ends_with("::*;") {
        complaints.push("re-export each item by its name".to_owned());
    }
    if code == "use crate::*;" {
        complaints.push("import each item by its name".to_owned());
    }
    for mark in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "#[ignore]", "#[allow("] {
        if line.contains(mark) {
            complaints.push(format!("`{mark}` has no place here"));
        }
    }
    let pure =
        ["crates/protocol/src/", "crates/billing/src/"].iter().any(|it| file.starts_with(it));
    if pure && !is_comment {
        for word in IMPURE.iter().filter(|it| line.contains(**it)) {
            complaints.push(format!("`{word}` in a crate without I/O, clock or async"));
        }
    }
    if code.starts_with("pub struct") || code.starts_with("pub enum") {
        for word in FOREIGN_WORDS.iter().filter(|it| code.contains(**it)) {
            complaints.push(format!("`{word}` is not this project's word; see GLOSSARY.md"));
        }
    }
    complaints
}

fn check_arrows(breaches: &mut BTreeSet<String>) -> Result<()> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .context("cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    for package in field(&metadata, "packages").as_array().context("no packages")? {
        let name = field(package, "name").as_str().context("a package without a name")?;
        let Some((_, allowed)) = ARROWS.iter().find(|it| it.0 == name) else {
            breaches.insert(format!("{name}: not in the dependency table of xtask/src/tidy.rs"));
            continue;
        };
        for dependency in field(package, "dependencies").as_array().context("no dependencies")? {
            let other = field(dependency, "name").as_str().unwrap_or_default();
            let ours = other == "farebox" || other.starts_with("farebox-");
            let ordinary = field(dependency, "kind").is_null();
            if ours && ordinary && !allowed.contains(&other) {
                breaches.insert(format!("{name} may not depend on {other}"));
            }
        }
    }
    Ok(())
}

fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn check_adrs(files: &[String], breaches: &mut BTreeSet<String>) -> Result<()> {
    let index = fs::read_to_string("docs/adr/README.md").context("docs/adr/README.md")?;
    for file in files {
        let Some(name) = file.strip_prefix("docs/adr/") else { continue };
        if name != "README.md" && !index.contains(&format!("({name})")) {
            breaches.insert(format!("{file}: not linked in docs/adr/README.md"));
        }
    }
    Ok(())
}
