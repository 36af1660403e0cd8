//! From a header to a payment that was verified: steps 5 to 7, cheap checks first.

use std::time::Duration;

use farebox_chains::{Charging, Identified, Scheme, TransferMethod, Verification, scheme_of};
use farebox_protocol::header::BadHeader;
use farebox_protocol::wire::{
    PaymentPayload, PaymentRequirements, Raw, VerifyRequest, X402_VERSION,
};
use farebox_protocol::{
    Amount, BadSeal, Digest, DigestBuilder, PaymentId, Reason, Seal, Timestamp, accepted_matches,
    bound_nonce, header, is_bound_nonce,
};
use farebox_store::{RequestKey, SettleMode};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::claim::Claim;
use super::repeat::{Again, in_progress};
use super::{Asked, key, quote, v1};
use crate::app::App;
use crate::config::Versions;
use crate::problem::{Kind, Problem};
use crate::routes::LiveOffer;

/// The client's signed payment (x402 v2).
const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static(header::PAYMENT_SIGNATURE);
/// The client's signed payment (x402 v1).
const X_PAYMENT: HeaderName = HeaderName::from_static(header::X_PAYMENT);
/// Time that a settlement needs before the authorisation ends; what facilitators demand, too.
const SETTLE_MARGIN: Duration = Duration::from_secs(6);
/// From the end of the work to the last moment to settle: for the capture, the queue and the way to
/// the facilitator. Work that lasts any longer would be given away.
const SERVE_MARGIN: Duration = Duration::from_secs(10);
/// The least time to work in that a payment must leave.
const SERVE_MIN: Duration = Duration::from_secs(1);
/// What may be gone of the life that an offer asks for when the payment comes: clocks differ, and a
/// payment may be sent again after a 503.
const LATENESS_MAX: Duration = Duration::from_secs(30);
/// When to ask again where the chain or the ledger could not be asked.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A payment that takes one of our offers for this very request. Nobody has checked its signature.
/// While it lives, nobody else gets to present the same one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Accepted {
    offer: usize,
    identified: Identified,
    request: VerifyRequest,
    fingerprint: Digest,
    price_version: String,
    quote: Standing,
    life_min: Duration,
    settle: SettleMode,
    keys: Vec<RequestKey>,
    envelope: Envelope,
    again: Again,
    _claim: Claim,
}

/// Whether anybody but the payer could have written a payment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// Our seal is in it, which was told to the payer alone.
    Sealed,
    /// A v1 payment: once it is settled, all of it is on its chain.
    Bare,
}

/// Whether the quote's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    Expired,
}

/// A payment that its facilitator found good. Only [`verify`] makes one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Verified {
    accepted: Accepted,
    collectable: Option<Amount>,
}

impl Accepted {
    /// Which payment.
    pub(crate) fn id(&self) -> PaymentId {
        self.identified.id
    }

    /// The client's payload, as it came.
    pub(super) fn payload(&self) -> &str {
        self.request.payment_payload.text()
    }

    /// Who could have written it.
    pub(super) fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// Whether its client may ask again by itself.
    pub(super) fn again(&self) -> Again {
        self.again
    }

    /// Whether its quote's time is over. An old payment is still told what became of it.
    pub(super) fn is_expired(&self) -> bool {
        self.quote == Standing::Expired
    }

    fn requirements(&self) -> &PaymentRequirements {
        self.request.payment_requirements.value()
    }
}

impl Verified {
    /// Which payment.
    pub(crate) fn id(&self) -> PaymentId {
        self.accepted.id()
    }

    /// What was verified.
    pub(super) fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// What its request is called.
    pub(crate) fn keys(&self) -> &[RequestKey] {
        &self.accepted.keys
    }

    /// The offer that it takes.
    pub(crate) fn offer<'a>(&self, asked: &'a Asked) -> Option<&'a LiveOffer> {
        asked.route.offers.get(self.accepted.offer)
    }

    /// The most that was seen to be collectable of the payer.
    pub(crate) fn collectable(&self) -> Option<Amount> {
        self.collectable
    }

    /// The most that it allows to be charged.
    pub(crate) fn limit(&self) -> Amount {
        self.accepted.requirements().amount
    }

    /// When it must have been sent.
    pub(crate) fn settle_by(&self) -> Timestamp {
        self.accepted.identified.valid_before.minus(SETTLE_MARGIN)
    }

    /// When the work must be over, so that there is time to settle; never where it is settled first.
    pub(crate) fn serve_by(&self) -> Option<Timestamp> {
        match self.accepted.settle {
            SettleMode::Before => None,
            SettleMode::After | SettleMode::Background => {
                Some(self.settle_by().minus(SERVE_MARGIN))
            }
        }
    }

    /// Who pays.
    pub(crate) fn payer(&self) -> &str {
        &self.accepted.identified.payer
    }

    /// Who is paid.
    pub(crate) fn pay_to(&self) -> &str {
        &self.accepted.requirements().pay_to
    }

    /// How it is paid.
    pub(crate) fn scheme(&self) -> &str {
        &self.accepted.requirements().scheme
    }

    /// The price book of the quote.
    pub(crate) fn price_version(&self) -> &str {
        &self.accepted.price_version
    }

    /// What binds it to its request.
    pub(crate) fn fingerprint(&self) -> Digest {
        self.accepted.fingerprint
    }

    /// The client's payload as it came, and our requirements.
    pub(crate) fn documents(&self) -> (&str, &str) {
        let request = &self.accepted.request;
        (request.payment_payload.text(), request.payment_requirements.text())
    }
}

/// A payment header, by the version of the protocol that it speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Presented<'a> {
    /// `PAYMENT-SIGNATURE`.
    Two(&'a HeaderValue),
    /// `X-PAYMENT`.
    One(&'a HeaderValue),
}

/// The one payment header, if there is one (attack A16: two could be read as either).
pub(crate) fn payment_header(
    headers: &HeaderMap,
    versions: Versions,
) -> Result<Option<Presented<'_>>, Problem> {
    let refuse = |detail| Err(Problem::new(Kind::UnsupportedPayment, detail));
    if versions == Versions::TwoOnly && headers.contains_key(X_PAYMENT) {
        return refuse(
            "X-PAYMENT (x402 v1) is not redeemed here: send PAYMENT-SIGNATURE (x402 v2).",
        );
    }
    if headers.get_all(AUTHORIZATION).iter().any(is_payment_credential) {
        return refuse(
            "Authorization: Payment is not redeemed here: send PAYMENT-SIGNATURE (x402 v2).",
        );
    }
    let in_two = headers.get_all(PAYMENT_SIGNATURE).iter().map(Presented::Two);
    let in_one = headers.get_all(X_PAYMENT).iter().map(Presented::One);
    let mut payments = in_two.chain(in_one);
    let first = payments.next();
    if payments.next().is_some() {
        return refuse(
            "More than one payment header: send one PAYMENT-SIGNATURE or one X-PAYMENT.",
        );
    }
    Ok(first)
}

fn is_payment_credential(value: &HeaderValue) -> bool {
    let word = value.as_bytes().split(|it| *it == b' ').next().unwrap_or_default();
    word.eq_ignore_ascii_case(b"payment")
}

/// An offer of ours for this very request that a payment takes.
#[derive(Debug)]
pub(super) struct Taken {
    /// Which of the route's.
    pub(super) offer: usize,
    pub(super) payload: Raw<PaymentPayload>,
    pub(super) ours: PaymentRequirements,
    pub(super) identified: Identified,
    /// The text of the quote seal; a v1 payment cannot carry one.
    pub(super) seal: Option<String>,
    pub(super) standing: Standing,
    pub(super) price_version: String,
}

/// Step 5: the payment takes an offer of ours, for this request, with our seal on it where the
/// protocol has room for one.
pub(crate) fn accept(
    app: &App,
    asked: &Asked,
    presented: Presented<'_>,
) -> Result<Accepted, Problem> {
    let taken = match presented {
        Presented::Two(value) => sealed(app, asked, value)?,
        Presented::One(value) => v1::taken(asked, value)?,
    };
    let Taken { offer: index, payload, ours, identified, seal, standing, price_version } = taken;
    let of_this_quote = seal.as_deref().map(bound_nonce);
    if is_bound_nonce(&identified.nonce) && of_this_quote != Some(identified.nonce) {
        return Err(bad_quote(
            "nonce_not_of_this_quote",
            "The nonce was derived from another quote.",
        ));
    }
    let fingerprint = fingerprint(asked, &ours, &identified, &price_version);
    let life_min = life_min(asked.route.config.settle, ours.max_timeout_seconds);
    let payment_requirements = Raw::new(ours).map_err(|error| {
        Problem::new(Kind::Internal, "The offer could not be written.").caused_by(error)
    })?;
    let request = VerifyRequest {
        x402_version: X402_VERSION,
        payment_payload: payload,
        payment_requirements,
    };
    let keys = key::request_keys(asked, request.payment_payload.value(), &identified.payer)?;
    let again = if asked.key.is_some() { Again::Safe } else { Again::Unsafe };
    let claim = app.claims.claim(identified.id).ok_or_else(|| in_progress(again))?;
    Ok(Accepted {
        offer: index,
        identified,
        request,
        fingerprint,
        price_version,
        quote: standing,
        life_min,
        settle: asked.route.config.settle,
        keys,
        envelope: if seal.is_some() { Envelope::Sealed } else { Envelope::Bare },
        again,
        _claim: claim,
    })
}

/// A v2 payment: it echoes the offer that it takes, seal and all.
fn sealed(app: &App, asked: &Asked, value: &HeaderValue) -> Result<Taken, Problem> {
    let payload: Raw<PaymentPayload> =
        header::decode(value.as_bytes()).map_err(|error| bad_header("PAYMENT-SIGNATURE", error))?;
    if payload.value().x402_version != X402_VERSION {
        return Err(Problem::new(Kind::MalformedPayment, "Expected x402Version 2.")
            .with_reason(Reason::InvalidX402Version.as_str()));
    }
    let echoed = &payload.value().accepted;
    let (index, offer) = offer_taken(asked, echoed)?;
    let seal = echoed.extra.get("quote").and_then(|it| it.as_str()).unwrap_or_default().to_owned();
    let ours = quote::requirements(offer, echoed.amount, &seal);
    accepted_matches(&ours, echoed)
        .map_err(|altered| refused(&Reason::InvalidPaymentRequirements, format!("{altered}.")))?;
    if !echoed.rest.is_empty() {
        return Err(not_an_offer(Reason::InvalidPaymentRequirements));
    }
    let identified = identify(offer, payload.value(), &ours)?;
    let (standing, price_version) = open_seal(app, asked, offer, (&seal, echoed.amount))?;
    let seal = Some(seal);
    Ok(Taken { offer: index, payload, ours, identified, seal, standing, price_version })
}

/// What the payload says of itself.
pub(super) fn identify(
    offer: &LiveOffer,
    payload: &PaymentPayload,
    ours: &PaymentRequirements,
) -> Result<Identified, Problem> {
    offer.template.scheme.identify(payload, ours).map_err(|bad| {
        Problem::new(
            Kind::MalformedPayment,
            format!("At `{}` of the payment: expected {}.", bad.field, bad.expected),
        )
        .with_reason(Reason::InvalidPayload.as_str())
    })
}

/// Step 7: asks whoever will settle it. An unanswered question is never a refusal.
pub(crate) async fn verify(app: &App, accepted: Accepted) -> Result<Verified, Problem> {
    check_terms(&accepted, app.clock.now())?;
    let _place = app.claims.place().await.ok_or_else(cannot_verify)?;
    let now = app.clock.now();
    match app.facilitator.verify(&accepted.request, now).await {
        Ok(Verification::Valid { payer, collectable })
            if payer.eq_ignore_ascii_case(&accepted.identified.payer) =>
        {
            Ok(Verified { accepted, collectable })
        }
        Ok(Verification::Valid { payer, .. }) => {
            tracing::error!(payment.id = %accepted.id(), payer, "facilitator speaks of another payer");
            Err(cannot_verify())
        }
        Ok(Verification::Invalid {
            reason: Reason::Permit2AllowanceRequired,
            message,
            payer: _,
        }) => {
            let detail = format!("Permit2 may not spend the payer's tokens: {message}.");
            let reason = Reason::Permit2AllowanceRequired;
            Err(Problem::new(Kind::AllowanceRequired, detail).with_reason(reason.as_str()))
        }
        Ok(Verification::Invalid { reason, message, payer: _ }) => {
            Err(refused(&reason, format!("The payment is not good: {message}.")))
        }
        Err(error) => Err(cannot_verify().caused_by(error)),
    }
}

/// What needs nobody to be asked.
fn check_terms(accepted: &Accepted, now: Timestamp) -> Result<(), Problem> {
    let identified = &accepted.identified;
    let method = scheme_of(accepted.requirements()).map(Scheme::method);
    let (too_little, too_brief) = match method {
        Some(TransferMethod::Permit2) => {
            (Reason::Permit2AmountMismatch, Reason::Permit2DeadlineExpired)
        }
        Some(TransferMethod::Eip3009) | None => (
            Reason::InvalidExactEvmPayloadAuthorizationValueMismatch,
            Reason::InvalidExactEvmPayloadAuthorizationValidBefore,
        ),
    };
    if identified.amount < accepted.requirements().amount {
        return Err(refused(&too_little, "The payment authorises less than the quote.".to_owned()));
    }
    let life_min = accepted.life_min;
    if identified.valid_before < now.plus(life_min) {
        return Err(refused(
            &too_brief,
            format!(
                "The payment ends too soon: it must be good for {} s more.",
                life_min.as_secs()
            ),
        ));
    }
    Ok(())
}

/// How long a payment must still be good when it comes. Where work is done before it is settled,
/// nearly all that the offer asks for: a short life would cut the work, or leave it unpaid (attack
/// A8).
pub(crate) fn life_min(settle: SettleMode, max_timeout_seconds: u64) -> Duration {
    let asked_for = Duration::from_secs(max_timeout_seconds);
    let fresh =
        asked_for.saturating_sub(LATENESS_MAX).max(asked_for.checked_div(2).unwrap_or_default());
    match settle {
        SettleMode::Before => SETTLE_MARGIN,
        SettleMode::After | SettleMode::Background => {
            fresh.max(SETTLE_MARGIN.saturating_add(SERVE_MARGIN).saturating_add(SERVE_MIN))
        }
    }
}

fn offer_taken<'a>(
    asked: &'a Asked,
    echoed: &PaymentRequirements,
) -> Result<(usize, &'a LiveOffer), Problem> {
    let offers = || asked.route.offers.iter().enumerate();
    let scheme = scheme_of(echoed);
    let same_scheme = |it: &&LiveOffer| Some(it.template.scheme) == scheme;
    let same_network = |it: &&LiveOffer| it.template.network == echoed.network;
    let taken = offers().find(|(_, it)| {
        same_scheme(it)
            && same_network(it)
            && it.template.token.address == echoed.asset
            && it.template.pay_to == echoed.pay_to
            && it.template.max_timeout_seconds == echoed.max_timeout_seconds
    });
    taken.ok_or_else(|| {
        not_an_offer(if !offers().any(|(_, it)| same_scheme(&it)) {
            Reason::UnsupportedScheme
        } else if !offers().any(|(_, it)| same_network(&it)) {
            Reason::InvalidNetwork
        } else {
            Reason::InvalidPaymentRequirements
        })
    })
}

/// The seal vouches for the amount, so a quote is honoured after a price has changed.
fn open_seal(
    app: &App,
    asked: &Asked,
    offer: &LiveOffer,
    (text, amount): (&str, Amount),
) -> Result<(Standing, String), Problem> {
    let terms = quote::terms(&asked.subject(), offer, amount);
    match Seal::open(text, &app.seal_key, &terms, app.clock.now()) {
        // `exact` honours an old price; `upto` needs the whole price book at the end (ADR 0011).
        Ok(seal)
            if offer.template.scheme.charging() == Charging::UpTo
                && seal.price_version != *asked.route.price_version =>
        {
            Ok((Standing::Expired, seal.price_version))
        }
        Ok(seal) => Ok((Standing::Good, seal.price_version)),
        Err(BadSeal::Expired) => {
            Ok((Standing::Expired, asked.route.price_version.as_ref().to_owned()))
        }
        Err(BadSeal::Malformed) => {
            Err(bad_quote("quote_malformed", "`accepted.extra.quote` is not one of our quotes."))
        }
        Err(BadSeal::Mismatch) => Err(bad_quote(
            "quote_mismatch",
            "The quote was made for another request or on other terms.",
        )),
    }
}

fn fingerprint(
    asked: &Asked,
    ours: &PaymentRequirements,
    identified: &Identified,
    price_version: &str,
) -> Digest {
    DigestBuilder::new("farebox payment fingerprint v1")
        .field(asked.method.as_str().as_bytes())
        .field(asked.target.as_str().as_bytes())
        .field(asked.digest.as_bytes())
        .field(price_version.as_bytes())
        .field(ours.scheme.as_bytes())
        .field(ours.network.as_str().as_bytes())
        .field(ours.asset.as_bytes())
        .field(&ours.amount.to_be_bytes())
        .field(ours.pay_to.as_bytes())
        .field(identified.payer.as_bytes())
        .finish()
}

pub(super) fn bad_header(name: &str, error: BadHeader) -> Problem {
    let kind = match error {
        BadHeader::TooLong => Kind::HeadersTooLarge,
        BadHeader::Base64(_) | BadHeader::TooDeep | BadHeader::Json(_) => Kind::MalformedPayment,
    };
    Problem::new(kind, format!("{name}: {error}.")).with_reason(Reason::InvalidPayload.as_str())
}

pub(super) fn not_an_offer(reason: Reason) -> Problem {
    refused(&reason, "The payment takes none of the offers for this request.".to_owned())
}

pub(super) fn bad_quote(reason: &'static str, detail: &'static str) -> Problem {
    Problem::new(Kind::PaymentRequired, detail).with_reason(reason)
}

fn refused(reason: &Reason, detail: String) -> Problem {
    Problem::new(Kind::PaymentRequired, detail).with_reason(reason.as_str())
}

fn cannot_verify() -> Problem {
    Problem::new(
        Kind::Unavailable,
        "The payment could not be checked just now; nothing was taken. Send the same payment again.",
    )
    .retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_a_payment_must_leave_time_for_the_work_and_its_settlement() {
        for (settle, asked_for, least) in [
            (SettleMode::After, 300, 270),
            (SettleMode::Background, 300, 270),
            (SettleMode::After, 60, 30),
            (SettleMode::After, 50, 25),
            (SettleMode::After, 20, 17),
            (SettleMode::Before, 300, 6),
        ] {
            let life = life_min(settle, asked_for);
            assert_eq!(life, Duration::from_secs(least), "{settle:?} {asked_for}");
        }
    }
}
