//! A client that pays: asks, is told the price, signs within its policy, and asks again.
//!
//! One `execute` signs at most once. While the outcome of a payment is open the *same bytes* are
//! sent again, which the single-use nonce makes safe; a second signature beside a first one that is
//! still good could be charged as well, so there never is one.

mod delivery;
mod preview;
mod receipt_url;

use std::sync::Arc;

use farebox_protocol::header::{PAYMENT_SIGNATURE, X_PAYMENT};
use reqwest::{Request, Response};
use url::{Host, Url};

use crate::budget::{Budget, Reservation, SharedBudget, Standing};
use crate::challenge::Challenge;
use crate::clock::{Clock, SystemClock};
use crate::error::{PayError, Refusals};
use crate::offer::{Offer, Refusal, examine};
use crate::payment::{Payment, sign};
use crate::policy::{PlainHttp, Policy};
use crate::transport::{Direct, Transport};
use crate::wallet::Wallet;

pub use self::preview::{Preview, preview};

/// A client that pays what its policy allows. Cheap to clone; clones share one budget.
#[derive(Clone, Debug)]
pub struct PayingClient {
    http: reqwest::Client,
    payer: Payer,
}

/// The part that pays, whatever the requests travel through.
#[derive(Clone, Debug)]
pub(crate) struct Payer {
    wallet: Wallet,
    purse: Purse,
}

/// What decides whether something is paid: all of it but the key.
#[derive(Clone, Debug)]
struct Purse {
    policy: Arc<Policy>,
    budget: Arc<SharedBudget>,
    clock: Arc<dyn Clock>,
}

/// The answer to a request, and what was paid for it.
#[derive(Debug)]
pub struct PaidResponse {
    /// As it came; a stream is passed on byte by byte.
    pub response: Response,
    /// What was paid; `None` where nothing had to be. An answer can be there and the payment's
    /// outcome be unknown: look at both.
    pub payment: Option<Payment>,
}

impl PayingClient {
    /// A client over `http`, which gets its redirects switched off: nobody is sent elsewhere with a
    /// payment. Its timeouts are the caller's to set.
    pub fn new(
        http: reqwest::ClientBuilder,
        wallet: Wallet,
        policy: Policy,
    ) -> Result<Self, reqwest::Error> {
        let http = no_redirects(http)?;
        Ok(Self { http, payer: Payer::new(wallet, policy) })
    }

    /// With another clock than the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.payer.purse.clock = clock;
        self
    }

    /// Sends the request and pays for it if that is asked and allowed.
    ///
    /// An answer comes back whatever its status; a 402 without a payment is one that does not speak
    /// x402. Dropping the future after something was signed leaves the amount reserved.
    pub async fn execute(&self, request: Request) -> Result<PaidResponse, PayError> {
        self.payer.run(&mut Direct(&self.http), request).await
    }

    /// The account that pays.
    pub fn wallet(&self) -> &Wallet {
        &self.payer.wallet
    }

    /// How the budget stands.
    pub fn standing(&self) -> Standing {
        self.payer.standing()
    }
}

impl Payer {
    pub(crate) fn new(wallet: Wallet, policy: Policy) -> Self {
        Self { wallet, purse: Purse::new(policy) }
    }

    pub(crate) fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.purse.clock = clock;
        self
    }

    pub(crate) fn standing(&self) -> Standing {
        self.purse.budget.standing()
    }

    /// The whole way of one request.
    pub(crate) async fn run(
        &self,
        transport: &mut dyn Transport,
        request: Request,
    ) -> Result<PaidResponse, PayError> {
        if [PAYMENT_SIGNATURE, X_PAYMENT].iter().any(|it| request.headers().contains_key(*it)) {
            return Err(PayError::CarriesPayment);
        }
        let url = request.url().clone();
        let repeat = request.try_clone();
        let answer = transport.send(request).await;
        let answer = answer.map_err(|it| PayError::Unreachable(it.source))?;
        let (answer, challenge) = Challenge::of(answer).await;
        let Some(challenge) = challenge? else {
            return Ok(PaidResponse { response: answer, payment: None });
        };
        self.purse.check_way(&url, &answer)?;
        let repeat = repeat.ok_or(PayError::NotRepeatable)?;
        let (offer, reservation) = self.purse.choose(&challenge)?;
        match sign(&self.wallet, &offer, &challenge, self.purse.clock.now()) {
            Ok(signed) => self.purse.deliver(transport, repeat, signed, reservation).await,
            Err(error) => {
                self.purse.budget.release(reservation);
                Err(error.into())
            }
        }
    }
}

impl Purse {
    fn new(policy: Policy) -> Self {
        let budget = Arc::new(SharedBudget::new(Budget::new(policy.limits)));
        Self { policy: Arc::new(policy), budget, clock: Arc::new(SystemClock) }
    }

    /// Whether a payment may go where the demand came from.
    fn check_way(&self, asked: &Url, answer: &Response) -> Result<(), PayError> {
        let answered = answer.url();
        // Not compared as a whole: clients strip the fragment.
        if (asked.origin(), asked.path()) != (answered.origin(), answered.path()) {
            let mut to = Box::new(answered.clone());
            to.set_query(None);
            return Err(PayError::Redirected { to });
        }
        let private = asked.scheme() == "https" || is_loopback(asked);
        match self.policy.plain_http {
            PlainHttp::LoopbackOnly if !private => {
                Err(PayError::PlainHttp { host: asked.host_str().unwrap_or("").to_owned() })
            }
            PlainHttp::LoopbackOnly | PlainHttp::Allowed => Ok(()),
        }
    }

    /// The first offer that the policy allows and the budget has room for.
    fn choose(&self, challenge: &Challenge) -> Result<(Offer, Reservation), PayError> {
        let mut refusals = Vec::new();
        for entry in &challenge.accepts {
            let reserved = examine(entry, &self.policy).and_then(|offer| {
                let reserved = self.budget.reserve(offer.worth, self.clock.now());
                reserved.map(|it| (offer, it)).map_err(Refusal::Budget)
            });
            match reserved {
                Ok(chosen) => return Ok(chosen),
                Err(refusal) => refusals.push(refusal),
            }
        }
        Err(PayError::Refused(Refusals(refusals)))
    }
}

fn no_redirects(http: reqwest::ClientBuilder) -> Result<reqwest::Client, reqwest::Error> {
    http.redirect(reqwest::redirect::Policy::none()).build()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}
