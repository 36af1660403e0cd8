//! Attack A16: what a header can carry that it should not.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_testkit::upstream::Script;

use crate::app::TestApp;

async fn app() -> TestApp {
    TestApp::answering(Script::json("{}")).await
}

async fn check(app: &TestApp, headers: &[(&str, &str)], status: u16, code: &str) {
    let mut request = app.request("GET", "/premium/a", "");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = TestApp::send(request).await;
    answer.assert_problem(status, code);
    assert_eq!(app.received(), 0, "{headers:?}");
    assert_eq!(app.facilitator.verifications(), 0);
    assert!(app.payments().await.is_empty());
}

#[tokio::test]
async fn a16_one_payment_of_one_kind_that_is_redeemed() {
    let app = app().await;
    let good = app.quote("GET", "/premium/a", "", 1).await;
    let other = app.quote("GET", "/premium/a", "", 2).await;
    for headers in [
        vec![("payment-signature", good.as_str()), ("payment-signature", other.as_str())],
        vec![("payment-signature", good.as_str()), ("payment-signature", good.as_str())],
        vec![("payment-signature", good.as_str()), ("x-payment", good.as_str())],
        vec![("x-payment", good.as_str()), ("x-payment", other.as_str())],
        vec![("x-payment", ""), ("payment-signature", good.as_str())],
        vec![("x-payment", good.as_str()), ("authorization", "Payment abc")],
        vec![("authorization", "Payment abc")],
        vec![("authorization", "payment")],
        vec![("payment-signature", good.as_str()), ("authorization", "PAYMENT abc")],
    ] {
        check(&app, &headers, 400, "unsupported_payment").await;
    }
    // The keys of OpenAI clients are no payments.
    let request = app.request("GET", "/premium/a", "").header("authorization", "Bearer sk-payment");
    let answer = TestApp::send(request.header("payment-signature", good)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a16_what_is_no_payment_is_named_and_offered_again() {
    let app = app().await;
    let nested = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let deep = format!("{{\"x402Version\":2,\"payload\":{nested}}}");
    let encode = |text: &str| STANDARD.encode(text);
    for value in [
        String::new(),
        "%%%".to_owned(),
        "e30".to_owned() + "-_",
        encode("{}"),
        encode("null"),
        encode("[]"),
        encode("\"x\""),
        encode("{\"x402Version\":2}"),
        encode("\0"),
        encode(&deep),
        encode("{\"x402Version\":1,\"payload\":{},\"accepted\":{}}"),
        STANDARD.encode([0xff, 0xfe]),
    ] {
        check(&app, &[("payment-signature", &value)], 400, "malformed_payment").await;
    }
    let request = app.request("GET", "/premium/a", "").header("payment-signature", "%%%");
    let answer = TestApp::send(request).await;
    assert!(!answer.required().accepts.is_empty());
    assert_eq!(answer.json()["reason"], "invalid_payload");
}

#[tokio::test]
async fn a16_an_authorization_of_another_form_is_malformed() {
    let app = app().await;
    let good = app.quote("GET", "/premium/a", "", 1).await;
    for (field, value) in [
        ("nonce", serde_json::json!("0x12")),
        ("nonce", serde_json::json!(7)),
        ("from", serde_json::json!("me")),
        ("value", serde_json::json!("1e9")),
        ("value", serde_json::json!("-1")),
        ("validBefore", serde_json::json!("soon")),
        ("validBefore", serde_json::Value::Null),
    ] {
        let forged = crate::app::changed(&good, |it| {
            it["payload"]["authorization"][field] = value.clone();
        });
        check(&app, &[("payment-signature", &forged)], 400, "malformed_payment").await;
    }
    let empty = crate::app::changed(&good, |it| it["payload"] = serde_json::json!({}));
    check(&app, &[("payment-signature", &empty)], 400, "malformed_payment").await;
}

#[tokio::test]
async fn a16_too_much_of_a_header_is_431() {
    let app = app().await;
    let long = "A".repeat(11_000);
    check(&app, &[("payment-signature", &long)], 431, "headers_too_large").await;
    check(&app, &[("authorization", &format!("Payment {long}"))], 431, "headers_too_large").await;
    let wide = "x".repeat(33_000);
    check(&app, &[("x-wide", &wide)], 431, "headers_too_large").await;
    let names: Vec<String> = (0..101).map(|n| format!("x-many-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|it| (it.as_str(), "1")).collect();
    check(&app, &many, 431, "headers_too_large").await;
}

/// A problem that stands there byte by byte.
#[track_caller]
fn check_raw(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    for header in [
        "content-type: application/problem+json".to_owned(),
        "connection: close".to_owned(),
        "access-control-allow-origin: *".to_owned(),
        format!("content-length: {}", body.len()),
    ] {
        assert!(head.split("\r\n").any(|it| it == header), "no {header} in {head}");
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["type"], format!("urn:farebox:problem:{code}"));
    assert_eq!(body["status"], status);
}

#[tokio::test]
async fn a16_what_no_parser_takes_is_refused_by_the_connection() {
    let app = app().await;
    let mut endless = String::from("GET /premium/a HTTP/1.1\r\nhost: h\r\n");
    for n in 0..5000 {
        write!(endless, "x-{n}: {}\r\n", "v".repeat(20)).unwrap();
    }
    let answer = app.raw(format!("{endless}\r\n").as_bytes()).await;
    check_raw(&answer, 431, "headers_too_large");
    for bytes in [
        "GET /premium/a HTTP/1.1\r\nhost: h\r\npayment-signature: a\0b\r\n\r\n",
        "GET /premium/a HTTP/1.1\r\nhost: h\r\nbad name: 1\r\n\r\n",
        "GET /premium/a HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "GET /premium/a HTTP/9.9\r\nhost: h\r\n\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
        "GET /premium/a\r\n\r\n",
        "GET /premium/a b HTTP/1.1\r\nhost: h\r\n\r\n",
    ] {
        check_raw(&app.raw(bytes.as_bytes()).await, 400, "malformed_request");
    }
    // Behind an answer on the same connection, too.
    let behind = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\nbad\0\r\n\r\n";
    let answer = app.raw(behind).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, second) = answer.split_at(answer.rfind("HTTP/1.1").unwrap());
    check_raw(second, 400, "malformed_request");
    assert_eq!(app.received(), 0);
}

#[tokio::test]
async fn a16_two_lengths_are_no_way_to_hide_a_request() {
    let app = app().await;
    let smuggled = "POST /free HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 5\r\n\
                    transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /premium/b HTTP/1.1\r\nhost: h\r\n\r\n";
    let answer = app.raw(smuggled.as_bytes()).await;
    assert!(answer.matches("HTTP/1.1").count() <= 1, "{answer}");
    assert!(app.upstream.received().iter().all(|it| it.target == "/free"), "{answer}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let setup = crate::app::Setup {
        limits: farebox_gateway::Limits {
            request_bytes_max: 1000,
            ..crate::app::Setup::default().limits
        },
        ..crate::app::Setup::default()
    };
    let app = TestApp::start(setup, |_| Script::json("{}")).await;
    let large = "x".repeat(1001);
    for target in ["/flat", "/free"] {
        app.ask("POST", target, &large).await.assert_problem(413, "body_too_large");
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(large.clone())]);
        let request = app.http.post(app.url(target)).body(reqwest::Body::wrap_stream(stream));
        TestApp::send(request).await.assert_problem(413, "body_too_large");
    }
    assert_eq!(app.received(), 0);
}
