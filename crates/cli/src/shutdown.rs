//! Waits for the user or the service manager to ask for an end.

use std::time::Duration;
use std::{fmt, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};

/// The end of a command that was stopped before it had begun to serve.
pub(crate) fn stopped_early(signal: StopSignal) -> Exit {
    tracing::warn!(%signal, "stopped before anything was served");
    Exit::Failed
}

/// Who asks for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// SIGINT: a person, with Ctrl-C.
    Interrupt,
    /// SIGTERM: whatever runs the service.
    Terminate,
}

impl StopSignal {
    /// How long the end is announced: a person who presses Ctrl-C has no load balancer to wait for.
    pub(crate) fn notice(self, lame_duck: Duration) -> Duration {
        match self {
            Self::Interrupt => Duration::ZERO,
            Self::Terminate => lame_duck,
        }
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
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

    /// Returns at the next of them.
    pub(crate) async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::Interrupt,
            _ = self.terminate.recv() => StopSignal::Terminate,
        }
    }
}
