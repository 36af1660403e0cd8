//! What a stream owes so far, made durable while it goes: ADR 0011.

use farebox_protocol::Amount;

use crate::proxy::hold::Held;

/// A crash loses at most one part of so many of what a payment may cost.
const STEPS: u128 = 16;

/// The checkpoints of one stream. Between two of them lies a sixteenth of the hold.
#[derive(Debug)]
pub(super) struct Checkpoints<'a> {
    held: &'a Held,
    last: Amount,
    step: Amount,
}

impl<'a> Checkpoints<'a> {
    /// Those that follow the first one, of `due`.
    pub(super) fn after(due: Amount, held: &'a Held) -> Self {
        let step = held.limit().units().div_ceil(STEPS);
        Self { held, last: due, step: Amount::from_units(step) }
    }

    /// Records what is `owed` by now, where that has grown enough. A try that failed is not made
    /// again before the next step: the stream does not wait for a ledger that is away.
    pub(super) async fn follow(&mut self, owed: Amount) {
        let next = self.last.checked_add(self.step);
        if next.is_ok_and(|next| next <= owed) {
            self.last = owed;
            self.held.checkpoint(owed).await;
        }
    }
}
