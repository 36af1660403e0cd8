//! What was signed, and what became of it.

use std::sync::{Arc, OnceLock};

use farebox_billing::Receipt;
use farebox_chains::{
    AuthorizationWindow, BadPayload, CannotSign, EvmAddress, EvmPayment, Identified, Scheme,
    check_payment, find_network,
};
use farebox_protocol::wire::{
    Object, PaymentPayload, Raw, SettlementResponse, VerifyRequest, X402_VERSION, v1,
};
use farebox_protocol::{Amount, Network, PaymentId, Timestamp, bound_nonce, header};
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use url::Url;

use crate::challenge::{Challenge, Version};
use crate::entropy::{self, NoEntropy};
use crate::offer::Offer;
use crate::proof::BadProof;
use crate::usd::Usd;
use crate::wallet::Wallet;

/// What one signature allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The name of the payment, which the seller's receipt carries as well.
    pub id: PaymentId,
    /// How it is paid: a row of [`farebox_chains::SCHEMES`].
    pub scheme: &'static dyn Scheme,
    /// Where it is paid.
    pub network: Network,
    /// In which token.
    pub asset: EvmAddress,
    /// The token's EIP-712 name.
    pub token_name: String,
    /// Atomic units are 10⁻ⁿ tokens.
    pub decimals: u8,
    /// What is paid, in atomic units; by `upto`, the most that is.
    pub amount: Amount,
    /// What that counts against the budget.
    pub worth: Usd,
    /// Whose money it is.
    pub payer: EvmAddress,
    /// Who gets it.
    pub pay_to: EvmAddress,
    /// It cannot be settled from here on.
    pub valid_before: Timestamp,
}

/// One payment of this agent.
#[derive(Clone, Debug)]
pub struct Payment {
    /// What was signed.
    pub terms: Terms,
    /// What became of it, when the answer's head was there.
    pub outcome: Outcome,
    /// Where the seller shows its receipt, if it said so or is known to have one; always at the
    /// seller's own origin.
    pub receipt_url: Option<Url>,
    pub(crate) stream_receipt: StreamReceipt,
}

impl Payment {
    /// The receipt that came inside a streamed answer, once that was read to its end.
    pub fn stream_receipt(&self) -> Option<&Result<Receipt, BadProof>> {
        self.stream_receipt.0.get()
    }
}

/// Where the reader of a stream leaves the receipt that it meets.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamReceipt(pub(crate) Arc<OnceLock<Result<Receipt, BadProof>>>);

/// What became of a payment.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The seller shows for it what a payment must show. The budget counts `charged` as spent; what
    /// was signed for besides, by `upto`, it counts as reserved until
    /// [that can be charged no more](crate::Disclaimers).
    Paid {
        /// In atomic units.
        charged: Amount,
        /// What the seller shows.
        proof: Proof,
    },
    /// Answered, and no receipt yet: it comes inside the stream, or at the receipt's address. The
    /// budget counts the whole amount as spent, or a ceiling as reserved.
    Accepted,
    /// The seller says that nothing was charged and that nothing will be. That is its word, not a
    /// proof, so the budget goes on counting the amount as reserved: for good, or under
    /// [`Disclaimers::Trust`](crate::Disclaimers) until the signature expires.
    NotCharged {
        /// The seller's reason.
        reason: String,
    },
    /// Charged or not: nobody can say. The budget counts the whole amount.
    Unknown {
        /// Why nobody can.
        why: Doubt,
    },
}

/// What a seller shows for a payment that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// `PAYMENT-RESPONSE`: it was settled by this transaction.
    Settlement(Box<SettlementResponse>),
    /// The receipt of a Farebox gateway.
    Receipt(Box<Receipt>),
}

/// Why an outcome is unknown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Doubt {
    /// What the seller shows is not for what was signed.
    #[error("the seller's receipt does not fit: {0}")]
    Proof(#[source] BadProof),
    /// The seller's answer does not say.
    #[error("the seller answered {0} and did not say whether it charged")]
    Answer(http::StatusCode),
    /// The seller refused it, but an earlier sending of it may have been charged.
    #[error("the seller refused it ({reason}), but may have charged it when it was sent before")]
    RefusedAgain {
        /// The seller's reason.
        reason: String,
    },
    /// No answer came, however often it was sent.
    #[error("no answer came")]
    Silence,
}

/// A payment ready to be sent, as often as needed, always the same bytes.
pub(crate) struct Signed {
    pub(crate) terms: Terms,
    /// In which it is written, and answered.
    pub(crate) version: Version,
    pub(crate) name: HeaderName,
    pub(crate) header: HeaderValue,
    /// Whether the offer had a quote seal, which Farebox gateways put there.
    pub(crate) quoted: bool,
    /// What the header says, in v2's form.
    payload: PaymentPayload,
}

/// Why nothing could be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The offer is not one that can be signed.
    #[error(transparent)]
    Offer(#[from] CannotSign),
    /// What was signed does not read back.
    #[error(transparent)]
    Payload(#[from] BadPayload),
    /// No nonce.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// The payment does not fit into a header.
    #[error("the payment cannot be written as a header")]
    Header(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The extension by which permits are sent along (x402, extension `eip2612GasSponsoring`).
const SPONSORING: &str = "eip2612GasSponsoring";

/// Whether a seller declares that permits are submitted.
pub(crate) fn sponsors_permits(extensions: Option<&Object>) -> bool {
    extensions.and_then(|it| it.get(SPONSORING)).is_some_and(Value::is_object)
}

/// The extension by which a request has a name, under which it is charged once (x402, extension
/// `payment-identifier`).
const IDENTIFIER: &str = "payment-identifier";

/// The name of a request in the form that the extension has, which is narrower than that of
/// `Idempotency-Key`.
fn is_identifier(name: &str) -> bool {
    let known = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
    (16..=128).contains(&name.len()) && name.bytes().all(known)
}

/// What a seller declares, with the request's name where it asks for one: the caller's, or else a
/// random one.
fn named(declared: Option<&Object>, name: Option<&str>) -> Result<Option<Object>, NoEntropy> {
    let Some(mut extensions) = declared.cloned() else { return Ok(None) };
    let info = extensions.get_mut(IDENTIFIER).and_then(|it| it.get_mut("info"));
    if let Some(info) = info.and_then(Value::as_object_mut) {
        let name = match name.filter(|it| is_identifier(it)) {
            Some(name) => name.to_owned(),
            None => format!("pay_{}", hex::encode(entropy::nonce()?)),
        };
        info.insert("id".to_owned(), name.into());
    }
    Ok(Some(extensions))
}

/// Signs the chosen offer. `name` is what the caller calls its request, if it does. Where there is a quote seal the nonce is derived from it, so that the
/// signature is good for the quoted request alone; else it is random.
pub(crate) fn sign(
    wallet: &Wallet,
    offer: &Offer,
    challenge: &Challenge,
    name: Option<&str>,
    now: Timestamp,
) -> Result<Signed, SignError> {
    let nonce = match offer.quote() {
        Some(seal) => bound_nonce(seal),
        None => entropy::nonce()?,
    };
    let valid_before = Timestamp::from_seconds(now.seconds()).plus(offer.validity());
    let window = AuthorizationWindow { valid_after: Timestamp::from_seconds(0), valid_before };
    let payload = PaymentPayload {
        x402_version: X402_VERSION,
        payload: wallet.sign(offer, window, nonce)?,
        resource: challenge.resource.clone(),
        accepted: offer.requirements.clone(),
        extensions: named(challenge.extensions.as_ref(), name)?,
        rest: Object::new(),
    };
    let name = match challenge.version {
        Version::One => header::X_PAYMENT,
        Version::Two => header::PAYMENT_SIGNATURE,
    };
    let identified = offer.scheme.identify(&payload, &offer.requirements)?;
    Ok(Signed {
        terms: terms(wallet, offer, &identified),
        version: challenge.version,
        name: HeaderName::from_static(name),
        header: write(&payload, challenge.version)?,
        quoted: offer.quote().is_some(),
        payload,
    })
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({})", self.terms.id)
    }
}

impl Signed {
    /// The header of the same payment together with a permit: `info` goes into what the seller
    /// declares, as official clients write it.
    pub(crate) fn permitted(
        &self,
        declared: Option<&Object>,
        info: Value,
    ) -> Result<HeaderValue, SignError> {
        let object = |it: Option<Value>| match it {
            Some(Value::Object(object)) => object,
            Some(_) | None => Object::new(),
        };
        let mut sponsoring = object(declared.and_then(|it| it.get(SPONSORING)).cloned());
        let mut merged = object(sponsoring.get("info").cloned());
        merged.extend(object(Some(info)));
        sponsoring.insert("info".to_owned(), Value::Object(merged));
        let mut payload = self.payload.clone();
        let extensions = payload.extensions.get_or_insert_default();
        extensions.insert(SPONSORING.to_owned(), Value::Object(sponsoring));
        write(&payload, self.version)
    }

    /// What a chain can be asked about. `None` where it would not be taken, which would be our mistake.
    pub(crate) fn on_chain(&self, offer: &Offer, now: Timestamp) -> Option<EvmPayment> {
        let request = VerifyRequest {
            x402_version: X402_VERSION,
            payment_payload: Raw::new(self.payload.clone()).ok()?,
            payment_requirements: Raw::new(offer.requirements.clone()).ok()?,
        };
        let checked = check_payment(&offer.token, &request, now);
        let unfit = |it: &farebox_chains::Refusal| {
            tracing::error!(payment.id = %self.terms.id, reason = it.message, "our payment is unfit");
        };
        checked.inspect_err(unfit).ok()
    }
}

fn write(payload: &PaymentPayload, version: Version) -> Result<HeaderValue, SignError> {
    let text = match version {
        Version::One => write_v1(payload),
        Version::Two => header::encode(payload),
    };
    let text = text.map_err(|it| SignError::Header(it.into()))?;
    let mut header = HeaderValue::from_str(&text).map_err(|it| SignError::Header(it.into()))?;
    // Keeps it out of Debug output and of HTTP/2 header tables.
    header.set_sensitive(true);
    Ok(header)
}

/// The network goes by the name that its offer came with: there is one for each.
fn write_v1(payload: &PaymentPayload) -> serde_json::Result<String> {
    let network = payload.accepted.network.as_str();
    header::encode(&v1::PaymentPayload {
        x402_version: v1::X402_VERSION,
        scheme: payload.accepted.scheme.clone(),
        network: find_network(network).map_or(network, |row| row.v1_name).to_owned(),
        payload: payload.payload.clone(),
        rest: Object::new(),
    })
}

fn terms(wallet: &Wallet, offer: &Offer, identified: &Identified) -> Terms {
    let token = &offer.token;
    Terms {
        id: identified.id,
        scheme: offer.scheme,
        network: token.network().clone(),
        asset: token.address(),
        token_name: token.config().name.clone(),
        decimals: token.config().decimals,
        amount: offer.amount(),
        worth: offer.worth,
        payer: wallet.address(),
        pay_to: offer.pay_to,
        valid_before: identified.valid_before,
    }
}
