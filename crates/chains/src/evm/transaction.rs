//! EIP-1559 transactions, built and signed.

use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};

use super::fees::Fees;
use super::method::ContractCall;
use super::signers::Signer;

/// What gas a transfer without data costs.
pub(crate) const PLAIN_TRANSFER_GAS: u64 = 21_000;

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
    /// A call without ether.
    pub(crate) fn of_call(chain_id: u64, call: &ContractCall, gas: u64) -> Self {
        Self { chain_id, to: call.to, input: call.input.clone(), gas, value: U256::ZERO }
    }

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

    /// Whether the price has risen past what it offers.
    pub(crate) fn is_outpriced(&self, fees: Fees) -> bool {
        self.body.max_fee_per_gas < fees.base
    }

    /// The same at today's price, and at least an eighth above its own, or nodes would not let it
    /// replace this one; `None` where that is over the cap.
    pub(crate) fn dearer(&self, fees: Fees) -> Option<Self> {
        let same = Draft {
            chain_id: self.body.chain_id,
            to: self.body.to.to().copied()?,
            input: self.body.input.clone(),
            gas: self.body.gas_limit,
            value: self.body.value,
        };
        self.replaced_by(same, fees)
    }

    /// Another transaction in this one's place, dear enough to replace it; `None` where that is over
    /// the cap.
    pub(crate) fn replaced_by(&self, draft: Draft, fees: Fees) -> Option<Self> {
        let raised = |old: u128| old.saturating_add(old / 8).saturating_add(1);
        let tip = fees.tip.max(raised(self.body.max_priority_fee_per_gas));
        let max = fees.max.max(raised(self.body.max_fee_per_gas)).max(tip);
        (max <= fees.cap).then(|| {
            let fees = Fees { max, tip, ..fees };
            draft.sign(&self.signer, self.nonce(), fees)
        })
    }
}

fn sign(signer: &Arc<Signer>, body: TxEip1559) -> SignedTransaction {
    let signature = signer.key.sign_transaction(body.signature_hash());
    let signed = body.clone().into_signed(signature);
    let mut raw = Vec::new();
    signed.eip2718_encode(&mut raw);
    SignedTransaction { hash: *signed.hash(), raw: raw.into(), signer: Arc::clone(signer), body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evm::key::EvmKey;
    use crate::evm::signers::{Signers, SigningKeys};

    const CAP: u128 = 1_000;

    fn sent(max: u128, tip: u128) -> SignedTransaction {
        let keys = SigningKeys::new(vec![EvmKey::from_bytes([1; 32]).unwrap()]);
        let signers = Signers::new(&keys, 0);
        let draft = Draft::filler(84_532, Address::repeat_byte(7));
        draft.sign(&signers.all()[0], 4, Fees { base: 1, max, tip, cap: CAP })
    }

    #[track_caller]
    fn check(old: (u128, u128), now: (u128, u128), expected: Option<(u128, u128)>) {
        let fees = Fees { base: 1, max: now.0, tip: now.1, cap: CAP };
        let old = sent(old.0, old.1);
        let new = old.dearer(fees);
        let prices =
            |it: &SignedTransaction| (it.body.max_fee_per_gas, it.body.max_priority_fee_per_gas);
        assert_eq!(new.as_ref().map(prices), expected, "{old:?}");
        if let Some(new) = new {
            assert_eq!((new.nonce(), new.body.to), (old.nonce(), old.body.to));
            assert_ne!(new.hash, old.hash);
        }
    }

    #[test]
    fn replacements_beat_the_old_price_by_an_eighth_and_never_the_cap() {
        // Geth and its kin want a tenth more of both fees.
        check((800, 80), (100, 10), Some((901, 91)));
        check((800, 80), (990, 10), Some((990, 91)));
        check((800, 80), (990, 200), Some((990, 200)));
        check((888, 0), (100, 0), Some((1_000, 1)));
        check((889, 0), (100, 0), None);
        check((800, 900), (100, 0), None);
        check((u128::MAX, 0), (100, 0), None);
    }

    #[test]
    fn only_a_base_fee_past_the_offer_outprices() {
        let fees = |base| Fees { base, max: 1, tip: 0, cap: CAP };
        assert!(!sent(800, 0).is_outpriced(fees(800)));
        assert!(sent(800, 0).is_outpriced(fees(801)));
    }
}
