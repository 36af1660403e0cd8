//! JSON-RPC itself: envelopes, batches, and what is said against what is not a request.

use serde_json::{Value, json};

use crate::support::Net;

#[tokio::test]
async fn every_malformed_request_gets_its_code() {
    let net = Net::instant().await;
    let cases = [
        ("{", json!({"id": null, "code": -32700})),
        ("[]", json!({"id": null, "code": -32600})),
        ("1", json!({"id": null, "code": -32600})),
        ("{}", json!({"id": null, "code": -32600})),
        (
            r#"{"jsonrpc":"2.0","id":{},"method":"eth_chainId"}"#,
            json!({"id": null, "code": -32600}),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, json!({"id": null, "code": -32600})),
        (r#"{"jsonrpc":"2.0","id":"a","method":"eth_nope"}"#, json!({"id": "a", "code": -32601})),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance"}"#, json!({"id": 1, "code": -32602})),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":{}}"#,
            json!({"id": 1, "code": -32602}),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0x12"]}"#,
            json!({"id": 1, "code": -32602}),
        ),
    ];
    for (body, expected) in cases {
        let (status, text) = net.post(body).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        let got = json!({"id": answer["id"], "code": answer["error"]["code"]});
        assert_eq!((status, got), (200, expected), "{body}");
    }
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_without_its_notifications() {
    let net = Net::instant().await;
    let (status, text) = net
        .post(
            r#"[{"jsonrpc":"2.0","id":1,"method":"eth_chainId"},
                {"jsonrpc":"2.0","method":"evm_mine"},
                7,
                {"jsonrpc":"2.0","id":null,"method":"net_version"},
                {"jsonrpc":"2.0","id":"x","method":"eth_blockNumber"}]"#,
        )
        .await;
    let answers: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert_eq!(answers.as_array().unwrap().len(), 4);
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": 1, "result": "0x14a34"}));
    assert_eq!(answers[1]["error"]["code"], json!(-32600));
    assert_eq!(answers[2], json!({"jsonrpc": "2.0", "id": null, "result": "84532"}));
    assert_eq!(
        answers[3],
        json!({"jsonrpc": "2.0", "id": "x", "result": "0x1"}),
        "the notification ran"
    );
}

#[tokio::test]
async fn nothing_is_said_to_a_notification() {
    let net = Net::instant().await;
    let (status, text) = net.post(r#"{"jsonrpc":"2.0","method":"evm_mine"}"#).await;
    assert_eq!((status, text.as_str()), (204, ""));
    assert_eq!(net.number().await, 1);
}

#[tokio::test]
async fn too_large_batches_and_bodies_are_refused() {
    let net = Net::instant().await;
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    let (_, text) = net.post(format!("[{}]", vec![one; 1_001].join(","))).await;
    assert!(text.contains("batch too large"), "{text}");
    let (status, _) = net.post(" ".repeat(5 * 1024 * 1024 + 1)).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn pages_of_any_origin_may_ask() {
    let net = Net::instant().await;
    let client = reqwest::Client::builder().build().unwrap();
    let preflight =
        client.request(reqwest::Method::OPTIONS, net.devnet.url()).send().await.unwrap();
    assert_eq!(preflight.headers()["access-control-allow-origin"], "*");
    assert_eq!(preflight.headers()["access-control-allow-headers"], "*");
    let answer = client.post(net.devnet.url()).body("{}").send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(client.get(net.devnet.url()).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn a_stopped_chain_answers_no_more() {
    let net = Net::instant().await;
    let address = net.devnet.address();
    net.devnet.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
