//! A child under `strace`: its system calls are written down, or made to fail.
//!
//! No root, no mount and no unsafe code is needed, and the code under test is the code that ships.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::crash::child::{self, Ended, Running};
use crate::crash::load::Orders;

/// Stops the child at the calls that are traced alone, which is much faster; then no signal can be
/// injected.
pub(super) const FAST: &str = "--seccomp-bpf";

/// Every call that changes a file or its directory, or forces one to the disk. What is not here but
/// would do so makes the reading of the trace fail.
pub(super) const CALLS: [&str; 8] =
    ["openat", "pwrite64", "write", "ftruncate", "fallocate", "fsync", "fdatasync", "unlink"];

/// Runs a child under it to its end, or until it is killed from inside.
pub(super) fn run(orders: &Orders, options: &[String]) -> Ended {
    Running::spawn(command(orders, options)).wait()
}

fn command(orders: &Orders, options: &[String]) -> Command {
    let mut watcher: Vec<String> = ["strace", "-f", "-q"].map(ToOwned::to_owned).into();
    watcher.extend_from_slice(options);
    child::command(&watcher, orders)
}

/// What it can do here; fails the test if it can do nothing.
pub(super) fn require() {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let tried = tried.unwrap_or_else(|error| {
        panic!("`strace` cannot be started ({error}): install it, as `./test` does")
    });
    assert!(
        tried.status.success(),
        "`strace` may not trace here, and without it nobody knows what a power cut or a broken \
         disk does to the ledger. In a container, allow ptrace (`--cap-add=SYS_PTRACE`); else see \
         /proc/sys/kernel/yama/ptrace_scope. It says: {}",
        String::from_utf8_lossy(&tried.stderr)
    );
}

/// Only calls that concern the ledger: the file, what lies beside it, and the directory.
pub(super) fn about(file: &Path) -> Vec<String> {
    let directory = file.parent().unwrap();
    let beside = ["", "-wal", "-shm", "-journal", ".lock", ".mark"].map(|suffix| {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    });
    let paths = beside.iter().map(PathBuf::as_path).chain([directory]);
    paths.flat_map(|it| ["-P".to_owned(), it.to_str().unwrap().to_owned()]).collect()
}
