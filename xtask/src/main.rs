//! The project's own tools: `cargo xtask check` (quick path) and `cargo xtask tidy` (our rules).

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that reports on the console"
)]

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

mod tidy;

const HELP: &str = "\
cargo xtask check [PACKAGE…]   format, lints, tidy and tests of the named packages, or of all but the
                               end-to-end ones (the quick path; `./test` runs everything)
cargo xtask tidy               the project's own rules alone
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((command, packages)) if command == "check" => check(packages),
        Some((command, [])) if command == "tidy" => tidy::run(),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(packages: &[String]) -> Result<()> {
    let selection: Vec<&str> = if packages.is_empty() {
        vec!["--workspace"]
    } else {
        packages.iter().flat_map(|it| ["--package", it]).collect()
    };
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--all-targets"], &[&selection, &["--", "--deny", "warnings"][..]].concat())?;
    tidy::run()?;
    let quick = ["--exclude", "farebox"];
    let left_out: &[&str] = if packages.is_empty() { &quick } else { &[] };
    cargo(&["nextest", "run"], &[&selection, left_out].concat())
}

fn cargo(command: &[&str], arguments: &[&str]) -> Result<()> {
    println!("$ cargo {} {}", command.join(" "), arguments.join(" "));
    let status = Command::new("cargo")
        .args(command)
        .args(arguments)
        .status()
        .with_context(|| format!("cargo {} could not be started", command.join(" ")))?;
    if !status.success() {
        bail!("cargo {} failed", command.join(" "));
    }
    Ok(())
}
