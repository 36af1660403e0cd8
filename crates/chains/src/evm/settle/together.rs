//! One payment's way through a transaction that settles several, and what it is told in the end.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{expired, proof_of, refused, without_events};
use crate::evm::batches::{Landed, Member, Slot, Verdict};
use crate::evm::broadcast::NotSent;
use crate::evm::chain::Chain;
use crate::evm::check::EvmPayment;
use crate::evm::flights::{Outcome, Pilot};
use crate::evm::line::Limits;
use crate::evm::method::{ContractCall, Proof};
use crate::evm::signers::Signer;
use crate::evm::usage::Usage;

/// How a payment goes on by itself.
#[derive(Debug, Default)]
pub(super) struct Alone {
    /// The call and its gas, where it was just tried.
    pub(super) ready: Option<(ContractCall, u64)>,
    pub(super) slot: Option<Slot>,
}

impl Chain {
    /// Settles a payment with others, or says how it goes on by itself.
    pub(super) async fn settle_together(
        self: &Arc<Self>,
        payment: &EvmPayment,
        pilot: &Pilot,
        signer: &Arc<Signer>,
    ) -> Result<Outcome, Alone> {
        let Some(limits) = self.limits_of(payment).await else { return Err(Alone::default()) };
        let usual = self.usual_call(payment);
        let (ready, was_tried) = match usual {
            Some(usual) => (usual, false),
            None => match self.make_ready(payment, signer).await {
                Ok(ready) => (ready, true),
                Err(outcome) => return Ok(outcome),
            },
        };
        let (verdict, told) = oneshot::channel();
        let (call, gas) = ready.clone();
        let payer = payment.authorization.payer;
        let cargo = self.cargo_of(payment);
        let member = Member { payer, call, gas, cargo, pilot: pilot.clone(), verdict };
        self.join_line(payment, member, signer, limits);
        match told.await {
            Ok(Verdict::Alone(slot)) => {
                Err(Alone { ready: was_tried.then_some(ready), slot: Some(slot) })
            }
            Ok(Verdict::Failed) => Err(Alone::default()),
            Ok(Verdict::NotSent(error)) => Ok(Outcome::not_sent(error)),
            Ok(Verdict::Superseded(transaction)) => {
                Ok(self.reconcile(payment, transaction, None).await)
            }
            Ok(Verdict::Mined(landed)) => self.after(payment, &landed).await.ok_or_else(|| {
                // What might have moved the money certainly did not, and never will.
                pilot.sent(None);
                Alone::default()
            }),
            Err(_) => Ok(match pilot.transaction() {
                Some(transaction) => Outcome::Unknown { transaction: Some(transaction) },
                None => Outcome::not_sent(NotSent::GivenUp),
            }),
        }
    }

    /// What a payment can be settled within; `None` where it goes by itself: its payer has named who
    /// sends it, or a contract must agree to it, whose gas nobody knows.
    async fn limits_of(&self, payment: &EvmPayment) -> Option<Limits> {
        if payment.authorization.settler.is_some() || payment.signed_by.wallet().is_some() {
            return None;
        }
        match self.batch_limits().await {
            Ok(limits) => limits,
            Err(error) => {
                tracing::debug!(%error, "whether settlements can go together is not known");
                None
            }
        }
    }

    /// The call that settles nearly every payment of its kind, and its gas, without a question to the
    /// chain: what goes together is tried together. `None`: it takes a look at this one.
    fn usual_call(&self, payment: &EvmPayment) -> Option<(ContractCall, u64)> {
        if payment.sponsoring.is_some() {
            return None;
        }
        let call = payment.method.settle_calls(payment).into_iter().next()?;
        let gas = self.usual_gas.of(&call)?;
        Some((call, gas))
    }

    /// What a mined transaction of several payments means for one of them; `None` if it can still be
    /// settled by itself: its nonce is unused, its time has not run out, and nothing of ours that could
    /// use it is on its way.
    pub(in crate::evm) async fn after(
        &self,
        payment: &EvmPayment,
        landed: &Landed,
    ) -> Option<Outcome> {
        let Landed { call, receipt } = landed;
        let transaction = receipt.transaction_hash;
        match proof_of(receipt, call, payment) {
            Proof::Paid => return Some(Outcome::Settled(self.settlement_of(payment, receipt))),
            Proof::Spent => return Some(without_events(payment, transaction)),
            Proof::Unrelated | Proof::Cancelled | Proof::Unclear => {}
        }
        match self.usage(payment, receipt.block_number).await {
            // By ours among others that look the same, or somebody was faster (attack A7).
            Ok(Usage::Used) => Some(self.follow_use(payment, Some(transaction)).await),
            Ok(Usage::Unused { at }) => expired(payment, at).map(refused),
            Err(error) => {
                tracing::warn!(%error, payment = %payment.id, "whether it was used cannot be told");
                Some(Outcome::Unknown { transaction: Some(transaction) })
            }
        }
    }
}
