//! The committed bytecode is what the pinned compiler makes of the committed source.

use std::{path::Path, process::Command};

#[test]
fn npm_solc_rebuilds_the_same_bytes() {
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts");
    assert!(
        contracts.join("node_modules/solc").exists(),
        "the Solidity compiler is not installed: run `npm ci` in contracts/"
    );
    let output =
        Command::new("node").arg("build.mjs").arg("--check").current_dir(&contracts).output();
    let output = output.expect("node must be on the path");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
