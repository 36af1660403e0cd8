//! EIP-1559 transactions, built and signed.

use std::sync::Arc;

use alloy_consensus::{SignableTransaction, Signed, TxEip1559};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use farebox_protocol::{Network, PaymentId};

use super::fees::Fees;
use super::method::ContractCall;
use super::signers::Signer;
use crate::transaction_log::LoggedTransaction;

/// What gas a transfer without data costs.
pub(crate) const PLAIN_TRANSFER_GAS: u64 = 21_000;

/// A signed transaction and what is needed to send it again, or at a higher price.
#[derive(Clone, Debug)]
pub(crate) struct SignedTransaction {
    pub(crate) hash: B256,
    pub(crate) raw: Bytes,
    pub(crate) signer: Arc<Signer>,
    pub(crate) body: TxEip1559,
    pub(crate) cargo: Cargo,
}

/// What depends on a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cargo {
    /// The payments that it settles.
    pub(crate) payments: Vec<PaymentId>,
    /// How many blocks must hold it, its own counted, until it need not be sent again.
    pub(crate) depth: u32,
}

/// What was kept of a transaction is not one that this signer signed.
#[derive(Debug, thiserror::Error)]
#[error("the transaction {} of the log is damaged", B256::from(*hash))]
pub(crate) struct Damaged {
    hash: [u8; 32],
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
    pub(crate) cargo: Cargo,
}

impl Draft {
    /// A call without ether.
    pub(crate) fn of_call(chain_id: u64, call: &ContractCall, gas: u64) -> Self {
        let (to, input) = (call.to, call.input.clone());
        Self { chain_id, to, input, gas, value: U256::ZERO, cargo: Cargo::default() }
    }

    /// A transfer of nothing to oneself: it only uses up a nonce.
    pub(crate) fn filler(chain_id: u64, account: Address) -> Self {
        let (input, gas) = (Bytes::new(), PLAIN_TRANSFER_GAS);
        let (value, cargo) = (U256::ZERO, Cargo::default());
        Self { chain_id, to: account, input, gas, value, cargo }
    }

    /// The same, and what depends on it.
    pub(crate) fn with(self, cargo: Cargo) -> Self {
        Self { cargo, ..self }
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
        sign(signer, body, self.cargo)
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
            cargo: self.cargo.clone(),
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

impl SignedTransaction {
    /// As it is kept.
    pub(crate) fn logged(&self, network: &Network) -> LoggedTransaction {
        LoggedTransaction {
            network: network.clone(),
            sender: self.signer.key.address(),
            nonce: self.nonce(),
            hash: self.hash.0,
            raw: self.raw.to_vec(),
            payments: self.cargo.payments.clone(),
            depth: self.cargo.depth,
        }
    }

    /// From what was kept of it; all that is needed to send it again or at a higher price is in its bytes.
    pub(crate) fn restore(
        logged: &LoggedTransaction,
        signer: &Arc<Signer>,
        chain_id: u64,
    ) -> Result<Self, Damaged> {
        let mut rest = logged.raw.as_slice();
        let signed = Signed::<TxEip1559>::eip2718_decode(&mut rest).ok();
        let is_as_kept = |it: &Signed<TxEip1559>| {
            let body = it.tx();
            it.hash().0 == logged.hash && body.nonce == logged.nonce && body.chain_id == chain_id
        };
        let signed = signed.filter(is_as_kept).ok_or(Damaged { hash: logged.hash })?;
        Ok(Self {
            hash: *signed.hash(),
            raw: logged.raw.clone().into(),
            signer: Arc::clone(signer),
            body: signed.tx().clone(),
            cargo: Cargo { payments: logged.payments.clone(), depth: logged.depth },
        })
    }

    /// Whether it does nothing but use up its number.
    pub(crate) fn is_filler(&self) -> bool {
        let to_itself = self.body.to == TxKind::Call(self.signer.address());
        to_itself && self.body.input.is_empty() && self.body.value.is_zero()
    }

    /// What it calls.
    pub(crate) fn call(&self) -> ContractCall {
        let to = self.body.to.to().copied().unwrap_or_default();
        ContractCall { to, input: self.body.input.clone() }
    }
}

fn sign(signer: &Arc<Signer>, body: TxEip1559, cargo: Cargo) -> SignedTransaction {
    let signature = signer.key.sign_transaction(body.signature_hash());
    let signed = body.clone().into_signed(signature);
    let mut raw = Vec::new();
    signed.eip2718_encode(&mut raw);
    let (hash, signer) = (*signed.hash(), Arc::clone(signer));
    SignedTransaction { hash, raw: raw.into(), signer, body, cargo }
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
    fn what_is_kept_of_one_is_enough_to_go_on() {
        let cargo = Cargo { payments: vec![PaymentId::from_bytes([5; 32])], depth: 7 };
        let old = sent(800, 80);
        let network = Network::eip155(84_532);
        let old = SignedTransaction { cargo, ..old };
        let logged = old.logged(&network);
        let new = SignedTransaction::restore(&logged, &old.signer, 84_532).unwrap();
        assert_eq!((new.hash, &new.raw, &new.body), (old.hash, &old.raw, &old.body));
        assert_eq!((&new.cargo, new.is_filler()), (&old.cargo, false));
        assert!(SignedTransaction::restore(&logged, &old.signer, 1).is_err());
        let bad = LoggedTransaction { nonce: 5, ..logged.clone() };
        assert!(SignedTransaction::restore(&bad, &old.signer, 84_532).is_err());
        let mut bad = logged;
        *bad.raw.last_mut().unwrap() ^= 1;
        assert!(SignedTransaction::restore(&bad, &old.signer, 84_532).is_err());
    }

    #[test]
    fn only_a_base_fee_past_the_offer_outprices() {
        let fees = |base| Fees { base, max: 1, tip: 0, cap: CAP };
        assert!(!sent(800, 0).is_outpriced(fees(800)));
        assert!(sent(800, 0).is_outpriced(fees(801)));
    }
}
