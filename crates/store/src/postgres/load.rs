//! Loading: what a batch works on, locked in one order by every node.
//!
//! First the payments, by id; then the payers, by key; what is due last and without waiting. So no two
//! batches wait for each other, but for operations whose wants show only while they run; those are
//! rare, and a deadlock of theirs is found by the server and tried again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use farebox_billing::ledger::{Account, AccountKey, AccountName, Parties};
use farebox_protocol::{Digest, PaymentId};
use futures_util::try_join;
use tokio_postgres::{Client, Row, Statement};

use crate::book::Bound;
use crate::postgres::fault::{Due, Need, Trouble};
use crate::postgres::loaded::Loaded;
use crate::postgres::rows;
use crate::postgres::rows::millis;
use crate::postgres::statements::Statements;

/// The most payers and accounts that are remembered.
const REMEMBERED_MAX: usize = 100_000;

/// What a batch wants to see.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants {
    payments: BTreeSet<PaymentId>,
    terms: BTreeSet<PaymentId>,
    keys: BTreeSet<Digest>,
    parties: Vec<Parties>,
    due: Option<Due>,
    unfinished: bool,
}

impl Wants {
    /// One thing more.
    pub(super) fn add(&mut self, need: Need) {
        match need {
            Need::Payment(id) => drop(self.payments.insert(id)),
            Need::Terms(id) => drop(self.terms.insert(id)),
            Need::Key(name) => drop(self.keys.insert(name)),
            Need::Accounts(parties) => self.parties.push(parties),
            Need::Due(due) => self.due = Some(self.due.map_or(due, |it| it.and(due))),
            Need::Unfinished => self.unfinished = true,
        }
    }
}

/// What a node knows of the tables without asking again.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The node's own rows of shared accounts, as they are committed: only it writes them.
    own: HashMap<AccountKey, Account>,
    /// Payers whose row is there: no account is ever closed.
    payers: HashSet<AccountKey>,
}

impl Known {
    /// After a commit.
    pub(super) fn learn(&mut self, accounts: BTreeMap<AccountKey, Account>) {
        if REMEMBERED_MAX < self.payers.len().max(self.own.len()) {
            *self = Self::default();
        }
        for (key, account) in accounts {
            match key.name {
                AccountName::Payer(_) => drop(self.payers.insert(key)),
                AccountName::Revenue(_) | AccountName::Chain(_) => {
                    self.own.insert(key, account);
                }
                AccountName::Loss(_) | AccountName::Refund(_) => {}
            }
        }
    }
}

/// Where a node keeps its part of an account: in everybody's row, or in one of its own.
pub(super) fn shelf_of<'a>(name: &AccountName, node: &'a str) -> &'a str {
    match name {
        AccountName::Payer(_) | AccountName::Loss(_) | AccountName::Refund(_) => "",
        AccountName::Revenue(_) | AccountName::Chain(_) => node,
    }
}

/// A connection in the middle of a transaction, on behalf of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transaction<'a> {
    pub(super) client: &'a Client,
    pub(super) sql: &'a Statements,
    pub(super) node: &'a str,
}

impl Transaction<'_> {
    /// Loads what is wanted and not there yet.
    pub(super) async fn load(
        &self,
        wants: &Wants,
        loaded: &mut Loaded,
        known: &Known,
    ) -> Result<(), Trouble> {
        let fresh = wants.payments.iter().filter(|it| !loaded.has_payment(**it));
        let ids: Vec<PaymentId> = fresh.copied().collect();
        let terms: Vec<PaymentId> = wants.terms.iter().copied().collect();
        let (payments, outbox, terms, keys, due, unfinished) = try_join!(
            self.by_ids(&self.sql.lock_payments, &ids),
            self.by_ids(&self.sql.read_outbox, &ids),
            self.by_ids(&self.sql.read_terms, &terms),
            self.keys(&wants.keys),
            self.due(wants.due),
            self.unfinished(wants.unfinished),
        )?;
        for row in &payments {
            loaded.put_payment(rows::record(row)?);
        }
        for id in ids {
            loaded.put_absence(id);
        }
        for row in &outbox {
            loaded.put_settlement(rows::settlement(row, "payment", "transaction")?);
        }
        for row in &terms {
            loaded.put_terms(rows::terms(row)?);
        }
        for row in &keys {
            let request = Digest::from_bytes(rows::array(row, "request")?);
            let bound = Bound { payment: rows::id(row, "payment")?, request };
            loaded.put_key(Digest::from_bytes(rows::array(row, "name")?), Some(bound));
        }
        for name in &wants.keys {
            loaded.put_key(*name, None);
        }
        if let Some(asked) = wants.due {
            put_due(asked, &due, loaded)?;
        }
        if wants.unfinished {
            self.put_unfinished(&unfinished, loaded).await?;
        }
        self.accounts(&wants.parties, loaded, known).await
    }

    async fn by_ids(&self, sql: &Statement, ids: &[PaymentId]) -> Result<Vec<Row>, Trouble> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&[u8]> = ids.iter().map(|it| it.as_bytes().as_slice()).collect();
        Ok(self.client.query(sql, &[&ids]).await?)
    }

    async fn keys(&self, names: &BTreeSet<Digest>) -> Result<Vec<Row>, Trouble> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&[u8]> = names.iter().map(|it| it.as_bytes().as_slice()).collect();
        Ok(self.client.query(&self.sql.read_keys, &[&names]).await?)
    }

    async fn due(&self, due: Option<Due>) -> Result<Vec<Row>, Trouble> {
        let Some(Due { now, far, max }) = due else { return Ok(Vec::new()) };
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let (now, far) = (millis(now), millis(far));
        Ok(self.client.query(&self.sql.due, &[&now, &far, &max, &self.node]).await?)
    }

    async fn unfinished(&self, wanted: bool) -> Result<Vec<Row>, Trouble> {
        if wanted {
            Ok(self.client.query(&self.sql.unfinished, &[&self.node]).await?)
        } else {
            Ok(Vec::new())
        }
    }

    async fn put_unfinished(&self, found: &[Row], loaded: &mut Loaded) -> Result<(), Trouble> {
        let mut ids = Vec::new();
        for row in found {
            let owned = rows::record(row)?;
            ids.push(owned.record.id);
            loaded.put_payment(owned);
        }
        for row in &self.by_ids(&self.sql.read_outbox, &ids).await? {
            loaded.put_settlement(rows::settlement(row, "payment", "transaction")?);
        }
        loaded.put_unfinished(ids);
        Ok(())
    }

    /// The accounts of these parties and of every payment that is loaded.
    async fn accounts(
        &self,
        asked: &[Parties],
        loaded: &mut Loaded,
        known: &Known,
    ) -> Result<(), Trouble> {
        let missing = |it: &&Parties| !loaded.has_accounts(it);
        let keys: BTreeSet<AccountKey> = asked
            .iter()
            .chain(loaded.parties())
            .filter(missing)
            .flat_map(Parties::accounts)
            .filter(|it| loaded.books.account(it).is_none())
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        let (payers, others): (Vec<&AccountKey>, Vec<&AccountKey>) =
            keys.iter().partition(|it| matches!(it.name, AccountName::Payer(_)));
        let is_new = |it: &&&AccountKey| !known.payers.contains(**it);
        let new: Vec<&AccountKey> = payers.iter().filter(is_new).copied().collect();
        let others: Vec<&AccountKey> =
            others.into_iter().filter(|it| !known.own.contains_key(*it)).collect();
        // In this order: the locks are taken before what they guard is read.
        let (_, payers, others) = try_join!(
            self.add_payers(&new),
            self.lock_payers(&payers),
            self.read_accounts(&others),
        )?;
        for row in payers.iter().chain(&others) {
            let (key, account) = rows::account(row)?;
            loaded.books.load_account(key, account);
        }
        for key in keys {
            if loaded.books.account(&key).is_none() {
                let account = known.own.get(&key).copied().unwrap_or(Account::ZERO);
                loaded.books.load_account(key, account);
            }
        }
        Ok(())
    }

    async fn add_payers(&self, keys: &[&AccountKey]) -> Result<u64, Trouble> {
        if keys.is_empty() {
            return Ok(0);
        }
        let Keys { networks, assets, names } = Keys::of(keys);
        Ok(self.client.execute(&self.sql.add_payers, &[&networks, &assets, &names]).await?)
    }

    async fn lock_payers(&self, keys: &[&AccountKey]) -> Result<Vec<Row>, Trouble> {
        let Keys { networks, assets, names } = Keys::of(keys);
        Ok(self.client.query(&self.sql.lock_payers, &[&networks, &assets, &names]).await?)
    }

    async fn read_accounts(&self, keys: &[&AccountKey]) -> Result<Vec<Row>, Trouble> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let nodes: Vec<&str> = keys.iter().map(|it| shelf_of(&it.name, self.node)).collect();
        let Keys { networks, assets, names } = Keys::of(keys);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&networks, &assets, &names, &nodes];
        Ok(self.client.query(&self.sql.read_accounts, &parameters).await?)
    }
}

fn put_due(asked: Due, found: &[Row], loaded: &mut Loaded) -> Result<(), Trouble> {
    let mut keys = Vec::new();
    for row in found {
        let owned = rows::record(row)?;
        keys.push((owned.record.id, owned.record.generation));
        loaded.put_payment(owned);
        loaded.put_terms(rows::terms(row)?);
        loaded.put_settlement(rows::settlement(row, "id", "outbox_transaction")?);
    }
    loaded.put_due(asked, keys);
    Ok(())
}

/// The keys of accounts, by column.
pub(super) struct Keys<'a> {
    pub(super) networks: Vec<&'a str>,
    pub(super) assets: Vec<&'a str>,
    pub(super) names: Vec<String>,
}

impl<'a> Keys<'a> {
    pub(super) fn of(keys: &[&'a AccountKey]) -> Self {
        Self {
            networks: keys.iter().map(|it| it.asset.network().as_str()).collect(),
            assets: keys.iter().map(|it| it.asset.address()).collect(),
            names: keys.iter().map(|it| it.name.to_string()).collect(),
        }
    }
}
