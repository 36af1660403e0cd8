//! What the tests share: a wallet, a policy, a clock that does not wait.

use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use async_trait::async_trait;
use farebox_agent::{
    Clock, Limits, Outcome, PaidResponse, PayError, PayingClient, Policy, Usd, Wallet,
};
use farebox_protocol::Timestamp;
use reqwest::{Method, Request};
use secrecy::SecretString;

use crate::seller::Seller;

/// The first account of the well-known test mnemonic.
pub(crate) const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// A clock that stands still but for what is slept.
#[derive(Debug)]
pub(crate) struct TestClock(Mutex<(Timestamp, Vec<Duration>)>);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((Timestamp::from_seconds(1_795_000_000), Vec::new()))))
    }

    pub(crate) fn advance(&self, span: Duration) {
        let mut state = self.0.lock().unwrap();
        state.0 = state.0.plus(span);
    }

    /// Every pause that was made.
    pub(crate) fn slept(&self) -> Vec<Duration> {
        self.0.lock().unwrap().1.clone()
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().0
    }

    async fn sleep(&self, span: Duration) {
        self.advance(span);
        self.0.lock().unwrap().1.push(span);
        tokio::task::yield_now().await;
    }
}

pub(crate) fn wallet() -> Wallet {
    Wallet::from_hex(&SecretString::from(KEY)).unwrap()
}

/// Two cents a payment, five in all.
pub(crate) fn policy() -> Policy {
    let usd = |text: &str| text.parse::<Usd>().unwrap();
    Policy::new(Limits { per_payment: usd("0.02"), total: usd("0.05") })
}

pub(crate) fn http() -> reqwest::ClientBuilder {
    use_tls();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5))
}

/// Every HTTP client needs it.
pub(crate) fn use_tls() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().unwrap();
    });
}

pub(crate) fn client(clock: &Arc<TestClock>) -> PayingClient {
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    PayingClient::new(http(), wallet(), policy()).unwrap().with_clock(clock)
}

/// A request with a body.
pub(crate) fn request(method: Method, url: &str) -> Request {
    let mut request = Request::new(method, url.parse().unwrap());
    *request.body_mut() = Some("the body".into());
    request
}

/// One POST with a body.
pub(crate) async fn post(client: &PayingClient, url: &str) -> Result<PaidResponse, PayError> {
    client.execute(request(Method::POST, url)).await
}

/// The budget in millionths: spent, reserved.
pub(crate) fn books(client: &PayingClient) -> (u128, u128) {
    let standing = client.standing();
    (standing.spent.micros(), standing.reserved.micros())
}

/// How a purchase ended, in a word.
pub(crate) fn ending(outcome: &Result<PaidResponse, PayError>) -> String {
    let word = |it: &Outcome| match it {
        Outcome::Paid { charged, .. } => format!("paid {charged}"),
        Outcome::Accepted => "accepted".to_owned(),
        Outcome::NotCharged { reason } => format!("not charged: {reason}"),
        Outcome::Unknown { why } => format!("unknown: {why}"),
    };
    match outcome {
        Ok(answer) => {
            let payment = answer.payment.as_ref();
            let word = payment.map_or_else(|| "free".to_owned(), |it| word(&it.outcome));
            format!("{} {word}", answer.response.status().as_u16())
        }
        Err(error) => {
            let payment = error.payment().map(|it| word(&it.outcome)).unwrap_or_default();
            let cause = std::error::Error::source(error).map(|it| format!(": {it}"));
            format!("error: {error}{} {payment}", cause.unwrap_or_default())
        }
    }
}

/// All payments that arrived are one and the same, byte for byte.
#[track_caller]
pub(crate) fn assert_one_payment(seller: &Seller, sent: usize) {
    let payments = seller.payments();
    assert_eq!(payments.len(), sent, "payments sent");
    assert!(payments.windows(2).all(|it| it[0] == it[1]), "the payment changed on its way");
}
