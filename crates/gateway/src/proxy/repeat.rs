//! Step 6: what a request gets that was paid for before.
//!
//! One answer, one charge: a repeat calls no upstream and moves no money. It gets the answer again where
//! that is kept, else the receipt. Both are for the payer alone: for whoever sends the very payload
//! again, which nobody else has seen, or has signed another payment that was verified.

use std::time::Duration;

use axum::body::Body;
use farebox_billing::Payment;
use farebox_protocol::Digest;
use farebox_store::{AnswerMark, Refusal, StoredPayment};
use http::{HeaderName, HeaderValue, Response};

use super::accept::{Accepted, Envelope, Verified, bad_quote};
use super::charge::{
    PAYMENT_RESPONSE, X_FAREBOX_CHARGED, name_receipt, settled_told, with_receipt,
};
use crate::app::App;
use crate::kept::KeptAnswer;
use crate::problem::{Kind, Problem};

/// On answers that were given before.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const ZERO: HeaderValue = HeaderValue::from_static("0");
/// When to ask again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Who asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// Whoever has the very payload.
    Same(Envelope),
    /// The payer, by another payment, of which nothing is taken.
    Payer,
    /// Anybody: a used authorisation can be read on its chain.
    Anybody,
}

/// Whether whoever is told that something runs may ask again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It gives its request the same name when it does.
    Safe,
    /// It may well pay a second time.
    Unsafe,
}

impl Accepted {
    fn asker(&self, payment: &StoredPayment) -> Asker {
        let known = Digest::of(payment.terms.payload.as_bytes());
        if Digest::of(self.payload().as_bytes()) == known {
            Asker::Same(self.envelope())
        } else {
            Asker::Anybody
        }
    }
}

/// Whether this very payment was used before: then it is told so, whatever else is wrong with it.
pub(crate) async fn of_payment(
    app: &App,
    accepted: &Accepted,
) -> Result<Option<Response<Body>>, Problem> {
    let known = app.ledger.lookup(accepted.id()).await.map_err(|error| {
        Problem::new(Kind::Unavailable, "The ledger does not answer.")
            .caused_by(error)
            .retry_after(RETRY_AFTER)
    })?;
    match known {
        Some(payment) if !matches!(payment.state, Payment::Released { .. }) => {
            repeated(app, &payment, accepted.asker(&payment), accepted.again()).map(Some)
        }
        Some(_) | None if accepted.is_expired() => {
            Err(bad_quote("quote_expired", "The quote has expired: ask for a new one."))
        }
        Some(_) | None => Ok(None),
    }
}

/// What a payment gets that was not held.
pub(crate) fn refused(
    app: &App,
    verified: &Verified,
    refusal: Refusal,
) -> Result<Response<Body>, Problem> {
    let accepted = verified.accepted();
    match refusal {
        Refusal::InProgress => Err(in_progress(accepted.again())),
        Refusal::AlreadyUsed { same_request: _, payment } => {
            repeated(app, &payment, accepted.asker(&payment), accepted.again())
        }
        Refusal::KeyUsed { same_request: true, payment } => {
            repeated(app, &payment, Asker::Payer, accepted.again())
        }
        Refusal::KeyUsed { same_request: false, payment: _ } => Err(Problem::new(
            Kind::KeyReused,
            "This idempotency key belongs to another request: give each its own. Nothing was taken.",
        )),
        Refusal::ExposureExceeded { open, limit } => Err(Problem::new(
            Kind::PaymentRequired,
            format!(
                "{open} atomic units are open for this payer, of {limit} that may be: wait for \
                 earlier payments to settle."
            ),
        )
        .with_reason("exposure_exceeded")),
    }
}

/// What is told of a payment that is being worked on.
pub(crate) fn in_progress(again: Again) -> Problem {
    let problem = Problem::new(Kind::PaymentInProgress, "This payment is being worked on.")
        .retry_after(RETRY_AFTER);
    match again {
        Again::Safe => problem.safe_to_repeat(),
        Again::Unsafe => problem,
    }
}

fn repeated(
    app: &App,
    payment: &StoredPayment,
    asker: Asker,
    again: Again,
) -> Result<Response<Body>, Problem> {
    let standing = standing(payment);
    if standing == Standing::Answered
        && matches!(asker, Asker::Same(Envelope::Sealed) | Asker::Payer)
        && let Some(answer) = app.kept.answer(payment.terms.id, app.clock.now())
    {
        tracing::info!(payment.id = %payment.terms.id, "answered again");
        return Ok(replayed(app, payment, answer, asker));
    }
    let problem = match (standing, asker) {
        (Standing::Waiting, _) => in_progress(again),
        (Standing::Answered | Standing::Over, Asker::Same(_) | Asker::Anybody) => {
            Problem::new(Kind::PaymentAlreadyUsed, "This payment was used; it buys nothing more.")
        }
        (Standing::Answered | Standing::Over, Asker::Payer) => Problem::new(
            Kind::AlreadyAnswered,
            "This request was answered, and paid for by another payment; the answer is not kept. \
             Nothing was taken now.",
        ),
    };
    if asker == Asker::Anybody {
        return Err(problem);
    }
    let problem = with_receipt(problem, app, payment.terms.id)
        .with_member("state", payment.state.name())
        .with_member("paymentId", payment.terms.id.to_string());
    Err(match (asker, settled_told(payment)) {
        (Asker::Payer, _) => problem.with_header(X_FAREBOX_CHARGED, ZERO),
        (_, Some(told)) => problem.with_header(PAYMENT_RESPONSE, told),
        (_, None) => problem,
    })
}

/// How far a payment has come, for whoever asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Somebody works on it.
    Waiting,
    /// Its answer was given, and is paid or about to be.
    Answered,
    /// Nothing will be given for it.
    Over,
}

fn standing(payment: &StoredPayment) -> Standing {
    match &payment.state {
        Payment::Held { .. } | Payment::Serving { .. } => Standing::Waiting,
        Payment::Captured { .. } | Payment::Settling { .. } | Payment::Unknown { .. } => {
            match payment.answer {
                AnswerMark::Withheld => Standing::Waiting,
                AnswerMark::Leaving | AnswerMark::Sent => Standing::Answered,
            }
        }
        Payment::Settled { .. } if payment.refund_owed.is_none() => Standing::Answered,
        Payment::Settled { .. } | Payment::Released { .. } | Payment::Lost { .. } => Standing::Over,
    }
}

/// The answer as it left, with what is known of its payment by now.
fn replayed(
    app: &App,
    payment: &StoredPayment,
    answer: KeptAnswer,
    asker: Asker,
) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    let headers = response.headers_mut();
    name_receipt(app, payment.terms.id, headers);
    headers.insert(IDEMPOTENT_REPLAYED, TRUE);
    match (asker, settled_told(payment)) {
        // The payment that came with this request is none of this answer's.
        (Asker::Payer, _) => {
            headers.insert(X_FAREBOX_CHARGED, ZERO);
        }
        (_, Some(told)) => {
            headers.insert(PAYMENT_RESPONSE, told);
        }
        (_, None) => {}
    }
    response
}
