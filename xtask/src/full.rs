//! What takes too long for every change: the destructive tests in the numbers that are promised.

use anyhow::Result;

/// A run of tests: a package, which of its tests, and how much of them.
type Run = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Everything that `./test` does a little of. Each test prints how often it did what.
const RUNS: &[Run] = &[
    ("farebox-store", "test(/^crash::kill/)", &[("FAREBOX_KILLS", "10000")]),
    ("farebox-store", "test(/^crash::fault/)", &[("FAREBOX_FAULTS_PER_CALL", "100000")]),
    ("farebox-store", "test(/^crash::power/)", &[("FAREBOX_POWER_CUTS", "1000")]),
    ("farebox-gateway", "test(/^rpc_faults/)", &[("FAREBOX_RPC_PAYMENTS", "10000")]),
];

/// Simulated worlds.
const SEEDS: &str = "0..100000";

/// Runs them one after the other, each whatever became of the others.
pub(crate) fn run() -> Result<()> {
    let mut failed = Vec::new();
    for (package, filter, counts) in RUNS {
        let arguments = ["--package", package, "-E", filter, "--no-capture"];
        let command = ["nextest", "run", "--profile", "full"];
        if let Err(error) = crate::cargo_with(&command, &arguments, counts) {
            failed.push(format!("{filter} of {package}: {error:#}"));
        }
    }
    // Optimised, for there are many of them.
    let simulate = ["run", "--release", "--package", "farebox-sim", "--"];
    if let Err(error) = crate::cargo_with(&simulate, &["--seeds", SEEDS], &[]) {
        failed.push(format!("{error:#}"));
    }
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}
