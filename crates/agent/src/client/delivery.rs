//! Sends one signed payment until its outcome is known, and books that outcome.

use std::time::Duration;

use farebox_billing::Receipt;
use farebox_chains::{Charging, EvmPayment};
use farebox_protocol::Reason;
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Request, Response};
use url::Url;

use super::choice::sponsoring_of;
use super::funding::{ClaimNumber, Funding};
use super::open::{Open, Said, transaction_of};
use super::{PaidResponse, Purse, receipt_url};
use crate::budget::Reservation;
use crate::challenge::{Challenge, Version};
use crate::entropy::jittered;
use crate::error::PayError;
use crate::offer::Offer;
use crate::payment::{Doubt, Outcome, Payment, Proof, Signed, StreamReceipt, Terms};
use crate::proof::check_receipt;
use crate::stream::{is_event_stream, watch};
use crate::transport::{Arrived, SendError, Transport};
use crate::verdict::{Heard, Verdict, judge, says_used};
use crate::wallet::Wallet;

/// The longest receipt that is read.
const RECEIPT_BYTES_MAX: usize = 64 * 1024;

/// Whether a permit goes with a payment that went without.
enum Permit {
    Added,
    None,
}

/// How the sending ended.
enum Ending {
    /// With an answer that says something, or that is the last one there will be.
    Answered { response: Response, verdict: Verdict, before: Arrived },
    /// Without an answer.
    Failed { error: SendError, before: Arrived },
}

impl Ending {
    /// Whether the seller says that Permit2 may not spend enough.
    fn wants_allowance(&self) -> bool {
        let Self::Answered { response, verdict: Verdict::Disclaimed { reason }, .. } = self else {
            return false;
        };
        response.status() == StatusCode::PRECONDITION_FAILED
            && reason == Reason::Permit2AllowanceRequired.as_str()
    }

    fn before(&self) -> Arrived {
        match self {
            Self::Answered { before, .. } | Self::Failed { before, .. } => *before,
        }
    }

    /// The same, of a payment that arrived in another form.
    fn after_an_answer(self) -> Self {
        match self {
            Self::Failed { error, .. } => Self::Failed { error, before: Arrived::Perhaps },
            answered @ Self::Answered { .. } => answered,
        }
    }
}

/// A signed payment on its way, and what was set aside for it.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) request: Request,
    pub(super) offer: Offer,
    pub(super) funding: Funding,
    pub(super) signed: Signed,
    pub(super) reservation: Reservation,
    pub(super) claim: Option<ClaimNumber>,
    /// What the wallet's node can be asked about, if there is one.
    pub(super) on_chain: Option<EvmPayment>,
}

impl Purse {
    /// From the signature to the booked outcome.
    pub(super) async fn deliver(
        &self,
        transport: &mut dyn Transport,
        wallet: &Wallet,
        challenge: &Challenge,
        sending: Sending,
    ) -> Result<PaidResponse, PayError> {
        let url = sending.request.url().clone();
        let ending = self.send_until_known(transport, &sending, Arrived::No).await?;
        let (ending, sending) = if ending.wants_allowance() {
            let before = ending.before();
            match self.add_permit(wallet, challenge, sending).await {
                (sending, Permit::Added) => {
                    // The answer's connection is free by then.
                    drop(ending);
                    let ending = self.send_until_known(transport, &sending, before).await?;
                    (ending.after_an_answer(), sending)
                }
                (sending, Permit::None) => (ending, sending),
            }
        } else {
            (ending, sending)
        };
        let terms = &sending.signed.terms;
        match ending {
            Ending::Failed { error, before: Arrived::No } => {
                self.budget.release(sending.reservation);
                self.claims.forget(sending.claim);
                Err(PayError::NotSent(error.source))
            }
            Ending::Failed { error, before: Arrived::Perhaps } => {
                let receipt_url = receipt_url::derived(&url, &sending.signed);
                let known = self.look_up(transport, receipt_url.as_ref(), terms).await;
                let outcome = known.unwrap_or(Outcome::Unknown { why: Doubt::Silence });
                let payment = Box::new(self.book(outcome, receipt_url, sending));
                Err(PayError::NoAnswer { payment, source: error.source })
            }
            Ending::Answered { response, verdict, before } => {
                let mut outcome = outcome_of(verdict, before, response.status());
                let signed = &sending.signed;
                let (response, receipt_url) = receipt_url::of_answer(&url, response, signed).await;
                if matches!(outcome, Outcome::Unknown { .. }) {
                    let known = self.look_up(transport, receipt_url.as_ref(), terms).await;
                    outcome = known.unwrap_or(outcome);
                }
                let payment = self.book(outcome, receipt_url, sending);
                Ok(answered(response, payment))
            }
        }
    }

    /// The same payment with a permit, if Permit2's allowance is missing indeed and one can be signed.
    /// Its nonce is that of the first sending, so that both together can be charged once.
    async fn add_permit(
        &self,
        wallet: &Wallet,
        challenge: &Challenge,
        mut sending: Sending,
    ) -> (Sending, Permit) {
        let sponsoring = sponsoring_of(challenge);
        if matches!(sending.funding, Funding::Token | Funding::Permit { .. }) {
            return (sending, Permit::None);
        }
        self.claims.forget(sending.claim.take());
        let (offer, payer) = (&sending.offer, wallet.address());
        let claimed = self.claim(offer, Funding::Allowance, payer, sponsoring).await;
        let Ok((funding @ Funding::Permit { nonce }, claim)) = claimed else {
            let claim = claimed.ok().and_then(|(_, claim)| claim);
            return (self.claimed(sending, claim), Permit::None);
        };
        let deadline = sending.signed.terms.valid_before;
        let Ok(info) = wallet.sign_permit(offer, nonce, deadline) else {
            return (self.claimed(sending, claim), Permit::None);
        };
        match sending.signed.permitted(challenge.extensions.as_ref(), info) {
            Ok(header) => {
                tracing::debug!(payment.id = %sending.signed.terms.id, "sent again with a permit");
                sending.signed.header = header;
                sending.funding = funding;
                (self.claimed(sending, claim), Permit::Added)
            }
            Err(_) => (self.claimed(sending, claim), Permit::None),
        }
    }

    fn claimed(&self, mut sending: Sending, claim: Option<ClaimNumber>) -> Sending {
        sending.claim = claim;
        self.claims.signed(claim, sending.on_chain.as_ref());
        sending
    }

    /// Sends the same bytes until an answer says what became of them, a bound is reached, or the
    /// signature has expired.
    async fn send_until_known(
        &self,
        transport: &mut dyn Transport,
        sending: &Sending,
        mut before: Arrived,
    ) -> Result<Ending, PayError> {
        let signed = &sending.signed;
        let mut request = sending.request.try_clone().ok_or(PayError::NotRepeatable)?;
        request.headers_mut().insert(signed.name.clone(), signed.header.clone());
        let retry = self.policy.retry;
        let mut pause = retry.pause_first;
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
    pub(super) async fn look_up(
        &self,
        transport: &mut dyn Transport,
        receipt_url: Option<&Url>,
        terms: &Terms,
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
        match check_receipt(&receipt, terms) {
            Ok(outcome) => outcome,
            Err(bad) => Some(Outcome::Unknown { why: Doubt::Proof(bad) }),
        }
    }

    /// Books the outcome in the budget and says it once in the log.
    fn book(&self, outcome: Outcome, receipt_url: Option<Url>, sending: Sending) -> Payment {
        let Sending { signed, reservation, on_chain, .. } = sending;
        let terms = signed.terms;
        let stream_receipt = StreamReceipt::default();
        let (word, said) = match &outcome {
            Outcome::Paid { charged, proof } => {
                let transaction = transaction_of(proof);
                ("paid", Said::Charged { amount: *charged, transaction })
            }
            Outcome::Accepted => match terms.scheme.charging() {
                Charging::Whole => {
                    ("accepted", Said::Charged { amount: terms.amount, transaction: None })
                }
                Charging::UpTo => ("accepted", Said::NotYet),
            },
            Outcome::NotCharged { .. } => ("not_charged", Said::Nothing),
            Outcome::Unknown { .. } => ("unknown", Said::Unclear),
        };
        let reservation = match &said {
            Said::Charged { amount, .. } => self.spend(reservation, *amount, &terms),
            Said::Nothing | Said::NotYet | Said::Unclear => reservation,
        };
        tracing::info!(
            payment.id = %terms.id,
            network = %terms.network,
            scheme = terms.scheme.name(),
            amount_units = %terms.amount,
            outcome = word,
            "payment"
        );
        self.leave(Open {
            terms: terms.clone(),
            said,
            reservation,
            on_chain,
            receipt_url: receipt_url.clone(),
            stream_receipt: stream_receipt.clone(),
        });
        Payment { terms, outcome, receipt_url, stream_receipt }
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
