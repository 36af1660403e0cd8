//! The facilitator's endpoints as x402 v1 servers use them.

use std::sync::Arc;

use farebox_devnet::DevnetConfig;
use farebox_protocol::Timestamp;
use serde_json::{Value, json};

use crate::app::PAY_TO;
use crate::chain::{CHAIN, TestChain};
use crate::facilitator_api::{Service, Then, UNITS, assert_settle_shape, members};

/// How v1 calls [`CHAIN`].
pub(crate) const V1_NAME: &str = "base-sepolia";

/// The same as a v1 server would say it.
pub(crate) fn in_v1(body: &Value) -> Value {
    let demand = &body["paymentRequirements"];
    json!({
        "x402Version": 1,
        "paymentPayload": {
            "x402Version": 1, "scheme": "exact", "network": V1_NAME,
            "payload": body["paymentPayload"]["payload"],
        },
        "paymentRequirements": {
            "scheme": "exact", "network": V1_NAME, "maxAmountRequired": demand["amount"],
            "resource": "https://seller.example/", "description": "", "mimeType": "",
            "payTo": demand["payTo"], "maxTimeoutSeconds": demand["maxTimeoutSeconds"],
            "asset": demand["asset"], "extra": demand["extra"],
            "outputSchema": { "input": { "type": "http", "method": "GET" } },
        },
    })
}

#[tokio::test]
async fn a1_a_payment_is_one_payment_in_both_versions() {
    let service = Service::start().await;
    let had = service.chain.tokens_of(PAY_TO).await;
    let (body, payer) = (service.body(6), service.chain.buyer.address().to_string());
    let verified = service.post_json("/verify", &in_v1(&body)).await;
    assert_eq!(verified.body, json!({ "isValid": true, "payer": payer }));
    let settled = service.post_json("/settle", &in_v1(&body)).await;
    assert_eq!(members(&settled.body), ["network", "payer", "success", "transaction"]);
    assert_eq!(
        (&settled.body["success"], &settled.body["network"]),
        (&json!(true), &json!(V1_NAME))
    );
    let again = service.post_json("/settle", &body).await;
    assert_eq!(again.body["transaction"], settled.body["transaction"]);
    assert_eq!(again.body["network"], CHAIN);
    assert_eq!(service.chain.tokens_of(PAY_TO).await, had + UNITS);
}

#[tokio::test]
async fn v1_payments_are_refused_by_the_same_rules() {
    let service = Service::start().await;
    let cases = [
        ("/paymentPayload/network", json!("base"), "invalid_exact_evm_network_mismatch"),
        ("/paymentPayload/network", json!("moon"), "invalid_network"),
        ("/paymentRequirements/network", json!("moon"), "invalid_network"),
        ("/paymentPayload/scheme", json!("upto"), "invalid_exact_evm_scheme"),
        (
            "/paymentRequirements/maxAmountRequired",
            json!("99"),
            "invalid_exact_evm_payload_authorization_value_mismatch",
        ),
        (
            "/paymentRequirements/payTo",
            json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
            "invalid_exact_evm_recipient_mismatch",
        ),
        ("/paymentPayload/payload/signature", json!("0x12"), "invalid_exact_evm_signature"),
    ];
    for (pointer, value, reason) in cases {
        let mut body = in_v1(&service.body(7));
        *body.pointer_mut(pointer).unwrap() = value;
        let verified = service.post_json("/verify", &body).await;
        assert_eq!(verified.status, 200, "{verified:?}");
        assert_eq!(verified.body["invalidReason"], reason, "{verified:?}");
        let settled = service.post_json("/settle", &body).await;
        assert_eq!(settled.status, 200, "{settled:?}");
        assert_settle_shape(&settled.body);
        assert_eq!(settled.body["errorReason"], reason, "{settled:?}");
        assert!(!settled.body["network"].as_str().unwrap().contains(':'), "{settled:?}");
    }
    for without in ["paymentPayload", "paymentRequirements"] {
        let mut body = in_v1(&service.body(7));
        body.as_object_mut().unwrap().remove(without);
        assert_eq!(service.post_json("/settle", &body).await.status, 400);
    }
}

/// What the official v1 express server sent to the official facilitator settles here, too, and is
/// answered in the same words.
#[tokio::test]
async fn recorded_requests_of_official_v1_servers_settle_here() {
    let recordings = [
        include_str!("../../../protocol/tests/vectors/v1client-v1server-get.json"),
        include_str!("../../../protocol/tests/vectors/v1client-v1server-post.json"),
        include_str!("../../../protocol/tests/vectors/v2client-v1server.json"),
        include_str!("../../../protocol/tests/vectors/v1client-dualserver.json"),
    ];
    for text in recordings {
        let recording: Value = serde_json::from_str(text).unwrap();
        let hops = recording["wire"].as_array().unwrap();
        let exchanges: Vec<&Value> =
            hops.iter().filter(|it| it["hop"] == "server->facilitator").collect();
        let body = &exchanges[0]["request"]["body"];
        let authorization = &body["paymentPayload"]["payload"]["authorization"];
        let ends: u64 = authorization["validBefore"].as_str().unwrap().parse().unwrap();
        let (payer, pay_to) = (&authorization["from"], authorization["to"].as_str().unwrap());
        let now = ends - 30;
        let config = DevnetConfig { start_time: Some(now), ..DevnetConfig::default() };
        let chain = TestChain::with(config).await;
        chain.devnet.set_token_balance(payer.as_str().unwrap().parse().unwrap(), 1_000_000);
        let had = chain.tokens_of(pay_to).await;
        let clock = Arc::new(Then(Timestamp::from_seconds(now)));
        let service = Service::with(chain, clock).await;
        for exchange in exchanges {
            let path = exchange["request"]["path"].as_str().unwrap();
            let answer = service.post_json(path, &exchange["request"]["body"]).await;
            let theirs = &exchange["response"]["body"];
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(members(&answer.body), members(theirs), "{path}");
            for member in ["isValid", "success", "network", "payer"] {
                assert_eq!(answer.body[member], theirs[member], "{path} {member}");
            }
        }
        let gained: u128 = recording["received"].as_str().unwrap().parse().unwrap();
        assert_eq!(service.chain.tokens_of(pay_to).await, had + gained);
    }
}
