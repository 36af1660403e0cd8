//! The 402 answer: what can be signed for this very request.

use axum::body::Body;
use farebox_protocol::wire::{
    Object, PaymentRequired, PaymentRequirements, ResourceInfo, X402_VERSION,
};
use farebox_protocol::{Amount, Digest, QuoteTerms, Seal, SealKey, Timestamp, header};
use http::{HeaderName, HeaderValue, Method, Response};
use url::Url;

use super::{Asked, v1};
use crate::app::App;
use crate::problem::{Kind, Problem};
use crate::routes::{LiveOffer, LiveRoute};

/// The header that carries the offers.
const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static(header::PAYMENT_REQUIRED);
/// A longer `resource.url` loses its query, so that the header stays below what proxies pass.
const URL_BYTES_MAX: usize = 1024;
/// What stock x402 clients show where nothing went wrong yet.
const UNPAID: &str = "Payment required";

/// The request that a quote is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) method: &'a Method,
    pub(crate) target: &'a str,
    pub(crate) body: Digest,
}

impl Asked {
    /// What a quote for this request is bound to.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { method: &self.method, target: self.target.as_str(), body: self.digest }
    }
}

/// The answer to a request without a payment. Asks nobody and stores nothing.
pub(crate) fn unpaid(app: &App, asked: &Asked) -> Result<Response<Body>, Problem> {
    let offers = offers_header(app, asked, UNPAID)?;
    let accepts = v1::accepts(asked, &resource_url(&app.public_url, &asked.target))?;
    let mut response = app.unpaid.with_accepts(&accepts).into_response();
    response.headers_mut().insert(PAYMENT_REQUIRED, offers);
    Ok(response)
}

/// A refusal with fresh offers, where paying again, or for the first time, is what helps.
pub(crate) fn offer_again(app: &App, asked: &Asked, problem: Problem) -> Problem {
    let paying_helps = matches!(
        problem.kind(),
        Kind::PaymentRequired | Kind::MalformedPayment | Kind::UnsupportedPayment
    );
    if !paying_helps {
        return problem;
    }
    let accepts = v1::accepts(asked, &resource_url(&app.public_url, &asked.target));
    match (offers_header(app, asked, problem.reason()), accepts) {
        (Ok(value), Ok(accepts)) => {
            problem.with_header(PAYMENT_REQUIRED, value).with_accepts(accepts)
        }
        _ => problem,
    }
}

fn offers_header(app: &App, asked: &Asked, error: &str) -> Result<HeaderValue, Problem> {
    let expires_at = app.clock.now().plus(app.limits.quote_ttl);
    let seal_for = |offer: &LiveOffer, amount| {
        let price_version = asked.route.price_version.as_ref().to_owned();
        let seal = Seal { expires_at, price_version, salt: app.entropy.next() };
        seal.write(&app.seal_key, &terms(&asked.subject(), offer, amount))
    };
    let mut accepts = Vec::with_capacity(asked.route.offers.len());
    for offer in &asked.route.offers {
        let amount = price(offer, asked)?;
        accepts.push(requirements(offer, amount, &seal_for(offer, amount)));
    }
    let url = resource_url(&app.public_url, &asked.target);
    header_value(&payment_required(&asked.route, url, error, accepts))
}

/// The most that the request can cost in an offer's token.
pub(crate) fn price(offer: &LiveOffer, asked: &Asked) -> Result<Amount, Problem> {
    offer.quote(&asked.route.config.price, &asked.facts).map_err(|error| {
        Problem::new(Kind::NoPrice, format!("This request has no price: {error}."))
    })
}

/// The offer as it stands on the wire; also what an echoed one is compared with.
pub(crate) fn requirements(offer: &LiveOffer, amount: Amount, quote: &str) -> PaymentRequirements {
    let mut sealed = unsealed(offer, amount);
    sealed.extra.insert("quote".to_owned(), quote.into());
    sealed
}

/// The same without a quote: what a v1 client can take.
pub(crate) fn unsealed(offer: &LiveOffer, amount: Amount) -> PaymentRequirements {
    let template = &offer.template;
    let mut extra = Object::new();
    extra.insert("name".to_owned(), template.token.name.as_str().into());
    extra.insert("version".to_owned(), template.token.version.as_str().into());
    PaymentRequirements {
        scheme: template.scheme.name().to_owned(),
        network: template.network.clone(),
        amount,
        asset: template.token.address.clone(),
        pay_to: template.pay_to.clone(),
        max_timeout_seconds: template.max_timeout_seconds,
        extra,
        rest: Object::new(),
    }
}

/// What the seal of an offer covers.
pub(crate) fn terms<'a>(
    subject: &Subject<'a>,
    offer: &'a LiveOffer,
    amount: Amount,
) -> QuoteTerms<'a> {
    let template = &offer.template;
    QuoteTerms {
        method: subject.method.as_str(),
        target: subject.target,
        body: subject.body,
        scheme: template.scheme.name(),
        network: &template.network,
        asset: &template.token.address,
        amount,
        pay_to: &template.pay_to,
        max_timeout_seconds: template.max_timeout_seconds,
    }
}

/// The length of the longest header that a route can make.
pub(crate) fn longest_header(route: &LiveRoute, public_url: &Url) -> usize {
    let seal = Seal {
        expires_at: Timestamp::from_seconds(u64::MAX),
        price_version: route.price_version.as_ref().to_owned(),
        salt: u64::MAX,
    };
    let key = SealKey::new([0; 32]);
    let subject = Subject { method: &Method::GET, target: "/", body: Digest::of(b"") };
    let accepts = route.offers.iter().map(|offer| {
        let quote = seal.write(&key, &terms(&subject, offer, Amount::MAX));
        requirements(offer, Amount::MAX, &quote)
    });
    let url = format!("{public_url}{}", "x".repeat(URL_BYTES_MAX));
    // The longest reason has 58 bytes.
    let error = "x".repeat(64);
    header_value(&payment_required(route, url, &error, accepts.collect()))
        .map_or(usize::MAX, |it| it.len())
}

fn payment_required(
    route: &LiveRoute,
    url: String,
    error: &str,
    accepts: Vec<PaymentRequirements>,
) -> PaymentRequired {
    let description = route.config.description.clone();
    PaymentRequired {
        x402_version: X402_VERSION,
        error: Some(error.to_owned()),
        resource: ResourceInfo { url, description, mime_type: None, rest: Object::new() },
        accepts,
        extensions: None,
        rest: Object::new(),
    }
}

fn resource_url(public_url: &Url, target: &crate::target::Target) -> String {
    let base = public_url.as_str().trim_end_matches('/');
    let shown = [target.as_str(), target.path()].into_iter().find(|it| it.len() <= URL_BYTES_MAX);
    format!("{base}{}", shown.unwrap_or("/"))
}

fn header_value(demand: &PaymentRequired) -> Result<HeaderValue, Problem> {
    let internal = || Problem::new(Kind::Internal, "The offers could not be written.");
    let text = header::encode(demand).map_err(|error| internal().caused_by(error))?;
    HeaderValue::try_from(text).map_err(|error| internal().caused_by(error))
}
