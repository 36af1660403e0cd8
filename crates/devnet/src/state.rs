//! The accounts, code and storage of the chain, with a way back: every change is recorded with what
//! was there before, so that old blocks can be read, snapshots restored, and nothing is ever cloned.

use std::collections::VecDeque;

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, map::HashMap};
use revm::{
    bytecode::Bytecode,
    state::{AccountInfo, EvmState},
};

/// What the chain knows of one account apart from its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// Number of transactions sent (or contracts created).
    pub(crate) nonce: u64,
    /// Balance in wei.
    pub(crate) balance: U256,
    /// Keccak-256 of the code; [`KECCAK256_EMPTY`] for none.
    pub(crate) code_hash: B256,
}

impl Account {
    const EMPTY: Self = Self { nonce: 0, balance: U256::ZERO, code_hash: KECCAK256_EMPTY };
}

/// A point in the history of the state; layers below it are what it takes to stay there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Checkpoint(u64);

impl Checkpoint {
    /// The moment before anything happened.
    pub(crate) fn first() -> Self {
        Self(0)
    }
}

/// The values that a run of changes replaced, first one only.
#[derive(Debug, Default)]
struct Undo {
    accounts: HashMap<Address, Option<Account>>,
    storage: HashMap<(Address, U256), U256>,
}

impl Undo {
    fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.storage.is_empty()
    }
}

/// The present state and the layers of undo that lead back from it.
#[derive(Debug, Default)]
pub(crate) struct State {
    accounts: HashMap<Address, Account>,
    /// Non-zero words only.
    storage: HashMap<(Address, U256), U256>,
    codes: HashMap<B256, Bytecode>,
    layers: VecDeque<Undo>,
    /// Number of layers forgotten at the front.
    forgotten: u64,
    open: Undo,
}

impl State {
    /// Closes the changes made so far and names this moment.
    pub(crate) fn checkpoint(&mut self) -> Checkpoint {
        if !self.open.is_empty() {
            self.layers.push_back(std::mem::take(&mut self.open));
        }
        Checkpoint(self.next_layer())
    }

    /// Goes back to `to`; changes nothing and says so if that moment was forgotten.
    pub(crate) fn rewind(&mut self, to: Checkpoint) -> Result<(), Forgotten> {
        if to.0 < self.forgotten {
            return Err(Forgotten);
        }
        let mut undo = std::mem::take(&mut self.open);
        loop {
            self.apply(undo);
            if self.next_layer() <= to.0 {
                return Ok(());
            }
            let Some(next) = self.layers.pop_back() else { return Ok(()) };
            undo = next;
        }
    }

    /// Drops what only moments before `keep` need.
    pub(crate) fn forget_before(&mut self, keep: Checkpoint) {
        while self.forgotten < keep.0 && self.layers.pop_front().is_some() {
            self.forgotten = self.forgotten.saturating_add(1);
        }
    }

    /// The state as it is now.
    pub(crate) fn now(&self) -> View<'_> {
        View { state: self, undone: None }
    }

    /// The state as it was at `moment`.
    pub(crate) fn at(&self, moment: Checkpoint) -> Result<View<'_>, Forgotten> {
        let skip = moment.0.checked_sub(self.forgotten).ok_or(Forgotten)?;
        Ok(View { state: self, undone: Some(usize::try_from(skip).unwrap_or(usize::MAX)) })
    }

    /// Sets the balance of `address` in wei.
    pub(crate) fn set_balance(&mut self, address: Address, balance: U256) {
        let account = self.account_or_empty(address);
        self.put_account(address, Some(Account { balance, ..account }));
    }

    /// Sets the next nonce of `address`.
    pub(crate) fn set_nonce(&mut self, address: Address, nonce: u64) {
        let account = self.account_or_empty(address);
        self.put_account(address, Some(Account { nonce, ..account }));
    }

    /// Replaces the code of `address`, keeping its storage.
    pub(crate) fn set_code(&mut self, address: Address, code: Bytes) {
        let account = self.account_or_empty(address);
        let code_hash = self.put_code(Bytecode::new_raw(code));
        self.put_account(address, Some(Account { code_hash, ..account }));
    }

    /// Writes one storage word.
    pub(crate) fn set_storage(&mut self, address: Address, slot: U256, word: U256) {
        let key = (address, slot);
        let before =
            if word.is_zero() { self.storage.remove(&key) } else { self.storage.insert(key, word) };
        self.open.storage.entry(key).or_insert(before.unwrap_or_default());
    }

    /// Takes over what a transaction changed.
    pub(crate) fn commit(&mut self, changes: EvmState) {
        for (address, account) in changes {
            if !account.is_touched() {
                continue;
            }
            if account.is_selfdestructed() {
                // Since EIP-6780 only an account made in the same transaction goes: it has no stored words.
                self.put_account(address, None);
                continue;
            }
            for (slot, word) in account.changed_storage_slots() {
                self.set_storage(address, *slot, word.present_value);
            }
            let kept = (!account.is_empty()).then(|| self.keep_code(account.info));
            self.put_account(address, kept);
        }
    }

    fn keep_code(&mut self, info: AccountInfo) -> Account {
        let code_hash = match info.code {
            Some(code) if info.code_hash != KECCAK256_EMPTY => self.put_code(code),
            Some(_) | None => info.code_hash,
        };
        Account { nonce: info.nonce, balance: info.balance, code_hash }
    }

    fn put_code(&mut self, code: Bytecode) -> B256 {
        let hash = code.hash_slow();
        self.codes.entry(hash).or_insert(code);
        hash
    }

    fn account_or_empty(&self, address: Address) -> Account {
        self.accounts.get(&address).copied().unwrap_or(Account::EMPTY)
    }

    fn put_account(&mut self, address: Address, account: Option<Account>) {
        let before = match account {
            Some(account) => self.accounts.insert(address, account),
            None => self.accounts.remove(&address),
        };
        self.open.accounts.entry(address).or_insert(before);
    }

    fn apply(&mut self, undo: Undo) {
        for (address, before) in undo.accounts {
            match before {
                Some(account) => self.accounts.insert(address, account),
                None => self.accounts.remove(&address),
            };
        }
        for (key, before) in undo.storage {
            if before.is_zero() {
                self.storage.remove(&key);
            } else {
                self.storage.insert(key, before);
            }
        }
    }

    fn next_layer(&self) -> u64 {
        self.forgotten.saturating_add(u64::try_from(self.layers.len()).unwrap_or(u64::MAX))
    }
}

/// The state of that moment is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state of that block is no longer kept")]
pub(crate) struct Forgotten;

/// The state at one moment, read only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    state: &'a State,
    /// Index of the first layer to take back; `None` for the present.
    undone: Option<usize>,
}

impl<'a> View<'a> {
    /// The account at `address`, if it exists.
    pub(crate) fn account(&self, address: Address) -> Option<Account> {
        let before = self.layers().find_map(|layer| layer.accounts.get(&address));
        before.copied().unwrap_or_else(|| self.state.accounts.get(&address).copied())
    }

    /// Nonce of `address`; 0 if it does not exist.
    pub(crate) fn nonce(&self, address: Address) -> u64 {
        self.account(address).map_or(0, |account| account.nonce)
    }

    /// Balance of `address` in wei; 0 if it does not exist.
    pub(crate) fn balance(&self, address: Address) -> U256 {
        self.account(address).map_or(U256::ZERO, |account| account.balance)
    }

    /// One storage word; 0 where nothing was stored.
    pub(crate) fn storage(&self, address: Address, slot: U256) -> U256 {
        let key = (address, slot);
        let before = self.layers().find_map(|layer| layer.storage.get(&key));
        before.or_else(|| self.state.storage.get(&key)).copied().unwrap_or_default()
    }

    /// The code with this hash; empty if there is none.
    pub(crate) fn code(&self, hash: B256) -> Bytecode {
        self.state.codes.get(&hash).cloned().unwrap_or_default()
    }

    /// The account as the EVM wants it.
    pub(crate) fn info(&self, address: Address) -> Option<AccountInfo> {
        let account = self.account(address)?;
        let code = self.code(account.code_hash);
        let info = AccountInfo::default().with_code_and_hash(code, account.code_hash);
        Some(AccountInfo { balance: account.balance, nonce: account.nonce, ..info })
    }

    fn layers(&self) -> impl Iterator<Item = &'a Undo> + use<'a> {
        let state = self.state;
        let skip = self.undone.unwrap_or(usize::MAX);
        let open = self.undone.map(|_| &state.open);
        state.layers.iter().skip(skip).chain(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = Address::repeat_byte(0xaa);
    const B: Address = Address::repeat_byte(0xbb);

    fn balance(view: View<'_>, address: Address) -> u64 {
        view.balance(address).to::<u64>()
    }

    fn word(view: View<'_>, address: Address, slot: u64) -> u64 {
        view.storage(address, U256::from(slot)).to::<u64>()
    }

    fn set(state: &mut State, address: Address, balance: u64, stored: u64) {
        state.set_balance(address, U256::from(balance));
        state.set_storage(address, U256::ZERO, U256::from(stored));
    }

    #[test]
    fn old_moments_stay_readable() {
        let mut state = State::default();
        let empty = state.checkpoint();
        set(&mut state, A, 1, 10);
        let first = state.checkpoint();
        set(&mut state, A, 2, 0);
        set(&mut state, B, 7, 70);
        let second = state.checkpoint();
        set(&mut state, A, 3, 30); // still open

        for (moment, a, a_word, b) in [(empty, 0, 0, 0), (first, 1, 10, 0), (second, 2, 0, 7)] {
            let view = state.at(moment).unwrap();
            assert_eq!((balance(view, A), word(view, A, 0), balance(view, B)), (a, a_word, b));
        }
        assert_eq!((balance(state.now(), A), word(state.now(), A, 0)), (3, 30));
        assert_eq!(state.at(empty).unwrap().account(A), None);
    }

    #[test]
    fn rewinding_restores_every_word() {
        let mut state = State::default();
        set(&mut state, A, 1, 10);
        let first = state.checkpoint();
        set(&mut state, A, 2, 0);
        state.checkpoint();
        set(&mut state, B, 9, 9);

        state.rewind(first).unwrap();
        assert_eq!((balance(state.now(), A), word(state.now(), A, 0)), (1, 10));
        assert_eq!(state.now().account(B), None);
        assert_eq!(state.checkpoint(), first);
    }

    #[test]
    fn an_idle_block_costs_no_layer() {
        let mut state = State::default();
        let first = state.checkpoint();
        assert_eq!(state.checkpoint(), first);
    }

    #[test]
    fn forgotten_moments_are_refused() {
        let mut state = State::default();
        let first = state.checkpoint();
        set(&mut state, A, 1, 10);
        let second = state.checkpoint();
        set(&mut state, A, 2, 20);
        state.forget_before(second);

        assert_eq!(state.at(first).map(|_| ()), Err(Forgotten));
        assert_eq!(state.rewind(first), Err(Forgotten));
        assert_eq!(balance(state.at(second).unwrap(), A), 1);
        state.rewind(second).unwrap();
        assert_eq!(balance(state.now(), A), 1);
    }
}
