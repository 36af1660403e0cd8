//! One try to settle one payment, and one look at one that is settled, as machines: what was heard goes in,
//! what to do next comes out. Pure; the time and the randomness are the caller's.
//!
//! What must hold: after an unknown outcome the chain is asked before anything is sent; what nobody got an
//! answer for is not sent anew; only a chain's word that it never will be settled ends a payment that may
//! have been sent.

mod watch;

use std::time::Duration;

use farebox_protocol::Timestamp;

pub use self::watch::{Depth, Look, WatchStep};

/// The first pause after a settlement that was not sent or not answered; doubles from there.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// From the last moment to send until no chain takes the authorisation any more, whatever its clock.
const EXPIRY_MARGIN: Duration = Duration::from_mins(2);
/// Why a settlement was not sent that nobody waits for.
pub const ABANDONED: &str = "settlement_abandoned";

/// What is known of a payment when it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How often it was tried before.
    pub attempts: u32,
    /// Whether an earlier try may have reached the chain.
    pub may_have_been_sent: bool,
    /// Whether the payer has, or may have, something of the answer.
    pub answer: Answer,
    /// The settlement must have been sent by then: the authorisation's deadline less a margin.
    pub settle_by: Timestamp,
}

/// What the payer has of what was paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Something of it may have left.
    Left,
    /// Nothing of it left; it waits for the settlement.
    Withheld,
}

/// The caller's side of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What time it is.
    pub now: Timestamp,
    /// Evenly distributed over all its values.
    pub random: u64,
    /// Whether a request waits for this settlement with its answer.
    pub awaited: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the chain what became of it.
    LookUp,
    /// Have it settled.
    Send,
    /// This try is over.
    Record(Verdict),
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is settled.
    Settled(Landing),
    /// It never will be.
    Rejected {
        /// The specified `errorReason`.
        reason: String,
    },
    /// Nothing was sent.
    NotSent {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// It may have been sent.
    Unknown {
        /// Its name, if known.
        transaction: Option<String>,
        /// When to look.
        retry_at: Timestamp,
    },
}

/// A settlement on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landing {
    /// The transaction.
    pub transaction: String,
    /// When to look whether it is still there; `None`: it is final.
    pub look_at: Option<Timestamp>,
}

/// What the chain says of a payment that may have been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was settled.
    Landed(Seen),
    /// It never will be.
    Dead {
        /// The specified `errorReason`.
        reason: String,
    },
    /// It was not, and still can be.
    Open,
    /// Only settling it would tell.
    CannotTell,
    /// Nobody could be asked.
    NoAnswer,
}

/// What a settlement came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was seen on chain.
    Landed(Seen),
    /// It was refused.
    Refused {
        /// The specified `errorReason`.
        reason: String,
        /// Whether that says that the authorisation was used.
        used: bool,
    },
    /// What it takes to settle it is not configured now.
    NotServed {
        /// The specified `errorReason`.
        reason: String,
    },
    /// Nothing was sent.
    Nothing,
    /// It was, and what became of it is not known.
    Unknown {
        /// Its name, if known.
        transaction: Option<String>,
    },
}

/// A settlement that was seen on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The transaction.
    pub transaction: String,
    /// How long it takes until the chain will not take it back; `None`: it is final.
    pub final_in: Option<Duration>,
}

impl Attempt {
    /// How the try begins.
    pub fn begin(&self, moment: Moment) -> Step {
        if self.may_have_been_sent {
            return Step::LookUp;
        }
        if self.is_abandoned(moment) {
            // The payer would pay for nothing.
            return Step::Record(Verdict::Rejected { reason: ABANDONED.to_owned() });
        }
        Step::Send
    }

    /// After a look.
    pub fn looked_up(&self, found: Found, moment: Moment) -> Step {
        let unknown = || {
            let retry_at = self.retry_at(moment);
            Step::Record(Verdict::Unknown { transaction: None, retry_at })
        };
        match found {
            Found::Landed(seen) => landed(seen, moment),
            Found::Dead { reason } => Step::Record(Verdict::Rejected { reason }),
            // The payer got nothing: the settlement is not sent again, but an earlier one may
            // still land, so the payment stays unknown until its authorisation expires.
            Found::Open if self.answer == Answer::Withheld => unknown(),
            // Likewise where nobody can look; once it has expired, asking moves nothing.
            Found::CannotTell if self.is_abandoned(moment) && !self.has_expired(moment) => {
                unknown()
            }
            // The same authorisation, which its nonce makes single-use.
            Found::Open | Found::CannotTell => Step::Send,
            Found::NoAnswer => unknown(),
        }
    }

    /// After it was to be sent.
    pub fn sent(&self, sent: Sent, moment: Moment) -> Verdict {
        match sent {
            Sent::Landed(seen) => Verdict::Settled(seen.landing(moment)),
            // By an earlier try of ours, for all we know: the chain has to say so.
            Sent::Refused { used: true, .. } if self.may_have_been_sent => {
                Verdict::Unknown { transaction: None, retry_at: self.retry_at(moment) }
            }
            Sent::Refused { reason, .. } => Verdict::Rejected { reason },
            // Whoever was served can be charged once it is there again, until the authorisation ends;
            // what may have been sent may have landed, which nobody can tell for now.
            Sent::NotServed { reason } if !self.may_have_been_sent && self.has_expired(moment) => {
                Verdict::Rejected { reason }
            }
            Sent::NotServed { .. } | Sent::Nothing => {
                Verdict::NotSent { retry_at: self.retry_at(moment) }
            }
            Sent::Unknown { transaction } => {
                Verdict::Unknown { transaction, retry_at: self.retry_at(moment) }
            }
        }
    }

    /// Nothing of the answer left and its request has gone.
    fn is_abandoned(&self, moment: Moment) -> bool {
        self.answer == Answer::Withheld && !moment.awaited
    }

    /// Whether the authorisation has ended by any clock.
    fn has_expired(&self, moment: Moment) -> bool {
        self.settle_by.plus(EXPIRY_MARGIN) <= moment.now
    }

    /// Exponential backoff, the second half of each pause random.
    fn retry_at(&self, moment: Moment) -> Timestamp {
        moment.now.plus(pause(self.attempts, moment.random))
    }
}

fn landed(seen: Seen, moment: Moment) -> Step {
    Step::Record(Verdict::Settled(seen.landing(moment)))
}

impl Seen {
    fn landing(self, moment: Moment) -> Landing {
        let look_at = self.final_in.map(|it| moment.now.plus(watch::until_look(it)));
        Landing { transaction: self.transaction, look_at }
    }
}

/// The pause after so many tries.
fn pause(attempts: u32, random: u64) -> Duration {
    let factor = 1_u32.checked_shl(attempts.min(16)).unwrap_or(u32::MAX);
    let whole = PAUSE_FIRST.saturating_mul(factor).min(PAUSE_MAX);
    let half = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX) / 2;
    let jitter = u128::from(half).saturating_mul(u128::from(random)) >> u64::BITS;
    Duration::from_millis(half.saturating_add(u64::try_from(jitter).unwrap_or(half)))
}

#[cfg(test)]
mod tests;
