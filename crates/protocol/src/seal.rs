//! The quote seal: what binds a payment to the request it was quoted for.
//!
//! Stock x402 clients sign nothing about the request they pay for, but they echo
//! `accepted.extra`. So each offer carries `extra.quote`: an expiry, the price version and a MAC
//! over method, normalised target, body digest and every term of the offer. The retry is then
//! priced at the quoted version and good for its own request alone, and nothing is stored for
//! an unpaid 402. See ADR 0003.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::amount::Amount;
use crate::digest::{Digest, DigestBuilder};
use crate::network::Network;
use crate::timestamp::Timestamp;

/// Bytes of the HMAC-SHA-256 that travel. 128 bits cannot be guessed within a quote's life.
const MAC_BYTES: usize = 16;

/// A block of SHA-256.
const HMAC_BLOCK_BYTES: usize = 64;

/// A seal but for its price version: separators, a digit, a decimal and a hexadecimal 64-bit number,
/// and the MAC.
const SEAL_BYTES_MAX: usize = 5 + 20 + 16 + 2 * MAC_BYTES;

/// The first bytes of a nonce that was derived from a seal.
const BOUND_NONCE_TAG: [u8; 4] = *b"fbx1";

/// The secret that seals are made and checked with.
#[derive(Clone)]
pub struct SealKey(Hmac<Sha256>);

impl SealKey {
    /// A key from 32 random bytes. Both of HMAC's key blocks are hashed here, once for all seals.
    pub fn new(secret: [u8; 32]) -> Self {
        let mut block = [0; HMAC_BLOCK_BYTES];
        block.split_at_mut(secret.len()).0.copy_from_slice(&secret);
        // A key shorter than a block is filled up with zeros (RFC 2104 §2).
        Self(Hmac::new(&block.into()))
    }
}

/// Everything a quote promises and demands.
#[derive(Clone, Copy, Debug)]
pub struct QuoteTerms<'a> {
    /// The request's method, upper case.
    pub method: &'a str,
    /// The normalised path and query.
    pub target: &'a str,
    /// The digest of the request body as the client sent it.
    pub body: Digest,
    /// `exact`, …
    pub scheme: &'a str,
    /// Where it is paid.
    pub network: &'a Network,
    /// In which token; the address as offered.
    pub asset: &'a str,
    /// The most that can be charged.
    pub amount: Amount,
    /// To whom.
    pub pay_to: &'a str,
    /// `maxTimeoutSeconds` of the offer.
    pub max_timeout_seconds: u64,
}

/// What a seal says openly; the rest is inside its MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Not good from here on; whole seconds.
    pub expires_at: Timestamp,
    /// The price book that the quote was made with; visible ASCII without dots.
    pub price_version: String,
    /// Makes two quotes for one request differ, so that nonces derived from them do.
    pub salt: u64,
}

/// Why a seal is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSeal {
    /// Not of the form that this program writes.
    #[error("the quote is malformed")]
    Malformed,
    /// Made for another request or other terms, or not made here.
    #[error("the quote was not made for this request and these terms")]
    Mismatch,
    /// Too old.
    #[error("the quote has expired")]
    Expired,
}

impl Seal {
    /// The text for `extra.quote`: `1.<expiry seconds>.<price version>.<salt>.<mac>`.
    pub fn write(&self, key: &SealKey, terms: &QuoteTerms<'_>) -> String {
        let mac = u128::from_be_bytes(self.mac(key, terms));
        let (expiry, version, salt) = (self.expires_at.seconds(), &self.price_version, self.salt);
        let mut text = String::with_capacity(SEAL_BYTES_MAX.saturating_add(version.len()));
        // Writing to a String cannot fail.
        write!(text, "1.{expiry}.{version}.{salt:016x}.{mac:032x}").unwrap_or_default();
        text
    }

    /// The seal in `text`, if it was made here for `terms` and is good at `now`.
    pub fn open(
        text: &str,
        key: &SealKey,
        terms: &QuoteTerms<'_>,
        now: Timestamp,
    ) -> Result<Self, BadSeal> {
        let (seal, mac) = Self::parse(text).ok_or(BadSeal::Malformed)?;
        if !bool::from(seal.mac(key, terms).ct_eq(&mac)) {
            return Err(BadSeal::Mismatch);
        }
        if seal.expires_at <= now { Err(BadSeal::Expired) } else { Ok(seal) }
    }

    fn parse(text: &str) -> Option<(Self, [u8; MAC_BYTES])> {
        let mut parts = text.splitn(5, '.');
        if parts.next()? != "1" {
            return None;
        }
        let expires_at = Timestamp::from_seconds(parts.next()?.parse().ok()?);
        let price_version = parts.next()?.to_owned();
        let salt = parts.next().filter(|it| it.len() == 16)?;
        let salt = u64::from_str_radix(salt, 16).ok()?;
        let mut mac = [0; MAC_BYTES];
        hex::decode_to_slice(parts.next()?, &mut mac).ok()?;
        Some((Self { expires_at, price_version, salt }, mac))
    }

    fn mac(&self, key: &SealKey, terms: &QuoteTerms<'_>) -> [u8; MAC_BYTES] {
        let message = DigestBuilder::new("farebox quote seal v1")
            .field(&self.expires_at.seconds().to_be_bytes())
            .field(self.price_version.as_bytes())
            .field(&self.salt.to_be_bytes())
            .field(terms.method.as_bytes())
            .field(terms.target.as_bytes())
            .field(terms.body.as_bytes())
            .field(terms.scheme.as_bytes())
            .field(terms.network.as_str().as_bytes())
            .field(terms.asset.as_bytes())
            .field(&terms.amount.to_be_bytes())
            .field(terms.pay_to.as_bytes())
            .field(&terms.max_timeout_seconds.to_be_bytes())
            .finish();
        let mut mac = key.0.clone();
        mac.update(message.as_bytes());
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut short = [0; MAC_BYTES];
        short.copy_from_slice(full.split_at(MAC_BYTES).0);
        short
    }
}

/// The nonce that a Farebox agent signs with, derived from the seal it pays for: the signature
/// then binds the quote, and with it the request. 32 bytes: a tag and 28 bytes of SHA-256.
pub fn bound_nonce(seal: &str) -> [u8; 32] {
    let digest = DigestBuilder::new("farebox bound nonce v1").field(seal.as_bytes()).finish();
    let mut nonce = *digest.as_bytes();
    nonce.split_at_mut(BOUND_NONCE_TAG.len()).0.copy_from_slice(&BOUND_NONCE_TAG);
    nonce
}

/// Whether a nonce claims to be derived from a seal; it must then equal [`bound_nonce`] of the
/// seal that it is presented with.
pub fn is_bound_nonce(nonce: &[u8; 32]) -> bool {
    nonce.starts_with(&BOUND_NONCE_TAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn seal() -> Seal {
        let expires_at = Timestamp::from_seconds(1_060);
        Seal { expires_at, price_version: "a1b2".to_owned(), salt: 7 }
    }

    fn terms(network: &Network) -> QuoteTerms<'_> {
        QuoteTerms {
            method: "POST",
            target: "/v1/chat/completions?a=1",
            body: Digest::of(b"{}"),
            scheme: "exact",
            network,
            asset: "0xA",
            amount: Amount::from_units(10),
            pay_to: "0xB",
            max_timeout_seconds: 60,
        }
    }

    #[test]
    fn a_seal_is_good_for_its_own_terms_until_it_expires() {
        let key = SealKey::new([1; 32]);
        let network = Network::eip155(1);
        let text = seal().write(&key, &terms(&network));
        assert_eq!(Seal::open(&text, &key, &terms(&network), NOW), Ok(seal()));
        let late = Timestamp::from_seconds(1_060);
        assert_eq!(Seal::open(&text, &key, &terms(&network), late), Err(BadSeal::Expired));
        let other_key = SealKey::new([2; 32]);
        assert_eq!(Seal::open(&text, &other_key, &terms(&network), NOW), Err(BadSeal::Mismatch));
    }

    #[test]
    fn a02_any_other_request_or_term_breaks_the_seal() {
        let key = SealKey::new([1; 32]);
        let (network, other) = (Network::eip155(1), Network::eip155(2));
        let good = terms(&network);
        let text = seal().write(&key, &good);
        let changed = [
            QuoteTerms { method: "GET", ..good },
            QuoteTerms { target: "/v1/chat/completions?a=2", ..good },
            QuoteTerms { body: Digest::of(b"{} "), ..good },
            QuoteTerms { scheme: "upto", ..good },
            QuoteTerms { network: &other, ..good },
            QuoteTerms { asset: "0xa", ..good },
            QuoteTerms { amount: Amount::from_units(9), ..good },
            QuoteTerms { pay_to: "0xb", ..good },
            QuoteTerms { max_timeout_seconds: 61, ..good },
        ];
        for terms in changed {
            assert_eq!(Seal::open(&text, &key, &terms, NOW), Err(BadSeal::Mismatch), "{terms:?}");
        }
        for (from, to) in [("1060", "1061"), ("a1b2", "a1b3"), ("0007", "0008")] {
            let forged = text.replacen(from, to, 1);
            assert_eq!(Seal::open(&forged, &key, &good, NOW), Err(BadSeal::Mismatch), "{forged}");
        }
        for bad in ["", "1", "2.1.a.0000000000000007.00", "1.x.a.0000000000000007.00", "....."] {
            assert_eq!(Seal::open(bad, &key, &good, NOW), Err(BadSeal::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_bound_nonce_is_told_from_a_random_one() {
        assert!(is_bound_nonce(&bound_nonce("x")));
        assert_ne!(bound_nonce("x"), bound_nonce("y"));
        assert!(!is_bound_nonce(&[0x11; 32]));
    }
}
