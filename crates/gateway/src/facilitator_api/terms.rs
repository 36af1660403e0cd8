//! Who may have payments verified and settled here, and which.
//!
//! The facilitator is told by its caller how much of an `upto` payment to take, and nothing in the
//! payment says who may tell it (x402, scheme `upto`): whoever sees a payload could have it settled at
//! nothing and leave the seller unpaid. So those are settled for sellers alone, each for its own
//! accounts. And every settlement costs gas, so sellers are told from strangers.

use std::fmt;

use farebox_chains::{Charging, EvmAddress, SCHEMES, scheme_of};
use farebox_protocol::wire::{PaymentRequirements, SupportedResponse, VerifyRequest};
use farebox_protocol::{Amount, Asset, Digest, Reason};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::Refusal;
use crate::problem::{Kind, Problem};

/// On which terms a facilitator works for others.
#[derive(Clone, Debug)]
pub struct FacilitatorTerms {
    /// Who may ask.
    pub callers: Callers,
    /// Accounts of the gateway beside it. How much is taken for them is the gateway's word alone,
    /// unless a key is for them by name.
    pub own: Vec<EvmAddress>,
    /// The least that is settled, for each token that has such a bound, in atomic units. Taking nothing
    /// of an `upto` payment stays possible: it costs nothing.
    pub minimums: Vec<(Asset, Amount)>,
}

/// Who may ask a facilitator to verify and to settle.
#[derive(Clone, Debug)]
pub enum Callers {
    /// Everybody who reaches it, because nobody does who is not trusted: a port of this machine alone.
    Trusted,
    /// Everybody who reaches it, whoever that is. `upto` is not settled.
    Anybody,
    /// Whoever has the key of one of these.
    Sellers(Vec<Seller>),
}

/// A seller that may ask. Its key is kept as a digest.
#[derive(Clone)]
pub struct Seller {
    name: String,
    key: Digest,
    pay_to: Vec<EvmAddress>,
}

impl fmt::Debug for Seller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, key: _, pay_to } = self;
        f.debug_struct("Seller").field("name", name).field("pay_to", pay_to).finish_non_exhaustive()
    }
}

impl Seller {
    /// A seller called `name` in logs and refusals, who presents `key` and is paid at one of `pay_to`,
    /// or anywhere if that is empty.
    pub fn new(name: String, key: &SecretString, pay_to: Vec<EvmAddress>) -> Self {
        Self { name, key: Digest::of(key.expose_secret().as_bytes()), pay_to }
    }
}

/// Whoever asks, once that is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller<'a> {
    Trusted,
    Anybody,
    Seller(&'a Seller),
}

impl<'a> Caller<'a> {
    /// How the configuration calls it.
    pub(super) fn name(self) -> Option<&'a str> {
        match self {
            Self::Seller(seller) => Some(&seller.name),
            Self::Trusted | Self::Anybody => None,
        }
    }
}

impl FacilitatorTerms {
    /// Who asks with these headers.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<Caller<'_>, Problem> {
        let sellers = match &self.callers {
            Callers::Trusted => return Ok(Caller::Trusted),
            Callers::Anybody => return Ok(Caller::Anybody),
            Callers::Sellers(sellers) => sellers,
        };
        let Some(key) = bearer(headers) else {
            return Err(unauthorized(
                "This facilitator settles for sellers that it knows: send your key as \
                    `Authorization: Bearer <key>`.",
            ));
        };
        let presented = Digest::of(key);
        // Every seller is compared in full: how long that takes says nothing of any key.
        let mut found = u64::MAX;
        for (index, seller) in (0_u64..).zip(sellers) {
            let same = presented.as_bytes().ct_eq(seller.key.as_bytes());
            found.conditional_assign(&index, same);
        }
        let seller = usize::try_from(found).ok().and_then(|it| sellers.get(it));
        seller.map(Caller::Seller).ok_or_else(|| {
            unauthorized("The key in `Authorization` is not one that this facilitator knows.")
        })
    }

    /// Whether this payment is one that the caller may have verified and settled, before anything
    /// else is looked at.
    pub(super) fn judge(&self, caller: Caller<'_>, request: &VerifyRequest) -> Result<(), Refusal> {
        let requirements = request.payment_requirements.value();
        let pay_to: Option<EvmAddress> = requirements.pay_to.parse().ok();
        let is_among = |list: &[EvmAddress]| pay_to.is_some_and(|it| list.contains(&it));
        if let Caller::Seller(Seller { name, pay_to, .. }) = caller
            && !pay_to.is_empty()
            && !is_among(pay_to)
        {
            let asked = &requirements.pay_to;
            let message = format!("the key of `{name}` is not for payments to {asked}");
            return Err(Refusal::of_terms(Reason::InvalidPaymentRequirements, message));
        }
        let up_to = scheme_of(requirements).is_some_and(|it| it.charging() == Charging::UpTo);
        if up_to {
            self.judge_up_to(caller, is_among)
                .map_err(|message| Refusal::of_terms(Reason::UnsupportedScheme, message))?;
        }
        let costs_nothing = up_to && requirements.amount.is_zero();
        match self.minimum(requirements) {
            Some(minimum) if requirements.amount < minimum && !costs_nothing => {
                let amount = requirements.amount;
                let message = format!("expected an amount of at least {minimum}, found {amount}");
                Err(Refusal::of_terms(Reason::InvalidPaymentRequirements, message))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the caller may say how much of a payment is taken.
    fn judge_up_to(
        &self,
        caller: Caller<'_>,
        is_among: impl Fn(&[EvmAddress]) -> bool,
    ) -> Result<(), String> {
        match caller {
            Caller::Anybody => {
                Err("`upto` is not settled here: its amount is whatever the caller \
                    says, and this facilitator does not ask callers for a key"
                    .to_owned())
            }
            Caller::Seller(Seller { name, pay_to, .. }) if pay_to.is_empty() => {
                if !self.is_alone() {
                    return Err(format!(
                        "`upto` is not settled for the key of `{name}`, which is for no account of \
                    its own while others have keys, too"
                    ));
                }
                if is_among(&self.own) {
                    return Err(format!(
                        "`upto` is not settled for the key of `{name}` to the gateway's account"
                    ));
                }
                Ok(())
            }
            // A seller's own accounts are looked at before.
            Caller::Trusted | Caller::Seller(_) => Ok(()),
        }
    }

    fn minimum(&self, requirements: &PaymentRequirements) -> Option<Amount> {
        let asset = Asset::new(requirements.network.clone(), &requirements.asset).ok()?;
        self.minimums.iter().find(|it| it.0 == asset).map(|it| it.1)
    }

    /// Whether there is only one seller, who then is the only one to say how much is taken.
    fn is_alone(&self) -> bool {
        matches!(&self.callers, Callers::Sellers(sellers) if sellers.len() == 1)
    }

    /// Without what nobody can have settled on these terms.
    pub(super) fn limit(&self, mut supported: SupportedResponse) -> SupportedResponse {
        let settles_up_to = match &self.callers {
            Callers::Trusted => true,
            Callers::Anybody => false,
            Callers::Sellers(sellers) => {
                self.is_alone() || sellers.iter().any(|it| !it.pay_to.is_empty())
            }
        };
        let is_up_to = |name: &str| {
            let mut rows = SCHEMES.iter().filter(|it| it.name() == name);
            rows.any(|it| it.charging() == Charging::UpTo)
        };
        supported.kinds.retain(|it| settles_up_to || !is_up_to(&it.scheme));
        supported
    }
}

/// The one key that is presented (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, key) = only.as_bytes().split_at_checked("Bearer ".len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}

fn unauthorized(detail: &'static str) -> Problem {
    Problem::new(Kind::Unauthorized, detail)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
