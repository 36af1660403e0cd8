//! Streams pass through byte by byte, as they come; the receipt inside is picked up on the way.

use farebox_agent::{BadProof, Outcome};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::seller::{Answer, Line, Seen, Seller, demand, quoted_offer};
use crate::tools::{TestClock, books, client, post};

/// A stream that ends with a receipt of this payment, changed by `change`.
fn stream(seen: &Seen, change: impl FnOnce(&mut Value)) -> Answer {
    let payload = seen.payload();
    let authorization = &payload["payload"]["authorization"];
    let bytes = |it: &Value| hex::decode(it.as_str().unwrap().trim_start_matches("0x")).unwrap();
    let id = farebox_protocol::PaymentId::of_authorization(
        &crate::seller::NETWORK.parse().unwrap(),
        &bytes(&json!(crate::seller::ASSET)),
        &bytes(&authorization["from"]),
        &bytes(&authorization["nonce"]),
    );
    let mut receipt = json!({
        "paymentId": id, "route": "r", "scheme": "exact", "network": crate::seller::NETWORK,
        "asset": crate::seller::ASSET, "payer": authorization["from"],
        "payTo": crate::seller::PAY_TO, "quoted": "10000", "charged": "10000",
        "priceVersion": "v1", "at": 1, "state": "captured",
    });
    change(&mut receipt);
    let comment = format!(": farebox-receipt {receipt}\n\n");
    let (first, second) = comment.split_at(40);
    Answer::new(200).header("content-type", "text/event-stream; charset=utf-8").chunks(&[
        "data: {\"a\"",
        ":1}\n\n",
        first,
        second,
        "data: [DONE]\n\n",
    ])
}

async fn buy(line: Line) -> (String, Result<farebox_billing::Receipt, BadProof>) {
    let seller = Seller::start(vec![demand(&[quoted_offer()]), line]).await;
    let client = client(&TestClock::new());
    let answer = post(&client, &seller.url()).await.unwrap();
    let payment = answer.payment.unwrap();
    assert!(matches!(payment.outcome, Outcome::Accepted));
    assert!(payment.stream_receipt().is_none());
    assert!(payment.receipt_url.as_ref().unwrap().path().starts_with("/v1/receipts/pay_"));
    assert_eq!(books(&client), (10_000, 0));
    let mut body = answer.response.bytes_stream();
    let mut text = String::new();
    while let Some(chunk) = body.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    (text, payment.stream_receipt().unwrap().clone())
}

#[tokio::test]
async fn the_stream_is_untouched_and_its_receipt_is_read() {
    let (text, receipt) = buy(Line::From(|it| stream(it, |_| ()))).await;
    assert!(text.starts_with("data: {\"a\":1}\n\n: farebox-receipt {"), "{text}");
    assert!(text.ends_with("}\n\ndata: [DONE]\n\n"), "{text}");
    assert_eq!(receipt.unwrap().charged.units(), 10_000);
}

#[tokio::test]
async fn a27_a_receipt_inside_a_stream_must_fit_as_well() {
    let lie = Line::From(|it| stream(it, |it| it["charged"] = json!("20000")));
    assert!(matches!(buy(lie).await.1, Err(BadProof::Amount { .. })));
    let lie = Line::From(|it| stream(it, |it| it["network"] = json!("eip155:1")));
    assert!(matches!(buy(lie).await.1, Err(BadProof::Network { .. })));
    let lie = Line::From(|it| {
        stream(it, |it| it["paymentId"] = json!(format!("pay_{}", "0".repeat(64))))
    });
    assert!(matches!(buy(lie).await.1, Err(BadProof::Payment { .. })));
    let lie = Line::From(|it| stream(it, |it| it["state"] = json!("dreamt")));
    assert!(matches!(buy(lie).await.1, Err(BadProof::Unreadable { .. })));
}
