//! Flaws that can be put into a simulation, to show that its checks would notice them.
//!
//! The gateway's code is as it is; a flaw is put where it asks its ledger or its facilitator, and does
//! there what the flawed code would have done.

use std::str::FromStr;

/// One flaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The ledger says `Ok` before anything is on the disk.
    AcksBeforeDurable,
    /// The upstream is called before the hold is on the disk.
    ServesBeforeHold,
    /// The upstream is called although `begin_serve` failed.
    ServesWithoutBeginning,
    /// A checkpoint is not recorded.
    ForgetsCheckpoints,
    /// Holds are leases: what looks abandoned is released while it is served.
    ReleasesWhileServing,
    /// The ledger knows payments by the attempt, not by the authorisation.
    KeysByAttempt,
    /// A capture that is tried again is added to the first.
    ChargesAgainOnRetry,
    /// The whole authorised amount is settled, not the charge.
    SettlesTheLimit,
    /// Some settlements fall out of the queue.
    LosesOutboxRows,
    /// An unknown outcome of a hold is told as a refusal to pay.
    RefusesAfterUnknown,
    /// An unknown outcome of a settlement is taken for a failure.
    UnknownMeansFailed,
    /// An unknown settlement is sent again without looking.
    ResendsWithoutLooking,
    /// An unknown settlement is signed anew.
    SignsAgain,
    /// A transaction in a block is taken for final.
    IgnoresReorgs,
    /// A transaction that was mined is taken for one that moved the money.
    BelievesTheStatus,
    /// What is owed back is not recorded.
    ForgetsRefunds,
    /// Recovery takes what was on its way for settled.
    RecoveryAssumesSettled,
    /// The name of a request is not bound to its payment.
    ForgetsNames,
}

impl Bug {
    /// Each of them.
    pub const ALL: [Self; 18] = [
        Self::AcksBeforeDurable,
        Self::ServesBeforeHold,
        Self::ServesWithoutBeginning,
        Self::ForgetsCheckpoints,
        Self::ReleasesWhileServing,
        Self::KeysByAttempt,
        Self::ChargesAgainOnRetry,
        Self::SettlesTheLimit,
        Self::LosesOutboxRows,
        Self::RefusesAfterUnknown,
        Self::UnknownMeansFailed,
        Self::ResendsWithoutLooking,
        Self::SignsAgain,
        Self::IgnoresReorgs,
        Self::BelievesTheStatus,
        Self::ForgetsRefunds,
        Self::RecoveryAssumesSettled,
        Self::ForgetsNames,
    ];
}

/// There is no such flaw.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such bug: {0}")]
pub struct NoSuchBug(String);

impl FromStr for Bug {
    type Err = NoSuchBug;

    /// By its name: `SignsAgain`.
    fn from_str(name: &str) -> Result<Self, NoSuchBug> {
        let found = Self::ALL.into_iter().find(|it| format!("{it:?}") == name);
        found.ok_or_else(|| NoSuchBug(name.to_owned()))
    }
}
