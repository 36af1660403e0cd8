//! Which of a seller's offers may be paid, and why the others may not.
//!
//! Everything in a 402 was written by somebody who wants money. An offer is paid only if each field
//! is one that the policy expects; what is signed comes from the policy's own token, never from the
//! offer's description of it (attacks A21, A28).

use std::time::Duration;

use farebox_chains::{
    BadEvmAddress, Charging, EvmAddress, EvmToken, SCHEMES, Scheme, TransferMethod, scheme_of,
};
use farebox_protocol::Amount;
use farebox_protocol::wire::PaymentRequirements;
use serde_json::Value;

use crate::budget::OverBudget;
use crate::challenge::Version;
use crate::policy::Policy;
use crate::usd::Usd;

/// `extra.paymentFlow` values under which one signature is one payment of `amount`, or of less.
const FLOWS: [&str; 2] = ["authorization", "upfront"];
/// Those of a ceiling: what is paid before it is served would be all of it.
const CEILING_FLOWS: [&str; 1] = ["authorization"];

/// An offer that the policy allows to be paid.
#[derive(Clone, Debug)]
pub struct Offer {
    /// As the seller wrote it; echoed with the payment.
    pub requirements: PaymentRequirements,
    /// How it is paid: a row of [`farebox_chains::SCHEMES`].
    pub scheme: &'static dyn Scheme,
    /// What it is paid with.
    pub token: EvmToken,
    /// Who is paid.
    pub pay_to: EvmAddress,
    /// The most that it can count against the budget.
    pub worth: Usd,
}

impl Offer {
    /// What is paid, in atomic units; by `upto`, the most that is.
    pub fn amount(&self) -> Amount {
        self.requirements.amount
    }

    /// How long the authorisation is to be valid.
    pub fn validity(&self) -> Duration {
        Duration::from_secs(self.requirements.max_timeout_seconds)
    }

    /// The seller's quote seal, which the nonce is derived from where there is one.
    pub fn quote(&self) -> Option<&str> {
        self.requirements.extra.get("quote").and_then(Value::as_str)
    }
}

/// Why one offer is not paid: what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not the JSON that x402 describes.
    #[error("malformed: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Another scheme.
    #[error("scheme: expected {expected}, found {found:?}")]
    Scheme {
        /// Those that are paid by.
        expected: &'static str,
        /// The offer's.
        found: String,
    },
    /// A network on which the policy has no token.
    #[error("network: expected one that the policy has a token on, found {found:?}")]
    Network {
        /// The offer's.
        found: String,
    },
    /// Another token than the policy's on that network.
    #[error("asset on {network}: expected {expected}, found {found:?}")]
    Asset {
        /// Where.
        network: String,
        /// The policy's tokens there.
        expected: String,
        /// The offer's.
        found: String,
    },
    /// A part of `extra` is missing or not what it must be. For `name` and `version` that means
    /// another EIP-712 domain than the token's: such a signature is good for something else.
    #[error("extra.{field}: expected {expected:?}, found {}", shown(found.as_ref()))]
    Extra {
        /// Which.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// The offer's.
        found: Option<Value>,
    },
    /// `payTo` is not an address that money should go to.
    #[error("payTo {found:?}: {source}")]
    PayTo {
        /// The offer's.
        found: String,
        /// Why not.
        source: BadRecipient,
    },
    /// `extra.facilitatorAddress`, who alone could settle the ceiling, is not one to sign for.
    #[error("extra.facilitatorAddress {found:?}: {source}")]
    Facilitator {
        /// The offer's.
        found: String,
        /// Why not.
        source: BadFacilitator,
    },
    /// The authorisation would live too long, or too short to be settled.
    #[error(
        "maxTimeoutSeconds: expected {} to {}, found {found}",
        Policy::VALIDITY_MIN.as_secs(),
        max.as_secs()
    )]
    Validity {
        /// The policy's bound.
        max: Duration,
        /// The offer's, in seconds.
        found: u64,
    },
    /// Nothing is demanded, or more than can be counted.
    #[error("amount: expected an amount between 1 and what can be counted, found {found}")]
    Amount {
        /// The offer's.
        found: Amount,
    },
    /// Not within the caps.
    #[error("amount: {0}")]
    Budget(#[source] OverBudget),
    /// Permit2 may not spend enough of the token, and no permit can be signed: let it, once.
    #[error(
        "Permit2's allowance: expected {needed}, found {found}, and {obstacle}; approve Permit2 once"
    )]
    Allowance {
        /// What the offer takes, in atomic units.
        needed: Amount,
        /// What Permit2 may spend.
        found: Amount,
        /// Why no permit is signed instead.
        obstacle: NoPermit,
    },
    /// Permit2's allowance is there, but for payments that are on their way: try again when they are
    /// settled.
    #[error(
        "Permit2's allowance is taken up by payments on their way; try again when they settled"
    )]
    Underway,
}

/// Why an allowance cannot be signed for (EIP-2612).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPermit {
    /// The seller does not declare `eip2612GasSponsoring`.
    #[error("the seller submits no permits")]
    NotSponsored,
    /// The token does not tell `nonces(owner)`.
    #[error("the token takes no permits")]
    NoNonce,
}

/// Why an address is not signed for as the one that settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFacilitator {
    /// It is none.
    #[error(transparent)]
    Form(BadEvmAddress),
    /// Nobody could settle, or anybody.
    #[error("expected a facilitator, found the zero address")]
    Zero,
    /// The payer would settle its own payment.
    #[error("expected a facilitator, found the payer")]
    Payer,
    /// A contract that sends nothing of its own.
    #[error("expected a facilitator, found the token's own contract")]
    Token,
    /// The one who is paid would say how much.
    #[error("expected a facilitator, found the recipient")]
    Recipient,
}

/// Why an address is not paid to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipient {
    /// It is none.
    #[error(transparent)]
    Form(BadEvmAddress),
    /// Money sent there is gone.
    #[error("expected a recipient, found the zero address")]
    Zero,
    /// Money sent there is gone as well.
    #[error("expected a recipient, found the token's own contract")]
    Token,
}

fn shown(found: Option<&Value>) -> String {
    found.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

/// Who looks at offers, and made in which version of x402.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Examiner<'a> {
    pub(crate) policy: &'a Policy,
    /// Unknown to who only wants to know the price.
    pub(crate) payer: Option<EvmAddress>,
    pub(crate) version: Version,
}

impl Examiner<'_> {
    /// Examines one entry of `accepts`. The budget is asked afterwards.
    pub(crate) fn examine(&self, entry: &Value) -> Result<Offer, Refusal> {
        // From a copy: the fields that this program does not know go back to the seller as well.
        let requirements: PaymentRequirements =
            serde_json::from_value(entry.clone()).map_err(Refusal::Malformed)?;
        self.check_scheme(&requirements)?;
        let token = find_token(&requirements, self.policy)?.clone();
        let scheme = self.method(&requirements)?;
        check_extra(&requirements, &token, scheme)?;
        let pay_to = recipient(&requirements.pay_to, &token)
            .map_err(|source| Refusal::PayTo { found: requirements.pay_to.clone(), source })?;
        if scheme.charging() == Charging::UpTo {
            self.check_facilitator(&requirements, &token, pay_to)?;
        }
        let (found, max) = (requirements.max_timeout_seconds, self.policy.validity_max);
        let validity = Duration::from_secs(found);
        if validity < Policy::VALIDITY_MIN || max < validity {
            return Err(Refusal::Validity { max, found });
        }
        let amount = requirements.amount;
        let worth = Usd::of_token_rounded_up(amount, token.config().decimals)
            .map_err(|_| Refusal::Amount { found: amount })?;
        if amount.is_zero() {
            return Err(Refusal::Amount { found: amount });
        }
        Ok(Offer { requirements, scheme, token, pay_to, worth })
    }

    fn check_scheme(&self, requirements: &PaymentRequirements) -> Result<(), Refusal> {
        let name = requirements.scheme.as_str();
        let (known, expected) = match self.version {
            Version::One => (name == "exact", "\"exact\", as in all of x402 v1"),
            Version::Two => (SCHEMES.iter().any(|it| it.name() == name), "\"exact\" or \"upto\""),
        };
        if known {
            return Ok(());
        }
        Err(Refusal::Scheme { expected, found: name.to_owned() })
    }

    /// The row of the scheme and `extra.assetTransferMethod`.
    fn method(&self, requirements: &PaymentRequirements) -> Result<&'static dyn Scheme, Refusal> {
        let by_token = |it: &&dyn Scheme| it.method() == TransferMethod::Eip3009;
        let found = scheme_of(requirements);
        let found = match self.version {
            Version::One => found.filter(by_token),
            Version::Two => found,
        };
        found.ok_or_else(|| {
            let namespace = requirements.network.namespace();
            let rows = SCHEMES.iter().filter(|it| it.name() == requirements.scheme);
            let rows = rows.filter(|it| it.namespace() == namespace);
            let rows = rows.filter(|it| self.version == Version::Two || by_token(it));
            let words: Vec<&str> = rows.map(|it| it.method().word()).collect();
            let field = "assetTransferMethod";
            let found = requirements.extra.get(field).cloned();
            Refusal::Extra { field, expected: words.join(" or "), found }
        })
    }

    /// A signed ceiling is as good as the one who may settle it, so that one must be named, and be
    /// somebody who has no part in the payment.
    fn check_facilitator(
        &self,
        requirements: &PaymentRequirements,
        token: &EvmToken,
        pay_to: EvmAddress,
    ) -> Result<(), Refusal> {
        let field = "facilitatorAddress";
        let named = requirements.extra.get(field);
        let Some(text) = named.and_then(Value::as_str) else {
            let (expected, found) = ("the address that settles".to_owned(), named.cloned());
            return Err(Refusal::Extra { field, expected, found });
        };
        let refuse = |source| Refusal::Facilitator { found: text.to_owned(), source };
        let address: EvmAddress = text.parse().map_err(|it| refuse(BadFacilitator::Form(it)))?;
        let others = [
            (Some(EvmAddress::from_bytes([0; 20])), BadFacilitator::Zero),
            (self.payer, BadFacilitator::Payer),
            (Some(token.address()), BadFacilitator::Token),
            (Some(pay_to), BadFacilitator::Recipient),
        ];
        match others.into_iter().find(|(other, _)| *other == Some(address)) {
            Some((_, source)) => Err(refuse(source)),
            None => Ok(()),
        }
    }
}

fn find_token<'a>(
    requirements: &PaymentRequirements,
    policy: &'a Policy,
) -> Result<&'a EvmToken, Refusal> {
    let network = &requirements.network;
    let there: Vec<_> = policy.tokens.iter().filter(|it| it.network() == network).collect();
    if there.is_empty() {
        return Err(Refusal::Network { found: network.to_string() });
    }
    let asset: Option<EvmAddress> = requirements.asset.parse().ok();
    there.iter().copied().find(|it| Some(it.address()) == asset).ok_or_else(|| {
        let expected: Vec<_> = there.iter().map(|it| it.address().to_string()).collect();
        Refusal::Asset {
            network: network.to_string(),
            expected: expected.join(" or "),
            found: requirements.asset.clone(),
        }
    })
}

/// `name` and `version` must be there and the token's, also where only a permit would be signed under
/// them; the rest must not ask for another kind of payment than the one that is signed.
fn check_extra(
    requirements: &PaymentRequirements,
    token: &EvmToken,
    scheme: &dyn Scheme,
) -> Result<(), Refusal> {
    let extra = &requirements.extra;
    let config = token.config();
    for (field, expected) in [("name", &config.name), ("version", &config.version)] {
        let found = extra.get(field);
        if found.and_then(Value::as_str) != Some(expected) {
            let (expected, found) = (expected.clone(), found.cloned());
            return Err(Refusal::Extra { field, expected, found });
        }
    }
    let allowed = match scheme.charging() {
        Charging::Whole => &FLOWS[..],
        Charging::UpTo => &CEILING_FLOWS[..],
    };
    if let Some(found) = extra.get("paymentFlow")
        && !found.as_str().is_some_and(|it| allowed.contains(&it))
    {
        let (field, expected) = ("paymentFlow", allowed.join(" or "));
        return Err(Refusal::Extra { field, expected, found: Some(found.clone()) });
    }
    match extra.get("quote") {
        None | Some(Value::String(_)) => Ok(()),
        Some(found) => {
            let (expected, found) = ("a text".to_owned(), Some(found.clone()));
            Err(Refusal::Extra { field: "quote", expected, found })
        }
    }
}

fn recipient(text: &str, token: &EvmToken) -> Result<EvmAddress, BadRecipient> {
    let address: EvmAddress = text.parse().map_err(BadRecipient::Form)?;
    if *address.as_bytes() == [0; 20] {
        return Err(BadRecipient::Zero);
    }
    if address == token.address() { Err(BadRecipient::Token) } else { Ok(address) }
}

#[cfg(test)]
mod tests;
