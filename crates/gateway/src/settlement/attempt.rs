//! One try to settle one payment: what `billing::settlement` decides, done and heard.

use farebox_billing::settlement::{
    Answer, Attempt, Found, Landing, Moment, Seen, Sent, Step, Verdict,
};
use farebox_chains::{Lookup, SettleError, Settlement, says_used};
use farebox_protocol::wire::{
    PaymentPayload, PaymentRequirements, Raw, SettleRequest, X402_VERSION,
};
use farebox_protocol::{Amount, PaymentId};
use farebox_store::{AnswerMark, Job, Terms};

use super::Settler;

impl Settler {
    /// Tries to settle a payment, as often as it takes to know what to record.
    pub(super) async fn attempt(&self, job: &Job) -> Verdict {
        let request = match request(&job.terms, job.charge) {
            Ok(request) => request,
            Err(error) => {
                // What was admitted cannot be read back: nothing can be settled with it.
                tracing::error!(payment.id = %job.terms.id, %error, "stored payment is unreadable");
                return Verdict::Rejected { reason: "invalid_payload".to_owned() };
            }
        };
        let attempt = attempt_of(job);
        let mut step = attempt.begin(self.moment(job.terms.id));
        loop {
            step = match step {
                Step::LookUp => {
                    let found = self.look_up(job, &request).await;
                    attempt.looked_up(found, self.moment(job.terms.id))
                }
                Step::Send => {
                    let sent = self.send(job, &request).await;
                    return attempt.sent(sent, self.moment(job.terms.id));
                }
                Step::Record(verdict) => return verdict,
            };
        }
    }

    async fn look_up(&self, job: &Job, request: &SettleRequest) -> Found {
        match self.facilitator.lookup(request, self.clock.now()).await {
            Ok(Lookup::Landed(settlement)) => Found::Landed(seen(settlement)),
            Ok(Lookup::Dead { reason }) => Found::Dead { reason: reason.to_string() },
            Ok(Lookup::Open) => Found::Open,
            Ok(Lookup::CannotTell) => Found::CannotTell,
            Err(error) => {
                tracing::warn!(payment.id = %job.terms.id, %error, "settlement not looked up");
                Found::NoAnswer
            }
        }
    }

    async fn send(&self, job: &Job, request: &SettleRequest) -> Sent {
        let id = job.terms.id;
        match self.facilitator.settle(request, self.clock.now()).await {
            Ok(settlement) => Sent::Landed(seen(settlement)),
            Err(SettleError::Rejected { reason, message }) => {
                tracing::warn!(payment.id = %id, %reason, message, "settlement rejected");
                Sent::Refused { used: says_used(&reason), reason: reason.to_string() }
            }
            Err(SettleError::NotServed { reason, message }) => {
                tracing::error!(payment.id = %id, %reason, message, "a payment waits for the configuration");
                Sent::NotServed { reason: reason.to_string() }
            }
            Err(SettleError::NotSent(error)) => {
                tracing::warn!(payment.id = %id, %error, "settlement not sent");
                Sent::Nothing
            }
            Err(SettleError::Unknown { transaction }) => Sent::Unknown { transaction },
        }
    }

    /// Now, for a decision about this payment.
    pub(super) fn moment(&self, id: PaymentId) -> Moment {
        let awaited = self.waiting().get(&id).is_some_and(|it| !it.is_closed());
        Moment { now: self.clock.now(), random: self.entropy.next(), awaited }
    }
}

/// What is recorded of a verdict; when to look at what is settled is recorded before.
pub(super) fn landing(verdict: &Verdict) -> Option<&Landing> {
    match verdict {
        Verdict::Settled(landing) => Some(landing),
        Verdict::Rejected { .. } | Verdict::NotSent { .. } | Verdict::Unknown { .. } => None,
    }
}

fn attempt_of(job: &Job) -> Attempt {
    Attempt {
        attempts: job.attempts,
        may_have_been_sent: job.may_have_been_sent,
        answer: match job.answer {
            AnswerMark::Withheld => Answer::Withheld,
            AnswerMark::Leaving | AnswerMark::Sent => Answer::Left,
        },
        settle_by: job.terms.settle_by,
    }
}

fn seen(settlement: Settlement) -> Seen {
    Seen { transaction: settlement.transaction, final_in: settlement.final_in }
}

/// The facilitator's request: the client's payload as it came, our requirements at the charge.
pub(super) fn request(terms: &Terms, charge: Amount) -> Result<SettleRequest, serde_json::Error> {
    let payment_payload: Raw<PaymentPayload> = serde_json::from_str(&terms.payload)?;
    let mut payment_requirements: Raw<PaymentRequirements> =
        serde_json::from_str(&terms.requirements)?;
    if payment_requirements.value().amount != charge {
        let at_charge =
            PaymentRequirements { amount: charge, ..payment_requirements.value().clone() };
        payment_requirements = Raw::new(at_charge)?;
    }
    Ok(SettleRequest { x402_version: X402_VERSION, payment_payload, payment_requirements })
}
