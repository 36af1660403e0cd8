//! Whether new payments are taken: asked before anything is read, quoted or verified.
//!
//! While they are not, whoever comes for something priced is told 503, with or without a payment: a
//! 402 would make him sign for nothing (invariant 17).

use std::time::Duration;

use farebox_store::{Intake, Ledger};

use crate::problem::{Kind, Problem};

/// When to come back to a full disk: somebody has to make room.
const FULL_RETRY: Duration = Duration::from_secs(30);
/// When to come back to a ledger in quarantine: somebody has to look at it.
const QUARANTINE_RETRY: Duration = Duration::from_mins(5);

/// Refuses while no new payments are taken.
pub(crate) fn check(ledger: &dyn Ledger) -> Result<(), Problem> {
    let (detail, pause) = match ledger.intake() {
        Intake::Open => return Ok(()),
        Intake::Full => (
            "There is no room to record new payments; those that were taken are finished.",
            FULL_RETRY,
        ),
        Intake::Quarantined(_) => (
            "The record of payments was restored and is in quarantine; no new ones are taken.",
            QUARANTINE_RETRY,
        ),
    };
    Err(Problem::new(Kind::Unavailable, detail).retry_after(pause))
}

/// Tells the log why nothing will be sold, and what to do.
pub(crate) fn announce(ledger: &dyn Ledger) {
    match ledger.intake() {
        Intake::Open => {}
        Intake::Full => tracing::error!("the disk is full: no new payments are taken"),
        Intake::Quarantined(quarantine) => tracing::error!(
            reason = %quarantine.reason,
            copied_at_ms = quarantine.copied_at.map(farebox_protocol::Timestamp::millis),
            safe_from_ms = quarantine.safe_from.map(farebox_protocol::Timestamp::millis),
            "the ledger is in quarantine and no payments are taken: it may have forgotten some; \
             what it knows is looked up on chain; end it by `farebox ledger accept-restore`"
        ),
    }
}
