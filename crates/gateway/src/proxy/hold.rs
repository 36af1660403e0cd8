//! Step 8: the hold, and everything that may be done with it.
//!
//! A [`Held`] is given up in exactly one way: captured ([`Held::capture_withheld`],
//! [`Held::capture_leaving`], [`Held::capture_sent`], [`Held::capture_at_last`]) or released
//! ([`Held::release`], or [`Held::withdraw`] where nobody knows what is recorded). While the ledger is
//! away, a task of its own goes on trying; what is open when the gateway stops is left to recovery,
//! which does what the last durable state says.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use farebox_billing::{Metered, Payment, Receipt, Release, Usage};
use farebox_protocol::{Amount, Asset, PaymentId, Timestamp};
use farebox_store::{Admit, Admitted, AnswerMark, CaptureFailed, Hold, StoreError, Terms};
use http::Response;

use super::Asked;
use super::accept::Verified;
use super::charge::{Charged, Withheld};
use super::repeat;
use super::retry::{Patience, Tries};
use super::tariff::Tariff;
use crate::app::App;
use crate::probe::Step;
use crate::problem::{Kind, Problem};

/// How long a stream waits for a checkpoint.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(250);
/// When to come back after a ledger that did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What a payment is, for receipts, logs and whoever finishes it.
#[derive(Clone, Debug)]
pub(crate) struct Bill {
    pub(crate) id: PaymentId,
    pub(crate) route: String,
    pub(crate) scheme: String,
    pub(crate) asset: Asset,
    pub(crate) payer: String,
    pub(crate) pay_to: String,
    pub(crate) limit: Amount,
    pub(crate) tariff: Tariff,
    pub(crate) price_version: String,
    /// When the work must be over.
    pub(crate) serve_by: Option<Timestamp>,
    pub(crate) began_at: Timestamp,
}

/// Proof that the payment's amount is reserved, durably.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held {
    app: Arc<App>,
    bill: Arc<Bill>,
    hold: Hold,
}

/// What becomes of a request for a hold.
#[derive(Debug)]
pub(crate) enum Holding {
    /// It is given.
    New(Held),
    /// The request was answered before: nothing is taken.
    Answered(Response<Body>),
}

/// Reserves the amount. The only place where a payment is taken.
pub(crate) async fn hold(
    app: &Arc<App>,
    asked: &Asked,
    verified: Verified,
) -> Result<Holding, Problem> {
    let now = app.clock.now();
    let offer = verified
        .offer(asked)
        .ok_or_else(|| Problem::new(Kind::Internal, "The offer is gone.").never_pay_again())?;
    // More must not be open than could be collected of this payer (attack A5).
    let cap = [offer.template.exposure_limit, verified.collectable()].into_iter().flatten().min();
    let terms = terms(asked, &verified, offer.asset.clone());
    let bill = Arc::new(Bill {
        id: terms.id,
        route: terms.route.clone(),
        scheme: terms.scheme.clone(),
        asset: terms.asset.clone(),
        payer: terms.payer.clone(),
        pay_to: terms.pay_to.clone(),
        limit: terms.limit,
        tariff: Tariff {
            charging: offer.template.scheme.charging(),
            price: asked.route.config.price,
            decimals: offer.template.token.decimals,
        },
        price_version: terms.price_version.clone(),
        serve_by: verified.serve_by(),
        began_at: now,
    });
    let keys = verified.keys().to_vec();
    match app.ledger.admit(Admit { terms, keys, exposure_limit: cap, now }).await {
        Ok(Admitted::New(hold)) => {
            app.reached(Step::Held, bill.id);
            Ok(Holding::New(Held { app: Arc::clone(app), bill, hold }))
        }
        Ok(Admitted::Refused(refusal)) => {
            repeat::refused(app, &verified, refusal).map(Holding::Answered)
        }
        Err(error) => Err(ledger_problem(error)),
    }
}

fn terms(asked: &Asked, verified: &Verified, asset: Asset) -> Terms {
    let (payload, requirements) = verified.documents();
    let route = &asked.route.config;
    Terms {
        id: verified.id(),
        fingerprint: verified.fingerprint(),
        route: route.name.clone(),
        scheme: verified.scheme().to_owned(),
        asset,
        payer: verified.payer().to_owned(),
        pay_to: verified.pay_to().to_owned(),
        limit: verified.limit(),
        settle: route.settle,
        price_version: verified.price_version().to_owned(),
        settle_by: verified.settle_by(),
        payload: payload.to_owned(),
        requirements: requirements.to_owned(),
    }
}

impl Held {
    /// What is being paid.
    pub(crate) fn bill(&self) -> &Arc<Bill> {
        &self.bill
    }

    /// The whole of it.
    pub(crate) fn limit(&self) -> Amount {
        self.hold.limit()
    }

    /// Passes the last point of free refusal. On error nothing was begun and the hold is released.
    pub(crate) async fn begin_serve(self) -> Result<Self, Problem> {
        let app = Arc::clone(&self.app);
        let mut tries = Tries::new(&app, Patience::Waiting);
        loop {
            let error = match app.ledger.begin_serve(&self.hold, app.clock.now()).await {
                Ok(()) => return Ok(self),
                Err(error) => error,
            };
            // An earlier try may have succeeded without our knowing: the ledger tells.
            if !matches!(error, StoreError::Fenced(_)) && is_serving(&app, self.bill.id).await {
                return Ok(self);
            }
            if !tries.again(&error).await {
                self.release(Release::UpstreamFailed).await;
                return Err(tries.problem(error));
            }
        }
    }

    /// Makes durable that `delivered` is owed for what is about to leave.
    pub(crate) async fn meter(self, delivered: Amount) -> Result<Self, Problem> {
        let app = Arc::clone(&self.app);
        let mut tries = Tries::new(&app, Patience::Waiting);
        loop {
            let error = match app.ledger.meter(&self.hold, delivered, app.clock.now()).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if !tries.again(&error).await {
                self.withdraw(Release::UpstreamFailed).await;
                return Err(tries.problem(error));
            }
        }
        self.app.reached(Step::Metered, self.bill.id);
        Ok(self)
    }

    /// Makes a later checkpoint durable, if the ledger is quick: the last one stands otherwise.
    pub(crate) async fn checkpoint(&self, delivered: Amount) {
        let now = self.app.clock.now();
        let metered = self.app.ledger.meter(&self.hold, delivered, now);
        match tokio::time::timeout(CHECKPOINT_WAIT, metered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(payment.id = %self.bill.id, %error, "checkpoint not recorded");
            }
            Err(_) => {
                tracing::warn!(payment.id = %self.bill.id, "the ledger is slow: no checkpoint");
            }
        }
    }

    /// Charges for an answer that has left but for its end. On failure the hold comes back: the
    /// client need not wait for [`Held::capture_at_last`].
    pub(crate) async fn capture_sent(self, charge: Amount) -> Result<Charged, Self> {
        let (app, bill) = (Arc::clone(&self.app), Arc::clone(&self.bill));
        match self.try_capture(charge, AnswerMark::Sent, Patience::Waiting).await {
            Ok(charge) => Ok(Charged::new(app, bill, charge)),
            Err(Uncaptured { held, source }) => {
                tracing::warn!(payment.id = %bill.id, error = %source, "capture goes on");
                Err(held)
            }
        }
    }

    /// Charges for an answer that has left, however long it takes. Where the gateway stops before,
    /// recovery does: the last checkpoint says what is owed.
    pub(crate) async fn capture_at_last(self, charge: Amount) -> Result<Charged, Problem> {
        let (app, bill) = (Arc::clone(&self.app), Arc::clone(&self.bill));
        match self.try_capture(charge, AnswerMark::Sent, Patience::Endless).await {
            Ok(charge) => Ok(Charged::new(app, bill, charge)),
            Err(Uncaptured { held: _, source }) => {
                tracing::error!(payment.id = %bill.id, error = %source, "capture left to recovery");
                Err(ledger_problem(source).never_pay_again())
            }
        }
    }

    /// Charges for an answer that leaves as soon as this is done.
    pub(crate) async fn capture_leaving(self, charge: Amount) -> Result<Charged, Problem> {
        let (app, bill) = (Arc::clone(&self.app), Arc::clone(&self.bill));
        match self.try_capture(charge, AnswerMark::Leaving, Patience::Waiting).await {
            Ok(charge) => Ok(Charged::new(app, bill, charge)),
            Err(uncaptured) => Err(uncaptured.give_back().await),
        }
    }

    /// Charges for an answer that is withheld until the settlement.
    pub(crate) async fn capture_withheld(self, charge: Amount) -> Result<Withheld, Problem> {
        let (app, bill) = (Arc::clone(&self.app), Arc::clone(&self.bill));
        // Announced first: the worker may be quicker than this task.
        let expected = app.settler.expect(bill.id);
        match self.try_capture(charge, AnswerMark::Withheld, Patience::Waiting).await {
            Ok(charge) => Ok(Withheld::new(app, bill, charge, expected)),
            Err(uncaptured) => Err(uncaptured.give_back().await),
        }
    }

    /// Charges, durably, and queues the settlement in the same commit.
    async fn try_capture(
        self,
        charge: Amount,
        mark: AnswerMark,
        patience: Patience,
    ) -> Result<Amount, Uncaptured> {
        let Self { app, bill, mut hold } = self;
        let retry_app = Arc::clone(&app);
        let mut tries = Tries::new(&retry_app, patience);
        loop {
            let now = app.clock.now();
            let failed = match app.ledger.capture(hold, charge, mark, now).await {
                Ok(captured) => {
                    app.reached(Step::Captured, bill.id);
                    return Ok(captured.charge());
                }
                Err(failed) => failed,
            };
            let CaptureFailed { hold: still, source } = failed;
            // An earlier try may have succeeded without our knowing: the ledger tells.
            if let Some(charge) = captured_before(&app, bill.id).await {
                app.reached(Step::Captured, bill.id);
                return Ok(charge);
            }
            if !tries.again(&source).await {
                return Err(Uncaptured { held: Self { app, bill, hold: still }, source });
            }
            hold = still;
        }
    }

    /// Gives the hold back: nothing left and nothing is owed. Nobody is kept waiting for a ledger
    /// that is away: it goes on behind.
    pub(crate) async fn release(self, why: Release) {
        self.give_back(Back::Release, why).await;
    }

    /// Gives up on a checkpoint or a capture that may be recorded, of an answer that never leaves:
    /// given back, or owed back where the money may move already.
    async fn withdraw(self, why: Release) {
        self.give_back(Back::Withdraw, why).await;
    }

    async fn give_back(self, how: Back, why: Release) {
        if let Err(error) = self.try_to_give_back(how, why).await {
            let app = Arc::clone(&self.app);
            app.payments.spawn(self.give_back_at_last(how, why, error));
        }
    }

    async fn give_back_at_last(self, how: Back, why: Release, mut error: StoreError) {
        let mut tries = Tries::new(&self.app, Patience::Endless);
        while tries.again(&error).await {
            error = match self.try_to_give_back(how, why).await {
                Ok(()) => return,
                Err(error) => error,
            };
        }
        tracing::error!(payment.id = %self.bill.id, %error, "release left to recovery");
    }

    async fn try_to_give_back(&self, how: Back, why: Release) -> Result<(), StoreError> {
        let now = self.app.clock.now();
        let state = match how {
            Back::Release => {
                self.app.ledger.release(&self.hold, why, now).await?;
                Payment::Released { why }
            }
            Back::Withdraw => self.app.ledger.withdraw(&self.hold, why, now).await?,
        };
        let outcome =
            if matches!(state, Payment::Released { .. }) { why.as_str() } else { "withdrawn" };
        self.bill.log(now, Receipt::charged_by(&state), outcome);
        Ok(())
    }
}

/// How a hold is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// Nothing but the hold is recorded.
    Release,
    /// Nobody knows what is.
    Withdraw,
}

/// The capture did not happen, or nobody knows whether it did.
struct Uncaptured {
    held: Held,
    source: StoreError,
}

impl Uncaptured {
    /// Where nothing has left, nothing is owed.
    async fn give_back(self) -> Problem {
        self.held.withdraw(Release::UpstreamFailed).await;
        ledger_problem(self.source).never_pay_again()
    }
}

async fn is_serving(app: &App, id: PaymentId) -> bool {
    let payment = app.ledger.lookup(id).await.ok().flatten();
    payment.is_some_and(|it| matches!(it.state, Payment::Serving { .. }))
}

async fn captured_before(app: &App, id: PaymentId) -> Option<Amount> {
    let payment = app.ledger.lookup(id).await.ok()??;
    match payment.state {
        Payment::Captured { charge }
        | Payment::Settling { charge }
        | Payment::Unknown { charge, .. }
        | Payment::Settled { charge, .. } => Some(charge),
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Released { .. }
        | Payment::Lost { .. } => None,
    }
}

/// What the client is told of a ledger that did not do its part.
pub(crate) fn ledger_problem(error: StoreError) -> Problem {
    let detail = "The payment could not be recorded; nothing was served.";
    let problem = match &error {
        StoreError::Unavailable(_) => {
            Problem::new(Kind::Unavailable, detail).retry_after(RETRY_AFTER)
        }
        StoreError::Unknown(_) => {
            Problem::new(Kind::Unavailable, detail).retry_after(RETRY_AFTER).never_pay_again()
        }
        StoreError::Fenced(_) | StoreError::Illegal(_) | StoreError::Corrupt(_) => {
            Problem::new(Kind::Internal, detail)
        }
    };
    problem.caused_by(error)
}

impl Bill {
    /// What an answer of which something was delivered costs.
    pub(crate) fn owed(&self, metered: &Metered) -> Amount {
        self.tariff.owed(metered, self.limit)
    }

    /// The receipt of this payment in some state.
    pub(crate) fn receipt(&self, state: &Payment, usage: Option<Usage>, at: Timestamp) -> Receipt {
        Receipt {
            payment_id: self.id,
            route: self.route.clone(),
            scheme: self.scheme.clone(),
            network: self.asset.network().clone(),
            asset: self.asset.address().to_owned(),
            payer: self.payer.clone(),
            pay_to: self.pay_to.clone(),
            quoted: self.limit,
            charged: Receipt::charged_by(state),
            usage,
            price_version: self.price_version.clone(),
            state: state.into(),
            at,
        }
    }

    /// The one event of a finished payment.
    pub(crate) fn log(&self, now: Timestamp, charge: Amount, outcome: &str) {
        let duration_ms = now.since(self.began_at).as_millis();
        tracing::info!(
            payment.id = %self.id,
            route = %self.route,
            network = %self.asset.network(),
            scheme = %self.scheme,
            amount_units = %charge,
            outcome,
            duration_ms,
            "payment"
        );
    }
}
