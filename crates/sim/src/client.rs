//! Clients: they ask for a price, sign, pay, repeat, race and hang up.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use farebox_chains::{AuthorizationWindow, EvmKey, scheme_of, sign_exact, sign_upto};
use farebox_gateway::Clock as _;
use farebox_protocol::wire::{Object, PaymentPayload, PaymentRequired, PaymentRequirements};
use farebox_protocol::{PaymentId, Timestamp, header};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::event::{Event, Fit};
use crate::plan::{ClientPlan, Goods, Purchase};
use crate::tags::Tags;
use crate::wire::Served;

/// The longest wait of a client for an answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client, across the processes that it has to do with.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    plan: ClientPlan,
    /// Its number, which is in its requests.
    number: u64,
    /// Purchases that are done with.
    done: usize,
    /// What it has signed for the present one.
    signed: Option<Signed>,
    tries: u32,
}

#[derive(Clone, Debug)]
struct Signed {
    id: PaymentId,
    header: HeaderValue,
}

/// What came back.
#[derive(Debug)]
enum Answer {
    Whole { status: StatusCode, headers: HeaderMap },
    Broken,
}

/// Whether it is to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Done,
    Again,
    SignAgain,
}

/// Where clients keep what they know, which outlives the gateway.
pub(crate) trait Keeps: Clone + Send + Sync + 'static {
    fn keep(&self, client: &Client);
}

impl Client {
    pub(crate) fn new(number: u64, plan: ClientPlan) -> Self {
        Self { plan, number, done: 0, signed: None, tries: 0 }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Buys what it has not bought yet.
    pub(crate) async fn buy(mut self, served: Served, keeps: impl Keeps) {
        if self.done == 0 && self.tries == 0 {
            tokio::time::sleep(Duration::from_millis(self.plan.starts_at)).await;
        }
        while let Some(purchase) = self.plan.purchases.get(self.done).copied() {
            self.tries = self.tries.saturating_add(1);
            keeps.keep(&self);
            let next = self.try_to_buy(&served, &purchase, &keeps).await;
            match next {
                Next::Done => self.finish(),
                Next::Again | Next::SignAgain if purchase.tries <= self.tries => self.finish(),
                Next::SignAgain => self.signed = None,
                // Like an SDK that knows nothing of what it has signed before.
                Next::Again if purchase.named => self.signed = None,
                Next::Again => {}
            }
            keeps.keep(&self);
            served.world.pause(50, 4_000).await;
        }
    }

    /// What it calls the present purchase.
    fn name(&self) -> u64 {
        let done = u64::try_from(self.done).unwrap_or(u64::MAX);
        self.number.saturating_mul(100).saturating_add(done)
    }

    fn finish(&mut self) {
        self.done = self.done.saturating_add(1);
        self.signed = None;
        self.tries = 0;
    }

    async fn try_to_buy(
        &mut self,
        served: &Served,
        purchase: &Purchase,
        keeps: &impl Keeps,
    ) -> Next {
        let signed = match &self.signed {
            Some(signed) => signed.clone(),
            None => match self.sign(served, purchase).await {
                Some(signed) => {
                    self.signed = Some(signed.clone());
                    keeps.keep(self);
                    signed
                }
                None => return Next::Again,
            },
        };
        let name = purchase.named.then(|| self.name());
        let mut copies = JoinSet::new();
        let patience = purchase.patience.map(Duration::from_millis).filter(|_| self.tries == 1);
        for copy in 0..purchase.copies {
            let request = self.request(purchase.goods, Fit::Own);
            let late =
                Duration::from_millis(copy.saturating_mul(served.world.luck(|it| it.below(30))));
            let sent =
                send(served.clone(), (request, name), Some(signed.clone()), Fit::Own, patience);
            copies.spawn(async move {
                tokio::time::sleep(late).await;
                sent.await
            });
        }
        if purchase.abuses {
            let request = self.request(purchase.goods, Fit::Other);
            let sent = send(served.clone(), (request, None), Some(signed), Fit::Other, patience);
            copies.spawn(async move {
                // What comes of it is not this client's business.
                drop(sent.await);
                Answer::Broken
            });
        }
        let mut next = Next::Again;
        while let Some(answer) = copies.join_next().await {
            let heard = answer.map_or(Next::Again, |it| it.next());
            next = match (next, heard) {
                (Next::Done, _) | (_, Next::Done) => Next::Done,
                (Next::SignAgain, _) | (_, Next::SignAgain) => Next::SignAgain,
                (Next::Again, Next::Again) => Next::Again,
            };
        }
        next
    }

    /// The request for what is bought; another one for the same payment, where it does not fit.
    fn request(&self, goods: Goods, fit: Fit) -> Request<Full<Bytes>> {
        let number = format!("{}-{}-{fit:?}", self.number, self.done);
        let chat = |stream: bool| {
            let body = format!(
                "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{number}\"}}],\
                 \"max_tokens\":100,\"stream\":{stream}}}"
            );
            let mut request = Request::new(Full::new(Bytes::from(body)));
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = http::Uri::from_static("/v1/chat/completions");
            request
        };
        let mut request = match goods {
            Goods::Whole { .. } => chat(false),
            Goods::Stream { .. } => chat(true),
            Goods::Flat => {
                let mut request = Request::new(Full::default());
                *request.uri_mut() = format!("/things/{number}").parse().unwrap_or_default();
                request
            }
        };
        request.headers_mut().insert("host", HeaderValue::from_static("sim.test"));
        request
    }

    /// Asks for the price and signs an offer.
    async fn sign(&self, served: &Served, purchase: &Purchase) -> Option<Signed> {
        let request = self.request(purchase.goods, Fit::Own);
        let answer = send(served.clone(), (request, None), None, Fit::Own, None).await;
        let Answer::Whole { status: StatusCode::PAYMENT_REQUIRED, headers } = answer else {
            return None;
        };
        let value = headers.get("payment-required")?;
        let required = header::decode::<PaymentRequired>(value.as_bytes()).ok()?;
        let upto =
            matches!(purchase.goods, Goods::Whole { upto: true } | Goods::Stream { upto: true });
        let word = if upto { "upto" } else { "exact" };
        let offers = &required.value().accepts;
        let offer = offers.iter().find(|it| scheme_of(it).is_some_and(|it| it.word() == word))?;
        self.sign_offer(served, purchase, offer)
    }

    fn sign_offer(
        &self,
        served: &Served,
        purchase: &Purchase,
        offer: &PaymentRequirements,
    ) -> Option<Signed> {
        let key = EvmKey::from_bytes([self.plan.payer; 32]).ok()?;
        let life = Duration::from_secs(offer.max_timeout_seconds);
        let window = AuthorizationWindow {
            valid_after: Timestamp::from_seconds(0),
            valid_before: served.world.now().plus(life),
        };
        let mut nonce = purchase.nonce;
        // Each signature is another payment.
        *nonce.last_mut()? = u8::try_from(self.tries).ok()?;
        let scheme = scheme_of(offer)?;
        let payload = match scheme.word() {
            "upto" => sign_upto(&key, offer, window, nonce).ok()?,
            _ => sign_exact(&key, offer, window, nonce).ok()?,
        };
        let payload = PaymentPayload {
            x402_version: 2,
            payload,
            resource: None,
            accepted: offer.clone(),
            extensions: None,
            rest: Object::new(),
        };
        let id = scheme.identify(&payload, offer).ok()?.id;
        let text = header::encode(&payload).ok()?;
        Some(Signed { id, header: HeaderValue::try_from(text).ok()? })
    }
}

impl Answer {
    fn next(&self) -> Next {
        match self {
            Self::Whole { status, .. } if status.is_success() => Next::Done,
            Self::Whole { status: StatusCode::PAYMENT_REQUIRED, .. } => Next::SignAgain,
            Self::Whole { status: StatusCode::CONFLICT, headers } => {
                if headers.contains_key("retry-after") { Next::Again } else { Next::Done }
            }
            Self::Broken | Self::Whole { .. } => Next::Again,
        }
    }
}

/// Sends a request on a connection of its own and reads the answer to its end.
async fn send(
    served: Served,
    (mut request, name): (Request<Full<Bytes>>, Option<u64>),
    signed: Option<Signed>,
    fit: Fit,
    patience: Option<Duration>,
) -> Answer {
    let attempt = served.world.attempt();
    let payment = signed.as_ref().map(|it| it.id);
    Tags { attempt, payment, name, fit }.write(request.headers_mut());
    if let Some(name) = name
        && let Ok(value) = HeaderValue::try_from(format!("purchase-{name}"))
    {
        request.headers_mut().insert("idempotency-key", value);
    }
    if let Some(signed) = signed {
        request.headers_mut().insert("payment-signature", signed.header);
    }
    let answer = timeout(patience.unwrap_or(PATIENCE), exchange(&served, request)).await;
    match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Answer::Broken,
        Err(_) => {
            served.world.log(Event::HungUp { attempt });
            Answer::Broken
        }
    }
}

async fn exchange(served: &Served, request: Request<Full<Bytes>>) -> io::Result<Answer> {
    let mut connection = served.connect().await?;
    let response = connection.send_request(request).await.map_err(io::Error::other)?;
    let (parts, body) = response.into_parts();
    body.collect().await.map_err(io::Error::other)?;
    Ok(Answer::Whole { status: parts.status, headers: parts.headers })
}
