//! A gateway with everything around it, and a buyer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farebox_billing::{Ceiling, Format, Price};
use farebox_chains::{
    AuthorizationWindow, EvmKey, EvmToken, TokenConfig, find_scheme, scheme_of, sign_exact,
    sign_permit2_exact, sign_upto,
};
use farebox_gateway::{
    ApiKey, Clock, Entropy, Gateway, GatewayConfig, Keep, Limits, Models, Mount, NoProbe,
    OfferTemplate, OfferToken, Parts, PathPattern, Probe, Route, Running, SystemClock, Upstream,
    Versions,
};
use farebox_protocol::wire::{
    Object, PaymentPayload, PaymentRequired, PaymentRequirements, Raw, SettlementResponse,
};
use farebox_protocol::{Network, Timestamp, header};
use farebox_store::{Ledger, SettleMode, SqliteLedger, SqliteOptions, StoredPayment};
use farebox_testkit::facilitator::FakeFacilitator;
use farebox_testkit::upstream::{FakeUpstream, Received, Script};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::faults::{Faults, FaultyLedger};

pub(crate) const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
pub(crate) const PAY_TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
/// The flat price of `/premium/*` and `/flat`, in atomic units.
pub(crate) const FLAT: u128 = 10_000;

/// Time that tests can push forward; whoever sleeps wakes when theirs has come.
#[derive(Debug, Default)]
pub(crate) struct TestClock(watch::Sender<u64>);

impl TestClock {
    pub(crate) fn advance(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap();
        self.0.send_modify(|pushed| *pushed += millis);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(Duration::from_millis(*self.0.borrow()))
    }

    async fn sleep_until(&self, at: Timestamp) {
        let mut pushed = self.0.subscribe();
        while self.now() < at {
            tokio::select! {
                () = tokio::time::sleep(at.since(self.now())) => {}
                _ = pushed.changed() => {}
            }
        }
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct TestApp {
    pub(crate) facilitator: Arc<FakeFacilitator>,
    pub(crate) upstream: FakeUpstream,
    pub(crate) ledger: Arc<SqliteLedger>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) buyer: EvmKey,
    pub(crate) http: reqwest::Client,
    running: Running,
    _files: tempfile::TempDir,
}

/// What differs between gateways.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) settle: SettleMode,
    pub(crate) limits: Limits,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) exposure_limit: Option<u128>,
    pub(crate) idle_timeout: Duration,
    pub(crate) faults: Arc<Faults>,
    pub(crate) mounts: Vec<Mount>,
    /// How every priced route is paid, as a configuration writes it; the best first.
    pub(crate) offers: &'static [&'static str],
    pub(crate) versions: Versions,
    pub(crate) models: Models,
    pub(crate) keep: Option<Keep>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settle: SettleMode::After,
            limits: Limits { drain: Duration::from_secs(10), ..Limits::STANDARD },
            probe: Arc::new(NoProbe),
            exposure_limit: None,
            idle_timeout: Duration::from_secs(20),
            faults: Arc::default(),
            mounts: Vec::new(),
            offers: &["exact"],
            versions: Versions::default(),
            models: Models::Any,
            keep: None,
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    pub(crate) fn required(&self) -> PaymentRequired {
        let value = self.header("payment-required");
        assert!(!value.is_empty(), "{self:?}");
        header::decode::<PaymentRequired>(value.as_bytes()).unwrap().value().clone()
    }

    pub(crate) fn settlement(&self) -> Option<SettlementResponse> {
        let value = self.headers.get("payment-response")?;
        let settlement = header::decode::<SettlementResponse>(value.as_bytes());
        Some(settlement.unwrap().value().clone())
    }

    /// A problem of this kind and status.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["type"], format!("urn:farebox:problem:{code}"), "{self:?}");
        assert_eq!(body["status"], status);
    }
}

pub(crate) fn token() -> EvmToken {
    let config = TokenConfig {
        address: USDC.parse().unwrap(),
        decimals: 6,
        name: "USDC".to_owned(),
        version: "2".to_owned(),
    };
    EvmToken::new(Network::eip155(84532), config).unwrap()
}

fn offer(setup: &Setup, word: &str) -> OfferTemplate {
    OfferTemplate {
        scheme: find_scheme(word, "eip155").unwrap(),
        network: Network::eip155(84532),
        token: OfferToken {
            address: USDC.to_owned(),
            decimals: 6,
            name: "USDC".to_owned(),
            version: "2".to_owned(),
        },
        pay_to: PAY_TO.to_owned(),
        max_timeout_seconds: 300,
        exposure_limit: setup.exposure_limit.map(farebox_protocol::Amount::from_units),
    }
}

fn route(
    name: &str,
    price: Price,
    format: Format,
    setup: &Setup,
    to: &Arc<Upstream>,
) -> Arc<Route> {
    let (method, path) = name.split_once(' ').unwrap();
    let path = path.strip_suffix('*').map_or_else(
        || PathPattern::Exact(path.to_owned()),
        |prefix| PathPattern::Prefix(prefix.to_owned()),
    );
    Arc::new(Route {
        name: name.to_owned(),
        method: method.parse().unwrap(),
        path,
        upstream: Arc::clone(to),
        format,
        price,
        offers: match price {
            Price::Free => Vec::new(),
            Price::PerRequest(_) | Price::Tokens { .. } => {
                setup.offers.iter().map(|it| offer(setup, it)).collect()
            }
        },
        settle: setup.settle,
        description: Some("for tests".to_owned()),
        ceiling: Ceiling::default(),
        models: setup.models.clone(),
        versions: setup.versions,
        keep: setup.keep,
    })
}

pub(crate) fn routes(setup: &Setup, upstream: &Arc<Upstream>) -> Vec<Arc<Route>> {
    let flat = Price::PerRequest("0.01".parse().unwrap());
    let tokens = Price::Tokens {
        input_per_1m: "0.15".parse().unwrap(),
        output_per_1m: "0.60".parse().unwrap(),
    };
    let x_api_key = ApiKey::Header {
        name: HeaderName::from_static("x-api-key"),
        key: "upstream-key".to_owned().into(),
    };
    let keyed = Arc::new(Upstream { api_key: Some(x_api_key), ..Upstream::clone(upstream) });
    let keyed_route = |name, price, format| route(name, price, format, setup, &keyed);
    let route = |name, price, format| route(name, price, format, setup, upstream);
    vec![
        route("POST /v1/chat/completions", tokens, Format::OpenAiChat),
        route("POST /v1/completions", tokens, Format::OpenAiCompletions),
        route("POST /v1/embeddings", tokens, Format::OpenAiEmbeddings),
        route("POST /v1/responses", tokens, Format::OpenAiResponses),
        keyed_route("POST /v1/messages", tokens, Format::AnthropicMessages),
        route("GET /v1/models", Price::Free, Format::Opaque),
        route("GET /premium/*", flat, Format::Opaque),
        route("POST /flat", flat, Format::Opaque),
        route("POST /free", Price::Free, Format::Opaque),
    ]
}

impl TestApp {
    /// An upstream that answers everything with one script.
    pub(crate) async fn answering(script: Script) -> Self {
        Self::start(Setup::default(), move |_| script.clone()).await
    }

    pub(crate) async fn start(
        setup: Setup,
        decide: impl Fn(&Received) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), setup, decide).await
    }

    /// On the ledger of this directory, which may be another gateway's that has stopped.
    pub(crate) async fn start_in(
        files: tempfile::TempDir,
        setup: Setup,
        decide: impl Fn(&Received) -> Script + Send + Sync + 'static,
    ) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let path = files.path().join("ledger.db");
        let ledger = Arc::new(SqliteLedger::open(path, SqliteOptions::default()).unwrap());
        let upstream = FakeUpstream::start(decide).await.unwrap();
        let facilitator = FakeFacilitator::new(token());
        let clock = Arc::new(TestClock::default());
        let to = Arc::new(Upstream {
            name: "fake".to_owned(),
            url: format!("http://{}", upstream.address()).parse().unwrap(),
            api_key: Some(ApiKey::Bearer("upstream-key".to_owned().into())),
            head_timeout: Duration::from_secs(20),
            idle_timeout: setup.idle_timeout,
        });
        let config = GatewayConfig {
            public_url: "https://api.example.com".parse().unwrap(),
            routes: routes(&setup, &to),
            limits: setup.limits,
        };
        let parts = Parts {
            ledger: Arc::new(FaultyLedger::new(Arc::clone(&ledger), setup.faults)),
            facilitator: Arc::<FakeFacilitator>::clone(&facilitator),
            clock: Arc::<TestClock>::clone(&clock),
            entropy: Arc::new(Entropy::seeded(7)),
            probe: setup.probe,
            mounts: setup.mounts,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = Gateway::start(listener, config, parts).await.unwrap();
        let http =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let buyer = EvmKey::from_bytes([0x42; 32]).unwrap();
        Self { facilitator, upstream, ledger, clock, buyer, http, running, _files: files }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.running.local_addr()
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.running.local_addr())
    }

    pub(crate) fn request(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> reqwest::RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.http.request(method, self.url(target)).body(body.to_owned())
    }

    pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.unwrap();
        Answer { status, headers, body }
    }

    pub(crate) async fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        Self::send(self.request(method, target, body)).await
    }

    /// Signs the first offer of a 402; every payment of one `nonce` is the same.
    pub(crate) fn sign(&self, required: &PaymentRequired, nonce: u8) -> String {
        self.sign_offer(&required.accepts[0], [nonce; 32])
    }

    pub(crate) fn sign_offer(&self, offer: &PaymentRequirements, nonce: [u8; 32]) -> String {
        header::encode(&self.payload(&self.buyer, offer, nonce)).unwrap()
    }

    pub(crate) fn payload(
        &self,
        key: &EvmKey,
        offer: &PaymentRequirements,
        nonce: [u8; 32],
    ) -> PaymentPayload {
        let valid_before = self.clock.now().plus(Duration::from_secs(offer.max_timeout_seconds));
        let window = AuthorizationWindow { valid_after: Timestamp::from_seconds(0), valid_before };
        PaymentPayload {
            x402_version: 2,
            payload: match scheme_of(offer).unwrap().word() {
                "upto" => sign_upto(key, offer, window, nonce).unwrap(),
                "exact-permit2" => sign_permit2_exact(key, offer, window, nonce).unwrap(),
                _ => sign_exact(key, offer, window, nonce).unwrap(),
            },
            resource: None,
            accepted: offer.clone(),
            extensions: None,
            rest: Object::new(),
        }
    }

    /// Gets the offers for a request, signs one, and returns the payment header.
    pub(crate) async fn quote(&self, method: &str, target: &str, body: &str, nonce: u8) -> String {
        let answer = self.ask(method, target, body).await;
        assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED, "{answer:?}");
        self.sign(&answer.required(), nonce)
    }

    pub(crate) async fn pay(
        &self,
        method: &str,
        target: &str,
        body: &str,
        payment: &str,
    ) -> Answer {
        Self::send(self.request(method, target, body).header("payment-signature", payment)).await
    }

    /// Asks, signs, pays.
    pub(crate) async fn buy(&self, method: &str, target: &str, body: &str, nonce: u8) -> Answer {
        let payment = self.quote(method, target, body, nonce).await;
        self.pay(method, target, body, &payment).await
    }

    /// Every payment, oldest first.
    pub(crate) async fn payments(&self) -> Vec<StoredPayment> {
        self.ledger.list(None, 10_000).await.unwrap()
    }

    /// The states of all payments.
    pub(crate) async fn states(&self) -> Vec<String> {
        self.payments().await.iter().map(|it| it.state.name().to_owned()).collect()
    }

    /// Waits until the payments are in these states.
    pub(crate) async fn until_states(&self, expected: &[&str]) {
        let reached = async {
            while self.states().await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), reached).await.is_ok();
        assert!(in_time, "expected {expected:?}, found {:?}", self.states().await);
    }

    /// Lets time pass until every payment is given back, or settled and owed back.
    pub(crate) async fn until_over(&self) {
        let over = |it: &StoredPayment| match it.state.name() {
            "released" => true,
            "settled" => it.refund_owed.is_some(),
            _ => false,
        };
        let reached = async {
            while !self.payments().await.iter().all(over) {
                self.clock.advance(Duration::from_secs(1));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), reached).await.is_ok();
        assert!(in_time, "found {:?}", self.payments().await);
    }

    /// Writes bytes to the socket as they are and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.running.local_addr()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn leave(&self) {
        self.running.leave();
    }

    pub(crate) async fn shutdown(self) -> (Arc<SqliteLedger>, tempfile::TempDir) {
        let Self { running, ledger, _files: files, .. } = self;
        running.shutdown().await;
        (ledger, files)
    }

    pub(crate) fn received(&self) -> usize {
        self.upstream.received().len()
    }
}

/// A chat request.
pub(crate) fn chat(stream: bool) -> String {
    format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],"max_tokens":100,"stream":{stream}}}"#
    )
}

/// A payload as it travels, changed by hand.
pub(crate) fn changed(payment: &str, change: impl FnOnce(&mut Value)) -> String {
    let payload: Raw<Value> = header::decode(payment.as_bytes()).unwrap();
    let mut value = payload.value().clone();
    change(&mut value);
    header::encode(&value).unwrap()
}
