//! Runs the binary and keeps what it said.

use std::path::Path;
use std::process::{Command, Stdio};

/// What a run said.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `farebox` with these arguments in this directory, with nothing in its environment.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Ran {
    run_with(directory, arguments, &[])
}

/// The same with environment variables.
pub(crate) fn run_with(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_farebox"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
