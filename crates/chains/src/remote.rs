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
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::config::TokenConfig;
use crate::evm::{EvmPayment, EvmToken, Refusal, check_but_for_wallet, is_of_configuration};
use crate::facilitator::{
    Facilitator, FacilitatorError, Lookup, Permanence, SettleError, Settlement, Verification,
};
use crate::local::ChainReader;
use crate::rpc::{host_of, http_client};
use crate::schemes::scheme_of;

/// How other facilitators are asked.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Base addresses, best first: `/verify`, `/settle` and `/supported` are appended.
    pub urls: Vec<Url>,
    /// The longest wait for a whole answer; settlements wait for blocks, so not less than 30 s.
    pub timeout: Duration,
    /// What they know their customer by: `Authorization: Bearer …` (RFC 6750), sent to each of them.
    pub bearer: Option<SecretString>,
}

/// Verifies and settles by asking others.
#[derive(Clone, Debug)]
pub struct RemoteFacilitator {
    client: read::Client,
    urls: Vec<Url>,
    reader: Option<ChainReader>,
}

/// A facilitator that turns this caller away, whatever it asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The key is not one that it knows.
    #[error("{host} does not accept the key that it is sent (HTTP status {status})")]
    WrongKey {
        /// Whose host.
        host: String,
        /// What it answers.
        status: u16,
    },
    /// It lets in nobody without a key.
    #[error("{host} asks for a key (HTTP status {status}), and none is configured")]
    NoKey {
        /// Whose host.
        host: String,
        /// What it answers.
        status: u16,
    },
}

impl RemoteFacilitator {
    /// A client of these facilitators. With a `reader`, what payers have is read, every claimed
    /// settlement is looked up on its chain before it is believed, and payments can be looked up.
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
        let authorization = config.bearer.as_ref().map(bearer).transpose()?;
        let client = read::Client { http, authorization };
        Ok(Self { client, urls: config.urls, reader })
    }

    /// Whether each of them lets this caller in. What is sent to `/verify` is no request, so that nothing
    /// is decided and nothing moves; whoever cannot be reached now says nothing of it.
    pub async fn check(&self) -> Vec<NotAdmitted> {
        let mut found = Vec::new();
        for url in &self.urls {
            let host = host_of(url).to_string();
            match self.client.knock(url).await {
                Ok(status @ (401 | 403)) if self.client.authorization.is_some() => {
                    found.push(NotAdmitted::WrongKey { host, status });
                }
                Ok(status @ (401 | 403)) => found.push(NotAdmitted::NoKey { host, status }),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(host, %error, "whether a facilitator lets us in is not known");
                }
            }
        }
        found
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
            match self.client.exchange((method.clone(), url, path), body).await {
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
            match self.client.exchange(target, Some(body)).await {
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

    /// The reader, if it can look this payment up.
    fn reader_of(&self, request: &VerifyRequest) -> Option<&ChainReader> {
        self.reader.as_ref().filter(|it| it.token(request).is_some())
    }

    /// What becomes of an outcome that a facilitator told of, once the chain is asked. Without a
    /// chain to ask it stays; a chain that cannot tell makes it unknown.
    async fn reconcile(
        &self,
        request: &SettleRequest,
        said: SettleError,
    ) -> Result<Settlement, SettleError> {
        let Some(reader) = self.reader_of(request) else { return Err(said) };
        match (reader.lookup(request).await, said) {
            // Whoever sent it: the chain's own word names the transaction.
            (Ok(Lookup::Landed(settlement)), _) => Ok(settlement),
            (Ok(Lookup::Open), said)
            | (Ok(Lookup::Dead { .. }), said @ SettleError::Rejected { .. }) => Err(said),
            (Ok(Lookup::Dead { reason }), said) => Err(SettleError::Rejected {
                reason,
                message: format!("found on chain that the payment never will be made ({said})"),
            }),
            (Ok(Lookup::CannotTell), said) => Err(doubted(said)),
            (Err(error), said) => {
                tracing::warn!(%error, "what a facilitator told could not be looked up");
                Err(doubted(said))
            }
        }
    }
}

#[async_trait]
impl Facilitator for RemoteFacilitator {
    async fn verify(
        &self,
        request: &VerifyRequest,
        now: Timestamp,
    ) -> Result<Verification, FacilitatorError> {
        let payment = match check_here(self.reader.as_ref(), request, now) {
            Some(Ok(payment)) => Some(payment),
            Some(Err(refusal)) => return Ok(invalid(refusal)),
            None => None,
        };
        if let (Some(reader), Some(payment)) = (&self.reader, &payment)
            && let Some(refusal) = reader.ask_wallet(request, payment).await?
        {
            return Ok(invalid(refusal));
        }
        let answer: VerifyResponse = self.ask(Method::POST, "verify", Some(request)).await?;
        let said = read::verification(request, answer)?;
        match (said, &self.reader, payment) {
            (Verification::Valid { payer, collectable: _ }, Some(reader), Some(payment)) => {
                let collectable = reader.collectable(request, &payment).await?;
                Ok(Verification::Valid { payer, collectable })
            }
            (said, _, _) => Ok(said),
        }
    }

    async fn settle(
        &self,
        request: &SettleRequest,
        _now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        let answer = self.ask_to_settle(request).await?;
        if !answer.success {
            // A rejection of money that moved all the same would cost the payer.
            return self.reconcile(request, refused(answer)).await;
        }
        let transaction = match read::claim(request, answer) {
            // Nothing moved, so there is nothing to look up.
            Ok(claim) if read::is_of_nothing(request) || self.reader_of(request).is_none() => {
                return Ok(claim.into_settlement());
            }
            Ok(claim) => Some(claim.transaction),
            Err(what) => {
                tracing::warn!(what, "a facilitator claims a settlement that cannot be believed");
                None
            }
        };
        // Money may have moved, and only the chain decides.
        self.reconcile(request, SettleError::Unknown { transaction }).await
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

    async fn permanence(
        &self,
        request: &SettleRequest,
        transaction: &str,
    ) -> Result<Permanence, FacilitatorError> {
        match self.reader_of(request) {
            Some(reader) => reader.permanence(request, transaction).await,
            None => Ok(Permanence::CannotTell),
        }
    }

    async fn supported(&self) -> Result<SupportedResponse, FacilitatorError> {
        self.ask(Method::GET, "supported", None).await
    }
}

/// The header that a key is sent in, never shown.
fn bearer(key: &SecretString) -> Result<HeaderValue, FacilitatorError> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()));
    if let Ok(header) = &mut header {
        header.set_sensitive(true);
    }
    // The error says what is wrong and not with what.
    header.map_err(|error| FacilitatorError {
        context: "the key for remote facilitators cannot stand in a header".to_owned(),
        source: Some(Box::new(error)),
    })
}

/// The checks that need nobody else; `None` for what is no payment on an EVM network. Where
/// the token is not configured here, its demanded names are believed: the demand is our own. What a
/// contract may have signed is left open.
fn check_here(
    reader: Option<&ChainReader>,
    request: &VerifyRequest,
    now: Timestamp,
) -> Option<Result<EvmPayment, Refusal>> {
    let requirements = request.payment_requirements.value();
    scheme_of(requirements)?;
    if let Some(token) = reader.and_then(|it| it.token(request)) {
        return Some(check_but_for_wallet(token, request, now));
    }
    let text = |key| requirements.extra.get(key).and_then(Value::as_str).unwrap_or_default();
    let config = TokenConfig {
        address: requirements.asset.parse().ok()?,
        // Not looked at: amounts are in atomic units.
        decimals: 0,
        name: text("name").to_owned(),
        version: text("version").to_owned(),
    };
    let token = EvmToken::new(requirements.network.clone(), config)?;
    Some(check_but_for_wallet(&token, request, now))
}

fn invalid(refusal: Refusal) -> Verification {
    let Refusal { reason, message, payer } = refusal;
    Verification::Invalid { reason, message, payer }
}

/// A failure that the facilitator itself tells of.
fn refused(answer: SettlementResponse) -> SettleError {
    let transaction = Some(read::short(&answer.transaction)).filter(|it| !it.is_empty());
    let reason = answer.error_reason.unwrap_or(Reason::UnexpectedSettleError);
    let message = answer.error_message.unwrap_or_else(|| "no more was said".to_owned());
    // What was sent may land yet, or has: an authorisation is used by its own settlement, too.
    if transaction.is_some() || may_have_moved(&reason, &message) {
        return SettleError::Unknown { transaction };
    }
    if reason != Reason::UnexpectedSettleError {
        let message = read::short(&message);
        // It took the payment when it verified it.
        let not_now = is_of_configuration(&reason) || reason == Reason::UptoFacilitatorMismatch;
        return if not_now {
            SettleError::NotServed { reason, message }
        } else {
            SettleError::Rejected { reason, message }
        };
    }
    let context = format!("the remote facilitator failed: {}", read::short(&message));
    SettleError::NotSent(FacilitatorError { context, source: None })
}

/// Whether a refusal speaks of a transaction or of a used nonce, in any facilitator's spelling.
/// Official ones say "transaction failed" of one that they sent and lost sight of as well.
fn may_have_moved(reason: &Reason, message: &str) -> bool {
    let reason = reason.as_str();
    let says = |text: &str, word: &str| {
        let mut words = text.split(|it: char| !it.is_ascii_alphanumeric());
        words.any(|it| it.eq_ignore_ascii_case(word))
    };
    let is_of_nonce = says(message, "nonce") || says(message, "authorization");
    *reason == *Reason::SettlementPending.as_str()
        || reason.ends_with("transaction_failed")
        || ["used", "already", "duplicate", "nonce"].iter().any(|it| says(reason, it))
        || is_of_nonce && says(message, "used")
}

/// The same outcome where the chain could not be asked.
fn doubted(said: SettleError) -> SettleError {
    match said {
        unknown @ SettleError::Unknown { .. } => unknown,
        SettleError::Rejected { .. } | SettleError::NotServed { .. } | SettleError::NotSent(_) => {
            SettleError::Unknown { transaction: None }
        }
    }
}
