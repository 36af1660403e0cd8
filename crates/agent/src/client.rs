//! A client that pays: asks, is told the price, signs within its policy, and asks again.
//!
//! One `execute` signs at most one payment. While its outcome is open the *same bytes* are sent again,
//! which the single-use nonce makes safe; a second payment beside a first one that is still good could
//! be charged as well, so there never is one. A permit that is added later belongs to the same payment.
//!
//! Sellers that declare `payment-identifier` are told a name for the request, `Idempotency-Key` where the
//! caller has set it: who calls `execute` again with the same one is not charged a second time there.

mod choice;
mod delivery;
mod funding;
mod open;
mod preview;
mod receipt_url;

use std::sync::Arc;

use farebox_protocol::header::{PAYMENT_SIGNATURE, X_PAYMENT};
use reqwest::{Request, Response};
use url::{Host, Url};

use self::choice::Chosen;
use self::delivery::Sending;
use self::funding::Claims;
use self::open::OpenPayments;
use crate::budget::{Budget, SharedBudget, Standing};
use crate::challenge::Challenge;
use crate::clock::{Clock, SystemClock};
use crate::error::PayError;
use crate::offer::Offer;
use crate::payment::{Payment, SignError, Signed, sign};
use crate::policy::{PlainHttp, Policy};
use crate::transport::{Direct, Transport};
use crate::wallet::Wallet;

pub use self::choice::{Choice, PassedOver, WhyNot};
pub use self::funding::Funding;
pub use self::preview::{Preview, preview};

/// What a caller calls its request; sent along as it is.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

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
    claims: Arc<Claims>,
    open: Arc<OpenPayments>,
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

    /// How it stands after another look at what is still reserved: at receipts of sellers, and through
    /// the policy's nodes at the chain. A request that the budget lacks money for does the same first.
    pub async fn reconcile(&self) -> Standing {
        Box::pin(self.payer.purse.look_again(&mut Direct(&self.http))).await;
        self.standing()
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
        let payer = Some(self.wallet.address());
        // On the heap: whoever awaits a purchase has the whole of it in its own future else.
        let chosen = Box::pin(self.purse.choose(&challenge, payer, transport)).await?;
        let sending = self.sign(chosen, &challenge, repeat)?;
        Box::pin(self.purse.deliver(transport, &self.wallet, &challenge, sending)).await
    }

    /// Signs what was chosen; what was set aside for it is given back where that fails.
    fn sign(
        &self,
        chosen: Chosen,
        challenge: &Challenge,
        request: Request,
    ) -> Result<Sending, PayError> {
        let Chosen { choice: Choice { offer, funding, .. }, reservation, claim } = chosen;
        let purse = &self.purse;
        let name = request.headers().get(IDEMPOTENCY_KEY).and_then(|it| it.to_str().ok());
        match self.sign_all(&offer, funding, challenge, name) {
            Ok(signed) => {
                let on_chain = match purse.policy.node(offer.token.network()) {
                    Some(_) => signed.on_chain(&offer, purse.clock.now()),
                    None => None,
                };
                purse.claims.signed(claim, on_chain.as_ref());
                Ok(Sending { request, offer, funding, signed, reservation, claim, on_chain })
            }
            Err(error) => {
                purse.budget.release(reservation);
                purse.claims.forget(claim);
                Err(error.into())
            }
        }
    }

    /// The payment, and the permit that it takes.
    fn sign_all(
        &self,
        offer: &Offer,
        funding: Funding,
        challenge: &Challenge,
        name: Option<&str>,
    ) -> Result<Signed, SignError> {
        let mut signed = sign(&self.wallet, offer, challenge, name, self.purse.clock.now())?;
        if let Funding::Permit { nonce } = funding {
            let info = self.wallet.sign_permit(offer, nonce, signed.terms.valid_before)?;
            signed.header = signed.permitted(challenge.extensions.as_ref(), info)?;
        }
        Ok(signed)
    }
}

impl Purse {
    fn new(policy: Policy) -> Self {
        let budget = Arc::new(SharedBudget::new(Budget::new(policy.limits)));
        Self {
            policy: Arc::new(policy),
            budget,
            claims: Arc::default(),
            open: Arc::default(),
            clock: Arc::new(SystemClock),
        }
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
