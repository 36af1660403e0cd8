//! Accounts: what they are called, and their four sums.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use farebox_protocol::{Amount, Asset, OutOfRange};

/// Which account, within one asset. The chart is ADR 0015. Cheap to clone.
///
/// The text form is `kind:name`, for example `payer:0x1f…`; it is stable, and is what the store keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountName {
    /// What a payer owes and has not paid on chain; its pending debits are the holds. Debit balance.
    Payer(Arc<str>),
    /// What a payer was served and never will pay. Debit balance.
    Loss(Arc<str>),
    /// What was settled and is owed back to a payer. Credit balance.
    Refund(Arc<str>),
    /// What was charged for work on a route. Credit balance.
    Revenue(Arc<str>),
    /// What was seen on chain to arrive at a `payTo`, less what was paid back from it. Debit balance.
    Chain(Arc<str>),
}

/// A text that names no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an account: `payer:`, `loss:`, `refund:`, `revenue:` or `chain:`, and a name")]
pub struct BadAccountName;

type Make = fn(Arc<str>) -> AccountName;

/// Every kind of account with its word.
const KINDS: [(&str, Make); 5] = [
    ("payer", AccountName::Payer),
    ("loss", AccountName::Loss),
    ("refund", AccountName::Refund),
    ("revenue", AccountName::Revenue),
    ("chain", AccountName::Chain),
];

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Payer(name) => ("payer", name),
            Self::Loss(name) => ("loss", name),
            Self::Refund(name) => ("refund", name),
            Self::Revenue(name) => ("revenue", name),
            Self::Chain(name) => ("chain", name),
        };
        write!(f, "{kind}:{name}")
    }
}

impl FromStr for AccountName {
    type Err = BadAccountName;

    /// A name may itself contain colons: the first one ends the kind.
    fn from_str(text: &str) -> Result<Self, BadAccountName> {
        let (kind, name) = text.split_once(':').ok_or(BadAccountName)?;
        let make = KINDS.iter().find(|it| it.0 == kind).ok_or(BadAccountName)?.1;
        if name.is_empty() { Err(BadAccountName) } else { Ok(make(name.into())) }
    }
}

/// One account: amounts of two assets never meet in it. Its order is the order in which engines
/// lock accounts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey {
    /// What is counted in it.
    pub asset: Asset,
    /// Which one of that asset.
    pub name: AccountName,
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.name, self.asset)
    }
}

/// The sums of an account, in atomic units of its asset. Balances are differences of them; the posted
/// ones never fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Σ of transfers from here that are neither posted nor voided yet.
    pub debits_pending: Amount,
    /// Σ of what was moved with this account as the debit.
    pub debits_posted: Amount,
    /// Σ of transfers to here that are neither posted nor voided yet.
    pub credits_pending: Amount,
    /// Σ of what was moved with this account as the credit.
    pub credits_posted: Amount,
}

impl Account {
    /// Nothing was ever moved.
    pub const ZERO: Self = Self {
        debits_pending: Amount::ZERO,
        debits_posted: Amount::ZERO,
        credits_pending: Amount::ZERO,
        credits_posted: Amount::ZERO,
    };

    /// What this account has at risk: pending and posted debits less posted credits, and nothing if
    /// more was paid than owed. Of a payer it is Σ `payer:` and `loss:`.
    pub fn exposure(&self) -> Amount {
        let debits = self.debits_pending.checked_add(self.debits_posted).unwrap_or(Amount::MAX);
        debits.checked_sub(self.credits_posted).unwrap_or(Amount::ZERO)
    }

    /// The posted debit balance; nothing if the credits are larger.
    pub fn debit_balance(&self) -> Amount {
        self.debits_posted.checked_sub(self.credits_posted).unwrap_or(Amount::ZERO)
    }

    /// The posted credit balance; nothing if the debits are larger.
    pub fn credit_balance(&self) -> Amount {
        self.credits_posted.checked_sub(self.debits_posted).unwrap_or(Amount::ZERO)
    }

    /// Side by side with another one, for sums over many.
    pub fn plus(&self, other: &Self) -> Result<Self, OutOfRange> {
        Ok(Self {
            debits_pending: self.debits_pending.checked_add(other.debits_pending)?,
            debits_posted: self.debits_posted.checked_add(other.debits_posted)?,
            credits_pending: self.credits_pending.checked_add(other.credits_pending)?,
            credits_posted: self.credits_posted.checked_add(other.credits_posted)?,
        })
    }

    /// Whether debits equal credits, pending and posted: true of the sum of all accounts of an asset.
    pub fn is_even(&self) -> bool {
        self.debits_pending == self.credits_pending && self.debits_posted == self.credits_posted
    }

    pub(super) fn debits(&self) -> Side {
        Side { pending: self.debits_pending, posted: self.debits_posted }
    }

    pub(super) fn credits(&self) -> Side {
        Side { pending: self.credits_pending, posted: self.credits_posted }
    }

    pub(super) fn with_debits(self, side: Side) -> Self {
        Self { debits_pending: side.pending, debits_posted: side.posted, ..self }
    }

    pub(super) fn with_credits(self, side: Side) -> Self {
        Self { credits_pending: side.pending, credits_posted: side.posted, ..self }
    }
}

/// One side of an account. Pending and posted together stay in range, so that a post of what is
/// pending always fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) pending: Amount,
    pub(super) posted: Amount,
}

impl Side {
    /// More is pending.
    pub(super) fn hold(self, amount: Amount) -> Result<Self, OutOfRange> {
        Self { pending: self.pending.checked_add(amount)?, ..self }.fitting()
    }

    /// More is posted.
    pub(super) fn add(self, amount: Amount) -> Result<Self, OutOfRange> {
        Self { posted: self.posted.checked_add(amount)?, ..self }.fitting()
    }

    /// What was pending is no more; `posted` of it, at most all, is posted.
    pub(super) fn resolve(self, pending: Amount, posted: Amount) -> Result<Self, OutOfRange> {
        Self { pending: self.pending.checked_sub(pending)?, ..self }.add(posted)
    }

    fn fitting(self) -> Result<Self, OutOfRange> {
        self.pending.checked_add(self.posted).map(|_| self)
    }
}
