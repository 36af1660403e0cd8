//! One payment as a client makes it: signed once, sent as often as the test likes.

use std::sync::Arc;
use std::time::Duration;

use farebox_chains::{EvmKey, scheme_of};
use farebox_protocol::wire::{PaymentPayload, PaymentRequired, SettlementResponse};
use farebox_protocol::{Amount, PaymentId, header};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::app::chat;
use crate::chain::sign;

const TARGET: &str = "/v1/chat/completions";
const PATIENCE: Duration = Duration::from_secs(30);

/// What is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goods {
    Json,
    Stream,
}

/// A signed payment for one request.
#[derive(Debug)]
pub(crate) struct Purchase {
    http: reqwest::Client,
    body: String,
    payment: String,
    pub(crate) goods: Goods,
    pub(crate) id: PaymentId,
    /// The quote.
    pub(crate) amount: Amount,
}

/// What came back, if anything did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) settlement: Option<SettlementResponse>,
}

impl Got {
    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let code = body["type"].as_str().and_then(|it| it.strip_prefix("urn:farebox:problem:"));
        code.unwrap_or_default().to_owned()
    }

    /// Whether this is the answer that was bought, in full.
    pub(crate) fn is_whole(&self, goods: Goods) -> bool {
        let end = match goods {
            Goods::Json => "}",
            Goods::Stream => "data: [DONE]\n\n",
        };
        self.status == 200 && self.body.contains("hello") && self.body.ends_with(end)
    }
}

impl Purchase {
    /// Asks for the price and signs the first offer.
    pub(crate) async fn sign(address: &str, goods: Goods, key: &EvmKey, nonce: [u8; 32]) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let body = chat(goods == Goods::Stream);
        let url = format!("http://{address}{TARGET}");
        let unpaid = http.post(url).body(body.clone()).send().await.unwrap();
        assert_eq!(unpaid.status(), 402);
        let demand = unpaid.headers()["payment-required"].as_bytes();
        let demand = header::decode::<PaymentRequired>(demand).unwrap();
        let offer = &demand.value().accepts[0];
        let payload: PaymentPayload = sign(key, offer, nonce);
        let scheme = scheme_of(offer).unwrap();
        let id = scheme.identify(&payload, offer).unwrap().id;
        let payment = header::encode(&payload).unwrap();
        Self { http, body, payment, goods, id, amount: offer.amount }
    }

    /// Sends it and reads what comes, as far as it comes.
    pub(crate) async fn send(&self, address: &str) -> Got {
        read(self.request(address), &watch::Sender::new(Got::default())).await
    }

    /// The same beside what the test does; what has come so far can be watched.
    pub(crate) fn send_beside(&self, address: &str) -> watch::Receiver<Got> {
        let (so_far, got) = watch::channel(Got::default());
        let request = self.request(address);
        TaskTracker::new().spawn(async move { read(request, &so_far).await });
        got
    }

    /// What the gateway tells of it.
    pub(crate) async fn receipt(&self, address: &str) -> Value {
        let url = format!("http://{address}/v1/receipts/{}", self.id);
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    fn request(&self, address: &str) -> RequestBuilder {
        let url = format!("http://{address}{TARGET}");
        self.http.post(url).body(self.body.clone()).header("payment-signature", &self.payment)
    }
}

async fn read(request: RequestBuilder, so_far: &watch::Sender<Got>) -> Got {
    let mut got = Got::default();
    // Whoever dies sends no answer, or not the rest of it.
    let Ok(mut response) = request.send().await else { return got };
    got.status = response.status().as_u16();
    got.settlement = settlement(&response);
    so_far.send_replace(got.clone());
    while let Ok(Some(bytes)) = response.chunk().await {
        got.body.push_str(std::str::from_utf8(&bytes).unwrap());
        so_far.send_replace(got.clone());
    }
    got
}

fn settlement(response: &Response) -> Option<SettlementResponse> {
    let value = response.headers().get("payment-response")?;
    Some(header::decode::<SettlementResponse>(value.as_bytes()).unwrap().value().clone())
}

/// Waits until the client has a byte of the answer.
pub(crate) async fn first_byte(mut got: watch::Receiver<Got>) {
    let came = got.wait_for(|it| it.status == 200 && !it.body.is_empty());
    tokio::time::timeout(PATIENCE, came).await.unwrap().unwrap();
}

/// Polls until a receipt is as it should be.
pub(crate) async fn until_receipt(
    purchase: &Arc<Purchase>,
    address: &str,
    expected: impl Fn(&Value) -> bool,
) -> Value {
    let found = async {
        loop {
            let receipt = purchase.receipt(address).await;
            if expected(&receipt) {
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if let Ok(receipt) = tokio::time::timeout(PATIENCE, found).await {
        return receipt;
    }
    panic!("not as expected: {}", purchase.receipt(address).await)
}
