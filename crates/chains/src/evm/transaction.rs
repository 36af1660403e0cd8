//! EIP-1559 transactions, built and signed.

use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};

use super::fees::Fees;
use super::signers::Signer;

/// What gas a transfer without data costs.
const PLAIN_TRANSFER_GAS: u64 = 21_000;

/// A signed transaction and what is needed to send it again, or at a higher price.
#[derive(Clone, Debug)]
pub(crate) struct SignedTransaction {
    pub(crate) hash: B256,
    pub(crate) raw: Bytes,
    pub(crate) signer: Arc<Signer>,
    pub(crate) body: TxEip1559,
}

/// A call of a contract, a transfer of ether, or nothing at all.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) chain_id: u64,
    pub(crate) to: Address,
    pub(crate) input: Bytes,
    pub(crate) gas: u64,
    /// In wei.
    pub(crate) value: U256,
}

impl Draft {
    /// A transfer of nothing to oneself: it only uses up a nonce.
    pub(crate) fn filler(chain_id: u64, account: Address) -> Self {
        let (input, gas) = (Bytes::new(), PLAIN_TRANSFER_GAS);
        Self { chain_id, to: account, input, gas, value: U256::ZERO }
    }

    pub(crate) fn sign(self, signer: &Arc<Signer>, nonce: u64, fees: Fees) -> SignedTransaction {
        let body = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit: self.gas,
            max_fee_per_gas: fees.max,
            max_priority_fee_per_gas: fees.tip,
            to: TxKind::Call(self.to),
            value: self.value,
            access_list: alloy_eips::eip2930::AccessList::default(),
            input: self.input,
        };
        sign(signer, body)
    }
}

impl SignedTransaction {
    pub(crate) fn nonce(&self) -> u64 {
        self.body.nonce
    }

    /// The same at today's price, which must beat the old one by an eighth to replace it; `None`
    /// if the old price is still enough.
    pub(crate) fn dearer(&self, fees: Fees) -> Option<Self> {
        if fees.base <= self.body.max_fee_per_gas {
            return None;
        }
        let same = Draft {
            chain_id: self.body.chain_id,
            to: self.body.to.to().copied()?,
            input: self.body.input.clone(),
            gas: self.body.gas_limit,
            value: self.body.value,
        };
        Some(self.replaced_by(same, fees))
    }

    /// Another transaction in this one's place, dear enough to replace it.
    pub(crate) fn replaced_by(&self, draft: Draft, fees: Fees) -> Self {
        let raised = |old: u128| old.saturating_add(old / 8).saturating_add(1);
        let tip = fees.tip.max(raised(self.body.max_priority_fee_per_gas));
        let max = fees.max.max(raised(self.body.max_fee_per_gas)).max(tip);
        draft.sign(&self.signer, self.nonce(), Fees { base: fees.base, max, tip })
    }
}

fn sign(signer: &Arc<Signer>, body: TxEip1559) -> SignedTransaction {
    let signature = signer.key.sign_transaction(body.signature_hash());
    let signed = body.clone().into_signed(signature);
    let mut raw = Vec::new();
    signed.eip2718_encode(&mut raw);
    SignedTransaction { hash: *signed.hash(), raw: raw.into(), signer: Arc::clone(signer), body }
}
