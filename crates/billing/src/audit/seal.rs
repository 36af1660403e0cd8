//! Seals and heads: who says, and when, that the journal was so.
//!
//! Signatures are Ed25519 (RFC 8032).

use std::fmt;
use std::str::FromStr;

use farebox_protocol::{Digest, DigestBuilder, Timestamp};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// What is signed.
const HEAD: &str = "farebox journal head v1";
/// How a head begins as text.
const HEAD_WORD: &str = "farebox-head-1";

/// The secret with which a node signs the heads of its chain.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// That is no secret of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no signing key can be made of this secret")]
pub struct BadSecret;

impl SigningKey {
    /// The key of 32 secret bytes drawn at random.
    pub fn from_secret(secret: &[u8; 32]) -> Result<Self, BadSecret> {
        let pair = Ed25519KeyPair::from_seed_unchecked(secret).map_err(|_| BadSecret)?;
        let public = <[u8; 32]>::try_from(pair.public_key().as_ref()).map_err(|_| BadSecret)?;
        Ok(Self { pair, public: PublicKey(public) })
    }

    /// What others verify its signatures with.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn sign(&self, last_seq: u64, at: Timestamp, hash: Digest) -> Signature {
        let signature = self.pair.sign(message(last_seq, at, hash).as_bytes());
        // It is 64 bytes, always; if ever it were not, then the signature is wrong and is found so.
        Signature(<[u8; 64]>::try_from(signature.as_ref()).unwrap_or([0; 64]))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

fn message(last_seq: u64, at: Timestamp, hash: Digest) -> Digest {
    DigestBuilder::new(HEAD)
        .field(&last_seq.to_be_bytes())
        .field(&at.millis().to_be_bytes())
        .field(hash.as_bytes())
        .finish()
}

/// Verifies the signatures of one node. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// A signature of a head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

/// A text that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// No public key.
    #[error("expected a public key: 64 hexadecimal digits")]
    Key,
    /// No head.
    #[error("expected a head: `{HEAD_WORD} <line> <milliseconds> <hash> <key> <signature>`")]
    Head,
}

impl PublicKey {
    /// The key of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        bytes(text).map(Self).ok_or(BadText::Key)
    }
}

impl Signature {
    /// The signature of these bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", hex::encode(self.0))
    }
}

/// A batch of the journal that was sealed: a row beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its first line.
    pub first_seq: u64,
    /// Its last line.
    pub last_seq: u64,
    /// When it was sealed.
    pub at: Timestamp,
    /// Of everything up to its last line.
    pub hash: Digest,
    /// Whose signature it is.
    pub key: PublicKey,
    /// Of its head.
    pub signature: Signature,
}

impl Seal {
    /// What can be given away of it: it says nothing of the payments, and pins all of them.
    pub fn head(&self) -> Head {
        let Self { last_seq, at, hash, key, signature, first_seq: _ } = *self;
        Head { last_seq, at, hash, key, signature }
    }
}

/// How a journal was at some time, to be kept somewhere else: whoever has it can tell later whether
/// that journal was cut or written anew. Shown on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last line.
    pub last_seq: u64,
    /// When.
    pub at: Timestamp,
    /// Of everything up to that line.
    pub hash: Digest,
    /// Who says so.
    pub key: PublicKey,
    /// The proof.
    pub signature: Signature,
}

impl Head {
    /// Whether the signature is that key's.
    pub fn is_genuine(&self) -> bool {
        let message = message(self.last_seq, self.at, self.hash);
        let key = UnparsedPublicKey::new(&ED25519, self.key.as_bytes());
        key.verify(message.as_bytes(), self.signature.as_bytes()).is_ok()
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = hex::encode(self.signature.0);
        let (seq, at) = (self.last_seq, self.at.millis());
        write!(f, "{HEAD_WORD} {seq} {at} {} {} {signature}", self.hash, self.key)
    }
}

impl FromStr for Head {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let head = || {
            let mut words = text.split_whitespace();
            let mut word = || words.next();
            if word()? != HEAD_WORD {
                return None;
            }
            let last_seq = word()?.parse().ok()?;
            let at = Timestamp::from_millis(word()?.parse().ok()?);
            let hash = Digest::from_bytes(bytes(word()?)?);
            let key = PublicKey(bytes(word()?)?);
            let signature = Signature(bytes(word()?)?);
            word().is_none().then_some(Self { last_seq, at, hash, key, signature })
        };
        head().ok_or(BadText::Head)
    }
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}
