//! What a ledger shows to whoever looks at its books: operators, accountants, auditors.
//!
//! Plain data for commands and exports; nothing here is evidence of anything. Payloads and
//! requirements stay behind: a payload holds a signature.

use farebox_protocol::{Amount, Asset, PaymentId, Timestamp};

use crate::port::StoredPayment;

/// Which payments are looked at; every `None` means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// In this state ([`farebox_billing::Payment::name`]).
    pub state: Option<String>,
    /// Of this payer, in any case of the letters.
    pub payer: Option<String>,
    /// For this route, by its whole name.
    pub route: Option<String>,
    /// Admitted then or later.
    pub since: Option<Timestamp>,
    /// Admitted before.
    pub until: Option<Timestamp>,
}

/// From which end payments are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they were admitted.
    OldestFirst,
    /// The last one first.
    NewestFirst,
}

/// A payment in a list, with how far its settlement has come.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The payment.
    pub payment: StoredPayment,
    /// How often its settlement was tried; `None` before there is one.
    pub attempts: Option<u32>,
}

/// Everything that is known of one payment.
#[derive(Clone, Debug)]
pub struct Story {
    /// What it is and where it stands.
    pub payment: StoredPayment,
    /// How often it was held: a released one can be held again.
    pub generation: u64,
    /// Its settlements, one for each hold that was captured, the first one first.
    pub settlements: Vec<SettlementView>,
    /// What happened to it, in order.
    pub journal: Vec<JournalLine>,
}

/// A settlement as the queue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettlementView {
    /// Of which hold of its payment.
    pub generation: u64,
    /// `queued`, `leased`, `done`.
    pub status: String,
    /// Not tried before; of no meaning once it is done.
    pub due_at: Timestamp,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// Whether a try may have reached the chain.
    pub may_have_been_sent: bool,
    /// The last transaction that was heard of.
    pub transaction: Option<String>,
    /// How it ended: a transaction or a reason.
    pub outcome: Option<String>,
    /// When it was queued.
    pub created_at: Timestamp,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLine {
    /// Its number, without gaps from 1.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Of which payment.
    pub payment: PaymentId,
    /// In which asset that payment is.
    pub asset: Asset,
    /// What happened.
    pub event: String,
    /// How much, in atomic units of the payment's asset.
    pub amount: Option<Amount>,
    /// The event's transaction or reason.
    pub detail: Option<String>,
    /// Where the payment stood afterwards; told in a [`Story`] only, where the lines before are
    /// known.
    pub state: Option<&'static str>,
}
