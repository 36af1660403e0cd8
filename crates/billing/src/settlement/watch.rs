//! A settled payment that is not as deep in its chain as its value takes.

use std::time::Duration;

use farebox_protocol::Timestamp;

use super::{Moment, pause};

/// Bounds of the time between two looks.
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(30);
/// How long after one look that did not find it the next one says the same or another thing: nodes may
/// lag behind one another.
const DOUBT: Duration = Duration::from_secs(2);

/// How deep a settlement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The chain will not take it back.
    Final,
    /// It has it, and may take it back.
    Shallow {
        /// For about so long.
        left: Duration,
    },
    /// It does not have it.
    Gone,
    /// Nobody knows how to look at this chain: whoever settled it is believed.
    CannotTell,
    /// Nobody could be asked.
    NoAnswer,
}

/// One look, or two where the first one finds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    missed: bool,
}

/// What to do after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStep {
    /// It is final.
    Finish,
    /// Look again then.
    Wait {
        /// When.
        look_at: Timestamp,
    },
    /// Look again after this pause, before anything is decided.
    Doubt(Duration),
    /// The chain took it back: the payment is owed again.
    Reopen,
}

impl Look {
    /// After the chain was asked.
    pub fn saw(&mut self, depth: Depth, moment: Moment) -> WatchStep {
        let missed = std::mem::replace(&mut self.missed, depth == Depth::Gone);
        match depth {
            Depth::Final | Depth::CannotTell => WatchStep::Finish,
            Depth::Shallow { left } => {
                WatchStep::Wait { look_at: moment.now.plus(until_look(left)) }
            }
            Depth::Gone if missed => WatchStep::Reopen,
            Depth::Gone => WatchStep::Doubt(DOUBT),
            Depth::NoAnswer => {
                let wait = pause(4, moment.random).max(LOOK_MIN);
                WatchStep::Wait { look_at: moment.now.plus(wait) }
            }
        }
    }
}

/// The time until a look at what is final in so long.
pub(super) fn until_look(final_in: Duration) -> Duration {
    final_in.clamp(LOOK_MIN, LOOK_MAX)
}
