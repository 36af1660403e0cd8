//! The gateway's own paths: health, readiness, receipts.

use std::sync::Arc;

use axum::body::Body;
use farebox_billing::{Receipt, ReceiptState};
use farebox_protocol::PaymentId;
use farebox_store::StoredPayment;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use serde::Serialize;

use crate::app::App;
use crate::intake;
use crate::problem::{Kind, NO_STORE, Problem};
use crate::readiness::{Obstacle, obstacles};
use crate::routes::{HEALTH, READY, RECEIPTS};

/// Whether a path is one of these.
pub(crate) fn has_path(path: &str) -> bool {
    path == HEALTH || path == READY || path.starts_with(RECEIPTS)
}

/// The answer to a request for one of these.
pub(crate) async fn answer(
    app: &Arc<App>,
    method: &Method,
    path: &str,
) -> Result<Response<Body>, Problem> {
    if *method != Method::GET && *method != Method::HEAD {
        let problem = Problem::new(Kind::MethodNotAllowed, "This path has GET only.");
        return Err(problem.allow("GET, HEAD"));
    }
    match path.strip_prefix(RECEIPTS) {
        Some(id) => receipt(app, id).await,
        None if path == READY => ready(app).await,
        None => Ok(json(&Status::of("ok"))),
    }
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
    /// Networks on which nothing can be settled, while others go on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    obstacles: Vec<Obstacle>,
}

impl Status {
    const fn of(status: &'static str) -> Self {
        Self { status, obstacles: Vec::new() }
    }
}

/// Whether requests should be sent here: the ledger takes payments, they can be settled somewhere, and no
/// shutdown is announced.
async fn ready(app: &App) -> Result<Response<Body>, Problem> {
    if app.leaving.is_cancelled() {
        return Err(Problem::new(Kind::ShuttingDown, "The gateway is stopping."));
    }
    intake::check(&*app.ledger)?;
    match app.ledger.next_due().await {
        Ok(_) => {
            Ok(json(&Status { obstacles: obstacles(&*app.facilitator)?, ..Status::of("ready") }))
        }
        Err(error) => {
            Err(Problem::new(Kind::Unavailable, "The ledger does not answer.").caused_by(error))
        }
    }
}

/// Whoever knows a payment's id may see its receipt. The id is a digest of a random nonce until
/// the payment is on chain, and from then on the chain tells the same to everybody.
async fn receipt(app: &App, id: &str) -> Result<Response<Body>, Problem> {
    let unknown = || Problem::new(Kind::NoSuchRoute, "There is no payment of this id.");
    let id: PaymentId = id.parse().map_err(|_| unknown())?;
    match app.ledger.lookup(id).await {
        Ok(Some(payment)) => Ok(json(&Shown {
            receipt: receipt_of(&payment),
            refund_owed: payment.refund_owed.as_deref(),
        })),
        Ok(None) => Err(unknown()),
        Err(error) => {
            Err(Problem::new(Kind::Unavailable, "The ledger does not answer.").caused_by(error))
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(flatten)]
    receipt: Receipt,
    /// Why the payment is owed back, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_owed: Option<&'a str>,
}

/// The receipt of a payment as the ledger has it.
pub(crate) fn receipt_of(payment: &StoredPayment) -> Receipt {
    let terms = &payment.terms;
    Receipt {
        payment_id: terms.id,
        route: terms.route.clone(),
        scheme: terms.scheme.clone(),
        network: terms.asset.network().clone(),
        asset: terms.asset.address().to_owned(),
        payer: terms.payer.clone(),
        pay_to: terms.pay_to.clone(),
        quoted: terms.limit,
        charged: Receipt::charged_by(&payment.state),
        usage: None,
        price_version: terms.price_version.clone(),
        state: ReceiptState::from(&payment.state),
        at: payment.changed_at,
    }
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}
