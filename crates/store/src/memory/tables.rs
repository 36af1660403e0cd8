//! The rows of the memory engine: maps, and a log of how to undo what was changed in them.

use std::collections::{BTreeMap, BTreeSet};

use farebox_billing::Payment;
use farebox_billing::ledger::{self, Account, Books, Parties};
use farebox_protocol::{Digest, PaymentId, Timestamp};

use crate::book::audit::{self, CheckReport, Totals, disagreement};
use crate::book::entry::Entry;
use crate::book::record::{Record, Waits};
use crate::book::replay::Replay;
use crate::book::settlements::{PAUSE_MAX, Settlement, Status};
use crate::book::{Bound, Done, Shelf, corrupt, watches};
use crate::port::{RequestKey, StoreError, StoredPayment, Terms, Watch};

/// A hold of a payment: its settlement's name.
type Key = (PaymentId, u64);

/// One payment.
#[derive(Clone, Debug)]
struct Row {
    seq: usize,
    record: Record,
    terms: Terms,
}

/// A line of the journal.
#[derive(Clone, Debug)]
struct Written {
    payment: PaymentId,
    entry: Entry,
}

/// How one change is taken back.
#[derive(Debug)]
enum Undo {
    Row(PaymentId, Option<Box<Row>>),
    Settlement(Key, Option<Box<Settlement>>),
    RequestKey(Digest, Option<Bound>),
    Journal,
    Secret(String),
}

/// Everything that a ledger keeps.
#[derive(Debug, Default)]
pub(super) struct Tables {
    rows: BTreeMap<PaymentId, Row>,
    /// In the order of admission.
    order: Vec<PaymentId>,
    settlements: BTreeMap<Key, Settlement>,
    request_keys: BTreeMap<Digest, Bound>,
    journal: Vec<Written>,
    secrets: BTreeMap<String, [u8; 32]>,
    /// Queued settlements, the first due first.
    queued: BTreeSet<(Timestamp, Key)>,
    /// Watched settlements, the first to be looked at first.
    watched: BTreeSet<(Timestamp, Key)>,
    books: Books,
    /// Payments that recovery looks at.
    unfinished: BTreeSet<PaymentId>,
    undo: Vec<Undo>,
}

/// A place in the log of changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    rows: usize,
    books: ledger::Mark,
}

impl Tables {
    /// Where the log stands.
    pub(super) fn mark(&self) -> Mark {
        Mark { rows: self.undo.len(), books: self.books.mark() }
    }

    /// Takes back whatever was changed since.
    pub(super) fn undo_to(&mut self, mark: Mark) {
        self.books.undo_to(mark.books);
        while mark.rows < self.undo.len() {
            match self.undo.pop() {
                Some(Undo::Row(id, before)) => drop(self.put_row(id, before.map(|it| *it))),
                Some(Undo::Settlement(key, before)) => {
                    drop(self.put_settlement(key, before.map(|it| *it)));
                }
                Some(Undo::RequestKey(name, None)) => drop(self.request_keys.remove(&name)),
                Some(Undo::RequestKey(name, Some(before))) => {
                    self.request_keys.insert(name, before);
                }
                Some(Undo::Journal) => drop(self.journal.pop()),
                Some(Undo::Secret(name)) => drop(self.secrets.remove(&name)),
                None => return,
            }
        }
    }

    /// What was changed so far stays. Returns where the log stands from now on.
    pub(super) fn flush(&mut self) -> Mark {
        self.undo.clear();
        drop(self.books.take_changes());
        self.books.forget_transfers();
        self.mark()
    }

    /// Puts a row in its place, with all that is derived from it; returns the one before.
    fn put_row(&mut self, id: PaymentId, row: Option<Row>) -> Option<Row> {
        let before = self.rows.remove(&id);
        if before.is_some() {
            self.unfinished.remove(&id);
        }
        if let Some(row) = row {
            if is_unfinished(&row.record) {
                self.unfinished.insert(id);
            }
            if before.is_none() {
                self.order.push(id);
            }
            self.rows.insert(id, row);
        } else {
            // Only the newest row is ever taken back.
            self.order.pop();
        }
        before
    }

    fn put_settlement(&mut self, key: Key, settlement: Option<Settlement>) -> Option<Settlement> {
        let queued = |it: &Settlement| (it.status == Status::Queued).then_some((it.due_at, key));
        let watched = |it: &Settlement| it.watch_at.map(|at| (at, key));
        if let Some(old) = self.settlements.get(&key) {
            queued(old).map(|it| self.queued.remove(&it));
            watched(old).map(|it| self.watched.remove(&it));
        }
        match settlement {
            Some(settlement) => {
                self.queued.extend(queued(&settlement));
                self.watched.extend(watched(&settlement));
                self.settlements.insert(key, settlement)
            }
            None => self.settlements.remove(&key),
        }
    }

    fn change_row(&mut self, row: Row) {
        let id = row.record.id;
        let before = self.put_row(id, Some(row));
        self.undo.push(Undo::Row(id, before.map(Box::new)));
    }

    fn change_settlement(&mut self, settlement: &Settlement) {
        let key = (settlement.payment, settlement.generation);
        let before = self.put_settlement(key, Some(settlement.clone()));
        self.undo.push(Undo::Settlement(key, before.map(Box::new)));
    }

    /// See [`crate::Ledger::list`].
    pub(super) fn list(&self, after: Option<PaymentId>, max: usize) -> Vec<StoredPayment> {
        let start = match after {
            None => 0,
            Some(id) => match self.rows.get(&id) {
                Some(row) => row.seq.saturating_add(1),
                None => return Vec::new(),
            },
        };
        let ids = self.order.get(start..).unwrap_or_default();
        ids.iter().take(max).filter_map(|id| self.rows.get(id)).map(shown).collect()
    }

    /// See [`crate::Ledger::lookup`].
    pub(super) fn lookup(&self, id: PaymentId) -> Option<StoredPayment> {
        self.rows.get(&id).map(shown)
    }

    /// See [`crate::Ledger::due_watches`].
    pub(super) fn due_watches(&self, max: usize, now: Timestamp) -> Vec<Watch> {
        let far = now.plus(PAUSE_MAX);
        let due = self.watched.iter().filter(|(at, _)| *at <= now || far < *at);
        let found = due.filter_map(|(_, (id, _))| self.lookup(*id)).filter_map(watches::of);
        found.take(max).collect()
    }

    /// See [`crate::Ledger::next_due`].
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.queued.first().into_iter().chain(self.watched.first()).map(|it| it.0).min()
    }

    /// The secret of that name; `fresh` from now on, if there was none.
    pub(super) fn secret(&mut self, name: &str, fresh: [u8; 32]) -> [u8; 32] {
        if let Some(known) = self.secrets.get(name) {
            return *known;
        }
        self.secrets.insert(name.to_owned(), fresh);
        self.undo.push(Undo::Secret(name.to_owned()));
        fresh
    }

    /// Audits the rows.
    pub(super) fn check(&self) -> Result<CheckReport, StoreError> {
        let mut report = CheckReport::default();
        let mut totals = Totals::default();
        for row in self.rows.values() {
            let record = &row.record;
            let of_hold = self.settlements.get(&(record.id, record.generation));
            if let Some(what) = disagreement(record, of_hold) {
                report.report(Some(record.id), what);
            }
            let earlier = self.settlements.range((record.id, 0)..(record.id, record.generation));
            if earlier.into_iter().any(|it| it.1.status != Status::Done) {
                report.report(Some(record.id), "has an unfinished settlement of an earlier hold");
            }
            totals.add(record).map_err(|it| corrupt::<StoreError>(format!("a total: {it}")))?;
        }
        self.check_journal(&mut report);
        if u64::try_from(self.rows.len()) != Ok(report.payments) {
            report.report(None, format!("{} payments are not all journalled", self.rows.len()));
        }
        report.totals = totals.finish();
        Ok(report)
    }

    /// Replays the journal through the life cycle of each payment, and onto the accounts.
    fn check_journal(&self, report: &mut CheckReport) {
        let mut books = Books::new();
        let mut replays: BTreeMap<PaymentId, Replay> = BTreeMap::new();
        for line in &self.journal {
            report.entries = report.entries.saturating_add(1);
            let id = line.payment;
            let Some(row) = self.rows.get(&id) else {
                report.report(Some(id), "is in the journal alone");
                continue;
            };
            let parties = || row.record.parties.clone();
            let replay = replays.entry(id).or_insert_with(|| Replay::new(id, parties()));
            if let Err(what) = replay.apply(&line.entry, &mut books) {
                report.report(Some(id), what);
            }
            books.forget_transfers();
            drop(books.take_changes());
        }
        for (id, told) in replays {
            audit::compare(&told, self.rows.get(&id).map(|it| &it.record), report);
        }
        let kept = self.books.accounts().map(|(key, account)| (key.clone(), *account)).collect();
        audit::check_accounts(&kept, &books, report);
    }
}

fn is_unfinished(record: &Record) -> bool {
    match record.state {
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. } => true,
        Payment::Settled { .. } => record.waits != Waits::No,
        Payment::Released { .. } | Payment::Lost { .. } => false,
    }
}

fn shown(row: &Row) -> StoredPayment {
    let Row { record, terms, .. } = row;
    StoredPayment {
        terms: terms.clone(),
        state: record.state.clone(),
        answer: record.answer,
        refund_owed: record.refund_owed.clone(),
        admitted_at: record.admitted_at,
        changed_at: record.changed_at,
    }
}

impl Shelf for Tables {
    type Fault = StoreError;

    fn contradiction(fault: &StoreError) -> Option<&StoreError> {
        match fault {
            StoreError::Corrupt(_) | StoreError::Illegal(_) => Some(fault),
            StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::Fenced(_) => None,
        }
    }

    fn record(&mut self, id: PaymentId) -> Done<Self, Option<Record>> {
        Ok(self.rows.get(&id).map(|it| it.record.clone()))
    }

    fn save(&mut self, record: &Record) -> Done<Self, ()> {
        let known = self.rows.get(&record.id);
        let Some(row) = known.filter(|it| it.record.generation == record.generation) else {
            return Err(corrupt(format!("{} changed under its only writer", record.id)));
        };
        let row = Row { seq: row.seq, record: record.clone(), terms: row.terms.clone() };
        self.change_row(row);
        Ok(())
    }

    fn hold(&mut self, record: &Record, terms: &Terms) -> Done<Self, ()> {
        let seq = match self.rows.get(&record.id) {
            None => self.order.len(),
            // Only a released payment can be held again, and only by the request it is bound to.
            Some(it)
                if matches!(it.record.state, Payment::Released { .. })
                    && it.record.fingerprint == record.fingerprint
                    && it.record.generation.checked_add(1) == Some(record.generation) =>
            {
                it.seq
            }
            Some(_) => return Err(corrupt(format!("{} is not to be held again", record.id))),
        };
        self.change_row(Row { seq, record: record.clone(), terms: terms.clone() });
        Ok(())
    }

    fn stored(&mut self, id: PaymentId) -> Done<Self, Option<StoredPayment>> {
        Ok(self.lookup(id))
    }

    fn books(&mut self, parties: &Parties) -> Done<Self, &mut Books> {
        for key in parties.accounts() {
            if self.books.account(&key).is_none() {
                self.books.load_account(key, Account::ZERO);
            }
        }
        Ok(&mut self.books)
    }

    fn bound(&mut self, name: Digest) -> Done<Self, Option<Bound>> {
        Ok(self.request_keys.get(&name).copied())
    }

    fn bind(&mut self, key: &RequestKey, payment: PaymentId) -> Done<Self, ()> {
        let now = Bound { payment, request: key.request };
        let before = self.request_keys.insert(key.name, now);
        self.undo.push(Undo::RequestKey(key.name, before));
        let free = |it: PaymentId| {
            let of = self.rows.get(&it).map(|it| &it.record.state);
            it == payment || matches!(of, Some(Payment::Released { .. }))
        };
        // Only a released payment loses its key, and only to the same request.
        if before.is_none_or(|it| it.request == key.request && free(it.payment)) {
            return Ok(());
        }
        Err(corrupt(format!("a request key of another payment was to go to {payment}")))
    }

    fn settlement(&mut self, id: PaymentId, generation: u64) -> Done<Self, Option<Settlement>> {
        Ok(self.settlements.get(&(id, generation)).cloned())
    }

    fn queue(&mut self, settlement: &Settlement) -> Done<Self, ()> {
        if self.settlements.contains_key(&(settlement.payment, settlement.generation)) {
            return Err(corrupt(format!("{} was queued before", settlement.payment)));
        }
        self.change_settlement(settlement);
        Ok(())
    }

    fn save_settlement(&mut self, settlement: &Settlement) -> Done<Self, ()> {
        self.change_settlement(settlement);
        Ok(())
    }

    fn due(&mut self, now: Timestamp, far: Timestamp, max: usize) -> Done<Self, Vec<Settlement>> {
        let due = self.queued.iter().filter(|(at, _)| *at <= now || far < *at);
        Ok(due.take(max).filter_map(|(_, key)| self.settlements.get(key)).cloned().collect())
    }

    fn append(&mut self, id: PaymentId, entry: &Entry, _now: Timestamp) -> Done<Self, ()> {
        self.journal.push(Written { payment: id, entry: entry.clone() });
        self.undo.push(Undo::Journal);
        Ok(())
    }

    fn open_records(&mut self) -> Done<Self, Vec<Record>> {
        Ok(self.unfinished_where(|it| !matches!(it, Payment::Settled { .. })))
    }

    fn unanswered_records(&mut self) -> Done<Self, Vec<Record>> {
        Ok(self.unfinished_where(|it| matches!(it, Payment::Settled { .. })))
    }
}

impl Tables {
    fn unfinished_where(&self, which: impl Fn(&Payment) -> bool) -> Vec<Record> {
        let rows = self.unfinished.iter().filter_map(|id| self.rows.get(id));
        rows.map(|it| &it.record).filter(|it| which(&it.state)).cloned().collect()
    }
}
