//! Trying a ledger operation again: a few times while a client waits for its answer, and for as long
//! as the gateway runs where money depends on it and nobody waits.

use std::time::Duration;

use farebox_store::StoreError;

use super::hold::ledger_problem;
use crate::app::App;
use crate::problem::Problem;

/// Tries while somebody waits, or while the gateway stops.
const TRIES: u32 = 6;
/// The first pause between tries; doubles.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Who is kept waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A client: it gets its answer, whatever it is, after a few tries.
    Waiting,
    /// Nobody: until it is done, or the gateway stops.
    Endless,
}

/// Retries on the clock, for what a ledger may do next time.
pub(crate) struct Tries<'a> {
    app: &'a App,
    patience: Patience,
    left: u32,
    pause: Duration,
    /// Whether one of them may have been carried out.
    unknown: bool,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(app: &'a App, patience: Patience) -> Self {
        Self { app, patience, left: TRIES, pause: PAUSE, unknown: false }
    }

    /// Whether to try again; pauses before it says so.
    pub(crate) async fn again(&mut self, error: &StoreError) -> bool {
        self.unknown |= matches!(error, StoreError::Unknown(_));
        let hope = match error {
            StoreError::Unavailable(_) | StoreError::Unknown(_) => true,
            StoreError::Fenced(_) | StoreError::Illegal(_) | StoreError::Corrupt(_) => false,
        };
        if !hope {
            return false;
        }
        let draining = self.app.draining.is_cancelled();
        if self.patience == Patience::Waiting || draining {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                return false;
            }
        }
        let clock = &self.app.clock;
        tokio::select! {
            biased;
            () = clock.sleep_until(clock.now().plus(self.pause)) => {
                self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
            }
            // What is left of the time is short from now on.
            () = self.app.draining.cancelled(), if !draining => self.pause = PAUSE,
        }
        true
    }

    /// What the client is told after the last try. If any may have been carried out, money may yet
    /// be taken.
    pub(crate) fn problem(&self, last: StoreError) -> Problem {
        let problem = ledger_problem(last);
        if self.unknown { problem.never_pay_again() } else { problem }
    }
}
