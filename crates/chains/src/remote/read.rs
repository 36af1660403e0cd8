//! What a remote facilitator answers, read within bounds and compared with what was asked.

use farebox_protocol::wire::{SettleRequest, SettlementResponse, VerifyRequest, VerifyResponse};
use farebox_protocol::{Amount, Network, Reason};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::evm::EvmAddress;
use crate::facilitator::{FacilitatorError, Settlement, Verification};
use crate::scheme::Charging;
use crate::schemes::scheme_of;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// An exchange that gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No connection: nothing was asked.
    #[error("it could not be reached")]
    Unreachable(#[source] reqwest::Error),
    /// It may be at work.
    #[error("it gave no answer in time, or broke off")]
    NoAnswer(#[source] reqwest::Error),
    /// Turned away before anything was done.
    #[error("it turned the request away with HTTP status {0}")]
    TurnedAway(u16),
    /// An answer that means nothing.
    #[error("it answered {what} (HTTP status {status})")]
    Garbage {
        /// What it was instead.
        what: &'static str,
        /// With which status.
        status: u16,
    },
    /// Nothing was sent.
    #[error("the request could not be written")]
    Unwritten(#[source] serde_json::Error),
}

impl Failure {
    /// Whether the facilitator may be at work all the same.
    pub(super) fn maybe_done(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::Garbage { .. } => true,
            Self::Unreachable(_) | Self::TurnedAway(_) | Self::Unwritten(_) => false,
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) http: reqwest::Client,
    /// What every request carries; marked as sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

impl Client {
    /// One exchange. Official facilitators answer refusals with 200 or with an error status; a body of
    /// the right shape counts, whatever the status.
    pub(super) async fn exchange<T: DeserializeOwned>(
        &self,
        (method, base, path): (Method, &Url, &str),
        body: Option<&VerifyRequest>,
    ) -> Result<T, Failure> {
        let mut request = self.request(method, base, path);
        if let Some(body) = body {
            let body = serde_json::to_vec(body).map_err(Failure::Unwritten)?;
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let garbage = |what| Failure::Garbage { what, status: status.as_u16() };
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if ANSWER_BYTES_MAX < bytes.len().saturating_add(chunk.len()) {
                return Err(garbage("more than 256 KiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        match serde_json::from_slice(&bytes) {
            Ok(answer) => Ok(answer),
            Err(_) if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
                Err(Failure::TurnedAway(status.as_u16()))
            }
            Err(_) => Err(garbage("something that is not the body that x402 describes")),
        }
    }

    /// The status that no request at all is answered with.
    pub(super) async fn knock(&self, base: &Url) -> Result<u16, Failure> {
        let request = self.request(Method::POST, base, "verify");
        let request = request.header(CONTENT_TYPE, "application/json").body("{}");
        Ok(request.send().await.map_err(failed)?.status().as_u16())
    }

    fn request(&self, method: Method, base: &Url, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/{path}", base.as_str().trim_end_matches('/'));
        let request = self.http.request(method, url).header(ACCEPT, "application/json");
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }
}

fn failed(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_connect() { Failure::Unreachable(error) } else { Failure::NoAnswer(error) }
}

/// What a facilitator says of a payment, if it speaks of this payment.
pub(super) fn verification(
    request: &VerifyRequest,
    answer: VerifyResponse,
) -> Result<Verification, FacilitatorError> {
    if !answer.is_valid {
        let reason = answer.invalid_reason.unwrap_or(Reason::UnexpectedVerifyError);
        let message = answer.invalid_message.unwrap_or_else(|| reason.to_string());
        if reason == Reason::UnexpectedVerifyError {
            let context = format!("the remote facilitator failed: {}", short(&message));
            return Err(FacilitatorError { context, source: None });
        }
        return Ok(Verification::Invalid { reason, message: short(&message), payer: answer.payer });
    }
    let claimed = payer_of(request);
    let said = answer.payer.as_deref();
    match (claimed, said) {
        (Some(claimed), Some(said)) if said.parse() != Ok(claimed) => {
            let context = format!(
                "the remote facilitator verified another payer: expected {claimed}, found {}",
                short(said)
            );
            Err(FacilitatorError { context, source: None })
        }
        (Some(claimed), _) => {
            Ok(Verification::Valid { payer: claimed.to_string(), collectable: None })
        }
        (None, _) => Err(FacilitatorError {
            context: "the remote facilitator verified a payload that names no payer".to_owned(),
            source: None,
        }),
    }
}

/// A success that fits the request.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) transaction: String,
    network: Network,
    payer: String,
    amount: Amount,
}

impl Claim {
    pub(super) fn into_settlement(self) -> Settlement {
        let Self { transaction, network, payer, amount } = self;
        Settlement { transaction, network, payer, amount, final_in: None }
    }
}

/// What a claimed success proves of this payment; else what is wrong with it.
pub(super) fn claim(
    request: &SettleRequest,
    answer: SettlementResponse,
) -> Result<Claim, &'static str> {
    let requirements = request.payment_requirements.value();
    let digits = answer.transaction.strip_prefix("0x").unwrap_or_default();
    if is_of_nothing(request) {
        if !answer.transaction.is_empty() {
            return Err("success at nothing with a transaction");
        }
    } else if digits.len() != 64 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
        return Err("success without a transaction hash");
    }
    if answer.network != requirements.network {
        return Err("success on another network");
    }
    let payer = payer_of(request).ok_or("success for a payload that names no payer")?;
    if answer.payer.as_deref().is_some_and(|it| it.parse() != Ok(payer)) {
        return Err("success for another payer");
    }
    if answer.amount.is_some_and(|it| it != requirements.amount) {
        return Err("success with another amount");
    }
    if answer.error_reason.is_some() {
        return Err("success with an error reason");
    }
    Ok(Claim {
        transaction: answer.transaction.to_ascii_lowercase(),
        network: answer.network,
        payer: payer.to_string(),
        amount: requirements.amount,
    })
}

/// Whether nothing is to be charged of what may be charged in part: nothing is sent then.
pub(super) fn is_of_nothing(request: &SettleRequest) -> bool {
    let requirements = request.payment_requirements.value();
    let up_to = scheme_of(requirements).is_some_and(|it| it.charging() == Charging::UpTo);
    up_to && requirements.amount.is_zero()
}

/// Foreign text, fit for logs.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(200).collect()
}

fn payer_of(request: &VerifyRequest) -> Option<EvmAddress> {
    let requirements = request.payment_requirements.value();
    let scheme = scheme_of(requirements)?;
    let payload = request.payment_payload.value();
    scheme.identify(payload, requirements).ok()?.payer.parse().ok()
}
