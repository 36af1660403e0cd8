//! The project's own tools: `cargo xtask check` (quick path), `cargo xtask tidy` (our rules) and
//! `cargo xtask full` (what takes too long for every change).

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that reports on the console"
)]

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

mod full;
mod tidy;

const HELP: &str = "\
cargo xtask check [PACKAGE…]   format, lints, tidy and tests of the named packages, or of all but the
                               end-to-end ones (the quick path; `./test` runs everything)
cargo xtask tidy               the project's own rules alone
cargo xtask sim --seed N       one run of the whole gateway in a simulated world; `--seeds A..B`, `--bug NAME`
cargo xtask full               the destructive tests in the numbers that are promised: takes an hour
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((command, packages)) if command == "check" => check(packages),
        Some((command, [])) if command == "tidy" => tidy::run(),
        Some((command, [])) if command == "full" => full::run(),
        Some((command, rest)) if command == "sim" => simulate(rest),
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

fn simulate(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    cargo(&["run", "--quiet", "--package", "farebox-sim", "--"], &arguments)
}

fn cargo(command: &[&str], arguments: &[&str]) -> Result<()> {
    cargo_with(command, arguments, &[])
}

/// Cargo with something in its environment.
fn cargo_with(command: &[&str], arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let told: Vec<String> =
        variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("$ {} cargo {} {}", told.join(" "), command.join(" "), arguments.join(" "));
    let status = Command::new("cargo")
        .envs(variables.iter().copied())
        .args(command)
        .args(arguments)
        .status()
        .with_context(|| format!("cargo {} could not be started", command.join(" ")))?;
    if !status.success() {
        bail!("cargo {} failed", command.join(" "));
    }
    Ok(())
}
