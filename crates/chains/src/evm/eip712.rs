//! EIP-712: hashes of domains and structs whose members are all words.

use alloy_primitives::{Address, B256, U256, keccak256};

/// `hashStruct` over a type hash and its members' words.
pub(crate) fn hash_words(words: &[B256]) -> B256 {
    let mut bytes = Vec::with_capacity(words.len().saturating_mul(32));
    for word in words {
        bytes.extend_from_slice(word.as_slice());
    }
    keccak256(bytes)
}

/// What is signed: the struct under its domain.
pub(crate) fn digest(domain_separator: B256, struct_hash: B256) -> B256 {
    let mut message = [0; 2 + 32 + 32];
    let (prefix, hashes) = message.split_at_mut(2);
    prefix.copy_from_slice(&[0x19, 0x01]);
    let (domain, hash) = hashes.split_at_mut(32);
    domain.copy_from_slice(domain_separator.as_slice());
    hash.copy_from_slice(struct_hash.as_slice());
    keccak256(message)
}

/// The word of a number.
pub(crate) fn number(units: impl Into<U256>) -> B256 {
    B256::from(units.into())
}

/// The word of an address.
pub(crate) fn account(address: Address) -> B256 {
    address.into_word()
}
