//! What can befall an operation of a memory ledger on its way there and back.

use std::fmt;

use async_trait::async_trait;
use farebox_protocol::PaymentId;

/// An operation of the port, as [`Weather`] is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// [`crate::Ledger::admit`].
    Admit,
    /// [`crate::Ledger::begin_serve`].
    BeginServe,
    /// [`crate::Ledger::meter`].
    Meter,
    /// [`crate::Ledger::capture`].
    Capture,
    /// [`crate::Ledger::release`].
    Release,
    /// [`crate::Ledger::withdraw`].
    Withdraw,
    /// [`crate::Ledger::mark_answer`].
    MarkAnswer,
    /// [`crate::Ledger::owe_refund`].
    OweRefund,
    /// [`crate::Ledger::lease_jobs`].
    LeaseJobs,
    /// [`crate::Ledger::resolve_job`].
    ResolveJob,
    /// [`crate::Ledger::watch`].
    Watch,
    /// [`crate::Ledger::due_watches`].
    DueWatches,
    /// [`crate::Ledger::reopen`].
    Reopen,
    /// [`crate::Ledger::next_due`].
    NextDue,
    /// [`crate::Ledger::lookup`].
    Lookup,
    /// [`crate::Ledger::list`].
    List,
    /// [`crate::Ledger::recover`].
    Recover,
    /// [`crate::Ledger::secret`].
    Secret,
}

/// What goes wrong with an operation. For one that only reads, all but [`Mishap::None`] and
/// [`Mishap::Unflushed`] mean that it cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing: it is applied, durable, and its caller hears of it.
    None,
    /// It is not applied, and its caller is told so.
    Unavailable,
    /// It is not applied, and its caller is told that nobody knows.
    UnknownBefore,
    /// It is applied and durable, and its caller is told that nobody knows.
    UnknownAfter,
    /// It is applied and its caller is told that it is durable, which it becomes with the next one
    /// that is: a disk that lies. Never done by an honest one; tests show with it that they would
    /// notice.
    Unflushed,
}

/// Decides what befalls each operation, and when.
#[async_trait]
pub trait Weather: Send + Sync + fmt::Debug {
    /// Asked when an operation is called; it is applied when this returns. A caller that stops
    /// waiting before has called nothing.
    async fn before(&self, operation: Operation, payment: Option<PaymentId>) -> Mishap;

    /// Asked when an operation was applied, or refused; its caller hears of it when this returns. A
    /// caller that stops waiting before never hears of what is done.
    async fn after(&self, operation: Operation, payment: Option<PaymentId>);
}

/// Nothing goes wrong, and at once.
#[derive(Clone, Copy, Debug)]
pub struct Fair;

#[async_trait]
impl Weather for Fair {
    async fn before(&self, _operation: Operation, _payment: Option<PaymentId>) -> Mishap {
        Mishap::None
    }

    async fn after(&self, _operation: Operation, _payment: Option<PaymentId>) {}
}
