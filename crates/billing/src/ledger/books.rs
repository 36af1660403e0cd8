//! Books: the accounts and transfers that an engine has at hand, and how they were before.

use std::collections::{BTreeMap, HashMap};

use farebox_protocol::{Amount, Asset, OutOfRange};

use crate::ledger::account::{Account, AccountKey, AccountName};
use crate::ledger::transfer::{Action, Fate, Recorded, TransferId};

/// What an engine has loaded: all of its accounts, or the few that a batch touches.
///
/// Every change is noted with what was there before, until [`Books::take_changes`]: so an engine knows
/// what to write, and a failed operation can be undone.
#[derive(Clone, Debug, Default)]
pub struct Books {
    accounts: HashMap<AccountKey, Line>,
    transfers: HashMap<TransferId, Recorded>,
    accounts_before: Vec<(AccountKey, Account)>,
    fates_before: Vec<(TransferId, Option<Fate>)>,
    batch: u64,
}

/// An account, and the last batch that has changed it.
#[derive(Clone, Copy, Debug)]
struct Line {
    now: Account,
    changed_in: u64,
}

/// A moment in the life of some books, to come back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    accounts: usize,
    fates: usize,
}

/// What is to be written: each row once, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the order in which engines lock accounts.
    pub accounts: BTreeMap<AccountKey, Account>,
    /// Booked, posted or voided.
    pub transfers: BTreeMap<TransferId, Recorded>,
}

impl Books {
    /// Without a single account.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an account in as it is stored; [`Account::ZERO`] if it is not. What a transfer names must
    /// be here before it is posted.
    pub fn load_account(&mut self, key: AccountKey, account: Account) {
        self.accounts.insert(key, Line { now: account, changed_in: 0 });
    }

    /// Puts a transfer in as it is stored. One that is not here counts as never seen.
    pub fn load_transfer(&mut self, id: TransferId, recorded: Recorded) {
        self.transfers.insert(id, recorded);
    }

    /// An account, if it was loaded.
    pub fn account(&self, key: &AccountKey) -> Option<&Account> {
        self.accounts.get(key).map(|it| &it.now)
    }

    /// A transfer, if it was loaded or booked.
    pub fn transfer(&self, id: &TransferId) -> Option<&Recorded> {
        self.transfers.get(id)
    }

    /// All accounts, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = (&AccountKey, &Account)> {
        self.accounts.iter().map(|(key, line)| (key, &line.now))
    }

    /// What is now, to be given to [`Books::undo_to`].
    pub fn mark(&self) -> Mark {
        Mark { accounts: self.accounts_before.len(), fates: self.fates_before.len() }
    }

    /// Puts everything back as it was then. A mark is good until the changes are taken.
    pub fn undo_to(&mut self, mark: Mark) {
        for (key, before) in self.accounts_before.drain(mark.accounts..).rev() {
            self.accounts.insert(key, Line { now: before, changed_in: 0 });
        }
        for (id, before) in self.fates_before.drain(mark.fates..).rev() {
            match (before, self.transfers.get_mut(&id)) {
                (Some(fate), Some(recorded)) => recorded.fate = fate,
                (Some(_), None) => {}
                (None, _) => drop(self.transfers.remove(&id)),
            }
        }
    }

    /// What has changed since the last time this was asked, to be written in one commit.
    pub fn take_changes(&mut self) -> Changes {
        let keys = std::mem::take(&mut self.accounts_before).into_iter().map(|it| it.0);
        let ids = std::mem::take(&mut self.fates_before).into_iter().map(|it| it.0);
        Changes {
            accounts: keys
                .filter_map(|key| self.accounts.get(&key).map(|it| it.now).map(|now| (key, now)))
                .collect(),
            transfers: ids
                .filter_map(|id| self.transfers.get(&id).map(|it| (id, it.clone())))
                .collect(),
        }
    }

    /// Lets go of every transfer, for books that outlive a batch: what is not loaded again then counts
    /// as never seen. Changes that were not taken yet are of accounts alone afterwards.
    pub fn forget_transfers(&mut self) {
        self.transfers.clear();
    }

    /// Begins a batch.
    pub(super) fn begin(&mut self) -> Mark {
        self.batch = self.batch.wrapping_add(1).max(1);
        self.mark()
    }

    /// Changes an account; `None` if it was not loaded.
    pub(super) fn set_account(&mut self, key: AccountKey, account: Account) -> Option<()> {
        let line = self.accounts.get_mut(&key)?;
        let before = std::mem::replace(&mut line.now, account);
        let again = std::mem::replace(&mut line.changed_in, self.batch) == self.batch;
        if !again {
            self.accounts_before.push((key, before));
        }
        Some(())
    }

    /// Books a transfer.
    pub(super) fn record(&mut self, id: TransferId, action: Action, fate: Fate) {
        self.transfers.insert(id, Recorded { action, fate });
        self.fates_before.push((id, None));
    }

    /// Ends a pending transfer.
    pub(super) fn resolve(&mut self, id: TransferId, fate: Fate) {
        if let Some(recorded) = self.transfers.get_mut(&id) {
            let before = std::mem::replace(&mut recorded.fate, fate);
            self.fates_before.push((id, Some(before)));
        }
    }

    /// Each account that has changed since then, as it was and as it is.
    pub(super) fn changed_since(
        &self,
        mark: Mark,
    ) -> impl Iterator<Item = (&AccountKey, &Account, &Account)> {
        let changed = self.accounts_before.get(mark.accounts..).unwrap_or_default();
        changed.iter().filter_map(|(key, before)| Some((key, before, self.account(key)?)))
    }

    /// An account of an asset, if it was loaded.
    pub(super) fn of(&self, asset: &Asset, name: &AccountName) -> Option<&Account> {
        self.account(&AccountKey { asset: asset.clone(), name: name.clone() })
    }
}

/// The sums over many accounts, by asset. Over all accounts of an asset they are even
/// ([`Account::is_even`]): what was debited somewhere was credited somewhere else.
pub fn trial_balance<'a>(
    accounts: impl IntoIterator<Item = (&'a AccountKey, &'a Account)>,
) -> Result<BTreeMap<Asset, Account>, OutOfRange> {
    let mut sums = BTreeMap::new();
    for (key, account) in accounts {
        if let Some(sum) = sums.get_mut(&key.asset) {
            *sum = account.plus(sum)?;
        } else {
            sums.insert(key.asset.clone(), *account);
        }
    }
    Ok(sums)
}

/// What of an amount is left after another, counted round the end of the range: to compare changes
/// whose sum may pass it.
pub(super) fn change(before: Amount, now: Amount) -> u128 {
    now.units().wrapping_sub(before.units())
}
