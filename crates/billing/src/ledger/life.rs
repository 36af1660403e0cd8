//! What happens to a payment, as transfers: the same for the engine that books it and for the audit
//! that books it again from the journal.

use std::sync::Arc;

use farebox_protocol::{Amount, Asset, PaymentId};

use crate::ledger::account::{AccountKey, AccountName};
use crate::ledger::transfer::{Action, Fate, Guard, Legs, Recorded, Step, Transfer, TransferId};
use crate::payment::{Event, Payment};

/// Between whom a payment moves. Cheap to clone; made once for a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parties {
    asset: Asset,
    payer: Arc<str>,
    pay_to: Arc<str>,
    route: Arc<str>,
}

impl Parties {
    /// `payer` and `pay_to` are addresses on the asset's network; on EVM networks two spellings of one
    /// address are one account.
    pub fn new(asset: Asset, payer: &str, pay_to: &str, route: &str) -> Self {
        let hexadecimal = asset.network().namespace() == "eip155";
        let address = |it: &str| -> Arc<str> {
            if hexadecimal { it.to_ascii_lowercase().into() } else { it.into() }
        };
        let (payer, pay_to) = (address(payer), address(pay_to));
        Self { asset, payer, pay_to, route: route.into() }
    }

    /// In which token on which network.
    pub fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Every account that a payment between them can touch.
    pub fn accounts(&self) -> [AccountKey; 5] {
        [self.payer(), self.loss(), self.refund(), self.revenue(), self.chain()]
            .map(|name| AccountKey { asset: self.asset.clone(), name })
    }

    /// What the payer owes.
    pub fn payer(&self) -> AccountName {
        AccountName::Payer(Arc::clone(&self.payer))
    }

    /// What the payer never will pay.
    pub fn loss(&self) -> AccountName {
        AccountName::Loss(Arc::clone(&self.payer))
    }

    /// What the payer is owed.
    pub fn refund(&self) -> AccountName {
        AccountName::Refund(Arc::clone(&self.payer))
    }

    /// What the route earned.
    pub fn revenue(&self) -> AccountName {
        AccountName::Revenue(Arc::clone(&self.route))
    }

    /// What was seen on chain.
    pub fn chain(&self) -> AccountName {
        AccountName::Chain(Arc::clone(&self.pay_to))
    }

    fn legs(&self, debit: AccountName, credit: AccountName) -> Legs {
        Legs { asset: self.asset.clone(), debit, credit }
    }

    fn hold(&self) -> Legs {
        self.legs(self.payer(), self.revenue())
    }
}

/// Where a payment stands when something happens to it.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Which payment.
    pub payment: PaymentId,
    /// Which hold of it, counted from 1; for an admission the one that it begins.
    pub generation: u64,
    /// How often this hold was reopened before.
    pub reopened: u32,
    /// Its state; none before its first admission.
    pub state: Option<&'a Payment>,
    /// What is owed back.
    pub refund: Refund,
}

/// Whether a settled payment is owed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refund {
    /// Nothing is.
    None,
    /// The charge is.
    Owed,
    /// It was, and was paid back on chain.
    Paid,
}

/// What happens to a payment: a line of the journal, as far as it concerns money.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// So much is held.
    Admitted {
        /// The most that can be charged.
        limit: Amount,
        /// What the payer may have at risk in all, this hold included.
        exposure_limit: Option<Amount>,
    },
    /// It takes a step of its life cycle.
    Stepped(&'a Event),
    /// It was settled and is owed back.
    RefundOwed,
    /// What was owed back was paid back on chain.
    Refunded,
    /// The chain forgot its settlement: it is owed again.
    Reopened,
}

/// That cannot happen to a payment that stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{payment}: {what} cannot happen to a payment that is {state}")]
pub struct Impossible {
    /// Which payment.
    pub payment: PaymentId,
    /// Where it stands.
    pub state: &'static str,
    /// What cannot happen there.
    pub what: String,
}

/// What happens to a payment, as transfers to be booked in their order: none where no money moves, and
/// none of nothing.
///
/// `before` is where it stood before. The amounts are not checked here but by [`crate::ledger::post`].
pub fn transfers_of(
    parties: &Parties,
    before: &Standing<'_>,
    happening: &Happening<'_>,
) -> Result<Vec<Transfer>, Impossible> {
    match (happening, before.state) {
        (Happening::Admitted { limit, exposure_limit }, None | Some(Payment::Released { .. })) => {
            let guard = exposure_limit.map(|limit| Guard { limit, beside: parties.loss() });
            let action = Action::Pend { legs: parties.hold(), amount: *limit, guard };
            Ok(some(*limit, before.transfer(Step::Hold, action)))
        }
        (
            Happening::Reopened | Happening::Stepped(Event::Reopened),
            Some(Payment::Settled { charge, .. }),
        ) => Ok(reopened(parties, before, *charge)),
        (Happening::Stepped(event), Some(state)) => stepped(parties, before, state, event),
        (Happening::RefundOwed, Some(Payment::Settled { charge, .. })) => Ok(match before.refund {
            Refund::None => {
                let legs = parties.legs(parties.revenue(), parties.refund());
                before.moved(Step::OweRefund, legs, *charge)
            }
            // The first reason stands.
            Refund::Owed | Refund::Paid => Vec::new(),
        }),
        (Happening::Refunded, Some(Payment::Settled { charge, .. }))
            if before.refund == Refund::Owed =>
        {
            let legs = parties.legs(parties.refund(), parties.chain());
            Ok(before.moved(Step::PayRefund, legs, *charge))
        }
        (
            Happening::Admitted { .. }
            | Happening::Stepped(_)
            | Happening::RefundOwed
            | Happening::Refunded
            | Happening::Reopened,
            _,
        ) => Err(before.impossible(happening)),
    }
}

/// The chain forgot a settlement: the charge is owed again.
fn reopened(parties: &Parties, before: &Standing<'_>, charge: Amount) -> Vec<Transfer> {
    let legs = parties.legs(parties.payer(), parties.chain());
    let mut transfers = before.moved(Step::Reopen, legs, charge);
    if before.refund == Refund::Owed {
        // What was not paid is not owed back. If it lands again, so is this.
        let legs = parties.legs(parties.refund(), parties.revenue());
        transfers.extend(before.moved(Step::CancelRefund, legs, charge));
    }
    transfers
}

/// A step of the life cycle: see the table of ADR 0015.
fn stepped(
    parties: &Parties,
    before: &Standing<'_>,
    state: &Payment,
    event: &Event,
) -> Result<Vec<Transfer>, Impossible> {
    match (event, state) {
        (Event::Priced(charge), Payment::Held { limit } | Payment::Serving { limit, .. }) => {
            Ok(before.resolve(*limit, *charge))
        }
        (Event::Confirmed(_), Payment::Settling { charge } | Payment::Unknown { charge, .. }) => {
            let legs = parties.legs(parties.chain(), parties.payer());
            Ok(before.moved(Step::Settle, legs, *charge))
        }
        (Event::Rejected(_), Payment::Settling { charge } | Payment::Unknown { charge, .. }) => {
            let legs = parties.legs(parties.loss(), parties.payer());
            Ok(before.moved(Step::Lose, legs, *charge))
        }
        (Event::Abandoned(_) | Event::Withdrawn(_), state) => give_back(parties, before, state)
            .ok_or_else(|| before.impossible(&Happening::Stepped(event))),
        // Nothing moves: the hold stands, or the charge is owed as before.
        (
            Event::ServeBegan
            | Event::Delivered(_)
            | Event::SettlementBegan
            | Event::NotSent
            | Event::Unanswered(_),
            Payment::Held { .. }
            | Payment::Serving { .. }
            | Payment::Captured { .. }
            | Payment::Settling { .. }
            | Payment::Unknown { .. },
        ) => Ok(Vec::new()),
        (
            Event::Priced(_)
            | Event::Confirmed(_)
            | Event::Rejected(_)
            | Event::ServeBegan
            | Event::Delivered(_)
            | Event::SettlementBegan
            | Event::NotSent
            | Event::Unanswered(_)
            | Event::Reopened,
            _,
        ) => Err(before.impossible(&Happening::Stepped(event))),
    }
}

/// Nothing is owed after all; `None` where that cannot be.
fn give_back(parties: &Parties, before: &Standing<'_>, state: &Payment) -> Option<Vec<Transfer>> {
    // What was paid back for a payment that the chain then forgot is nobody's revenue: it is lost.
    let from = match before.refund {
        Refund::None | Refund::Owed => parties.revenue(),
        Refund::Paid => parties.loss(),
    };
    match state {
        Payment::Held { limit } | Payment::Serving { limit, .. } => {
            Some(before.resolve(*limit, Amount::ZERO))
        }
        Payment::Captured { charge }
        | Payment::Settling { charge }
        | Payment::Unknown { charge, .. } => {
            Some(before.moved(Step::GiveBack, parties.legs(from, parties.payer()), *charge))
        }
        Payment::Lost { .. } if before.refund == Refund::Paid => Some(Vec::new()),
        Payment::Lost { charge, .. } => {
            Some(before.moved(Step::GiveBack, parties.legs(from, parties.loss()), *charge))
        }
        Payment::Settled { .. } | Payment::Released { .. } => None,
    }
}

/// The hold of a payment as a transfer of the books, for engines that keep payments and not transfers:
/// the state says what became of it. None where nothing is pending.
pub fn open_hold(parties: &Parties, standing: &Standing<'_>) -> Option<(TransferId, Recorded)> {
    let limit = match standing.state? {
        Payment::Held { limit } | Payment::Serving { limit, .. } if !limit.is_zero() => *limit,
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. }
        | Payment::Settled { .. }
        | Payment::Released { .. }
        | Payment::Lost { .. } => return None,
    };
    let action = Action::Pend { legs: parties.hold(), amount: limit, guard: None };
    Some((standing.id(Step::Hold), Recorded { action, fate: Fate::Open }))
}

impl Standing<'_> {
    fn id(&self, step: Step) -> TransferId {
        let Self { payment, generation, reopened, .. } = *self;
        TransferId { payment, generation, reopened, step }
    }

    fn transfer(&self, step: Step, action: Action) -> Transfer {
        Transfer { id: self.id(step), action }
    }

    fn moved(&self, step: Step, legs: Legs, amount: Amount) -> Vec<Transfer> {
        some(amount, self.transfer(step, Action::Move { legs, amount }))
    }

    /// Ends the hold of `limit` with a charge. A hold of nothing was never booked.
    fn resolve(&self, limit: Amount, charge: Amount) -> Vec<Transfer> {
        let pending = self.id(Step::Hold);
        if !charge.is_zero() {
            return vec![self.transfer(Step::Resolve, Action::Post { pending, amount: charge })];
        }
        some(limit, self.transfer(Step::Resolve, Action::Void { pending }))
    }

    fn impossible(&self, happening: &Happening<'_>) -> Impossible {
        let state = self.state.map_or("not admitted", Payment::name);
        Impossible { payment: self.payment, state, what: format!("{happening:?}") }
    }
}

/// The transfer, unless it moves nothing.
fn some(amount: Amount, transfer: Transfer) -> Vec<Transfer> {
    if amount.is_zero() { Vec::new() } else { vec![transfer] }
}
