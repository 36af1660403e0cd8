//! The rows that a batch of operations works on, loaded and locked before and written after.
//!
//! An operation that wants to see more than is there stops at [`Fault::Missing`]; the writer loads it
//! and runs the operation again. What an operation changes is noted, so that its failure spoils
//! nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use farebox_billing::Payment;
use farebox_billing::ledger::{Account, AccountKey, Books, Mark, Parties};
use farebox_protocol::{Amount, Digest, PaymentId, Timestamp};

use crate::book::entry::Entry;
use crate::book::record::{Record, Waits};
use crate::book::settlements::{Settlement, Status};
use crate::book::{Bound, Shelf};
use crate::port::{RequestKey, StoreError, StoredPayment, Terms};
use crate::postgres::fault::{Done, Due, Fault, Need};
use crate::postgres::rows::{self, Owned};
use crate::transactions::{KeptTransaction, TransactionFate};

/// A payment on the shelf.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) record: Record,
    pub(super) limit: Amount,
    pub(super) node: String,
    /// The generation of the row in the database; none if there is no row.
    pub(super) was: Option<u64>,
}

/// A request key on the shelf.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeySlot {
    now: Option<Bound>,
    /// The payment that the database has for it; none if it has none.
    was: Option<PaymentId>,
}

type SettlementKey = (PaymentId, u64);

/// What was there before a change.
#[derive(Debug)]
enum Before {
    Payment(PaymentId, Option<Slot>),
    Terms(PaymentId, Option<Terms>),
    Key(Digest, KeySlot),
    Settlement(SettlementKey, Option<Settlement>),
}

/// A moment to come back to.
#[derive(Debug)]
pub(super) struct Moment {
    books: Mark,
    undo: usize,
    journal: usize,
}

/// A line for the journal.
pub(super) type Written = (PaymentId, Entry, Timestamp);

/// How a signed transaction ended, by its hash.
pub(super) type EndedTransaction = ([u8; 32], TransactionFate);

/// What a transaction has loaded, and what it has changed since.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Whose transaction it is.
    node: String,
    payments: HashMap<PaymentId, Option<Slot>>,
    terms: HashMap<PaymentId, Terms>,
    keys: HashMap<Digest, KeySlot>,
    settlements: HashMap<SettlementKey, Settlement>,
    pub(super) books: Books,
    due: Option<(Due, Vec<SettlementKey>)>,
    unfinished: Option<Vec<PaymentId>>,
    undo: Vec<Before>,
    journal: Vec<Written>,
    recorded: Vec<KeptTransaction>,
    ended: Vec<EndedTransaction>,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    /// New payments with their terms, in the order of their ids.
    pub(super) added: Vec<(&'a Slot, &'a Terms)>,
    /// Changed ones, in the order of their ids.
    pub(super) changed: Vec<(&'a Slot, u64)>,
    /// Those of them that were held again, with their terms.
    pub(super) held_again: Vec<&'a Terms>,
    /// New request keys.
    pub(super) keys: Vec<(Digest, Bound)>,
    /// Those that another payment had before.
    pub(super) moved_keys: Vec<(Digest, Bound, PaymentId)>,
    pub(super) settlements: Vec<&'a Settlement>,
    pub(super) journal: &'a [Written],
    pub(super) recorded: &'a [KeptTransaction],
    pub(super) ended: &'a [EndedTransaction],
    pub(super) accounts: BTreeMap<AccountKey, Account>,
}

impl Loaded {
    /// Nothing, on behalf of `node`.
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            payments: HashMap::new(),
            terms: HashMap::new(),
            keys: HashMap::new(),
            settlements: HashMap::new(),
            books: Books::new(),
            due: None,
            unfinished: None,
            undo: Vec::new(),
            journal: Vec::new(),
            recorded: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Whether a payment was looked for.
    pub(super) fn has_payment(&self, id: PaymentId) -> bool {
        self.payments.contains_key(&id)
    }

    /// A payment that is in the database; what an operation has changed of it stays.
    pub(super) fn put_payment(&mut self, owned: Owned) {
        let Owned { record, limit, node } = owned;
        let was = Some(record.generation);
        let slot = Slot { record, limit, node, was };
        self.payments.entry(slot.record.id).or_insert(Some(slot));
    }

    /// A payment that is not in the database.
    pub(super) fn put_absence(&mut self, id: PaymentId) {
        self.payments.entry(id).or_insert(None);
    }

    /// A settlement that is in the database; what an operation has changed of it stays.
    pub(super) fn put_settlement(&mut self, settlement: Settlement) {
        let key = (settlement.payment, settlement.generation);
        self.settlements.entry(key).or_insert(settlement);
    }

    /// The terms of a payment.
    pub(super) fn put_terms(&mut self, terms: Terms) {
        self.terms.entry(terms.id).or_insert(terms);
    }

    /// What a request key belongs to in the database, if it belongs to anything.
    pub(super) fn put_key(&mut self, name: Digest, now: Option<Bound>) {
        let was = now.map(|it| it.payment);
        self.keys.entry(name).or_insert(KeySlot { now, was });
    }

    /// What is due, in this order; payments and settlements are put by themselves.
    pub(super) fn put_due(&mut self, due: Due, keys: Vec<SettlementKey>) {
        self.due = Some((due, keys));
    }

    /// What this node has left unfinished; payments and settlements are put by themselves.
    pub(super) fn put_unfinished(&mut self, ids: Vec<PaymentId>) {
        self.unfinished = Some(ids);
    }

    /// Whether the accounts of these parties are there.
    pub(super) fn has_accounts(&self, parties: &Parties) -> bool {
        parties.accounts().iter().all(|it| self.books.account(it).is_some())
    }

    /// The parties of every payment that is there.
    pub(super) fn parties(&self) -> impl Iterator<Item = &Parties> {
        self.payments.values().flatten().map(|it| &it.record.parties)
    }

    /// What is now.
    pub(super) fn now(&self) -> Moment {
        Moment { books: self.books.mark(), undo: self.undo.len(), journal: self.journal.len() }
    }

    /// Puts everything back as it was then.
    pub(super) fn back_to(&mut self, moment: &Moment) {
        self.books.undo_to(moment.books);
        self.journal.truncate(moment.journal);
        while moment.undo < self.undo.len() {
            match self.undo.pop() {
                Some(Before::Payment(id, slot)) => drop(self.payments.insert(id, slot)),
                Some(Before::Terms(id, Some(terms))) => drop(self.terms.insert(id, terms)),
                Some(Before::Terms(id, None)) => drop(self.terms.remove(&id)),
                Some(Before::Key(name, slot)) => drop(self.keys.insert(name, slot)),
                Some(Before::Settlement(key, Some(it))) => drop(self.settlements.insert(key, it)),
                Some(Before::Settlement(key, None)) => drop(self.settlements.remove(&key)),
                None => {}
            }
        }
    }

    /// What has changed.
    pub(super) fn changes(&mut self) -> Changes<'_> {
        let accounts = self.books.take_changes().accounts;
        let mut payments = BTreeSet::new();
        let mut settlements = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for before in &self.undo {
            match before {
                Before::Payment(id, _) | Before::Terms(id, _) => drop(payments.insert(*id)),
                Before::Key(name, _) => drop(keys.insert(*name)),
                Before::Settlement(key, _) => drop(settlements.insert(*key)),
            }
        }
        let mut changes = Changes {
            added: Vec::new(),
            changed: Vec::new(),
            held_again: Vec::new(),
            keys: Vec::new(),
            moved_keys: Vec::new(),
            settlements: settlements.iter().filter_map(|it| self.settlements.get(it)).collect(),
            journal: &self.journal,
            recorded: &self.recorded,
            ended: &self.ended,
            accounts,
        };
        for name in keys {
            match self.keys.get(&name) {
                Some(KeySlot { now: Some(now), was: None }) => changes.keys.push((name, *now)),
                Some(KeySlot { now: Some(now), was: Some(was) }) if now.payment != *was => {
                    changes.moved_keys.push((name, *now, *was));
                }
                Some(_) | None => {}
            }
        }
        for id in payments {
            let Some(slot) = self.payments.get(&id).and_then(Option::as_ref) else { continue };
            let terms = self.terms.get(&id);
            match (slot.was, terms) {
                (None, Some(terms)) => changes.added.push((slot, terms)),
                (Some(was), terms) => {
                    if was != slot.record.generation {
                        changes.held_again.extend(terms);
                    }
                    changes.changed.push((slot, was));
                }
                (None, None) => {}
            }
        }
        changes
    }

    /// Keeps a signed transaction. An operation that does so does nothing else, and cannot fail.
    pub(super) fn record_transaction(&mut self, transaction: KeptTransaction) {
        self.recorded.push(transaction);
    }

    /// Keeps how signed transactions ended. An operation that does so does nothing else, and cannot
    /// fail.
    pub(super) fn end_transactions(&mut self, ended: &[EndedTransaction]) {
        self.ended.extend_from_slice(ended);
    }

    fn slot(&self, id: PaymentId) -> Done<Option<&Slot>> {
        let slot = self.payments.get(&id).ok_or(Fault::Missing(Need::Payment(id)))?;
        Ok(slot.as_ref())
    }

    fn set_payment(&mut self, slot: Slot) {
        let id = slot.record.id;
        let before = self.payments.insert(id, Some(slot)).flatten();
        self.undo.push(Before::Payment(id, before));
    }

    fn set_settlement(&mut self, settlement: Settlement) {
        let key = (settlement.payment, settlement.generation);
        let before = self.settlements.insert(key, settlement);
        self.undo.push(Before::Settlement(key, before));
    }

    fn unfinished(&self, which: impl Fn(&Record) -> bool) -> Done<Vec<Record>> {
        let ids = self.unfinished.as_ref().ok_or(Fault::Missing(Need::Unfinished))?;
        let slots = ids.iter().filter_map(|it| self.payments.get(it)?.as_ref());
        let mine = slots.filter(|it| it.node == self.node).map(|it| &it.record);
        Ok(mine.filter(|it| which(it)).cloned().collect())
    }
}

/// Whether a crash may have left it in the middle of something.
fn is_open(state: &Payment) -> bool {
    match state {
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. } => true,
        Payment::Settled { .. } | Payment::Released { .. } | Payment::Lost { .. } => false,
    }
}

/// Whether recovery has to look at it.
pub(super) fn is_unfinished(record: &Record) -> bool {
    is_open(&record.state) || is_unanswered(record)
}

fn is_unanswered(record: &Record) -> bool {
    matches!(record.state, Payment::Settled { .. }) && record.waits != Waits::No
}

impl Shelf for Loaded {
    type Fault = Fault;

    fn contradiction(fault: &Fault) -> Option<&StoreError> {
        match fault {
            Fault::Store(error @ (StoreError::Corrupt(_) | StoreError::Illegal(_))) => Some(error),
            Fault::Store(_) | Fault::Missing(_) => None,
        }
    }

    fn record(&mut self, id: PaymentId) -> Done<Option<Record>> {
        Ok(self.slot(id)?.map(|it| it.record.clone()))
    }

    fn save(&mut self, record: &Record) -> Done<()> {
        let Some(slot) = self.slot(record.id)?.cloned() else {
            return Err(StoreError::Corrupt(format!("{} was never held", record.id)).into());
        };
        let settling = |it: &Record| matches!(it.state, Payment::Settling { .. });
        // Whoever leases a settlement is who has to resolve it, also after a crash.
        let leased = settling(record) && !settling(&slot.record);
        let node = if leased { self.node.clone() } else { slot.node };
        self.set_payment(Slot { record: record.clone(), node, ..slot });
        Ok(())
    }

    fn hold(&mut self, record: &Record, terms: &Terms) -> Done<()> {
        let was = self.slot(record.id)?.and_then(|it| it.was);
        let (record, node) = (record.clone(), self.node.clone());
        self.set_payment(Slot { record, limit: terms.limit, node, was });
        let before = self.terms.insert(terms.id, terms.clone());
        self.undo.push(Before::Terms(terms.id, before));
        Ok(())
    }

    fn stored(&mut self, id: PaymentId) -> Done<Option<StoredPayment>> {
        let Some(slot) = self.slot(id)? else { return Ok(None) };
        let terms = self.terms.get(&id).ok_or(Fault::Missing(Need::Terms(id)))?;
        Ok(Some(rows::with_terms(slot.record.clone(), terms.clone())))
    }

    fn books(&mut self, parties: &Parties) -> Done<&mut Books> {
        if self.has_accounts(parties) {
            return Ok(&mut self.books);
        }
        Err(Fault::Missing(Need::Accounts(parties.clone())))
    }

    fn bound(&mut self, name: Digest) -> Done<Option<Bound>> {
        Ok(self.keys.get(&name).ok_or(Fault::Missing(Need::Key(name)))?.now)
    }

    fn bind(&mut self, key: &RequestKey, payment: PaymentId) -> Done<()> {
        let slot = *self.keys.get(&key.name).ok_or(Fault::Missing(Need::Key(key.name)))?;
        let now = Some(Bound { payment, request: key.request });
        self.keys.insert(key.name, KeySlot { now, ..slot });
        self.undo.push(Before::Key(key.name, slot));
        Ok(())
    }

    fn settlement(&mut self, id: PaymentId, generation: u64) -> Done<Option<Settlement>> {
        // With a payment come all of its settlements.
        if self.slot(id)?.is_none() {
            return Ok(None);
        }
        Ok(self.settlements.get(&(id, generation)).cloned())
    }

    fn queue(&mut self, settlement: &Settlement) -> Done<()> {
        self.set_settlement(settlement.clone());
        Ok(())
    }

    fn save_settlement(&mut self, settlement: &Settlement) -> Done<()> {
        self.set_settlement(settlement.clone());
        Ok(())
    }

    fn due(&mut self, now: Timestamp, far: Timestamp, max: usize) -> Done<Vec<Settlement>> {
        let asked = Due { now, far, max };
        let found = self.due.as_ref().filter(|it| it.0.covers(asked));
        let Some((_, keys)) = found else { return Err(Fault::Missing(Need::Due(asked))) };
        // As it is now: an operation before this one may have taken or resolved it.
        let current = keys.iter().filter_map(|it| self.settlements.get(it));
        let is_due =
            |it: &&Settlement| it.status == Status::Queued && (it.due_at <= now || far < it.due_at);
        Ok(current.filter(is_due).cloned().collect())
    }

    fn append(&mut self, id: PaymentId, entry: &Entry, now: Timestamp) -> Done<()> {
        self.journal.push((id, entry.clone(), now));
        Ok(())
    }

    fn open_records(&mut self) -> Done<Vec<Record>> {
        self.unfinished(|it| is_open(&it.state))
    }

    fn unanswered_records(&mut self) -> Done<Vec<Record>> {
        self.unfinished(is_unanswered)
    }
}
