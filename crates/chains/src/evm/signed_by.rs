//! Who signed a payment: the payer's own key, which is known at once; or a contract, which only its
//! chain can ask.
//!
//! Sources: ERC-1271 for wallets that are there, ERC-6492 for those that are not yet: its signatures
//! say how the wallet is deployed, and are told by their last 32 bytes.

use alloy_primitives::{Address, B256, Bytes, U256};

use super::signature::{BadSignature, Signature};

/// The longest signature that is looked at: multisignatures and passkeys take less, with all that
/// deploys their wallet, and so does a payment header as a whole.
pub(crate) const SIGNATURE_BYTES_MAX: usize = 4_096;

/// The 32 bytes that end a signature of a wallet that may not be deployed yet (ERC-6492).
const ERC6492_MAGIC: [u8; 32] = [
    0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92,
    0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92,
];

/// Who signed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SignedBy {
    /// The payer's own key: recovered here.
    Key(Signature),
    /// The payer's contract, it is claimed.
    Wallet(WalletSignature),
}

/// What only the payer's contract can judge.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WalletSignature {
    /// What is shown to the contract, without the wrapper of ERC-6492.
    pub(crate) bytes: Bytes,
    /// What must have been signed.
    pub(crate) digest: B256,
    /// How the wallet is made, where it is not there yet.
    pub(crate) deployment: Option<Deployment>,
    /// Why it is no signature of the payer's own key.
    pub(crate) not_by_key: BadSignature,
}

/// The call that makes a wallet.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Deployment {
    pub(crate) factory: Address,
    pub(crate) input: Bytes,
}

impl SignedBy {
    /// Reads `0x` and hexadecimal digits. What recovers to the payer is its key's own; the same in any
    /// spelling but the canonical one is refused (attack A11), whoever might take it.
    pub(crate) fn read(text: &str, digest: B256, payer: Address) -> Result<Self, BadSignature> {
        let digits = text.strip_prefix("0x").ok_or(BadSignature::NotHex)?;
        if SIGNATURE_BYTES_MAX < digits.len() / 2 {
            return Err(BadSignature::TooLong);
        }
        let bytes = hex::decode(digits).map_err(|_| BadSignature::NotHex)?;
        let (bytes, deployment) = unwrap(bytes)?;
        let not_by_key = match Signature::from_slice(&bytes) {
            Ok(signature) => match signature.recover(digest) {
                Ok(signer) if signer == payer => return Ok(Self::Key(signature)),
                Ok(signer) => BadSignature::Signer(signer),
                Err(error) => error,
            },
            Err(error) if Signature::signers_of_any_spelling(&bytes, digest).contains(&payer) => {
                return Err(error);
            }
            Err(error) => error,
        };
        Ok(Self::Wallet(WalletSignature { bytes, digest, deployment, not_by_key }))
    }

    /// What contracts are shown.
    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Self::Key(signature) => Bytes::copy_from_slice(&signature.to_bytes()),
            Self::Wallet(wallet) => wallet.bytes.clone(),
        }
    }

    /// The signature that a contract must judge.
    pub(crate) fn wallet(&self) -> Option<&WalletSignature> {
        match self {
            Self::Key(_) => None,
            Self::Wallet(wallet) => Some(wallet),
        }
    }
}

/// The signature itself, and how the wallet is made: `abi.encode(factory, input, signature)` before the
/// magic end.
fn unwrap(bytes: Vec<u8>) -> Result<(Bytes, Option<Deployment>), BadSignature> {
    let Some(body) = bytes.strip_suffix(&ERC6492_MAGIC) else { return Ok((bytes.into(), None)) };
    let member = |index: usize| {
        let head = word(body, index.checked_mul(32)?)?;
        let start = usize::try_from(U256::from_be_bytes(head)).ok()?;
        let length = usize::try_from(U256::from_be_bytes(word(body, start)?)).ok()?;
        let rest = body.get(start.checked_add(32)?..)?;
        Some(Bytes::copy_from_slice(rest.get(..length)?))
    };
    let read = || {
        let factory = B256::from(word(body, 0)?);
        let factory = Some(Address::from_word(factory)).filter(|it| it.into_word() == factory)?;
        Some((member(2)?, Deployment { factory, input: member(1)? }))
    };
    let (signature, deployment) = read().ok_or(BadSignature::Wrapper)?;
    Ok((signature, Some(deployment)))
}

fn word(bytes: &[u8], start: usize) -> Option<[u8; 32]> {
    bytes.get(start..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evm::abi;
    use crate::evm::key::EvmKey;

    const DIGEST: B256 = B256::repeat_byte(7);

    fn key() -> EvmKey {
        EvmKey::from_bytes([3; 32]).unwrap()
    }

    fn payer() -> Address {
        key().address().alloy()
    }

    /// `abi.encode(factory, input, signature)` and the magic end.
    fn wrapped(factory: Address, input: &[u8], signature: &[u8]) -> Vec<u8> {
        let padded = |it: &[u8]| {
            let call = abi::encode_with_bytes([0; 4], &[], it);
            call[4 + 32..].to_vec()
        };
        let (input, signature) = (padded(input), padded(signature));
        let number = |it: usize| B256::from(U256::from(it)).to_vec();
        let heads =
            [factory.into_word().to_vec(), number(96), number(input.len().saturating_add(96))];
        [heads.concat(), input, signature, ERC6492_MAGIC.to_vec()].concat()
    }

    fn read(bytes: &[u8]) -> Result<SignedBy, BadSignature> {
        SignedBy::read(&format!("0x{}", hex::encode(bytes)), DIGEST, payer())
    }

    #[track_caller]
    fn wallet(bytes: &[u8]) -> WalletSignature {
        match read(bytes) {
            Ok(SignedBy::Wallet(wallet)) => wallet,
            Ok(SignedBy::Key(_)) => panic!("signed by the key"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn the_payers_key_is_known_at_once() {
        let good = key().sign_digest(&DIGEST.0);
        assert!(matches!(read(&good), Ok(SignedBy::Key(it)) if it.to_bytes() == good));
        let other = EvmKey::from_bytes([4; 32]).unwrap();
        let theirs = wallet(&other.sign_digest(&DIGEST.0));
        assert_eq!(theirs.not_by_key, BadSignature::Signer(other.address().alloy()));
        assert_eq!(theirs.deployment.map(|it| it.factory), None);
        assert_eq!(wallet(&[]).not_by_key, BadSignature::Length(0));
        assert_eq!(wallet(&[1; 700]).not_by_key, BadSignature::Length(700));
    }

    #[test]
    fn a11_no_other_spelling_of_the_payers_own_signature_is_left_to_a_contract() {
        let good = key().sign_digest(&DIGEST.0);
        let refused = |bytes: &[u8]| read(bytes).err().unwrap();
        for v in [good[64] - 27, good[64] + 8, 0xff] {
            let mut other = good;
            other[64] = v;
            assert_eq!(refused(&other), BadSignature::V(v));
        }
        let mut twin = good;
        let order = U256::from_be_bytes(secp256k1::constants::CURVE_ORDER);
        let s: U256 = order - U256::from_be_slice(&good[32..64]);
        twin[32..64].copy_from_slice(&s.to_be_bytes::<32>());
        twin[64] = 27 + 28 - good[64];
        assert_eq!(refused(&twin), BadSignature::HighS);
        // EIP-2098: the parity is the highest bit of s.
        let mut compact = good[..64].to_vec();
        compact[32] |= (good[64] - 27) << 7;
        assert_eq!(refused(&compact), BadSignature::Length(64));
    }

    #[test]
    fn wrappers_are_taken_off() {
        let factory = Address::repeat_byte(9);
        let wallet = wallet(&wrapped(factory, b"make it", b"signed"));
        assert_eq!(wallet.bytes.as_ref(), b"signed");
        let deployment = wallet.deployment.unwrap();
        assert_eq!((deployment.factory, deployment.input.as_ref()), (factory, b"make it".as_ref()));
    }

    #[test]
    fn broken_wrappers_are_refused() {
        let refused = |bytes: &[u8]| read(bytes).err();
        assert_eq!(refused(&ERC6492_MAGIC), Some(BadSignature::Wrapper));
        let good = wrapped(Address::repeat_byte(9), b"make it", b"signed");
        // A factory of more than 20 bytes; offsets and lengths that lead out.
        for (place, byte) in [(0, 1), (32, 1), (62, 0xff), (64, 0xff), (96, 1), (126, 9)] {
            let mut bad = good.clone();
            bad[place] = byte;
            assert_eq!(refused(&bad), Some(BadSignature::Wrapper), "{place}");
        }
        for cut in 1..good.len() - 32 {
            if let Ok(SignedBy::Wallet(it)) = read(&good[cut..]) {
                assert!(it.bytes.len() < good.len(), "{cut}");
            }
        }
        assert_eq!(refused(&vec![1; SIGNATURE_BYTES_MAX + 1]), Some(BadSignature::TooLong));
        assert_eq!(wallet(&[1; SIGNATURE_BYTES_MAX]).bytes.len(), SIGNATURE_BYTES_MAX);
    }
}
