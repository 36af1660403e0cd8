//! What happens in a simulated world, in its order.

use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};

use farebox_billing::Payment;
use farebox_protocol::{Amount, Digest, PaymentId};
use farebox_store::{AnswerMark, Mishap, Operation};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process opens the ledger.
    Opened,
    /// It has put the ledger in order and answers.
    Ready,
    /// It is gone, without a word.
    Crashed,
    /// From here on nothing fails any more.
    Healed,
    /// A payment in the ledger, as it has become.
    Row { payment: PaymentId, state: Payment, answer: AnswerMark, refund: Option<String> },
    /// A process has opened the ledger, and a payment is not as it was before.
    Forgotten { payment: PaymentId },
    /// A ledger operation went wrong.
    Mishap { operation: Operation, payment: Option<PaymentId>, mishap: Mishap },
    /// A client sends a request, with a payment or without.
    Requested { attempt: u64, payment: Option<PaymentId>, name: Option<u64>, fit: Fit },
    /// A client hangs up.
    HungUp { attempt: u64 },
    /// The upstream gets a request.
    UpstreamAsked { attempt: u64, payment: Option<PaymentId> },
    /// The upstream has told what its whole answer costs.
    Used { attempt: u64, cost: Amount },
    /// The gateway has answered.
    Answered { attempt: u64, payment: Option<PaymentId>, status: u16, sold: bool },
    /// The first byte of what was sold leaves.
    Left { attempt: u64, payment: PaymentId },
    /// The last byte of it leaves.
    Finished { attempt: u64, payment: PaymentId },
    /// The facilitator is asked to settle.
    SettleAsked { payment: PaymentId, payload: Digest, amount: Amount },
    /// The gateway hears what became of it.
    SettleTold { payment: PaymentId, told: String },
    /// The facilitator is asked whether a payment was settled, and tells.
    LookedUp { payment: PaymentId, told: String },
    /// Bytes leave for the chain.
    Broadcast { payment: PaymentId, transaction: String },
}

impl Event {
    /// Which payment it is about.
    pub(crate) fn payment(&self) -> Option<PaymentId> {
        match self {
            Self::Opened
            | Self::Ready
            | Self::Crashed
            | Self::Healed
            | Self::HungUp { .. }
            | Self::Used { .. } => None,
            Self::Row { payment, .. }
            | Self::Forgotten { payment }
            | Self::Left { payment, .. }
            | Self::Finished { payment, .. }
            | Self::SettleAsked { payment, .. }
            | Self::SettleTold { payment, .. }
            | Self::LookedUp { payment, .. }
            | Self::Broadcast { payment, .. } => Some(*payment),
            Self::Mishap { payment, .. }
            | Self::Requested { payment, .. }
            | Self::UpstreamAsked { payment, .. }
            | Self::Answered { payment, .. } => *payment,
        }
    }
}

/// Whether a payment comes with the request that it was quoted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Own,
    Other,
}

/// Everything that happened.
#[derive(Default)]
pub(crate) struct Log {
    events: Vec<(u64, Event)>,
    hasher: DefaultHasher,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.hasher.write(format!("{at} {event:?}").as_bytes());
        self.events.push((at, event));
    }

    /// Equal for logs that are equal.
    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn events(&self) -> &[(u64, Event)] {
        &self.events
    }
}
