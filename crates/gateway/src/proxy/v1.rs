//! x402 v1 at the gateway's edge: offers and payments on their way in, outcomes on their way out.
//!
//! Behind this edge a v1 payment is the v2 payment that it could have been. It cannot echo an offer,
//! so there is no seal: the offer is made anew from the request that came with the payment, at the
//! present price. See ADR 0009.

use axum::body::Body;
use farebox_chains::{payment_from_v1, requirements_to_v1, settlement_to_v1};
use farebox_protocol::wire::{Raw, ResourceInfo, SettlementResponse, v1};
use farebox_protocol::{Amount, Reason, header};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::accept::{Standing, Taken, bad_header, identify, not_an_offer};
use super::{Asked, quote};
use crate::problem::{Kind, Problem};
use crate::routes::{LiveOffer, LiveRoute};

/// What became of the payment (x402 v2); what the code behind the edge writes.
const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static(header::PAYMENT_RESPONSE);
/// What became of the payment (x402 v1).
const X_PAYMENT_RESPONSE: HeaderName = HeaderName::from_static(header::X_PAYMENT_RESPONSE);

/// Step 5 for a v1 payment: the offer that it takes, with the payment in the form of v2.
pub(super) fn taken(asked: &Asked, value: &HeaderValue) -> Result<Taken, Problem> {
    let payment = header::decode::<v1::PaymentPayload>(value.as_bytes())
        .map_err(|error| bad_header("X-PAYMENT", error))?;
    let payment = payment.value();
    let (index, offer) = offer_named(&asked.route, payment)?;
    let ours = quote::unsealed(offer, quote::price(offer, asked)?);
    let payload = payment_from_v1(payment, &ours).map_err(|error| {
        Problem::new(Kind::MalformedPayment, format!("X-PAYMENT: {error}."))
            .with_reason(error.reason().as_str())
    })?;
    let identified = identify(offer, &payload, &ours)?;
    let payload = Raw::new(payload).map_err(|error| {
        Problem::new(Kind::Internal, "The payment could not be written.").caused_by(error)
    })?;
    Ok(Taken {
        offer: index,
        payload,
        ours,
        identified,
        seal: None,
        standing: Standing::Good,
        price_version: asked.route.price_version.as_ref().to_owned(),
    })
}

/// Offers have one v1 name each at most, so the name decides.
fn offer_named<'a>(
    route: &'a LiveRoute,
    payment: &v1::PaymentPayload,
) -> Result<(usize, &'a LiveOffer), Problem> {
    let offers = || route.offers.iter().enumerate();
    let same_scheme = |it: &&LiveOffer| it.template.scheme.name() == payment.scheme;
    let named = offers()
        .find(|(_, it)| same_scheme(it) && it.v1_network.as_ref() == Some(&payment.network));
    named.ok_or_else(|| {
        not_an_offer(if offers().any(|(_, it)| same_scheme(&it)) {
            Reason::InvalidNetwork
        } else {
            Reason::UnsupportedScheme
        })
    })
}

/// An offer as v1 clients see it; `None` where stock v1 clients cannot take it.
pub(crate) fn requirements(
    offer: &LiveOffer,
    amount: Amount,
    resource: &ResourceInfo,
) -> Option<v1::PaymentRequirements> {
    requirements_to_v1(&quote::unsealed(offer, amount), resource)
}

/// Tells a v1 client what became of its payment, in its own words.
pub(super) fn tell(answer: Result<Response<Body>, Problem>) -> Result<Response<Body>, Problem> {
    match answer {
        Ok(mut response) => {
            translate(response.headers_mut());
            Ok(response)
        }
        Err(mut problem) => {
            translate(problem.headers_mut());
            Err(problem)
        }
    }
}

fn translate(headers: &mut HeaderMap) {
    let Some(value) = headers.remove(PAYMENT_RESPONSE) else { return };
    if let Some(value) = in_v1(&value) {
        headers.insert(X_PAYMENT_RESPONSE, value);
    }
}

fn in_v1(value: &HeaderValue) -> Option<HeaderValue> {
    let settlement = header::decode::<SettlementResponse>(value.as_bytes()).ok()?;
    let settlement = settlement_to_v1(settlement.value().clone());
    HeaderValue::try_from(header::encode(&settlement).ok()?).ok()
}
