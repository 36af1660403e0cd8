//! The 402 answer: what can be signed for this very request.

pub(crate) mod demand;
mod template;

use axum::body::Body;
use farebox_protocol::wire::{Object, PaymentRequirements};
use farebox_protocol::{Amount, Digest, QuoteTerms, Seal, SealKey, Timestamp, header};
use http::{HeaderName, HeaderValue, Method, Response};

use self::demand::URL_BYTES_MAX;
use self::template::Filling;
use super::Asked;
use crate::app::App;
use crate::problem::{Kind, Problem};
use crate::routes::{LiveOffer, LiveRoute};
use crate::target::Target;

/// The header that carries the offers.
const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static(header::PAYMENT_REQUIRED);
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
    let Offered { header, accepts } = offer(app, asked, UNPAID)?;
    let mut response = app.unpaid.with_accepts(&accepts).into_response();
    response.headers_mut().insert(PAYMENT_REQUIRED, header);
    Ok(response)
}

/// A refusal with fresh offers, where paying again, or for the first time, is what helps.
pub(crate) fn offer_again(app: &App, asked: &Asked, problem: Problem) -> Problem {
    let paying_helps = matches!(
        problem.kind(),
        Kind::PaymentRequired
            | Kind::AllowanceRequired
            | Kind::MalformedPayment
            | Kind::UnsupportedPayment
    );
    if !paying_helps {
        return problem;
    }
    match offer(app, asked, problem.reason()) {
        Ok(Offered { header, accepts }) => {
            problem.with_header(PAYMENT_REQUIRED, header).with_accepts(accepts)
        }
        Err(_) => problem,
    }
}

/// The offers for one request.
struct Offered {
    /// For v2 clients.
    header: HeaderValue,
    /// For v1 clients, a JSON array.
    accepts: String,
}

fn offer(app: &App, asked: &Asked, error: &str) -> Result<Offered, Problem> {
    let route = &asked.route;
    let mut seal = Seal {
        expires_at: app.clock.now().plus(app.limits.quote_ttl),
        price_version: route.price_version.as_ref().to_owned(),
        salt: 0,
    };
    let subject = asked.subject();
    let mut sealed = |offer: &LiveOffer| {
        let amount = price(offer, asked)?;
        seal.salt = app.entropy.next();
        Ok((amount, seal.write(&app.seal_key, &terms(&subject, offer, amount))))
    };
    let offers = route.offers.iter().map(&mut sealed).collect::<Result<Vec<_>, _>>()?;
    let filling = Filling { error, url: route.demand.url(&asked.target), offers: &offers };
    let header = HeaderValue::try_from(route.demand.header(&filling)).map_err(|error| {
        Problem::new(Kind::Internal, "The offers could not be written.").caused_by(error)
    })?;
    Ok(Offered { header, accepts: route.demand.accepts(&filling) })
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
    extra.extend(offer.extra.clone());
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
        scheme: template.scheme.word(),
        network: &template.network,
        asset: &template.token.address,
        amount,
        pay_to: &template.pay_to,
        max_timeout_seconds: template.max_timeout_seconds,
    }
}

/// The length of the longest header that a route can make.
pub(crate) fn longest_header(route: &LiveRoute) -> usize {
    let seal = Seal {
        expires_at: Timestamp::from_seconds(u64::MAX),
        price_version: route.price_version.as_ref().to_owned(),
        salt: u64::MAX,
    };
    let key = SealKey::new([0; 32]);
    let subject = Subject { method: &Method::GET, target: "/", body: Digest::of(b"") };
    let seal = |it| (Amount::MAX, seal.write(&key, &terms(&subject, it, Amount::MAX)));
    let offers: Vec<(Amount, String)> = route.offers.iter().map(seal).collect();
    let url = format!("/{}", "x".repeat(URL_BYTES_MAX.saturating_sub(1)));
    // The longest reason has 58 bytes.
    let error = &"x".repeat(64);
    Target::parse(&url).map_or(usize::MAX, |target| {
        let url = route.demand.url(&target);
        route.demand.header(&Filling { error, url, offers: &offers }).len()
    })
}
