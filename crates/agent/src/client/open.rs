//! Payments of which something is still reserved: what would free it, and the looking again.
//!
//! A seller's word frees nothing unless the policy [trusts it](crate::Disclaimers). What does is the
//! wallet's own node: the transaction that used the signature for what was said, or a block after the
//! signature's end in which it is unused.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farebox_billing::ReceiptState;
use farebox_chains::{EvmPayment, PayerUsage};
use farebox_protocol::Amount;
use url::Url;

use super::Purse;
use crate::budget::Reservation;
use crate::payment::{Outcome, Proof, StreamReceipt, Terms};
use crate::policy::Disclaimers;
use crate::proof::check_receipt;
use crate::transport::Transport;
use crate::usd::Usd;

/// How many payments are looked after at most; of others the rest stays reserved for good.
const OPEN_MAX: usize = 256;
/// How long after its end an unused signature must be seen unused: blocks can be replaced by others.
const SETTLED_IN: Duration = Duration::from_mins(1);
/// How long after its end a payment is given up that shows neither way.
const GIVEN_UP_AFTER: Duration = Duration::from_hours(1);

/// A payment of which something is still reserved.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) terms: Terms,
    pub(super) said: Said,
    /// What is still reserved for it.
    pub(super) reservation: Reservation,
    /// What the node can be asked about, if there is one.
    pub(super) on_chain: Option<EvmPayment>,
    pub(super) receipt_url: Option<Url>,
    pub(super) stream_receipt: StreamReceipt,
}

/// What the seller has said so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It charged so much, which is booked as spent, by this transaction if it named one.
    Charged { amount: Amount, transaction: Option<String> },
    /// It charged nothing.
    Nothing,
    /// It delivered, and will say.
    NotYet,
    /// Nothing that is worth anything.
    Unclear,
}

/// What is to be done with what is still reserved.
enum Fate {
    /// Nothing more can be charged, or the seller is trusted that nothing will.
    Free,
    /// As soon as the signature has expired.
    FreeAtItsEnd,
    /// Nobody will ever know.
    Keep,
    /// Look again.
    Ask,
}

/// The payments that are looked after.
#[derive(Debug, Default)]
pub(super) struct OpenPayments(Mutex<VecDeque<Box<Open>>>);

impl OpenPayments {
    /// Whether as much as is lacking may become free.
    pub(super) fn could_free(&self, asked: Usd, left: Usd) -> bool {
        let open = self.lock();
        let reserved = open.iter().map(|it| it.reservation.amount());
        asked <= reserved.fold(left, Usd::saturating_add)
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn pop(&self) -> Option<Box<Open>> {
        self.lock().pop_front()
    }

    /// Takes it up, unless there are too many.
    fn push(&self, open: Box<Open>) -> Result<(), Box<Open>> {
        let mut all = self.lock();
        if OPEN_MAX <= all.len() {
            return Err(open);
        }
        all.push_back(open);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<Open>>> {
        // Every change is one whole call, so a poisoned list is still a true one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Purse {
    /// Does with what is still reserved what can be done without asking anybody.
    pub(super) fn leave(&self, open: Open) {
        if let Some(open) = self.decide(Box::new(open))
            && let Err(open) = self.open.push(open)
        {
            self.budget.keep(open.reservation);
        }
    }

    /// Looks again at every payment of which something is reserved. One at a time, so that giving up
    /// in between loses sight of one at most, which then stays reserved.
    pub(super) async fn look_again(&self, transport: &mut dyn Transport) {
        for _ in 0..self.open.len() {
            let Some(mut open) = self.open.pop() else { return };
            if let Some(outcome) = self.hear_again(transport, &open).await {
                open = Box::new(self.note(*open, outcome));
            }
            let Some(open) = self.decide(open) else { continue };
            if self.is_over(&open).await {
                self.budget.release(open.reservation);
                continue;
            }
            let given_up = open.terms.valid_before.plus(GIVEN_UP_AFTER) <= self.clock.now();
            if given_up {
                self.budget.keep(open.reservation);
            } else if let Err(open) = self.open.push(open) {
                self.budget.keep(open.reservation);
            }
        }
    }

    /// Acts on what is decided; what is to be looked at again comes back.
    fn decide(&self, open: Box<Open>) -> Option<Box<Open>> {
        match self.fate(&open) {
            Fate::Free => self.budget.release(open.reservation),
            Fate::FreeAtItsEnd => self.budget.release_at(open.reservation, open.terms.valid_before),
            Fate::Keep => self.budget.keep(open.reservation),
            Fate::Ask => return Some(open),
        }
        None
    }

    fn fate(&self, open: &Open) -> Fate {
        match (self.policy.disclaimers, &open.said) {
            _ if open.reservation.amount() == Usd::ZERO => Fate::Free,
            (Disclaimers::Trust, Said::Charged { transaction: Some(_), .. }) => Fate::Free,
            (Disclaimers::Trust, Said::Charged { .. } | Said::Nothing) => Fate::FreeAtItsEnd,
            _ if open.on_chain.is_some() => Fate::Ask,
            (_, Said::NotYet) => Fate::Ask,
            (_, Said::Charged { .. } | Said::Nothing | Said::Unclear) => Fate::Keep,
        }
    }

    /// What the seller's receipt says by now, where it has not said all.
    async fn hear_again(&self, transport: &mut dyn Transport, open: &Open) -> Option<Outcome> {
        match open.said {
            Said::Charged { transaction: Some(_), .. } | Said::Nothing => return None,
            Said::Charged { .. } | Said::NotYet | Said::Unclear => {}
        }
        let shown = self.look_up(transport, open.receipt_url.as_ref(), &open.terms).await;
        shown.or_else(|| {
            let streamed = open.stream_receipt.0.get()?.as_ref().ok()?;
            check_receipt(streamed, &open.terms).ok()?
        })
    }

    fn note(&self, open: Open, outcome: Outcome) -> Open {
        match (outcome, &open.said) {
            (Outcome::Paid { charged, proof }, said) => {
                let transaction = transaction_of(&proof);
                match said {
                    Said::Charged { amount, .. } if *amount != charged => open,
                    Said::Charged { .. } => {
                        Open { said: Said::Charged { amount: charged, transaction }, ..open }
                    }
                    Said::Nothing | Said::NotYet | Said::Unclear => {
                        let reservation = self.spend(open.reservation, charged, &open.terms);
                        let said = Said::Charged { amount: charged, transaction };
                        Open { said, reservation, ..open }
                    }
                }
            }
            (Outcome::NotCharged { .. }, Said::NotYet | Said::Unclear) => {
                Open { said: Said::Nothing, ..open }
            }
            _ => open,
        }
    }

    /// Whether the node shows that nothing more can be charged.
    async fn is_over(&self, open: &Open) -> bool {
        let node = self.policy.node(&open.terms.network);
        let (Some(node), Some(payment)) = (node, &open.on_chain) else { return false };
        if let Said::Charged { amount, transaction: Some(transaction) } = &open.said
            && node.is_paid_by(payment, *amount, transaction).await.unwrap_or(false)
        {
            return true;
        }
        let end = open.terms.valid_before.plus(SETTLED_IN);
        matches!(node.usage(payment).await, Ok(PayerUsage::Unused { at }) if end <= at)
    }

    /// Books a charge as spent; what is left of the reservation comes back.
    pub(super) fn spend(
        &self,
        reservation: Reservation,
        charged: Amount,
        terms: &Terms,
    ) -> Reservation {
        let worth = Usd::of_token_rounded_up(charged, terms.decimals).unwrap_or(terms.worth);
        match self.budget.settle_part(reservation, worth) {
            Ok(rest) => rest,
            Err(error) => {
                // Proofs over the signed amount are refused before; if one came here it stays reserved.
                tracing::error!(%error, "a charge over its reservation was not booked");
                error.reservation
            }
        }
    }
}

/// The transaction that a seller names.
pub(super) fn transaction_of(proof: &Proof) -> Option<String> {
    match proof {
        Proof::Settlement(settlement) => Some(settlement.transaction.clone()),
        Proof::Receipt(receipt) => match &receipt.state {
            ReceiptState::Settled { transaction } => Some(transaction.clone()),
            ReceiptState::Held
            | ReceiptState::Serving
            | ReceiptState::Captured
            | ReceiptState::Settling
            | ReceiptState::Unknown { .. }
            | ReceiptState::Released { .. }
            | ReceiptState::Lost { .. } => None,
        },
    }
}
