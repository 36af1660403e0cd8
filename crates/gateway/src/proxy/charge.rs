//! What is owed, and how it becomes money: steps 13 to 15.

use std::sync::Arc;
use std::time::Duration;

use farebox_billing::{Content, Ending, Metered, Payment};
use farebox_protocol::wire::{Object, SettlementResponse};
use farebox_protocol::{Amount, Network, PaymentId, Reason, header};
use farebox_store::{AnswerMark, StoreError, StoredPayment};
use http::header::{CACHE_CONTROL, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::hold::Bill;
use super::retry::{Patience, Tries};
use crate::app::App;
use crate::probe::Step;
use crate::problem::{Kind, NO_STORE, Problem, VARY_VALUE};
use crate::settlement::{Expected, Settled};

/// What became of the payment (x402 v2).
pub(super) const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static(header::PAYMENT_RESPONSE);
/// Where the receipt of the payment is.
const FAREBOX_RECEIPT: HeaderName = HeaderName::from_static("farebox-receipt");
/// On answers that cost nothing although a payment came with the request.
pub(super) const X_FAREBOX_CHARGED: HeaderName = HeaderName::from_static("x-farebox-charged");
/// When to look at the receipt of a settlement that takes long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Proof that a charge is owed and its settlement queued, durably.
#[derive(Debug)]
#[must_use]
pub(crate) struct Charged {
    app: Arc<App>,
    bill: Arc<Bill>,
    charge: Amount,
}

/// The same for an answer of which nothing may leave before the settlement.
#[derive(Debug)]
#[must_use]
pub(crate) struct Withheld {
    app: Arc<App>,
    bill: Arc<Bill>,
    charge: Amount,
    expected: Expected,
}

/// Proof that the charge was seen to arrive.
#[derive(Debug)]
#[must_use]
pub(crate) struct Paid {
    app: Arc<App>,
    bill: Arc<Bill>,
    charge: Amount,
    transaction: String,
}

/// Whether an answer is owed for. `exact` captures nothing or its whole amount: nothing is owed
/// where the upstream failed before it gave anything.
pub(crate) fn is_owed(metered: &Metered) -> bool {
    match (metered.content, metered.ending) {
        (Content::Some, _) | (Content::None, Ending::Complete) => true,
        (Content::None, Ending::Cut | Ending::Failed) => false,
    }
}

impl Charged {
    /// Made from the ledger's own evidence alone.
    pub(super) fn new(app: Arc<App>, bill: Arc<Bill>, charge: Amount) -> Self {
        Self { app, bill, charge }
    }

    /// As the receipt tells it.
    pub(crate) fn state(&self) -> Payment {
        Payment::Captured { charge: self.charge }
    }

    /// Leaves the settlement to the worker.
    pub(crate) fn settle_later(self) {
        self.app.settler.kick();
        self.bill.log(self.app.clock.now(), self.charge, "captured");
    }
}

impl Withheld {
    /// Made from the ledger's own evidence alone.
    pub(super) fn new(app: Arc<App>, bill: Arc<Bill>, charge: Amount, expected: Expected) -> Self {
        Self { app, bill, charge, expected }
    }

    /// Settles ahead of the queue and waits. Nothing of the answer may leave before this is `Ok`.
    pub(crate) async fn settle(self) -> Result<Paid, Problem> {
        let Self { app, bill, charge, expected } = self;
        let settled = expected.settle(app.limits.settle_wait).await;
        app.reached(Step::Settled, bill.id);
        match settled {
            Settled::Landed { transaction, charge } => Ok(Paid { app, bill, charge, transaction }),
            Settled::Rejected { reason } => {
                bill.log(app.clock.now(), Amount::ZERO, "settlement_rejected");
                let detail = "The payment could not be settled; nothing was charged.";
                let told = told(&bill, Err(&reason));
                let problem = Problem::new(Kind::PaymentRequired, detail).with_reason(reason);
                Err(match told {
                    Ok(value) => problem.with_header(PAYMENT_RESPONSE, value),
                    Err(_) => problem,
                })
            }
            Settled::Pending => {
                bill.log(app.clock.now(), charge, "settlement_pending");
                let detail = "The payment has not been seen to settle yet. Do not pay again: if it \
                              settles, it is owed back; if not, nothing is charged. The receipt \
                              will say which.";
                let problem =
                    Problem::new(Kind::SettlementPending, detail).retry_after(RETRY_AFTER);
                Err(with_receipt(problem, &app, bill.id))
            }
        }
    }
}

impl Paid {
    /// Which payment.
    pub(crate) fn bill(&self) -> &Arc<Bill> {
        &self.bill
    }

    /// As the receipt tells it.
    pub(crate) fn state(&self) -> Payment {
        Payment::Settled { charge: self.charge, transaction: self.transaction.clone() }
    }

    /// Adds what the client can show for its money.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) -> Result<(), Problem> {
        headers.insert(PAYMENT_RESPONSE, told(&self.bill, Ok((&self.transaction, self.charge)))?);
        name_receipt(&self.app, self.bill.id, headers);
        Ok(())
    }

    /// Records what of the answer has left. The money is here already, so a ledger that is away does
    /// not keep the answer from whoever paid.
    pub(crate) async fn mark(&self, mark: AnswerMark) {
        self.note(Note::Answered(mark)).await;
    }

    /// Tries once, and behind the answer from then on.
    async fn note(&self, note: Note) {
        let (app, id) = (&self.app, self.bill.id);
        if let Err(error) = note.write(app, id).await {
            app.payments.spawn(note.write_at_last(Arc::clone(app), id, error));
        }
    }

    /// The work failed after it was paid for: the payer has something to come.
    pub(crate) async fn owe_back(self, why: &'static str) -> Problem {
        self.note(Note::OwedBack(why)).await;
        self.bill.log(self.app.clock.now(), self.charge, why);
        let detail = "The upstream failed after the payment was settled. It is owed back; do not \
                      pay again for this request.";
        let problem = Problem::new(Kind::RefundOwed, detail);
        let problem = with_receipt(problem, &self.app, self.bill.id);
        match told(&self.bill, Ok((&self.transaction, self.charge))) {
            Ok(value) => problem.with_header(PAYMENT_RESPONSE, value),
            Err(_) => problem,
        }
    }

    /// The one event of a finished payment.
    pub(crate) fn log(&self) {
        self.bill.log(self.app.clock.now(), self.charge, "settled");
    }
}

/// What the ledger is to remember of a payment that is settled.
#[derive(Clone, Copy, Debug)]
enum Note {
    Answered(AnswerMark),
    OwedBack(&'static str),
}

impl Note {
    async fn write(self, app: &App, id: PaymentId) -> Result<(), StoreError> {
        let now = app.clock.now();
        match self {
            Self::Answered(mark) => app.ledger.mark_answer(id, mark, now).await,
            Self::OwedBack(why) => app.ledger.owe_refund(id, why, now).await,
        }
    }

    /// Where the gateway stops before, recovery takes the answer for one that never left: at worst
    /// it is owed back as well.
    async fn write_at_last(self, app: Arc<App>, id: PaymentId, mut error: StoreError) {
        let mut tries = Tries::new(&app, Patience::Endless);
        while tries.again(&error).await {
            error = match self.write(&app, id).await {
                Ok(()) => return,
                Err(error) => error,
            };
        }
        tracing::error!(payment.id = %id, note = ?self, %error, "left to recovery");
    }
}

/// What every answer to a paid request carries. Nothing that the upstream told caches stays, for
/// some of them believe it before `Cache-Control` (attack A17).
pub(crate) fn keep_private(headers: &mut HeaderMap) {
    let told: Vec<HeaderName> =
        headers.keys().filter(|name| is_for_caches(name.as_str())).cloned().collect();
    for name in told {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.append(VARY, VARY_VALUE);
}

/// RFC 9111 §5, RFC 9213 §3, and what CDNs and nginx had before it.
fn is_for_caches(name: &str) -> bool {
    matches!(name, "age" | "edge-control" | "expires" | "pragma" | "x-accel-expires")
        || ["cache-control", "surrogate-control"].iter().any(|it| name.ends_with(it))
}

/// On an answer that was passed on without a charge.
pub(crate) fn say_uncharged(headers: &mut HeaderMap) {
    keep_private(headers);
    headers.insert(X_FAREBOX_CHARGED, HeaderValue::from_static("0"));
}

/// Says where the receipt is.
pub(crate) fn name_receipt(app: &App, id: PaymentId, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::try_from(app.receipt_url(id)) {
        headers.insert(FAREBOX_RECEIPT, value);
    }
}

/// A problem that says so, too.
pub(crate) fn with_receipt(problem: Problem, app: &App, id: PaymentId) -> Problem {
    let problem = problem.with_member("receipt", app.receipt_url(id));
    match HeaderValue::try_from(app.receipt_url(id)) {
        Ok(value) => problem.with_header(FAREBOX_RECEIPT, value),
        Err(_) => problem,
    }
}

/// The value of `PAYMENT-RESPONSE` for a payment that is settled, as far as the ledger knows.
pub(super) fn settled_told(payment: &StoredPayment) -> Option<HeaderValue> {
    let Payment::Settled { charge, transaction } = &payment.state else { return None };
    let network = payment.terms.asset.network();
    written(&payment.terms.payer, network, Ok((transaction, *charge))).ok()
}

/// The value of `PAYMENT-RESPONSE`.
fn told(bill: &Bill, outcome: Result<(&str, Amount), &str>) -> Result<HeaderValue, Problem> {
    written(&bill.payer, bill.asset.network(), outcome)
}

fn written(
    payer: &str,
    network: &Network,
    outcome: Result<(&str, Amount), &str>,
) -> Result<HeaderValue, Problem> {
    let (transaction, amount, reason) = match outcome {
        Ok((transaction, amount)) => (transaction.to_owned(), Some(amount), None),
        Err(reason) => (String::new(), None, Some(Reason::parse(reason))),
    };
    let response = SettlementResponse {
        success: reason.is_none(),
        error_reason: reason,
        error_message: None,
        payer: Some(payer.to_owned()),
        transaction,
        network: network.clone(),
        amount,
        extensions: None,
        rest: Object::new(),
    };
    let internal = || Problem::new(Kind::Internal, "The receipt could not be written.");
    let text = header::encode(&response).map_err(|error| internal().caused_by(error))?;
    HeaderValue::try_from(text).map_err(|error| internal().caused_by(error))
}
