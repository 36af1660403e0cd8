//! The verifier: reads a journal and its seals from the beginning, and names the first thing that is
//! wrong.

use crate::audit::chain::{Batch, Line, OutOfOrder, Tip};
use crate::audit::seal::{Head, PublicKey, Seal};

/// What is known of a journal from elsewhere. Without any of it, a journal that is consistent in itself
/// can still be another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whose seals are believed; empty: anybody's.
    pub keys: Vec<PublicKey>,
    /// Heads that were exported before: the journal must have been so.
    pub heads: Vec<Head>,
}

/// A journal in which nothing is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many lines.
    pub lines: u64,
    /// How many seals.
    pub seals: u64,
    /// Who has signed, each with the first line.
    pub keys: Vec<(PublicKey, u64)>,
    /// Its head, if it has a line.
    pub head: Option<Head>,
    /// Which of the trusted heads it was held against.
    pub heads: u64,
}

/// The first thing that is wrong with a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A line is not there.
    #[error("line {seq} of the journal is missing")]
    LineMissing {
        /// Which one.
        seq: u64,
    },
    /// A line holds something that was never written by a ledger.
    #[error("line {seq} of the journal was changed: it cannot be read")]
    LineUnreadable {
        /// Which one.
        seq: u64,
    },
    /// A line of a batch is not what was sealed, or the seal is not.
    #[error("the journal was changed between line {first} and line {last}: their seal is broken")]
    Changed {
        /// The batch's first line.
        first: u64,
        /// Its last line.
        last: u64,
    },
    /// The seals have a gap or overlap.
    #[error("the seal of line {seq} is missing")]
    SealMissing {
        /// The line that should be sealed next.
        seq: u64,
    },
    /// A seal holds something that was never written by a ledger.
    #[error("the seal behind line {seq} was changed: it cannot be read")]
    SealUnreadable {
        /// The last line that is sealed before it.
        seq: u64,
    },
    /// There are lines behind the last seal.
    #[error("line {seq} of the journal and what follows is not sealed")]
    Unsealed {
        /// The first of them.
        seq: u64,
    },
    /// Somebody else has signed.
    #[error("the seal up to line {seq} is signed with the key {key}, which is not trusted")]
    ForeignKey {
        /// The seal's last line.
        seq: u64,
        /// Whose it is.
        key: PublicKey,
    },
    /// The signature is not that key's.
    #[error("the signature of the seal up to line {seq} is wrong")]
    BadSignature {
        /// The seal's last line.
        seq: u64,
    },
    /// A head that was exported before goes further than the journal.
    #[error("the journal was cut: it ends at line {last}, and had line {seq} before")]
    Truncated {
        /// The head's line.
        seq: u64,
        /// The last line there is.
        last: u64,
    },
    /// A head that was exported before is not one of this journal.
    #[error("the journal was written anew: up to line {seq} it was another one before")]
    Rewritten {
        /// The head's line.
        seq: u64,
    },
    /// A head to be held against the journal is none of a trusted key.
    #[error("the given head of line {seq} is not signed by a trusted key")]
    BadHead {
        /// The head's line.
        seq: u64,
    },
}

/// Reads lines and seals in their order. After the first error the rest means nothing.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Vec<PublicKey>,
    /// Ordered by line; those before `next_head` were met.
    heads: Vec<Head>,
    next_head: usize,
    batch: Batch,
    last: Option<Seal>,
    verified: Verified,
}

impl Verifier {
    /// Begins before the first line.
    pub fn new(trust: Trust) -> Self {
        let Trust { keys, mut heads } = trust;
        heads.sort_by_key(|it| it.last_seq);
        Self {
            keys,
            heads,
            next_head: 0,
            batch: Batch::after(&Tip::origin()),
            last: None,
            verified: Verified::default(),
        }
    }

    /// The next line of the journal.
    pub fn line(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
        let added = self.batch.add(line);
        added.map_err(|OutOfOrder { expected: seq, .. }| Wrong::LineMissing { seq })?;
        self.verified.lines = self.verified.lines.saturating_add(1);
        Ok(())
    }

    /// The seal of the lines since the last one.
    pub fn seal(&mut self, seal: &Seal) -> Result<(), Wrong> {
        let first = self.batch.first_seq();
        if seal.first_seq != first || seal.last_seq < first {
            return Err(Wrong::SealMissing { seq: first });
        }
        if self.batch.last_seq() < seal.last_seq {
            return Err(Wrong::LineMissing { seq: self.batch.last_seq().saturating_add(1) });
        }
        // The caller has given lines of the next batch, too: those were not sealed as one.
        let changed = Wrong::Changed { first, last: seal.last_seq };
        if seal.last_seq < self.batch.last_seq() {
            return Err(changed);
        }
        self.signer(seal)?;
        let batch = std::mem::replace(&mut self.batch, Batch::after(&Tip::after(seal)));
        if batch.hash(seal.at, seal.key.as_bytes()) != seal.hash {
            return Err(changed);
        }
        self.meet_heads(seal)?;
        self.last = Some(*seal);
        self.verified.seals = self.verified.seals.saturating_add(1);
        Ok(())
    }

    /// Nothing comes any more.
    pub fn finish(mut self) -> Result<Verified, Wrong> {
        if !self.batch.is_empty() {
            return Err(Wrong::Unsealed { seq: self.batch.first_seq() });
        }
        self.signed()?;
        if let Some(head) = self.heads.get(self.next_head) {
            self.believe(head)?;
            return Err(Wrong::Truncated { seq: head.last_seq, last: self.batch.last_seq() });
        }
        self.verified.head = self.last.as_ref().map(Seal::head);
        Ok(self.verified)
    }

    /// Whose seal it is. Every seal hashes the one before it, so that only the last signature of each
    /// key has anything to prove.
    fn signer(&mut self, seal: &Seal) -> Result<(), Wrong> {
        if self.last.is_some_and(|it| it.key == seal.key) {
            return Ok(());
        }
        self.signed()?;
        if !self.keys.is_empty() && !self.keys.contains(&seal.key) {
            return Err(Wrong::ForeignKey { seq: seal.last_seq, key: seal.key });
        }
        self.verified.keys.push((seal.key, seal.first_seq));
        Ok(())
    }

    fn signed(&self) -> Result<(), Wrong> {
        match &self.last {
            Some(last) if !last.head().is_genuine() => {
                Err(Wrong::BadSignature { seq: last.last_seq })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Holds the heads that end here against the journal.
    fn meet_heads(&mut self, seal: &Seal) -> Result<(), Wrong> {
        while let Some(head) = self.heads.get(self.next_head)
            && head.last_seq <= seal.last_seq
        {
            self.believe(head)?;
            if head.last_seq != seal.last_seq || head.hash != seal.hash {
                return Err(Wrong::Rewritten { seq: head.last_seq });
            }
            self.next_head = self.next_head.saturating_add(1);
            self.verified.heads = self.verified.heads.saturating_add(1);
        }
        Ok(())
    }

    fn believe(&self, head: &Head) -> Result<(), Wrong> {
        let trusted = if self.keys.is_empty() {
            // An empty journal has nobody's seal, and was cut by whoever made it so.
            self.last.is_none() || self.verified.keys.iter().any(|it| it.0 == head.key)
        } else {
            self.keys.contains(&head.key)
        };
        if trusted && head.is_genuine() {
            return Ok(());
        }
        Err(Wrong::BadHead { seq: head.last_seq })
    }
}
