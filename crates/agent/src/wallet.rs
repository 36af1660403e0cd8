//! The key that pays: where it comes from, and the few things it signs.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eth_keystore::{EthKeystore, KdfparamsType, KeystoreError};
use farebox_chains::{
    AuthorizationWindow, BadKey, CannotSign, Charging, EvmAddress, EvmKey, TransferMethod,
    sign_eip2612_permit, sign_exact, sign_permit2_exact, sign_upto,
};
use farebox_protocol::Timestamp;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::env::{BadVariable, secret_from_env};
use crate::offer::Offer;

/// The longest key file or keystore that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The permission bits that let anybody but the owner at a file.
const OTHERS: u32 = 0o077;

/// An EVM account that signs payments. Cheap to clone; prints its address and nothing else.
#[derive(Clone)]
pub struct Wallet(Arc<EvmKey>);

/// Why a key could not be had. No variant carries key material.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read the file.
    #[error(
        "{} may be read by others (mode {mode:04o}): expected mode 0600; run `chmod 600 {}`",
        path.display(),
        path.display()
    )]
    Permissions {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a file of a sensible size.
    #[error("{}: expected a file of at most {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// What was found is not a key.
    #[error("{origin}: {source}")]
    Key {
        /// Where it was found.
        origin: String,
        /// Why not.
        source: BadKey,
    },
    /// The environment does not have it.
    #[error(transparent)]
    Variable(#[from] BadVariable),
    /// Not a version 3 keystore that this program opens.
    #[error("{}: expected a Web3 version 3 keystore: {expected}", path.display())]
    Keystore {
        /// Which.
        path: PathBuf,
        /// What should stand there.
        expected: &'static str,
    },
    /// The password is not the keystore's.
    #[error("{}: wrong password", path.display())]
    Password {
        /// Which.
        path: PathBuf,
    },
}

impl Wallet {
    /// The account of a key that is in memory already.
    pub fn new(key: EvmKey) -> Self {
        Self(Arc::new(key))
    }

    /// From 64 hexadecimal digits, with or without `0x`.
    pub fn from_hex(text: &SecretString) -> Result<Self, WalletError> {
        Self::parse(text.expose_secret(), "key")
    }

    /// From a file that holds 64 hexadecimal digits and that only its owner may read.
    pub fn from_key_file(path: &Path) -> Result<Self, WalletError> {
        let text = read_private(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// From the environment variable `name`.
    pub fn from_env(name: &str) -> Result<Self, WalletError> {
        Self::parse(secret_from_env(name)?.expose_secret(), &format!("${name}"))
    }

    /// From an encrypted Web3 version 3 keystore. Slow on purpose: that is what protects it.
    pub fn from_keystore(path: &Path, password: &SecretString) -> Result<Self, WalletError> {
        let keystore = |expected| WalletError::Keystore { path: path.to_owned(), expected };
        check_keystore(&read(path)?).map_err(keystore)?;
        let opened = eth_keystore::decrypt_key(path, password.expose_secret());
        let bytes = Zeroizing::new(opened.map_err(|error| match error {
            KeystoreError::MacMismatch => WalletError::Password { path: path.to_owned() },
            KeystoreError::StdIo(text) => {
                WalletError::Read { path: path.to_owned(), source: io::Error::other(text) }
            }
            KeystoreError::SerdeJson(_)
            | KeystoreError::ScryptInvalidParams(_)
            | KeystoreError::ScryptInvalidOuputLen(_)
            | KeystoreError::AesInvalidKeyNonceLength(_) => {
                keystore("key derivation parameters that RFC 7914 allows")
            }
        })?);
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new);
        let key = key.map_err(|_| keystore("a key of 32 bytes"))?;
        let origin = path.display().to_string();
        EvmKey::from_bytes(*key)
            .map(Self::new)
            .map_err(|source| WalletError::Key { origin, source })
    }

    fn parse(text: &str, origin: &str) -> Result<Self, WalletError> {
        let key = EvmKey::from_hex(text);
        key.map(Self::new).map_err(|source| WalletError::Key { origin: origin.to_owned(), source })
    }

    /// The account that pays.
    pub fn address(&self) -> EvmAddress {
        self.0.address()
    }

    /// Signs an authorisation that fulfils an offer; returns the payment's `payload`.
    pub(crate) fn sign(
        &self,
        offer: &Offer,
        window: AuthorizationWindow,
        nonce: [u8; 32],
    ) -> Result<Value, CannotSign> {
        let sign = match (offer.scheme.method(), offer.scheme.charging()) {
            (TransferMethod::Eip3009, _) => sign_exact,
            (TransferMethod::Permit2, Charging::Whole) => sign_permit2_exact,
            (TransferMethod::Permit2, Charging::UpTo) => sign_upto,
        };
        sign(&self.0, &offer.requirements, window, nonce)
    }

    /// Signs a permit by which Permit2 may spend the offer's amount and no more (attack A23); returns
    /// the `info` of `eip2612GasSponsoring`.
    pub(crate) fn sign_permit(
        &self,
        offer: &Offer,
        nonce: u64,
        deadline: Timestamp,
    ) -> Result<Value, CannotSign> {
        sign_eip2612_permit(&self.0, &offer.requirements, nonce, deadline)
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wallet({})", self.address())
    }
}

/// Reads a file that nobody but its owner may read; the permissions looked at are those of the
/// very file that is then read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, WalletError> {
    let failed = |source| WalletError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(WalletError::Permissions { path: path.to_owned(), mode });
    }
    read_file(file, path)
}

fn read(path: &Path) -> Result<Zeroizing<String>, WalletError> {
    let file = fs::File::open(path)
        .map_err(|source| WalletError::Read { path: path.to_owned(), source })?;
    read_file(file, path)
}

fn read_file(file: fs::File, path: &Path) -> Result<Zeroizing<String>, WalletError> {
    let mut text = Zeroizing::new(String::new());
    let mut limited = file.take(FILE_BYTES_MAX.saturating_add(1));
    limited
        .read_to_string(&mut text)
        .map_err(|source| WalletError::Read { path: path.to_owned(), source })?;
    if FILE_BYTES_MAX < u64::try_from(text.len()).unwrap_or(u64::MAX) {
        return Err(WalletError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// Refuses what the keystore crate would panic on or work at for ever.
fn check_keystore(text: &str) -> Result<(), &'static str> {
    let keystore: EthKeystore =
        serde_json::from_str(text).map_err(|_| "JSON with `crypto`, `id` and `version`")?;
    let crypto = &keystore.crypto;
    if keystore.version != 3 {
        return Err("`version` 3");
    }
    if crypto.cipher != "aes-128-ctr" || crypto.cipherparams.iv.len() != 16 {
        return Err("cipher `aes-128-ctr` with an `iv` of 16 bytes");
    }
    if crypto.ciphertext.len() != 32 {
        return Err("a ciphertext of 32 bytes");
    }
    let derivation_ok = match &crypto.kdfparams {
        KdfparamsType::Pbkdf2 { c, dklen, prf, .. } => {
            (1..=10_000_000).contains(c) && *dklen == 32 && prf == "hmac-sha256"
        }
        // 128 · n · r bytes are needed: at most 1 GiB.
        KdfparamsType::Scrypt { dklen, n, p, r, .. } => {
            let work = u64::from(*n).saturating_mul(u64::from(*r));
            *dklen == 32 && 1 < *n && n.is_power_of_two() && *p <= 16 && 0 < work && work <= 1 << 23
        }
    };
    if derivation_ok {
        Ok(())
    } else {
        Err("`scrypt` or `pbkdf2` (hmac-sha256) with a `dklen` of 32 and sensible costs")
    }
}

#[cfg(test)]
mod tests;
