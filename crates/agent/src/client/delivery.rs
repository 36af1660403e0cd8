//! Sends one signed payment until its outcome is known, and books that outcome.

use std::time::Duration;

use farebox_billing::Receipt;
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Request, Response};
use url::Url;

use super::{PaidResponse, Purse, receipt_url};
use crate::budget::Reservation;
use crate::challenge::{Challenge, Version};
use crate::entropy::jittered;
use crate::error::PayError;
use crate::payment::{Doubt, Outcome, Payment, Proof, Signed, StreamReceipt};
use crate::policy::Disclaimers;
use crate::proof::check_receipt;
use crate::stream::{is_event_stream, watch};
use crate::transport::{Arrived, SendError, Transport};
use crate::usd::Usd;
use crate::verdict::{Heard, Verdict, judge, says_used};

/// The longest receipt that is read.
const RECEIPT_BYTES_MAX: usize = 64 * 1024;

/// How the sending ended.
enum Ending {
    /// With an answer that says something, or that is the last one there will be.
    Answered { response: Response, verdict: Verdict, before: Arrived },
    /// Without an answer.
    Failed { error: SendError, before: Arrived },
}

impl Purse {
    /// From the signature to the booked outcome.
    pub(super) async fn deliver(
        &self,
        transport: &mut dyn Transport,
        request: Request,
        signed: Signed,
        reservation: Reservation,
    ) -> Result<PaidResponse, PayError> {
        let url = request.url().clone();
        match self.send_until_known(transport, request, &signed).await? {
            Ending::Failed { error, before: Arrived::No } => {
                self.budget.release(reservation);
                Err(PayError::NotSent(error.source))
            }
            Ending::Failed { error, before: Arrived::Perhaps } => {
                let receipt_url = receipt_url::derived(&url, &signed);
                let known = self.look_up(transport, receipt_url.as_ref(), &signed).await;
                let outcome = known.unwrap_or(Outcome::Unknown { why: Doubt::Silence });
                let payment = Box::new(self.book(outcome, receipt_url, signed, reservation));
                Err(PayError::NoAnswer { payment, source: error.source })
            }
            Ending::Answered { response, verdict, before } => {
                let mut outcome = outcome_of(verdict, before, response.status());
                let (response, receipt_url) = receipt_url::of_answer(&url, response, &signed).await;
                if matches!(outcome, Outcome::Unknown { .. }) {
                    let known = self.look_up(transport, receipt_url.as_ref(), &signed).await;
                    outcome = known.unwrap_or(outcome);
                }
                let payment = self.book(outcome, receipt_url, signed, reservation);
                Ok(answered(response, payment))
            }
        }
    }

    /// Sends the same bytes until an answer says what became of them, a bound is reached, or the
    /// signature has expired.
    async fn send_until_known(
        &self,
        transport: &mut dyn Transport,
        mut request: Request,
        signed: &Signed,
    ) -> Result<Ending, PayError> {
        request.headers_mut().insert(signed.name.clone(), signed.header.clone());
        let retry = self.policy.retry;
        let (mut pause, mut before) = (retry.pause_first, Arrived::No);
        let mut left = retry.attempts_max.get();
        loop {
            left = left.saturating_sub(1);
            let again = request.try_clone().ok_or(PayError::NotRepeatable)?;
            let mut wait = jittered(pause);
            let ending = match transport.send(again).await {
                Err(error) => {
                    if error.arrived == Arrived::Perhaps {
                        before = Arrived::Perhaps;
                    }
                    tracing::debug!(payment.id = %signed.terms.id, %error, "no answer yet");
                    Ending::Failed { error, before }
                }
                Ok(response) => {
                    let (response, verdict) = hear(response, signed).await;
                    let Verdict::Again { after } = verdict else {
                        return Ok(Ending::Answered { response, verdict, before });
                    };
                    before = Arrived::Perhaps;
                    wait = after.unwrap_or(wait).min(retry.pause_max);
                    Ending::Answered { response, verdict, before }
                }
            };
            let wakes_at = self.clock.now().plus(wait);
            if left == 0 || signed.terms.valid_before <= wakes_at {
                return Ok(ending);
            }
            // The answer's connection is free before the pause, not after it.
            drop(ending);
            self.clock.sleep(wait).await;
            pause = pause.saturating_mul(2).min(retry.pause_max);
        }
    }

    /// What the seller's receipt says, where the seller is a Farebox gateway.
    async fn look_up(
        &self,
        transport: &mut dyn Transport,
        receipt_url: Option<&Url>,
        signed: &Signed,
    ) -> Option<Outcome> {
        let mut request = Request::new(Method::GET, receipt_url?.clone());
        *request.timeout_mut() = Some(Duration::from_secs(10));
        let json_only = HeaderValue::from_static("application/json");
        request.headers_mut().insert(http::header::ACCEPT, json_only);
        let mut response = transport.send(request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let mut json = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            json.extend_from_slice(&chunk);
            if RECEIPT_BYTES_MAX < json.len() {
                return None;
            }
        }
        let receipt: Receipt = serde_json::from_slice(&json).ok()?;
        match check_receipt(&receipt, &signed.terms) {
            Ok(outcome) => outcome,
            Err(bad) => Some(Outcome::Unknown { why: Doubt::Proof(bad) }),
        }
    }

    /// Books the outcome in the budget and says it once in the log.
    fn book(
        &self,
        outcome: Outcome,
        receipt_url: Option<Url>,
        signed: Signed,
        reservation: Reservation,
    ) -> Payment {
        let terms = signed.terms;
        let said = match &outcome {
            Outcome::Paid { charged, .. } => {
                let worth = Usd::of_token_rounded_up(*charged, terms.decimals);
                self.settle(reservation, worth.unwrap_or(terms.worth));
                "paid"
            }
            Outcome::Accepted => {
                self.settle(reservation, terms.worth);
                "accepted"
            }
            Outcome::NotCharged { .. } => {
                match self.policy.disclaimers {
                    Disclaimers::Trust => self.budget.release_at(reservation, terms.valid_before),
                    Disclaimers::Distrust => self.budget.keep(reservation),
                }
                "not_charged"
            }
            Outcome::Unknown { .. } => {
                self.budget.keep(reservation);
                "unknown"
            }
        };
        tracing::info!(
            payment.id = %terms.id,
            network = %terms.network,
            scheme = "exact",
            amount_units = %terms.amount,
            outcome = said,
            "payment"
        );
        Payment { terms, outcome, receipt_url, stream_receipt: StreamReceipt::default() }
    }

    fn settle(&self, reservation: Reservation, charge: Usd) {
        if let Err(error) = self.budget.settle(reservation, charge) {
            // Proofs over the signed amount are refused before; if one came here it stays reserved.
            tracing::error!(%error, "a charge over its reservation was not booked");
        }
    }
}

/// What an answer says of the payment. It comes back as it was.
async fn hear(response: Response, signed: &Signed) -> (Response, Verdict) {
    let (response, demand) = match signed.version {
        Version::One => Challenge::of(response).await,
        Version::Two => {
            let demand = Challenge::read(response.headers());
            (response, demand)
        }
    };
    let heard = Heard {
        status: response.status(),
        headers: response.headers(),
        demand: demand.as_ref().ok().and_then(Option::as_ref),
    };
    let verdict = judge(heard, signed.version, &signed.terms);
    (response, verdict)
}

fn outcome_of(verdict: Verdict, before: Arrived, status: StatusCode) -> Outcome {
    match verdict {
        Verdict::Settled { charged, settlement } => {
            Outcome::Paid { charged, proof: Proof::Settlement(settlement) }
        }
        Verdict::Misfit(bad) => Outcome::Unknown { why: Doubt::Proof(bad) },
        Verdict::Delivered => Outcome::Accepted,
        // Refused now, because it was taken before?
        Verdict::Disclaimed { reason } if before == Arrived::Perhaps || says_used(&reason) => {
            Outcome::Unknown { why: Doubt::RefusedAgain { reason } }
        }
        Verdict::Disclaimed { reason } => Outcome::NotCharged { reason },
        Verdict::Again { .. } | Verdict::Open => Outcome::Unknown { why: Doubt::Answer(status) },
    }
}

/// The answer with what was paid; middleware users find the payment in its extensions.
fn answered(response: Response, payment: Payment) -> PaidResponse {
    let mut response = if is_event_stream(response.headers()) {
        watch(response, &payment.terms, &payment.stream_receipt)
    } else {
        response
    };
    response.extensions_mut().insert(payment.clone());
    PaidResponse { response, payment: Some(payment) }
}
