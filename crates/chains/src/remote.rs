//! Somebody else's facilitator, over its HTTP API, believed no further than it can be checked.
//!
//! Source: x402 v2 §7. A wrong, slow or lying answer is an error that says whether money may have
//! moved; it is never a success (attack A27).

mod read;

use std::time::Duration;

use async_trait::async_trait;
use farebox_protocol::wire::{
    SettleRequest, SettlementResponse, SupportedResponse, VerifyRequest, VerifyResponse,
};
use farebox_protocol::{Reason, Timestamp};
use reqwest::Method;
use serde::de::DeserializeOwned;
use url::Url;

use self::read::Claim;
use crate::facilitator::{
    Facilitator, FacilitatorError, Lookup, SettleError, Settlement, Verification,
};
use crate::local::ChainReader;
use crate::rpc::{host_of, http_client};

/// How other facilitators are asked.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Base addresses, best first: `/verify`, `/settle` and `/supported` are appended.
    pub urls: Vec<Url>,
    /// The longest wait for a whole answer; settlements wait for blocks, so not less than 30 s.
    pub timeout: Duration,
}

/// Verifies and settles by asking others.
#[derive(Clone, Debug)]
pub struct RemoteFacilitator {
    http: reqwest::Client,
    urls: Vec<Url>,
    reader: Option<ChainReader>,
}

impl RemoteFacilitator {
    /// A client of these facilitators. With a `reader`, every claimed settlement is looked up on its
    /// chain before it is believed, and payments can be looked up.
    ///
    /// The process must have a default TLS provider installed.
    pub fn new(
        config: RemoteConfig,
        reader: Option<ChainReader>,
    ) -> Result<Self, FacilitatorError> {
        let context = "setting up the client of remote facilitators";
        let bad = config.urls.iter().any(|it| !matches!(it.scheme(), "http" | "https"));
        if config.urls.is_empty() || bad {
            let context = format!("{context}: expected http or https URLs, at least one");
            return Err(FacilitatorError { context, source: None });
        }
        let http = http_client(config.timeout).map_err(|error| FacilitatorError {
            context: context.to_owned(),
            source: Some(Box::new(error)),
        })?;
        Ok(Self { http, urls: config.urls, reader })
    }

    /// Asks in turn until somebody answers in full; only for what moves nothing.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&VerifyRequest>,
    ) -> Result<T, FacilitatorError> {
        let mut last = None;
        for url in &self.urls {
            match read::exchange(&self.http, (method.clone(), url, path), body).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => last = Some((host_of(url), failure)),
            }
        }
        let (host, source) = match last {
            Some((host, failure)) => (host.to_string(), Some(failure)),
            None => (String::from("nobody"), None),
        };
        let source = source.map(|it| -> Box<dyn std::error::Error + Send + Sync> { Box::new(it) });
        Err(FacilitatorError { context: format!("{path} at {host}"), source })
    }

    /// Asks one after the other to settle, and goes on only while certainly nothing reached one.
    async fn ask_to_settle(&self, body: &SettleRequest) -> Result<SettlementResponse, SettleError> {
        let mut last = FacilitatorError { context: "nobody to ask".to_owned(), source: None };
        for url in &self.urls {
            let target = (Method::POST, url, "settle");
            match read::exchange(&self.http, target, Some(body)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.maybe_done() => {
                    tracing::warn!(host = %host_of(url), error = %failure, "a settlement may be under way");
                    return Err(SettleError::Unknown { transaction: None });
                }
                Err(failure) => {
                    let context = format!("settle at {}", host_of(url));
                    last = FacilitatorError { context, source: Some(Box::new(failure)) };
                }
            }
        }
        Err(SettleError::NotSent(last))
    }

    /// Whether the chain itself confirms a claim.
    async fn confirm(
        &self,
        request: &SettleRequest,
        claim: Claim,
    ) -> Result<Settlement, SettleError> {
        let Some(reader) = &self.reader else { return Ok(claim.into_settlement()) };
        match reader.lookup(request).await {
            // Whoever sent it: the chain's own word names the transaction.
            Ok(Lookup::Landed(settlement)) => Ok(settlement),
            Ok(Lookup::CannotTell) => Ok(claim.into_settlement()),
            Ok(Lookup::Open) | Err(_) => {
                Err(SettleError::Unknown { transaction: Some(claim.transaction) })
            }
            Ok(Lookup::Dead { reason }) => Err(SettleError::Rejected {
                reason,
                message: format!(
                    "expected {} to make the payment, found on chain that it did not",
                    claim.transaction
                ),
            }),
        }
    }
}

#[async_trait]
impl Facilitator for RemoteFacilitator {
    async fn verify(
        &self,
        request: &VerifyRequest,
        _now: Timestamp,
    ) -> Result<Verification, FacilitatorError> {
        let answer: VerifyResponse = self.ask(Method::POST, "verify", Some(request)).await?;
        read::verification(request, answer)
    }

    async fn settle(
        &self,
        request: &SettleRequest,
        _now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        let answer = self.ask_to_settle(request).await?;
        if !answer.success {
            let error = refused(answer);
            // A rejection of money that moved all the same would cost the payer.
            return self.landed(request).await.ok_or(error);
        }
        match read::claim(request, answer) {
            Ok(claim) => self.confirm(request, claim).await,
            Err(what) => {
                tracing::warn!(what, "a facilitator claims a settlement that cannot be believed");
                // Money may have moved all the same, so only the chain decides.
                let unknown = SettleError::Unknown { transaction: None };
                self.landed(request).await.ok_or(unknown)
            }
        }
    }

    async fn lookup(
        &self,
        request: &SettleRequest,
        _now: Timestamp,
    ) -> Result<Lookup, FacilitatorError> {
        match &self.reader {
            Some(reader) => reader.lookup(request).await,
            None => Ok(Lookup::CannotTell),
        }
    }

    async fn supported(&self) -> Result<SupportedResponse, FacilitatorError> {
        self.ask(Method::GET, "supported", None).await
    }
}

impl RemoteFacilitator {
    /// The settlement, if the chain itself knows of one.
    async fn landed(&self, request: &SettleRequest) -> Option<Settlement> {
        match self.reader.as_ref()?.lookup(request).await {
            Ok(Lookup::Landed(settlement)) => Some(settlement),
            Ok(Lookup::Open | Lookup::Dead { .. } | Lookup::CannotTell) | Err(_) => None,
        }
    }
}

/// A failure that the facilitator itself tells of.
fn refused(answer: SettlementResponse) -> SettleError {
    let transaction = Some(answer.transaction).filter(|it| !it.is_empty());
    let reason = answer.error_reason.unwrap_or(Reason::UnexpectedSettleError);
    let message = answer.error_message.unwrap_or_else(|| "no more was said".to_owned());
    if reason == Reason::SettlementPending {
        return SettleError::Unknown { transaction };
    }
    if reason != Reason::UnexpectedSettleError {
        return SettleError::Rejected { reason, message: read::short(&message) };
    }
    // "Unexpected" says nothing of what was sent; only a missing hash tells that nothing was.
    if transaction.is_some() {
        return SettleError::Unknown { transaction };
    }
    let context = format!("the remote facilitator failed: {}", read::short(&message));
    SettleError::NotSent(FacilitatorError { context, source: None })
}
