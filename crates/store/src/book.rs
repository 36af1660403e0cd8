//! The rules of every ledger operation, written once for all engines.
//!
//! An engine is a [`Shelf`]: it finds and keeps rows, inside a transaction of its own that makes them
//! durable together. What may change, and what goes with it into the journal, is decided here: the
//! life cycle is [`farebox_billing::Payment::on`], the accounts are [`farebox_billing::ledger`]'s, the
//! rules around them are in [`holds`], [`settlements`] and [`recovery`]. Nothing here waits, reads a clock or knows a database.

pub(crate) mod audit;
pub(crate) mod entry;
pub(crate) mod holds;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod replay;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod settlements;
pub(crate) mod unheard;
pub(crate) mod watches;

use farebox_billing::Illegal;
use farebox_billing::ledger::{Books, Parties};
use farebox_protocol::{Digest, PaymentId, Timestamp};

use crate::book::entry::Entry;
use crate::book::record::Record;
use crate::book::settlements::Settlement;
use crate::port::{RequestKey, StoreError, StoredPayment, Terms};

/// Where an engine keeps its rows. Every call sees what the calls before it have changed; all of them
/// belong to one transaction.
pub(crate) trait Shelf {
    /// Why a row cannot be had; the operation is then undone as a whole.
    type Fault: From<StoreError> + From<Illegal>;

    /// What a fault says of the payment itself, if it is one that contradicts itself
    /// ([`StoreError::Corrupt`], [`StoreError::Illegal`]).
    fn contradiction(fault: &Self::Fault) -> Option<&StoreError>;

    /// A payment, if there is one.
    fn record(&mut self, id: PaymentId) -> Done<Self, Option<Record>>;

    /// Keeps what can change of a payment that is there, in its generation.
    fn save(&mut self, record: &Record) -> Done<Self, ()>;

    /// Keeps a new payment, or the next generation of a released one with the same fingerprint.
    fn hold(&mut self, record: &Record, terms: &Terms) -> Done<Self, ()>;

    /// A payment with all its terms, if there is one.
    fn stored(&mut self, id: PaymentId) -> Done<Self, Option<StoredPayment>>;

    /// The books, with every account of these parties in them ([`Parties::accounts`]). What changes
    /// in them belongs to the transaction like any row.
    fn books(&mut self, parties: &Parties) -> Done<Self, &mut Books>;

    /// The payment that a request key belongs to, if it belongs to one.
    fn bound(&mut self, name: Digest) -> Done<Self, Option<Bound>>;

    /// Gives a request key to a payment that is there: a key that is new, or the same key and request
    /// of a released payment.
    fn bind(&mut self, key: &RequestKey, payment: PaymentId) -> Done<Self, ()>;

    /// The settlement of a payment's hold, if it was ever captured.
    fn settlement(&mut self, id: PaymentId, generation: u64) -> Done<Self, Option<Settlement>>;

    /// Keeps a settlement that is new.
    fn queue(&mut self, settlement: &Settlement) -> Done<Self, ()>;

    /// Keeps what can change of a settlement that is there.
    fn save_settlement(&mut self, settlement: &Settlement) -> Done<Self, ()>;

    /// At most `max` queued settlements that are due at `now` or not before `far`, the first due
    /// first.
    fn due(&mut self, now: Timestamp, far: Timestamp, max: usize) -> Done<Self, Vec<Settlement>>;

    /// Adds a line to the journal.
    fn append(&mut self, id: PaymentId, entry: &Entry, now: Timestamp) -> Done<Self, ()>;

    /// What a crash may have left in the middle of something: every payment that is held, serving,
    /// captured, settling or unknown. All at once: it is bounded by what is served at a time.
    fn open_records(&mut self) -> Done<Self, Vec<Record>>;

    /// Every settled payment with whose answer somebody waits or waited in vain.
    fn unanswered_records(&mut self) -> Done<Self, Vec<Record>>;
}

/// What a request key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) payment: PaymentId,
    /// See [`RequestKey::request`].
    pub(crate) request: Digest,
}

/// The result of one operation, before anybody knows whether its transaction holds.
pub(crate) type Done<S, T> = Result<T, <S as Shelf>::Fault>;

/// The ledger contradicts itself.
pub(crate) fn corrupt<F: From<StoreError>>(what: impl Into<String>) -> F {
    StoreError::Corrupt(what.into()).into()
}

/// The payment that the caller holds evidence of: without it, the ledger has forgotten.
pub(crate) fn existing<S: Shelf + ?Sized>(shelf: &mut S, id: PaymentId) -> Done<S, Record> {
    shelf.record(id)?.ok_or_else(|| corrupt(format!("{id} is not in the ledger")))
}

/// A payment that is known to be there, with its terms.
pub(crate) fn stored<S: Shelf + ?Sized>(shelf: &mut S, id: PaymentId) -> Done<S, StoredPayment> {
    shelf.stored(id)?.ok_or_else(|| corrupt(format!("{id} has lost its terms")))
}
