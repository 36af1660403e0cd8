//! The process that is destroyed: this test binary again, with orders in its environment.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::crash::event::Event;
use crate::crash::load::{self, Orders};

/// Holds the orders; without them a child has nothing to do.
const ORDERS: &str = "FAREBOX_CRASH_ORDERS";

#[test]
fn child() {
    if let Some(orders) = std::env::var_os(ORDERS) {
        load::run(Orders::read(orders.to_str().unwrap()));
    }
}

/// The child's command line, behind that of whoever watches it.
pub(super) fn command(watcher: &[String], orders: &Orders) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match watcher.split_first() {
        None => Command::new(this),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.args(["--exact", "crash::child::child", "--nocapture", "--test-threads", "1"]);
    command.env(ORDERS, orders.write()).stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

/// A child that runs, and what it says.
pub(super) struct Running {
    child: Child,
    said: std::thread::JoinHandle<Vec<Event>>,
    lines: Arc<AtomicU64>,
    complaints: std::thread::JoinHandle<String>,
}

/// What is left of a child.
pub(super) struct Ended {
    pub(super) said: Vec<Event>,
    /// Its standard error.
    pub(super) complaints: String,
}

impl Running {
    pub(super) fn start(orders: &Orders) -> Self {
        Self::spawn(command(&[], orders))
    }

    pub(super) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|it| panic!("{command:?}: {it}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lines);
        let said = std::thread::spawn(move || {
            let parsed = output.lines().map_while(Result::ok).filter_map(|it| it.parse().ok());
            parsed
                .inspect(|_| {
                    counted.fetch_add(1, Ordering::Relaxed);
                })
                .collect()
        });
        let mut errors = child.stderr.take().unwrap();
        let complaints = std::thread::spawn(move || {
            let mut text = String::new();
            drop(errors.read_to_string(&mut text));
            text
        });
        Self { child, said, lines, complaints }
    }

    /// Waits until it has said so much, or for some seconds.
    pub(super) fn wait_for(&self, lines: u64) {
        for _ in 0..20_000 {
            if lines <= self.lines.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Kills it, wherever it is. It must not have ended by itself.
    pub(super) fn kill(mut self) -> Ended {
        let early = self.child.try_wait().unwrap();
        self.child.kill().unwrap();
        let ended = self.wait();
        let why = &ended.complaints;
        assert!(early.is_none(), "the child ended by itself: {early:?}\n{why}");
        ended
    }

    /// Waits until it ends by itself.
    pub(super) fn wait(mut self) -> Ended {
        self.child.wait().unwrap();
        let said = self.said.join().unwrap();
        Ended { said, complaints: self.complaints.join().unwrap() }
    }
}

/// Copies the file, its log and its mark as they lie; what is shared memory dies with its process.
pub(super) fn copy_files(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-journal", ".mark"] {
        let name = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            name
        };
        match std::fs::copy(name(from), name(to)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{error}"),
        }
    }
}
