//! Signatures of transactions: who sent it, and signing for the accounts whose keys are known.

use alloy_consensus::{
    SignableTransaction, Signed, TxEnvelope, TypedTransaction, transaction::Recovered,
};
use alloy_primitives::{Address, B256, Signature, U256, keccak256};
use secp256k1::{
    Message, SECP256K1, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};

use crate::accounts::DevAccount;

/// The signature is not one that Ethereum takes (EIP-2: low s, a point on the curve).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid transaction v, r, s values")]
pub(crate) struct BadSignature;

/// The signer of a 32-byte digest.
pub(crate) fn recover(digest: B256, signature: &Signature) -> Result<Address, BadSignature> {
    if signature.normalize_s().is_some() {
        return Err(BadSignature);
    }
    let compact = signature.as_rsy();
    let (rs, _parity) = compact.split_at(64);
    let id = if signature.v() { RecoveryId::One } else { RecoveryId::Zero };
    let recoverable = RecoverableSignature::from_compact(rs, id).map_err(|_| BadSignature)?;
    let key = SECP256K1
        .recover_ecdsa(Message::from_digest(digest.0), &recoverable)
        .map_err(|_| BadSignature)?;
    let point = key.serialize_uncompressed();
    let (_prefix, coordinates) = point.split_at(1);
    let hash = keccak256(coordinates);
    Ok(Address::from_word(hash))
}

/// Signs a 32-byte digest with the key of a dev account.
pub(crate) fn sign(account: &DevAccount, digest: B256) -> Result<Signature, BadSignature> {
    let key = SecretKey::from_byte_array(account.private_key.0).map_err(|_| BadSignature)?;
    let recoverable = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), &key);
    let (id, rs) = recoverable.serialize_compact();
    Ok(Signature::from_bytes_and_parity(&rs, id == RecoveryId::One))
}

/// Attaches the signer to a decoded transaction.
pub(crate) fn recover_transaction(tx: TxEnvelope) -> Result<Recovered<TxEnvelope>, BadSignature> {
    let sender = recover(tx.signature_hash(), tx.signature())?;
    Ok(Recovered::new_unchecked(tx, sender))
}

/// Signs `tx` for a dev account.
pub(crate) fn sign_transaction(
    account: &DevAccount,
    tx: TypedTransaction,
) -> Result<Recovered<TxEnvelope>, BadSignature> {
    let signature = sign(account, tx.signature_hash())?;
    Ok(Recovered::new_unchecked(envelope(tx, signature), account.address))
}

/// Wraps `tx` for an impersonated account: no key exists, so the signature's r is the sender's
/// address (transactions of two senders must not share a hash) and its s is 1.
pub(crate) fn impersonate_transaction(
    sender: Address,
    tx: TypedTransaction,
) -> Recovered<TxEnvelope> {
    let signature = Signature::new(sender.into_word().into(), U256::ONE, false);
    Recovered::new_unchecked(envelope(tx, signature), sender)
}

fn envelope(tx: TypedTransaction, signature: Signature) -> TxEnvelope {
    let signed: Signed<TypedTransaction> = tx.into_signed(signature);
    signed.into()
}
