//! `erc20ApprovalGasSponsoring`: the payer's own transaction `approve(Permit2, …)`, signed and not sent.

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use farebox_protocol::Reason;
use serde_json::Value;

use super::check_parties;
use crate::evm::address::EvmAddress;
use crate::evm::authorization::{self as read, Authorization};
use crate::evm::check::Refusal;
use crate::evm::contracts::PERMIT2;
use crate::evm::signature::Signature;
use crate::evm::token::EvmToken;

/// What an approval must say.
pub(super) const FIELDS: &[&str] =
    &["from", "asset", "spender", "amount", "signedTransaction", "version"];

/// `approve(address,uint256)`
const APPROVE: [u8; 4] = [0x09, 0x5e, 0xa7, 0xb3];
/// The longest transaction that is looked at: an approval takes under 200 bytes.
const BYTES_MAX: usize = 1_024;

/// A transaction that is the approval and nothing else, by the payer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedApproval {
    pub(crate) raw: Bytes,
    pub(crate) hash: B256,
    pub(crate) input: Bytes,
    /// The allowance that it sets.
    pub(crate) allows: U256,
    pub(crate) nonce: u64,
    pub(crate) gas_limit: u64,
    /// The most that a unit of gas may cost, in wei.
    pub(crate) gas_price_max: u128,
    /// The most that it offers whoever mines it, in wei for a unit of gas.
    pub(crate) tip_max: u128,
}

impl SignedApproval {
    pub(super) fn read(
        token: &EvmToken,
        info: &Value,
        authorization: &Authorization,
    ) -> Result<Self, Refusal> {
        let payer = authorization.payer;
        let format = Reason::InvalidErc20ApprovalExtensionFormat;
        let mismatches = [
            Reason::Erc20ApprovalFromMismatch,
            Reason::Erc20ApprovalAssetMismatch,
            Reason::Erc20ApprovalSpenderNotPermit2,
        ];
        check_parties(info, authorization, &format, mismatches)?;
        let refuse = |reason: Reason, message: &str| {
            Refusal::of(payer, &reason, format!("the sponsored approval: expected {message}"))
        };
        let text = read::text(info, "signedTransaction").unwrap_or_default();
        let raw = text.strip_prefix("0x").filter(|it| it.len() <= BYTES_MAX.saturating_mul(2));
        let raw = raw.and_then(|it| hex::decode(it).ok());
        let raw = raw.ok_or_else(|| refuse(format.clone(), "`0x` and the transaction's bytes"))?;
        let transaction = decode(&raw).ok_or_else(|| {
            refuse(Reason::Erc20ApprovalTxParseFailed, "a legacy, EIP-2930 or EIP-1559 transaction")
        })?;
        let allows = check_call(&transaction, authorization)
            .map_err(|(reason, message)| refuse(reason, message))?;
        if transaction.chain_id() != Some(token.chain_id()) {
            let message = "a transaction for this network alone";
            return Err(refuse(Reason::Erc20ApprovalTxWrongTarget, message));
        }
        check_signer(&transaction, payer).map_err(|(reason, message)| refuse(reason, message))?;
        Ok(Self {
            hash: keccak256(&raw),
            input: transaction.input().clone(),
            allows,
            nonce: transaction.nonce(),
            gas_limit: transaction.gas_limit(),
            gas_price_max: transaction.max_fee_per_gas(),
            tip_max: transaction.priority_fee_or_price(),
            raw: raw.into(),
        })
    }

    /// The most that its gas can cost, in wei.
    pub(crate) fn cost_max(&self) -> U256 {
        U256::from(self.gas_limit).saturating_mul(U256::from(self.gas_price_max))
    }
}

fn decode(raw: &[u8]) -> Option<TxEnvelope> {
    let mut rest = raw;
    let transaction = TxEnvelope::decode_2718(&mut rest).ok().filter(|_| rest.is_empty())?;
    match transaction {
        TxEnvelope::Legacy(_) | TxEnvelope::Eip2930(_) | TxEnvelope::Eip1559(_) => {
            Some(transaction)
        }
        TxEnvelope::Eip4844(_) | TxEnvelope::Eip7702(_) => None,
    }
}

type Fault = (Reason, &'static str);

/// The call is `approve(Permit2, at least what is authorised)` of the token, to the letter:
/// the allowance that it sets.
fn check_call(transaction: &TxEnvelope, authorization: &Authorization) -> Result<U256, Fault> {
    if transaction.to() != Some(authorization.token) {
        return Err((Reason::Erc20ApprovalTxWrongTarget, "a call of the token"));
    }
    let Some((selector, arguments)) = transaction.input().split_at_checked(4) else {
        return Err((Reason::Erc20ApprovalTxWrongSelector, "a call of `approve`"));
    };
    if selector != APPROVE {
        return Err((Reason::Erc20ApprovalTxWrongSelector, "a call of `approve`"));
    }
    let (words, rest) = arguments.as_chunks::<32>();
    let ([spender, amount], true) = (words, rest.is_empty()) else {
        return Err((Reason::Erc20ApprovalTxInvalidCalldata, "two arguments"));
    };
    if *spender != PERMIT2.into_word().0 {
        return Err((Reason::Erc20ApprovalTxWrongSpender, "an approval of Permit2"));
    }
    let amount = U256::from_be_bytes(*amount);
    if amount < U256::from(authorization.value.units()) {
        return Err((Reason::Erc20ApprovalTxInvalidCalldata, "enough to be approved"));
    }
    if !transaction.value().is_zero() {
        return Err((Reason::Erc20ApprovalTxInvalidCalldata, "no ether to be sent"));
    }
    Ok(amount)
}

/// The payer's own key signed it.
fn check_signer(transaction: &TxEnvelope, payer: Address) -> Result<(), Fault> {
    let signature = transaction.signature();
    let mut bytes = [if signature.v() { 28 } else { 27 }; 65];
    let (numbers, _) = bytes.split_at_mut(64);
    let (r, s) = numbers.split_at_mut(32);
    r.copy_from_slice(&signature.r().to_be_bytes::<32>());
    s.copy_from_slice(&signature.s().to_be_bytes::<32>());
    let signer = Signature::from_bytes(bytes)
        .and_then(|it| it.recover(transaction.signature_hash()))
        .map_err(|_| (Reason::Erc20ApprovalTxInvalidSignature, "a good signature"))?;
    if signer != payer {
        tracing::debug!(signer = %EvmAddress::from(signer), "an approval by somebody else");
        return Err((Reason::Erc20ApprovalTxSignerMismatch, "the payer's own transaction"));
    }
    Ok(())
}
