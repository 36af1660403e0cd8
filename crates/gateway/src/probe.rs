//! Named places in the way of a payment where a test can stop the process.

use std::fmt;

use farebox_protocol::PaymentId;

/// A place in the way of one payment, named after the table of the architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The payment accepts one of our offers for this very request.
    Decoded,
    /// The facilitator found it good.
    Verified,
    /// The hold is durable.
    Held,
    /// The upstream is about to be called.
    Serving,
    /// The upstream has answered: its whole body, or the head and first part of a stream.
    UpstreamAnswered,
    /// What is owed for the first byte is durable; the byte has not left.
    Metered,
    /// The first byte has been handed to the connection.
    FirstByte,
    /// Charge and queued settlement are durable.
    Captured,
    /// The settlement is known.
    Settled,
    /// The whole answer has been handed to the connection.
    Answered,
}

impl Step {
    /// Every step, in the order of the way of a stream.
    pub const ALL: [Self; 10] = [
        Self::Decoded,
        Self::Verified,
        Self::Held,
        Self::Serving,
        Self::UpstreamAnswered,
        Self::Metered,
        Self::FirstByte,
        Self::Captured,
        Self::Settled,
        Self::Answered,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decoded => "decoded",
            Self::Verified => "verified",
            Self::Held => "held",
            Self::Serving => "serving",
            Self::UpstreamAnswered => "upstream-answered",
            Self::Metered => "metered",
            Self::FirstByte => "first-byte",
            Self::Captured => "captured",
            Self::Settled => "settled",
            Self::Answered => "answered",
        }
    }
}

/// Told of every step of every payment. Crash tests end the process in it.
pub trait Probe: Send + Sync + fmt::Debug {
    /// The payment has come to this step.
    fn reached(&self, step: Step, id: PaymentId);
}

/// The probe of every real gateway: it does nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn reached(&self, _step: Step, _id: PaymentId) {}
}
