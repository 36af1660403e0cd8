//! Waits for the user or the service manager to ask for an end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};

/// The end of a command that was stopped before it had begun to serve.
pub(crate) fn stopped_early(signal: &'static str) -> Exit {
    tracing::warn!(signal, "stopped before anything was served");
    Exit::Failed
}

/// SIGINT and SIGTERM, from the moment that this exists.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Begins to listen: from here on the signals no longer kill the process.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::new("signals cannot be listened to").because(error);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Returns at the next of them, with its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
