//! Between x402 v1 and v2: everything behind the edges works on v2's forms alone.
//!
//! The two versions sign the same thing, so a v1 payment is verified and settled as what it is in
//! v2, whoever does it. What differs are names: networks by the table, `amount` by
//! `maxAmountRequired`. Fields that v1 does not have end here: one could bear the name of a field of
//! v2, and the document would then say that twice.
//!
//! Sources: x402 v1 §5 and §7; the npm packages `x402` 1.2.0 (its `NetworkSchema`) and `@x402/evm`
//! 2.27.0 (its v1 network table).

use farebox_protocol::wire::{
    Object, PaymentPayload, PaymentRequirements, Raw, ResourceInfo, SettlementResponse,
    SupportedKind, VerifyRequest, X402_VERSION, v1,
};
use farebox_protocol::{Network, Reason};

use crate::evm::EXACT;
use crate::networks::{NetworkRow, find_network, find_network_v1};

/// The networks of the table whose names the npm package `x402` 1.2.0 knows. It refuses a whole
/// list of offers for one network that it does not know.
const STOCK_NAMES: [&str; 8] = [
    "avalanche",
    "avalanche-fuji",
    "base",
    "base-sepolia",
    "polygon",
    "polygon-amoy",
    "sei",
    "sei-testnet",
];

/// Why a v1 document has no v2 form.
#[derive(Debug, thiserror::Error)]
pub enum BadV1 {
    /// Another version of the protocol.
    #[error("expected x402Version {}, found {found}", v1::X402_VERSION)]
    Version {
        /// The document's.
        found: u32,
    },
    /// No network of the table has that name.
    #[error("expected a network that x402 v1 has a name for, found `{found}`")]
    Network {
        /// The document's.
        found: String,
    },
    /// The v2 form cannot be written.
    #[error("the payment cannot be written")]
    Json(#[source] serde_json::Error),
}

impl BadV1 {
    /// The specified code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Version { .. } => Reason::InvalidX402Version,
            Self::Network { .. } => Reason::InvalidNetwork,
            Self::Json(_) => Reason::InvalidPayload,
        }
    }
}

/// The body of a v1 server's `/verify` or `/settle`.
pub fn request_from_v1(request: &v1::VerifyRequest) -> Result<VerifyRequest, BadV1> {
    check_version(request.x402_version)?;
    let demand = request.payment_requirements.value();
    let requirements = requirements_from_v1(demand)?;
    let payment = payment_from_v1(request.payment_payload.value(), &requirements)?;
    let resource = Some(resource_from_v1(demand));
    Ok(VerifyRequest {
        x402_version: X402_VERSION,
        payment_payload: Raw::new(PaymentPayload { resource, ..payment }).map_err(BadV1::Json)?,
        payment_requirements: Raw::new(requirements).map_err(BadV1::Json)?,
    })
}

/// The v1 payment as one that takes `offer`, on the network and in the scheme that itself names.
pub fn payment_from_v1(
    payment: &v1::PaymentPayload,
    offer: &PaymentRequirements,
) -> Result<PaymentPayload, BadV1> {
    check_version(payment.x402_version)?;
    let accepted = PaymentRequirements {
        scheme: payment.scheme.clone(),
        network: network_from_v1(&payment.network)?,
        ..offer.clone()
    };
    Ok(PaymentPayload {
        x402_version: X402_VERSION,
        payload: payment.payload.clone(),
        resource: None,
        accepted,
        extensions: None,
        rest: Object::new(),
    })
}

/// A v1 offer. Where it does not say the EIP-712 domain of a token of the table, the table does: v1
/// facilitators look it up as well.
pub fn requirements_from_v1(offer: &v1::PaymentRequirements) -> Result<PaymentRequirements, BadV1> {
    let row = row_of(&offer.network)?;
    let mut extra = offer.extra.clone().unwrap_or_default();
    let token = row.tokens.iter().find(|it| it.address.eq_ignore_ascii_case(&offer.asset));
    if let Some(token) = token {
        for (key, value) in [("name", token.name), ("version", token.version)] {
            if !extra.contains_key(key) {
                extra.insert(key.to_owned(), value.into());
            }
        }
    }
    Ok(PaymentRequirements {
        scheme: offer.scheme.clone(),
        network: network_from_v1(&offer.network)?,
        amount: offer.max_amount_required,
        asset: offer.asset.clone(),
        pay_to: offer.pay_to.clone(),
        max_timeout_seconds: offer.max_timeout_seconds,
        extra,
        rest: Object::new(),
    })
}

/// An offer as v1 has it; `None` where stock v1 clients could not read it or not sign for it.
pub fn requirements_to_v1(
    offer: &PaymentRequirements,
    resource: &ResourceInfo,
) -> Option<v1::PaymentRequirements> {
    let network = stock_v1_name(&offer.network)?;
    let by_eip3009 =
        offer.extra.get("assetTransferMethod").is_none_or(|it| it.as_str() == Some("eip3009"));
    (offer.scheme == EXACT && by_eip3009).then(|| v1::PaymentRequirements {
        scheme: offer.scheme.clone(),
        network: network.to_owned(),
        max_amount_required: offer.amount,
        resource: resource.url.clone(),
        description: Some(resource.description.clone().unwrap_or_default()),
        mime_type: Some(resource.mime_type.clone().unwrap_or_default()),
        output_schema: None,
        pay_to: offer.pay_to.clone(),
        max_timeout_seconds: offer.max_timeout_seconds,
        asset: offer.asset.clone(),
        extra: Some(offer.extra.clone()),
        rest: offer.rest.clone(),
    })
}

/// What became of a payment, for a v1 server or client. A network without a v1 name keeps its id.
pub fn settlement_to_v1(settlement: SettlementResponse) -> v1::SettlementResponse {
    let id = settlement.network.as_str();
    let network = find_network(id).map_or(id, |row| row.v1_name).to_owned();
    v1::SettlementResponse {
        success: settlement.success,
        error_reason: settlement.error_reason,
        transaction: settlement.transaction,
        network,
        payer: settlement.payer,
        rest: Object::new(),
    }
}

/// What a v1 server tells of a payment.
pub fn settlement_from_v1(settlement: v1::SettlementResponse) -> Result<SettlementResponse, BadV1> {
    Ok(SettlementResponse {
        success: settlement.success,
        error_reason: settlement.error_reason,
        error_message: None,
        payer: settlement.payer,
        transaction: settlement.transaction,
        network: network_from_v1(&settlement.network)?,
        amount: None,
        extensions: None,
        rest: Object::new(),
    })
}

/// The network of a v1 name.
pub fn network_from_v1(name: &str) -> Result<Network, BadV1> {
    let id = row_of(name)?.id;
    id.parse().map_err(|_| BadV1::Network { found: name.to_owned() })
}

/// The v1 name of a network, where stock v1 clients know it.
pub fn stock_v1_name(network: &Network) -> Option<&'static str> {
    let name = find_network(network.as_str())?.v1_name;
    STOCK_NAMES.contains(&name).then_some(name)
}

/// What a facilitator that can do `kind` can do for v1 servers.
pub(crate) fn kind_in_v1(kind: &SupportedKind) -> Option<SupportedKind> {
    let row = find_network(&kind.network).filter(|_| kind.scheme == EXACT)?;
    Some(SupportedKind {
        x402_version: v1::X402_VERSION,
        network: row.v1_name.to_owned(),
        ..kind.clone()
    })
}

fn row_of(name: &str) -> Result<&'static NetworkRow, BadV1> {
    find_network_v1(name).ok_or_else(|| BadV1::Network { found: name.to_owned() })
}

fn check_version(found: u32) -> Result<(), BadV1> {
    if found == v1::X402_VERSION { Ok(()) } else { Err(BadV1::Version { found }) }
}

fn resource_from_v1(offer: &v1::PaymentRequirements) -> ResourceInfo {
    ResourceInfo {
        url: offer.resource.clone(),
        description: offer.description.clone(),
        mime_type: offer.mime_type.clone(),
        rest: Object::new(),
    }
}

#[cfg(test)]
mod tests {
    use farebox_protocol::Amount;
    use serde_json::{Value, json};

    use super::*;

    const ASSET: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";

    fn offer() -> Value {
        json!({
            "scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "1000",
            "resource": "https://a.example/x", "description": "d", "mimeType": "m",
            "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "maxTimeoutSeconds": 60,
            "asset": ASSET, "extra": { "name": "USDC", "version": "2", "more": 1 },
        })
    }

    fn request(payment_network: &str) -> v1::VerifyRequest {
        let body = json!({
            "x402Version": 1,
            "paymentPayload": {
                "x402Version": 1, "scheme": "exact", "network": payment_network,
                "payload": { "signature": "0x", "authorization": {} },
                "later": true, "accepted": 1, "extensions": [],
            },
            "paymentRequirements": offer(),
        });
        serde_json::from_str(&body.to_string()).unwrap()
    }

    #[test]
    fn a_request_says_the_same_in_both_versions() {
        let request = request_from_v1(&request("base-sepolia")).unwrap();
        let requirements = json!({
            "scheme": "exact", "network": "eip155:84532", "amount": "1000", "asset": ASSET,
            "payTo": offer()["payTo"], "maxTimeoutSeconds": 60, "extra": offer()["extra"],
        });
        let payload = json!({
            "x402Version": 2,
            "payload": { "signature": "0x", "authorization": {} },
            "resource": { "url": "https://a.example/x", "description": "d", "mimeType": "m" },
            "accepted": requirements,
        });
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(request.payment_requirements.text()), requirements);
        assert_eq!(read(request.payment_payload.text()), payload);
        assert_eq!(request.x402_version, 2);
    }

    #[test]
    fn the_payment_keeps_its_own_network_and_unknown_ones_have_no_form() {
        let other = request_from_v1(&request("base")).unwrap();
        assert_eq!(other.payment_payload.value().accepted.network.as_str(), "eip155:8453");
        assert_eq!(other.payment_requirements.value().network.as_str(), "eip155:84532");
        for unknown in ["eip155:84532", "Base", "", "moon"] {
            let error = request_from_v1(&request(unknown)).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidNetwork, "{unknown}");
        }
        let newer = v1::VerifyRequest { x402_version: 2, ..request("base") };
        assert_eq!(request_from_v1(&newer).unwrap_err().reason(), Reason::InvalidX402Version);
    }

    #[test]
    fn a28_the_domain_of_a_known_token_is_filled_in_and_never_replaced() {
        let mut offer = offer();
        let extra = |offer: &Value| {
            let offer = serde_json::from_value(offer.clone()).unwrap();
            Value::Object(requirements_from_v1(&offer).unwrap().extra)
        };
        offer["extra"] = Value::Null;
        assert_eq!(extra(&offer), json!({ "name": "USDC", "version": "2" }));
        offer["extra"] = json!({ "name": "Other" });
        assert_eq!(extra(&offer), json!({ "name": "Other", "version": "2" }));
        offer["asset"] = json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
        assert_eq!(extra(&offer), json!({ "name": "Other" }));
    }

    #[test]
    fn offers_go_both_ways_where_stock_clients_know_the_network() {
        let v1_offer: v1::PaymentRequirements = serde_json::from_value(offer()).unwrap();
        let v2_offer = requirements_from_v1(&v1_offer).unwrap();
        let resource = resource_from_v1(&v1_offer);
        assert_eq!(requirements_to_v1(&v2_offer, &resource), Some(v1_offer));
        for (network, scheme) in
            [("eip155:10", "exact"), ("eip155:31337", "exact"), ("eip155:8453", "upto")]
        {
            let network = network.parse().unwrap();
            let other =
                PaymentRequirements { network, scheme: scheme.to_owned(), ..v2_offer.clone() };
            assert_eq!(requirements_to_v1(&other, &resource), None);
        }
        let mut by_permit2 = v2_offer.clone();
        by_permit2.extra.insert("assetTransferMethod".to_owned(), json!("permit2"));
        assert_eq!(requirements_to_v1(&by_permit2, &resource), None);
        assert!(STOCK_NAMES.iter().all(|name| find_network_v1(name).is_some()));
    }

    #[test]
    fn settlements_go_both_ways() {
        let told = v1::SettlementResponse {
            success: false,
            error_reason: Some(Reason::InsufficientFunds),
            transaction: String::new(),
            network: "base".to_owned(),
            payer: Some("0x1".to_owned()),
            rest: Object::new(),
        };
        let read = settlement_from_v1(told.clone()).unwrap();
        assert_eq!(read.network, Network::eip155(8453));
        assert_eq!(settlement_to_v1(read.clone()), told);
        let amount = Some(Amount::from_units(1));
        let unnamed = SettlementResponse { network: Network::eip155(31337), amount, ..read };
        assert_eq!(settlement_to_v1(unnamed).network, "eip155:31337");
    }
}
