//! What the facilitator brings to the offers: who settles `upto`, and which allowances it pays the gas
//! of. Asked once, at the start: an offer that nobody settles must not be made.

use farebox_chains::{Charging, Scheme, TransferMethod};
use farebox_protocol::Network;
use farebox_protocol::wire::{Object, SupportedResponse, X402_VERSION};
use serde_json::{Value, json};

/// An address as long as any.
const ANY_ADDRESS: &str = "0x0000000000000000000000000000000000000000";

/// What a facilitator says of itself, as far as offers depend on it.
#[derive(Clone, Debug)]
pub(crate) struct Backing {
    kinds: Kinds,
    extensions: Vec<Sponsoring>,
}

#[derive(Clone, Debug)]
enum Kinds {
    /// These.
    Told(Vec<Kind>),
    /// Whatever is asked for.
    Any,
}

#[derive(Clone, Debug)]
struct Kind {
    scheme: String,
    network: String,
    facilitator: Option<String>,
}

/// How a payer without gas gets to an allowance for Permit2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sponsoring {
    /// By an EIP-2612 permit that is submitted with the settlement.
    Eip2612,
    /// By a signed `approve` transaction that is broadcast before it.
    Erc20Approval,
}

impl Sponsoring {
    const ALL: [Self; 2] = [Self::Eip2612, Self::Erc20Approval];

    /// The extension's key, in `/supported` and in `extensions` of a 402.
    const fn key(self) -> &'static str {
        match self {
            Self::Eip2612 => "eip2612GasSponsoring",
            Self::Erc20Approval => "erc20ApprovalGasSponsoring",
        }
    }

    /// What a 402 says of it: x402 extensions `eip2612GasSponsoring` and
    /// `erc20ApprovalGasSponsoring`. The schema names what the client must add and no more, because
    /// proxies cut headers that are long.
    fn declared(self) -> Value {
        let (description, proof): (_, &[&str]) = match self {
            Self::Eip2612 => (
                "An EIP-2612 permit for Permit2 is submitted without cost to the payer.",
                &["nonce", "deadline", "signature"],
            ),
            Self::Erc20Approval => (
                "A signed approval of Permit2 is broadcast before the payment.",
                &["signedTransaction"],
            ),
        };
        let common = ["from", "asset", "spender", "amount", "version"];
        let required: Vec<&str> = common.iter().chain(proof).copied().collect();
        json!({
            "info": { "description": description, "version": "1" },
            "schema": { "type": "object", "required": required },
        })
    }
}

impl Backing {
    /// Reads what a facilitator answers to `/supported`.
    pub(crate) fn read(supported: &SupportedResponse) -> Self {
        let kinds = supported.kinds.iter().filter(|it| it.x402_version == X402_VERSION);
        let kinds = kinds.map(|it| Kind {
            scheme: it.scheme.clone(),
            network: it.network.clone(),
            facilitator: it
                .extra
                .as_ref()
                .and_then(|extra| extra.get("facilitatorAddress"))
                .and_then(Value::as_str)
                .map(ToOwned::to_owned),
        });
        let named = |it: &Sponsoring| supported.extensions.iter().any(|name| name == it.key());
        let extensions = Sponsoring::ALL.into_iter().filter(named).collect();
        Self { kinds: Kinds::Told(kinds.collect()), extensions }
    }

    /// One that nothing is expected of.
    pub(crate) fn none() -> Self {
        Self { kinds: Kinds::Told(Vec::new()), extensions: Vec::new() }
    }

    /// One that brings everything, for checking routes before it is asked: what they make of it is
    /// at least as long.
    pub(crate) fn any() -> Self {
        Self { kinds: Kinds::Any, extensions: Sponsoring::ALL.to_vec() }
    }

    /// What an offer carries in `extra` besides the token's names; `None` where nobody settles it.
    /// For payments that take the whole amount anybody may, so a facilitator is not asked about
    /// them.
    pub(crate) fn extra(&self, scheme: &dyn Scheme, network: &Network) -> Option<Object> {
        match (scheme.charging(), &self.kinds) {
            (Charging::Whole, _) => Some(scheme.extra(None)),
            (Charging::UpTo, Kinds::Any) => Some(scheme.extra(Some(ANY_ADDRESS))),
            (Charging::UpTo, Kinds::Told(kinds)) => {
                let of = |it: &&Kind| it.scheme == scheme.name() && it.network == network.as_str();
                let facilitator = kinds.iter().find(of)?.facilitator.as_deref()?;
                Some(scheme.extra(Some(facilitator)))
            }
        }
    }

    /// What a 402 with these offers says in `extensions`.
    pub(crate) fn extensions<'a>(
        &self,
        schemes: impl IntoIterator<Item = &'a dyn Scheme>,
    ) -> Option<Object> {
        let moved_by_permit2 = |it: &dyn Scheme| it.method() == TransferMethod::Permit2;
        if self.extensions.is_empty() || !schemes.into_iter().any(moved_by_permit2) {
            return None;
        }
        Some(self.extensions.iter().map(|it| (it.key().to_owned(), it.declared())).collect())
    }
}

#[cfg(test)]
mod tests {
    use farebox_chains::find_scheme;

    use super::*;

    fn backing() -> Backing {
        let supported = json!({
            "kinds": [
                {"x402Version": 2, "scheme": "exact", "network": "eip155:1"},
                {"x402Version": 1, "scheme": "upto", "network": "base"},
                {"x402Version": 2, "scheme": "upto", "network": "eip155:8453"},
                {"x402Version": 2, "scheme": "upto", "network": "eip155:1",
                 "extra": {"facilitatorAddress": "0xF"}},
            ],
            "extensions": ["bazaar", "eip2612GasSponsoring"],
            "signers": {},
        });
        Backing::read(&serde_json::from_value(supported).unwrap())
    }

    #[test]
    fn upto_is_offered_where_its_facilitator_is_known() {
        let upto = find_scheme("upto", "eip155").unwrap();
        let extra = backing().extra(upto, &Network::eip155(1)).unwrap();
        assert_eq!(extra["facilitatorAddress"], "0xF");
        assert_eq!(extra["assetTransferMethod"], "permit2");
        assert_eq!(backing().extra(upto, &Network::eip155(8453)), None);
        assert_eq!(backing().extra(upto, &Network::eip155(10)), None);
        let exact = find_scheme("exact", "eip155").unwrap();
        assert_eq!(backing().extra(exact, &Network::eip155(10)), Some(Object::new()));
    }

    #[test]
    fn allowances_are_sponsored_where_an_offer_needs_one() {
        let scheme = |word| find_scheme(word, "eip155").unwrap();
        assert_eq!(backing().extensions([scheme("exact")]), None);
        let declared = backing().extensions([scheme("exact"), scheme("exact-permit2")]).unwrap();
        assert_eq!(declared.keys().collect::<Vec<_>>(), ["eip2612GasSponsoring"]);
        assert_eq!(declared["eip2612GasSponsoring"]["info"]["version"], "1");
        assert_eq!(Backing::any().extensions([scheme("upto")]).unwrap().len(), 2);
    }
}
