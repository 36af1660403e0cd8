//! Programs that tests start beside themselves: output in a file, ready when they say so, never orphaned.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

/// Starts the given program and ends it when standard input closes, so that it cannot outlive a
/// test that was killed before it could clean up. The program shares the input (a shell would
/// give a background job `/dev/null`): servers that watch it themselves may do so.
const GUARD: &str = r#"exec 3<&0; "$0" "$@" <&3 3<&- & read -r _; kill $!; wait"#;

/// How long a program may take until it is ready. Cold starts beside a busy compiler are slow.
const READY_WITHIN: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A running program, ended on drop.
#[derive(Debug)]
pub struct Process {
    guard: Child,
    output: NamedTempFile,
}

/// Why a program that a test needs does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was never installed. The text tells what to do.
    #[error("{} is not installed: run ./test, it installs what the tests need", path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot start {program}")]
    Refused {
        /// Its path or name.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It started but did not get ready in time, or ended.
    #[error("{program} did not get ready; it said:\n{output}")]
    NotReady {
        /// Its path or name.
        program: String,
        /// Everything it wrote so far, both streams.
        output: String,
    },
}

impl Process {
    /// Starts `program` and waits until `ready` finds what it looks for in the output, at most
    /// a minute.
    pub async fn start<T>(
        program: &Path,
        arguments: &[&str],
        ready: impl Fn(&str) -> Option<T>,
    ) -> Result<(Self, T), StartError> {
        let name = program.display().to_string();
        let refused = |source| StartError::Refused { program: name.clone(), source };
        let output = NamedTempFile::new().map_err(refused)?;
        let guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output.reopen().map_err(refused)?)
            .stderr(output.reopen().map_err(refused)?)
            .spawn()
            .map_err(refused)?;
        let process = Self { guard, output };
        let awaited = tokio::time::timeout(READY_WITHIN, async {
            loop {
                if let Some(found) = ready(&process.output()) {
                    return found;
                }
                tokio::time::sleep(POLL_EVERY).await;
            }
        });
        match awaited.await {
            Ok(found) => Ok((process, found)),
            Err(_elapsed) => Err(StartError::NotReady { program: name, output: process.output() }),
        }
    }

    /// Everything the program wrote so far, both streams.
    pub fn output(&self) -> String {
        fs::read_to_string(self.output.path()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // The guard ends as soon as its input is closed; a failure leaves nothing to do.
        drop(self.guard.wait());
    }
}

/// The root of the workspace, where the tests' programs are installed.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(2).take(1).collect()
}

/// The path, if something is there.
pub(crate) fn installed(path: PathBuf) -> Result<PathBuf, StartError> {
    if path.exists() { Ok(path) } else { Err(StartError::Missing { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second line of the output: the number of the process that `sh` became.
    fn second_line(output: &str) -> Option<String> {
        output.strip_suffix('\n')?.split('\n').nth(1).map(ToOwned::to_owned)
    }

    #[tokio::test]
    async fn a_program_is_ready_when_it_says_so_and_ends_on_drop() {
        let script = "echo starting; echo $$; exec sleep 1000";
        let (process, id) =
            Process::start(Path::new("sh"), &["-c", script], second_line).await.unwrap();
        let entry = PathBuf::from(format!("/proc/{id}"));
        assert!(entry.exists());
        drop(process);
        assert!(!entry.exists());
    }

    #[test]
    fn what_is_not_installed_is_said_with_the_remedy() {
        let error = installed(PathBuf::from("/nowhere/anvil")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nowhere/anvil is not installed: run ./test, it installs what the tests need"
        );
    }
}
