//! A ledger that anybody can check by reading: a map and the rules, without rows, queue or commits.
//!
//! It knows nothing of [`Payment::on`]; it states the rules a second time, by state.

use std::collections::BTreeMap;
use std::time::Duration;

use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, Digest, PaymentId, Timestamp};
use farebox_store::{Admit, AnswerMark, Recovered, Resolution, SettleMode, Terms};

/// What a refusal or an error is, without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum No {
    InProgress,
    Used { same_request: bool },
    KeyUsed { same_request: bool, by: PaymentId },
    Exposed,
    Fenced,
    Illegal,
    Missing,
}

/// One payment.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) terms: Terms,
    pub(crate) generation: u64,
    pub(crate) state: Payment,
    pub(crate) answer: AnswerMark,
    pub(crate) refund_owed: Option<String>,
    /// The answer was withheld when it was captured, and has not been sent since.
    unanswered: bool,
    /// The process in which it waited is gone.
    orphaned: bool,
    job: Option<Queued>,
}

/// A settlement.
#[derive(Clone, Debug)]
struct Queued {
    due: Timestamp,
    attempts: u32,
    sent: bool,
    transaction: Option<String>,
    rejected: Option<String>,
}

/// A job as it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) id: PaymentId,
    pub(crate) charge: Amount,
    pub(crate) attempts: u32,
    pub(crate) may_have_been_sent: bool,
    pub(crate) transaction: Option<String>,
    pub(crate) answer: AnswerMark,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) payments: BTreeMap<PaymentId, Known>,
    /// Which payment and which request a key belongs to.
    keys: BTreeMap<Digest, (PaymentId, Digest)>,
}

fn charge_of(state: &Payment) -> Option<Amount> {
    match state {
        Payment::Captured { charge }
        | Payment::Settling { charge }
        | Payment::Unknown { charge, .. }
        | Payment::Settled { charge, .. }
        | Payment::Lost { charge, .. } => Some(*charge),
        Payment::Held { .. } | Payment::Serving { .. } | Payment::Released { .. } => None,
    }
}

impl Known {
    fn is_held(&self) -> bool {
        matches!(self.state, Payment::Held { .. } | Payment::Serving { .. })
    }

    fn is_queued(&self) -> bool {
        matches!(self.state, Payment::Captured { .. } | Payment::Unknown { .. })
    }

    fn open(&self) -> u128 {
        if self.is_held() {
            return self.terms.limit.units();
        }
        let paid_or_given_back =
            matches!(self.state, Payment::Settled { .. } | Payment::Released { .. });
        if paid_or_given_back { 0 } else { charge_of(&self.state).unwrap().units() }
    }

    fn captured(&mut self, charge: Amount, mark: AnswerMark, now: Timestamp) {
        let left = matches!(self.state, Payment::Serving { delivered, .. } if !delivered.is_zero());
        self.answer = if left { mark.max(AnswerMark::Leaving) } else { mark };
        self.unanswered = self.answer == AnswerMark::Withheld;
        self.state = Payment::Captured { charge };
        let (sent, transaction, rejected) = (false, None, None);
        self.job = Some(Queued { due: now, attempts: 0, sent, transaction, rejected });
    }

    fn released(&mut self, why: Release) {
        self.state = Payment::Released { why };
        self.unanswered = false;
    }

    fn owe(&mut self, why: &str) {
        self.unanswered = false;
        self.refund_owed.get_or_insert_with(|| why.to_owned());
    }
}

impl Model {
    pub(crate) fn admit(&mut self, ask: &Admit) -> Result<u64, No> {
        let terms = &ask.terms;
        let mut generation = 1;
        if let Some(it) = self.payments.get(&terms.id) {
            let same_request = it.terms.fingerprint == terms.fingerprint;
            if same_request && it.is_held() {
                return Err(No::InProgress);
            }
            if !same_request || !matches!(it.state, Payment::Released { .. }) {
                return Err(No::Used { same_request });
            }
            generation = it.generation + 1;
        }
        for key in &ask.keys {
            let Some((by, request)) = self.keys.get(&key.name) else { continue };
            let (by, same_request) = (*by, *request == key.request);
            let given_back = matches!(self.payments[&by].state, Payment::Released { .. });
            if !same_request || (by != terms.id && !given_back) {
                return Err(No::KeyUsed { same_request, by });
            }
        }
        let mine = |it: &&Known| it.terms.payer == terms.payer && it.terms.asset == terms.asset;
        let open: u128 = self.payments.values().filter(mine).map(Known::open).sum();
        if ask.exposure_limit.is_some_and(|limit| limit.units() < open + terms.limit.units()) {
            return Err(No::Exposed);
        }
        let known = Known {
            terms: terms.clone(),
            generation,
            state: Payment::Held { limit: terms.limit },
            answer: AnswerMark::Withheld,
            refund_owed: None,
            unanswered: false,
            orphaned: false,
            job: None,
        };
        self.payments.insert(terms.id, known);
        self.keys.extend(ask.keys.iter().map(|it| (it.name, (terms.id, it.request))));
        Ok(generation)
    }

    fn current(&mut self, id: PaymentId, generation: u64) -> Result<&mut Known, No> {
        let it = self.payments.get_mut(&id).ok_or(No::Missing)?;
        if it.generation == generation && it.is_held() { Ok(it) } else { Err(No::Fenced) }
    }

    pub(crate) fn begin_serve(&mut self, id: PaymentId, generation: u64) -> Result<(), No> {
        let it = self.current(id, generation)?;
        if matches!(it.state, Payment::Serving { .. }) {
            return Err(No::Illegal);
        }
        it.state = Payment::Serving { limit: it.terms.limit, delivered: Amount::ZERO };
        Ok(())
    }

    pub(crate) fn meter(&mut self, id: PaymentId, generation: u64, upto: Amount) -> Result<(), No> {
        let it = self.current(id, generation)?;
        let Payment::Serving { limit, delivered } = it.state else { return Err(No::Illegal) };
        if upto < delivered || limit < upto {
            return Err(No::Illegal);
        }
        it.state = Payment::Serving { limit, delivered: upto };
        Ok(())
    }

    pub(crate) fn capture(
        &mut self,
        id: PaymentId,
        generation: u64,
        (charge, mark): (Amount, AnswerMark),
        now: Timestamp,
    ) -> Result<(), No> {
        let it = self.payments.get(&id).ok_or(No::Missing)?;
        if it.generation == generation && charge_of(&it.state) == Some(charge) {
            return Ok(());
        }
        let it = self.current(id, generation)?;
        let floor = if let Payment::Serving { delivered, .. } = it.state {
            delivered
        } else if it.terms.settle == SettleMode::Before {
            Amount::ZERO
        } else {
            return Err(No::Illegal);
        };
        // What has left is never free; the checkpoint itself is an estimate.
        if (charge.is_zero() && !floor.is_zero()) || it.terms.limit < charge {
            return Err(No::Illegal);
        }
        it.captured(charge, mark, now);
        Ok(())
    }

    pub(crate) fn release(
        &mut self,
        id: PaymentId,
        generation: u64,
        why: Release,
    ) -> Result<(), No> {
        let it = self.payments.get(&id).ok_or(No::Missing)?;
        if it.generation == generation && it.state == (Payment::Released { why }) {
            return Ok(());
        }
        let it = self.current(id, generation)?;
        if matches!(it.state, Payment::Serving { delivered, .. } if !delivered.is_zero()) {
            return Err(No::Illegal);
        }
        it.released(why);
        Ok(())
    }

    pub(crate) fn withdraw(
        &mut self,
        id: PaymentId,
        generation: u64,
        why: Release,
    ) -> Result<Payment, No> {
        let it = self.payments.get_mut(&id).ok_or(No::Missing)?;
        if it.generation != generation {
            return Err(No::Fenced);
        }
        if it.answer == AnswerMark::Sent {
            return Err(No::Illegal);
        }
        it.answer = AnswerMark::Withheld;
        let may_land = it.job.as_ref().is_some_and(|job| job.sent);
        match it.state {
            Payment::Released { .. } => {}
            Payment::Held { .. } | Payment::Serving { .. } => it.released(why),
            Payment::Captured { .. } if !may_land => it.released(why),
            Payment::Captured { .. } | Payment::Settling { .. } | Payment::Unknown { .. } => {
                (it.unanswered, it.orphaned) = (true, true);
            }
            Payment::Settled { .. } => it.owe("settled_unanswered"),
            Payment::Lost { .. } => it.released(Release::SettlementRejected),
        }
        Ok(it.state.clone())
    }

    pub(crate) fn mark(&mut self, id: PaymentId, mark: AnswerMark) -> Result<(), No> {
        let it = self.payments.get_mut(&id).ok_or(No::Missing)?;
        if charge_of(&it.state).is_none() {
            return Err(No::Fenced);
        }
        it.answer = it.answer.max(mark);
        it.unanswered &= it.answer != AnswerMark::Sent;
        Ok(())
    }

    pub(crate) fn owe(&mut self, id: PaymentId, why: &str) -> Result<(), No> {
        let it = self.payments.get_mut(&id).ok_or(No::Missing)?;
        if !matches!(it.state, Payment::Settled { .. }) {
            return Err(No::Fenced);
        }
        it.owe(why);
        Ok(())
    }

    /// In the order of ids; the ledger's order is by due time.
    pub(crate) fn lease(&mut self, only: Option<PaymentId>, now: Timestamp) -> Vec<Handed> {
        let mut handed = Vec::new();
        for (id, it) in &mut self.payments {
            let wanted = only.is_none_or(|only| only == *id);
            if !wanted || !it.is_queued() {
                continue;
            }
            let job = it.job.as_ref().unwrap();
            // What is due so much later was queued by a clock that has been set back since.
            let far = now.plus(Duration::from_mins(5)) < job.due;
            let waits = now < job.due && !(far && only.is_none());
            if waits && (only.is_none() || job.attempts != 0) {
                continue;
            }
            let charge = charge_of(&it.state).unwrap();
            handed.push(Handed {
                id: *id,
                charge,
                attempts: job.attempts,
                may_have_been_sent: job.sent,
                transaction: job.transaction.clone(),
                answer: it.answer,
            });
            it.state = Payment::Settling { charge };
        }
        handed
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let queued = self.payments.values().filter(|it| it.is_queued());
        queued.map(|it| it.job.as_ref().unwrap().due).min()
    }

    pub(crate) fn resolve(&mut self, id: PaymentId, how: &Resolution) -> Result<Payment, No> {
        let it = self.payments.get_mut(&id).ok_or(No::Missing)?;
        let Some(job) = it.job.as_mut() else { return Err(No::Illegal) };
        let again = |at: &Timestamp| job.attempts != 0 && job.due == *at;
        let repeated = match (&it.state, how) {
            (Payment::Settled { transaction, .. }, Resolution::Settled { transaction: name }) => {
                transaction == name
            }
            (_, Resolution::Rejected { reason }) => job.rejected.as_ref() == Some(reason),
            (Payment::Captured { .. }, Resolution::NotSent { retry_at })
            | (Payment::Unknown { .. }, Resolution::Unknown { retry_at, .. }) => again(retry_at),
            _ => false,
        };
        if repeated {
            return Ok(it.state.clone());
        }
        let settling = matches!(it.state, Payment::Settling { .. });
        let begun = settling || matches!(it.state, Payment::Unknown { .. });
        let Some(charge) = charge_of(&it.state) else { return Err(No::Illegal) };
        match how {
            Resolution::Settled { transaction } if begun => {
                it.state = Payment::Settled { charge, transaction: transaction.clone() };
                if it.unanswered && it.orphaned {
                    it.owe("settled_unanswered");
                }
            }
            Resolution::Rejected { reason } if begun => {
                job.rejected = Some(reason.clone());
                if it.answer == AnswerMark::Withheld {
                    it.released(Release::SettlementRejected);
                } else {
                    it.state = Payment::Lost { charge, reason: reason.clone() };
                }
            }
            Resolution::NotSent { retry_at } if settling => {
                it.state = Payment::Captured { charge };
                job.due = *retry_at;
                job.attempts += 1;
            }
            Resolution::Unknown { transaction, retry_at } if settling => {
                job.due = *retry_at;
                job.attempts += 1;
                job.sent = true;
                job.transaction = transaction.clone().or(job.transaction.take());
                it.state = Payment::Unknown { charge, transaction: job.transaction.clone() };
            }
            Resolution::Settled { .. }
            | Resolution::Rejected { .. }
            | Resolution::NotSent { .. }
            | Resolution::Unknown { .. } => return Err(No::Illegal),
        }
        Ok(it.state.clone())
    }

    pub(crate) fn recover(&mut self, now: Timestamp) -> Recovered {
        let mut done = Recovered::default();
        for it in self.payments.values_mut() {
            let unsent = it.job.as_ref().is_some_and(|job| !job.sent);
            match it.state.clone() {
                Payment::Serving { delivered, .. } if !delivered.is_zero() => {
                    it.captured(delivered, AnswerMark::Leaving, now);
                    done.captured += 1;
                }
                Payment::Held { .. } | Payment::Serving { .. } => {
                    it.released(Release::Crashed);
                    done.released += 1;
                }
                Payment::Captured { .. } if it.answer == AnswerMark::Withheld && unsent => {
                    it.released(Release::Crashed);
                    done.released += 1;
                }
                Payment::Settling { charge } => {
                    let job = it.job.as_mut().unwrap();
                    (job.sent, job.due) = (true, now);
                    job.attempts += 1;
                    it.state = Payment::Unknown { charge, transaction: job.transaction.clone() };
                    done.to_reconcile += 1;
                }
                Payment::Settled { .. } if it.unanswered => {
                    it.owe("settled_unanswered");
                    done.refunds_owed += 1;
                }
                Payment::Captured { .. }
                | Payment::Unknown { .. }
                | Payment::Settled { .. }
                | Payment::Released { .. }
                | Payment::Lost { .. } => {}
            }
            it.orphaned = true;
        }
        done
    }
}
