//! Writing: what a batch has changed, in as few statements as there are tables.

use std::collections::BTreeMap;

use farebox_billing::Payment;
use farebox_billing::ledger::{Account, AccountKey};
use farebox_protocol::{Amount, Digest, PaymentId};
use futures_util::try_join;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use crate::book::Bound;
use crate::book::entry::Line;
use crate::book::settlements::Settlement;
use crate::port::Terms;
use crate::postgres::fault::Trouble;
use crate::postgres::load::{Keys, Transaction, shelf_of};
use crate::postgres::loaded::{Changes, EndedTransaction, Slot, Written, is_unfinished};
use crate::postgres::numeric::Units;
use crate::postgres::rows::{count, mark_name, millis};
use crate::transactions::KeptTransaction;

type Parameter<'a> = &'a (dyn ToSql + Sync);

impl Changes<'_> {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.changed.is_empty()
            && self.settlements.is_empty()
            && self.recorded.is_empty()
            && self.ended.is_empty()
            && self.journal.is_empty()
    }
}

impl Transaction<'_> {
    /// Writes everything; `journal_seq` is the last line before these. Every row that should have
    /// changed must have, or another node was faster.
    pub(super) async fn save(
        &self,
        changes: &Changes<'_>,
        journal_seq: i64,
    ) -> Result<(), Trouble> {
        try_join!(
            self.insert_payments(&changes.added),
            self.update_payments(&changes.changed),
            self.update_terms(&changes.held_again),
            self.insert_keys(&changes.keys),
            self.move_keys(&changes.moved_keys),
            self.keep_outbox(&changes.settlements),
            self.record_transactions(changes.recorded),
            self.end_transactions(changes.ended),
            self.append_journal(changes.journal, journal_seq),
            self.keep_accounts(&changes.accounts),
        )?;
        Ok(())
    }

    async fn write(
        &self,
        sql: &Statement,
        rows: usize,
        parameters: &[Parameter<'_>],
    ) -> Result<(), Trouble> {
        let written = self.client.execute(sql, parameters).await?;
        if usize::try_from(written) == Ok(rows) { Ok(()) } else { Err(Trouble::Overtaken) }
    }

    async fn insert_payments(&self, added: &[(&Slot, &Terms)]) -> Result<(), Trouble> {
        if added.is_empty() {
            return Ok(());
        }
        let now: Vec<Columns<'_>> = added.iter().map(|it| Columns::of(it.0)).collect();
        let terms: Vec<&Terms> = added.iter().map(|it| it.1).collect();
        let fixed = Fixed::of(&terms);
        let bulk = Bulk::of(&terms);
        let now = Changing::of(&now);
        let admitted_at: Vec<i64> =
            added.iter().map(|it| millis(it.0.record.admitted_at)).collect();
        let parameters: [Parameter<'_>; 28] = [
            &self.node,
            &fixed.ids,
            &fixed.fingerprints,
            &now.generations,
            &fixed.networks,
            &fixed.assets,
            &fixed.payers,
            &fixed.pay_tos,
            &fixed.routes,
            &now.limits,
            &now.settles,
            &now.states,
            &now.delivereds,
            &now.charges,
            &now.transactions,
            &now.reasons,
            &now.answers,
            &now.waits,
            &now.refunds,
            &now.reopeneds,
            &admitted_at,
            &now.changed_ats,
            &now.unfinisheds,
            &bulk.schemes,
            &bulk.price_versions,
            &bulk.settle_bys,
            &bulk.payloads,
            &bulk.requirements,
        ];
        self.write(&self.sql.insert_payments, added.len(), &parameters).await
    }

    async fn update_payments(&self, changed: &[(&Slot, u64)]) -> Result<(), Trouble> {
        if changed.is_empty() {
            return Ok(());
        }
        let now: Vec<Columns<'_>> = changed.iter().map(|it| Columns::of(it.0)).collect();
        let now = Changing::of(&now);
        let was: Vec<i64> = changed.iter().map(|it| count(it.1)).collect();
        let nodes: Vec<&str> = changed.iter().map(|it| it.0.node.as_str()).collect();
        let parameters: [Parameter<'_>; 17] = [
            &now.ids,
            &was,
            &now.generations,
            &nodes,
            &now.limits,
            &now.settles,
            &now.states,
            &now.delivereds,
            &now.charges,
            &now.transactions,
            &now.reasons,
            &now.answers,
            &now.waits,
            &now.refunds,
            &now.reopeneds,
            &now.changed_ats,
            &now.unfinisheds,
        ];
        self.write(&self.sql.update_payments, changed.len(), &parameters).await
    }

    async fn update_terms(&self, held_again: &[&Terms]) -> Result<(), Trouble> {
        if held_again.is_empty() {
            return Ok(());
        }
        let ids: Vec<&[u8]> = held_again.iter().map(|it| it.id.as_bytes().as_slice()).collect();
        let bulk = Bulk::of(held_again);
        let parameters: [Parameter<'_>; 6] = [
            &ids,
            &bulk.schemes,
            &bulk.price_versions,
            &bulk.settle_bys,
            &bulk.payloads,
            &bulk.requirements,
        ];
        self.write(&self.sql.update_terms, held_again.len(), &parameters).await
    }

    async fn insert_keys(&self, keys: &[(Digest, Bound)]) -> Result<(), Trouble> {
        if keys.is_empty() {
            return Ok(());
        }
        let names: Vec<&[u8]> = keys.iter().map(|it| it.0.as_bytes().as_slice()).collect();
        let payments: Vec<&[u8]> =
            keys.iter().map(|it| it.1.payment.as_bytes().as_slice()).collect();
        let requests: Vec<&[u8]> =
            keys.iter().map(|it| it.1.request.as_bytes().as_slice()).collect();
        let parameters: [Parameter<'_>; 3] = [&names, &payments, &requests];
        self.write(&self.sql.insert_keys, keys.len(), &parameters).await
    }

    async fn move_keys(&self, keys: &[(Digest, Bound, PaymentId)]) -> Result<(), Trouble> {
        if keys.is_empty() {
            return Ok(());
        }
        let names: Vec<&[u8]> = keys.iter().map(|it| it.0.as_bytes().as_slice()).collect();
        let payments: Vec<&[u8]> =
            keys.iter().map(|it| it.1.payment.as_bytes().as_slice()).collect();
        let was: Vec<&[u8]> = keys.iter().map(|it| it.2.as_bytes().as_slice()).collect();
        let parameters: [Parameter<'_>; 3] = [&names, &payments, &was];
        self.write(&self.sql.move_keys, keys.len(), &parameters).await
    }

    async fn keep_outbox(&self, all: &[&Settlement]) -> Result<(), Trouble> {
        if all.is_empty() {
            return Ok(());
        }
        let payments: Vec<&[u8]> = all.iter().map(|it| it.payment.as_bytes().as_slice()).collect();
        let generations: Vec<i64> = all.iter().map(|it| count(it.generation)).collect();
        let statuses: Vec<&str> = all.iter().map(|it| it.status.as_str()).collect();
        let due_ats: Vec<i64> = all.iter().map(|it| millis(it.due_at)).collect();
        let attempts: Vec<i64> = all.iter().map(|it| i64::from(it.attempts)).collect();
        let sent: Vec<bool> = all.iter().map(|it| it.may_have_been_sent).collect();
        let transactions: Vec<Option<&str>> =
            all.iter().map(|it| it.transaction.as_deref()).collect();
        let outcomes: Vec<Option<&str>> = all.iter().map(|it| it.outcome.as_deref()).collect();
        let created_ats: Vec<i64> = all.iter().map(|it| millis(it.created_at)).collect();
        let watch_ats: Vec<Option<i64>> = all.iter().map(|it| it.watch_at.map(millis)).collect();
        let parameters: [Parameter<'_>; 10] = [
            &payments,
            &generations,
            &statuses,
            &due_ats,
            &attempts,
            &sent,
            &transactions,
            &outcomes,
            &created_ats,
            &watch_ats,
        ];
        self.write(&self.sql.keep_outbox, all.len(), &parameters).await
    }

    /// One that is kept already stays as it is.
    async fn record_transactions(&self, all: &[KeptTransaction]) -> Result<(), Trouble> {
        if all.is_empty() {
            return Ok(());
        }
        let hashes: Vec<&[u8]> = all.iter().map(|it| it.hash.as_slice()).collect();
        let networks: Vec<&str> = all.iter().map(|it| it.network.as_str()).collect();
        let senders: Vec<&[u8]> = all.iter().map(|it| it.sender.as_slice()).collect();
        // A chain counts no account's transactions that far.
        let nonces: Vec<i64> = all.iter().map(|it| count(it.nonce)).collect();
        let raws: Vec<&[u8]> = all.iter().map(|it| it.raw.as_slice()).collect();
        let ids = |it: &KeptTransaction| -> Vec<u8> {
            it.payments.iter().flat_map(|it| *it.as_bytes()).collect()
        };
        let payments: Vec<Vec<u8>> = all.iter().map(ids).collect();
        let depths: Vec<i64> = all.iter().map(|it| i64::from(it.depth)).collect();
        let parameters: [Parameter<'_>; 8] =
            [&self.node, &hashes, &networks, &senders, &nonces, &raws, &payments, &depths];
        self.client.execute(&self.sql.record_transactions, &parameters).await?;
        Ok(())
    }

    async fn end_transactions(&self, all: &[EndedTransaction]) -> Result<(), Trouble> {
        if all.is_empty() {
            return Ok(());
        }
        let hashes: Vec<&[u8]> = all.iter().map(|it| it.0.as_slice()).collect();
        let fates: Vec<&str> = all.iter().map(|it| it.1.as_str()).collect();
        self.client.execute(&self.sql.end_transactions, &[&hashes, &fates]).await?;
        Ok(())
    }

    async fn append_journal(&self, journal: &[Written], after: i64) -> Result<(), Trouble> {
        if journal.is_empty() {
            return Ok(());
        }
        let lines: Vec<Line<'_>> = journal.iter().map(|it| it.1.line()).collect();
        let payments: Vec<&[u8]> = journal.iter().map(|it| it.0.as_bytes().as_slice()).collect();
        let ats: Vec<i64> = journal.iter().map(|it| millis(it.2)).collect();
        let events: Vec<&str> = lines.iter().map(|it| it.event).collect();
        let amounts: Vec<Option<Units>> = lines.iter().map(|it| it.amount.map(Units)).collect();
        let details: Vec<Option<&str>> = lines.iter().map(|it| it.detail).collect();
        let parameters: [Parameter<'_>; 7] =
            [&self.node, &after, &payments, &ats, &events, &amounts, &details];
        self.write(&self.sql.append_journal, journal.len(), &parameters).await
    }

    async fn keep_accounts(&self, accounts: &BTreeMap<AccountKey, Account>) -> Result<(), Trouble> {
        if accounts.is_empty() {
            return Ok(());
        }
        let keys: Vec<&AccountKey> = accounts.keys().collect();
        let nodes: Vec<&str> = keys.iter().map(|it| shelf_of(&it.name, self.node)).collect();
        let Keys { networks, assets, names } = Keys::of(&keys);
        let side = |of: fn(&Account) -> Amount| -> Vec<Units> {
            accounts.values().map(|it| Units(of(it))).collect()
        };
        let sides = [
            side(|it| it.debits_pending),
            side(|it| it.debits_posted),
            side(|it| it.credits_pending),
            side(|it| it.credits_posted),
        ];
        let mut parameters: Vec<Parameter<'_>> = vec![&networks, &assets, &names, &nodes];
        parameters.extend(sides.iter().map(|it| -> Parameter<'_> { it }));
        self.write(&self.sql.keep_accounts, accounts.len(), &parameters).await
    }
}

/// What can change of one payment, as it is kept.
struct Columns<'a> {
    slot: &'a Slot,
    delivered: Option<Units>,
    charge: Option<Units>,
    transaction: Option<&'a str>,
    reason: Option<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(slot: &'a Slot) -> Self {
        let none = Self { slot, delivered: None, charge: None, transaction: None, reason: None };
        match &slot.record.state {
            Payment::Held { .. } => none,
            Payment::Serving { delivered, .. } => {
                Self { delivered: Some(Units(*delivered)), ..none }
            }
            Payment::Captured { charge } | Payment::Settling { charge } => {
                Self { charge: Some(Units(*charge)), ..none }
            }
            Payment::Unknown { charge, transaction } => {
                Self { charge: Some(Units(*charge)), transaction: transaction.as_deref(), ..none }
            }
            Payment::Settled { charge, transaction } => {
                Self { charge: Some(Units(*charge)), transaction: Some(transaction), ..none }
            }
            Payment::Released { why } => Self { reason: Some(why.as_str()), ..none },
            Payment::Lost { charge, reason } => {
                Self { charge: Some(Units(*charge)), reason: Some(reason), ..none }
            }
        }
    }
}

/// What can change of payments, by column.
struct Changing<'a> {
    ids: Vec<&'a [u8]>,
    generations: Vec<i64>,
    limits: Vec<Units>,
    settles: Vec<&'a str>,
    states: Vec<&'a str>,
    delivereds: Vec<Option<Units>>,
    charges: Vec<Option<Units>>,
    transactions: Vec<Option<&'a str>>,
    reasons: Vec<Option<&'a str>>,
    answers: Vec<&'a str>,
    waits: Vec<&'a str>,
    refunds: Vec<Option<&'a str>>,
    reopeneds: Vec<i64>,
    changed_ats: Vec<i64>,
    unfinisheds: Vec<bool>,
}

impl<'a> Changing<'a> {
    fn of(all: &[Columns<'a>]) -> Self {
        let records = || all.iter().map(|it| &it.slot.record);
        Self {
            ids: records().map(|it| it.id.as_bytes().as_slice()).collect(),
            generations: records().map(|it| count(it.generation)).collect(),
            limits: all.iter().map(|it| Units(it.slot.limit)).collect(),
            settles: records().map(|it| it.settle.as_str()).collect(),
            states: records().map(|it| it.state.name()).collect(),
            delivereds: all.iter().map(|it| it.delivered).collect(),
            charges: all.iter().map(|it| it.charge).collect(),
            transactions: all.iter().map(|it| it.transaction).collect(),
            reasons: all.iter().map(|it| it.reason).collect(),
            answers: records().map(|it| mark_name(it.answer)).collect(),
            waits: records().map(|it| it.waits.as_str()).collect(),
            refunds: records().map(|it| it.refund_owed.as_deref()).collect(),
            reopeneds: records().map(|it| i64::from(it.reopened)).collect(),
            changed_ats: records().map(|it| millis(it.changed_at)).collect(),
            unfinisheds: records().map(is_unfinished).collect(),
        }
    }
}

/// What never changes of payments, by column.
struct Fixed<'a> {
    ids: Vec<&'a [u8]>,
    fingerprints: Vec<&'a [u8]>,
    networks: Vec<&'a str>,
    assets: Vec<&'a str>,
    payers: Vec<&'a str>,
    pay_tos: Vec<&'a str>,
    routes: Vec<&'a str>,
}

impl<'a> Fixed<'a> {
    fn of(all: &[&'a Terms]) -> Self {
        let all = || all.iter().copied();
        Self {
            ids: all().map(|it| it.id.as_bytes().as_slice()).collect(),
            fingerprints: all().map(|it| it.fingerprint.as_bytes().as_slice()).collect(),
            networks: all().map(|it| it.asset.network().as_str()).collect(),
            assets: all().map(|it| it.asset.address()).collect(),
            payers: all().map(|it| it.payer.as_str()).collect(),
            pay_tos: all().map(|it| it.pay_to.as_str()).collect(),
            routes: all().map(|it| it.route.as_str()).collect(),
        }
    }
}

/// The rest of the terms, by column.
struct Bulk<'a> {
    schemes: Vec<&'a str>,
    price_versions: Vec<&'a str>,
    settle_bys: Vec<i64>,
    payloads: Vec<&'a str>,
    requirements: Vec<&'a str>,
}

impl<'a> Bulk<'a> {
    fn of(all: &[&'a Terms]) -> Self {
        let all = || all.iter().copied();
        Self {
            schemes: all().map(|it| it.scheme.as_str()).collect(),
            price_versions: all().map(|it| it.price_version.as_str()).collect(),
            settle_bys: all().map(|it| millis(it.settle_by)).collect(),
            payloads: all().map(|it| it.payload.as_str()).collect(),
            requirements: all().map(|it| it.requirements.as_str()).collect(),
        }
    }
}
