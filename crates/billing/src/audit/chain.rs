//! The chain: lines of a journal, hashed one after the other, and cut into batches.

use farebox_protocol::{Amount, Digest, DigestBuilder, PaymentId, Timestamp};

use crate::audit::seal::{Seal, SigningKey};

/// What a batch is hashed for.
const BATCH: &str = "farebox journal batch v1";
/// What a seal is hashed for where the next batch begins.
const LINK: &str = "farebox journal link v1";
/// Where a chain begins.
const ORIGIN: &str = "farebox journal origin v1";

/// A line of the journal, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number: 1 and up, without gaps.
    pub seq: u64,
    /// Which payment it is about.
    pub payment: PaymentId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: &'a str,
    /// With how much, in atomic units.
    pub amount: Option<Amount>,
    /// With what else.
    pub detail: Option<&'a str>,
}

impl Line<'_> {
    /// The bytes that are hashed: every field in its place and with its length, so that two lines with
    /// the same bytes are the same line.
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(self.payment.as_bytes());
        bytes.extend_from_slice(&self.at.millis().to_be_bytes());
        encode_text(self.event, bytes);
        match self.amount {
            None => bytes.push(0),
            Some(amount) => {
                bytes.push(1);
                bytes.extend_from_slice(&amount.to_be_bytes());
            }
        }
        match self.detail {
            None => bytes.push(0),
            Some(detail) => {
                bytes.push(1);
                encode_text(detail, bytes);
            }
        }
    }
}

fn encode_text(text: &str, bytes: &mut Vec<u8>) {
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// Where a chain ends, so that it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    last_seq: u64,
    link: Digest,
}

/// A line whose number is not the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {expected} of the journal is missing: the next one is {found}")]
pub struct OutOfOrder {
    /// The line that should come.
    pub expected: u64,
    /// The one that came.
    pub found: u64,
}

impl Tip {
    /// Before the first line.
    pub fn origin() -> Self {
        Self { last_seq: 0, link: DigestBuilder::new(ORIGIN).finish() }
    }

    /// After a sealed batch. The signature goes into the next batch as well: nothing of a seal can be
    /// changed without breaking what follows.
    pub fn after(seal: &Seal) -> Self {
        let link = DigestBuilder::new(LINK).field(seal.hash.as_bytes());
        let link = link.field(seal.key.as_bytes()).field(seal.signature.as_bytes()).finish();
        Self { last_seq: seal.last_seq, link }
    }

    /// The last line that is sealed; 0 for none.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
}

/// Lines that were added to a chain and are not sealed yet.
#[derive(Clone, Debug)]
pub struct Batch {
    first_seq: u64,
    last_seq: u64,
    hashed: DigestBuilder,
    scratch: Vec<u8>,
}

impl Batch {
    /// Goes on behind that tip.
    pub fn after(tip: &Tip) -> Self {
        Self {
            first_seq: tip.last_seq.saturating_add(1),
            last_seq: tip.last_seq,
            hashed: DigestBuilder::new(BATCH).field(tip.link.as_bytes()),
            scratch: Vec::new(),
        }
    }

    /// The last line that was added, or the last one before this batch.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Whether there is nothing to seal.
    pub fn is_empty(&self) -> bool {
        self.last_seq < self.first_seq
    }

    /// Adds the next line.
    pub fn add(&mut self, line: &Line<'_>) -> Result<(), OutOfOrder> {
        let expected = self.last_seq.saturating_add(1);
        if line.seq != expected {
            return Err(OutOfOrder { expected, found: line.seq });
        }
        line.encode_into(&mut self.scratch);
        self.hashed.push(&self.scratch);
        self.last_seq = line.seq;
        Ok(())
    }

    /// Signs what was added; `None` if nothing was.
    pub fn seal(self, key: &SigningKey, at: Timestamp) -> Option<Seal> {
        if self.is_empty() {
            return None;
        }
        let (first_seq, last_seq) = (self.first_seq, self.last_seq);
        let public = key.public();
        let hash = self.hash(at, public.as_bytes());
        let signature = key.sign(last_seq, at, hash);
        Some(Seal { first_seq, last_seq, at, hash, key: public, signature })
    }

    pub(super) fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The hash of a batch that ends here: of all before it, its lines, and who sealed it when.
    pub(super) fn hash(mut self, at: Timestamp, key: &[u8; 32]) -> Digest {
        self.hashed.push(&self.first_seq.to_be_bytes());
        self.hashed.push(&self.last_seq.to_be_bytes());
        self.hashed.push(&at.millis().to_be_bytes());
        self.hashed.push(key);
        self.hashed.finish()
    }
}
