//! Which of a seller's offers may be paid, and why the others may not.
//!
//! Everything in a 402 was written by somebody who wants money. An offer is paid only if each field
//! is one that the policy expects; what is signed comes from the policy's own token, never from the
//! offer's description of it (attacks A21, A28).

use std::time::Duration;

use farebox_chains::{BadEvmAddress, EvmAddress, EvmToken};
use farebox_protocol::Amount;
use farebox_protocol::wire::PaymentRequirements;
use serde_json::Value;

use crate::budget::OverBudget;
use crate::policy::Policy;
use crate::usd::Usd;

/// The scheme that this agent signs.
const EXACT: &str = "exact";
/// `extra.assetTransferMethod` of the only transfer that this agent signs; also the default.
const EIP3009: &str = "eip3009";
/// `extra.paymentFlow` values under which one signature is one payment of `amount`.
const FLOWS: [&str; 2] = ["authorization", "upfront"];

/// An offer that the policy allows to be paid.
#[derive(Clone, Debug)]
pub struct Offer {
    /// As the seller wrote it; echoed with the payment.
    pub requirements: PaymentRequirements,
    /// What it is paid with.
    pub token: EvmToken,
    /// Who is paid.
    pub pay_to: EvmAddress,
    /// What it counts against the budget.
    pub worth: Usd,
}

impl Offer {
    /// What is paid, in atomic units.
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
    #[error("scheme: expected \"exact\", found {found:?}")]
    Scheme {
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

/// Examines one entry of `accepts`. The budget is asked afterwards.
pub(crate) fn examine(entry: &Value, policy: &Policy) -> Result<Offer, Refusal> {
    // From a copy: the fields that this program does not know go back to the seller as well.
    let requirements: PaymentRequirements =
        serde_json::from_value(entry.clone()).map_err(Refusal::Malformed)?;
    if requirements.scheme != EXACT {
        return Err(Refusal::Scheme { found: requirements.scheme });
    }
    let token = find_token(&requirements, policy)?.clone();
    check_extra(&requirements, &token)?;
    let pay_to = recipient(&requirements.pay_to, &token)
        .map_err(|source| Refusal::PayTo { found: requirements.pay_to.clone(), source })?;
    let found = requirements.max_timeout_seconds;
    let validity = Duration::from_secs(found);
    if validity < Policy::VALIDITY_MIN || policy.validity_max < validity {
        return Err(Refusal::Validity { max: policy.validity_max, found });
    }
    let amount = requirements.amount;
    let worth = Usd::of_token_rounded_up(amount, token.config().decimals)
        .map_err(|_| Refusal::Amount { found: amount })?;
    if amount.is_zero() {
        return Err(Refusal::Amount { found: amount });
    }
    Ok(Offer { requirements, token, pay_to, worth })
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

/// `name` and `version` must be there and the token's; the rest must not ask for another kind of
/// transfer than the one that is signed.
fn check_extra(requirements: &PaymentRequirements, token: &EvmToken) -> Result<(), Refusal> {
    let extra = &requirements.extra;
    let config = token.config();
    for (field, expected) in [("name", &config.name), ("version", &config.version)] {
        let found = extra.get(field);
        if found.and_then(Value::as_str) != Some(expected) {
            let (expected, found) = (expected.clone(), found.cloned());
            return Err(Refusal::Extra { field, expected, found });
        }
    }
    for (field, allowed) in [("assetTransferMethod", &[EIP3009][..]), ("paymentFlow", &FLOWS[..])] {
        let Some(found) = extra.get(field) else { continue };
        if !found.as_str().is_some_and(|it| allowed.contains(&it)) {
            let (expected, found) = (allowed.join(" or "), Some(found.clone()));
            return Err(Refusal::Extra { field, expected, found });
        }
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::budget::Limits;

    fn policy() -> Policy {
        let dollar = Usd::from_micros(1_000_000);
        Policy::new(Limits { per_payment: dollar, total: dollar })
    }

    fn honest() -> Value {
        json!({
            "scheme": "exact",
            "network": "eip155:84532",
            "amount": "1000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "maxTimeoutSeconds": 300,
            "extra": { "name": "USDC", "version": "2", "quote": "1.9.v.0.0" },
            "unknown": [1],
        })
    }

    /// The honest offer with one value replaced (or removed, by null), and what is said of it.
    #[track_caller]
    fn check(pointer: &str, value: Value, expected: &str) {
        let mut entry = honest();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = entry.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(key)
        } else {
            parent.insert(key.to_owned(), value)
        };
        let outcome = match examine(&entry, &policy()) {
            Ok(offer) => format!("pays {}", offer.worth),
            Err(refusal) => refusal.to_string(),
        };
        assert!(outcome.contains(expected), "{pointer}: {outcome}");
    }

    #[test]
    fn a21_honest_offers_are_paid() {
        let offer = examine(&honest(), &policy()).unwrap();
        assert_eq!(offer.quote(), Some("1.9.v.0.0"));
        assert_eq!(serde_json::to_value(&offer.requirements).unwrap(), honest());
        let lower = "0x036cbd53842c5426634e7929541ec2318f3dcf7e";
        check("/asset", json!(lower), "pays $0.001");
        check("/payTo", json!("0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc"), "pays");
        check("/extra/quote", Value::Null, "pays");
        check("/extra/assetTransferMethod", json!("eip3009"), "pays");
        check("/extra/paymentFlow", json!("upfront"), "pays");
        check("/maxTimeoutSeconds", json!(600), "pays");
    }

    #[test]
    fn a21_hostile_offers_are_refused_with_what_was_expected() {
        check("/scheme", json!("upto"), r#"scheme: expected "exact", found "upto""#);
        check("/network", json!("eip155:4242"), r#"found "eip155:4242""#);
        check("/network", json!("base"), "malformed: expected a CAIP-2 network id");
        check("/network", json!("eip155:084532"), "network: expected one");
        check(
            "/asset",
            json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
            "asset on eip155:84532",
        );
        check("/asset", json!("usdc"), r#"found "usdc""#);
        check("/payTo", json!("0x3C44"), "payTo");
        check("/payTo", json!("0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC"), "EIP-55");
        check("/payTo", json!(format!("0x{}", "0".repeat(40))), "the zero address");
        check("/payTo", honest()["asset"].clone(), "the token's own contract");
        check("/maxTimeoutSeconds", json!(601), "expected 10 to 600, found 601");
        check("/maxTimeoutSeconds", json!(9), "expected 10 to 600, found 9");
        check("/maxTimeoutSeconds", json!(u64::MAX), "expected 10 to 600");
        check("/maxTimeoutSeconds", json!("300"), "malformed");
        check("/amount", json!("0"), "between 1 and");
        check("/amount", json!("-5"), "malformed");
        check("/amount", json!(1000), "malformed");
        check("/amount", json!("1e3"), "malformed");
        check("/amount", json!("340282366920938463463374607431768211456"), "malformed");
    }

    #[test]
    fn a28_a_foreign_domain_is_never_signed() {
        check("/extra/name", json!("USD Coin"), r#"extra.name: expected "USDC", found "USD Coin""#);
        check("/extra/name", Value::Null, r#"extra.name: expected "USDC", found nothing"#);
        check("/extra/version", json!("1"), r#"extra.version: expected "2", found "1""#);
        check("/extra/version", json!(2), r#"extra.version: expected "2", found 2"#);
        check("/extra", Value::Null, "extra.name");
        check("/network", json!("eip155:8453"), "asset on eip155:8453");
        check("/extra/assetTransferMethod", json!("permit2"), "extra.assetTransferMethod");
        check("/extra/paymentFlow", json!("escrow"), "extra.paymentFlow");
        check("/extra/quote", json!(7), "extra.quote");
    }
}
