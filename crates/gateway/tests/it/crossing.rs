//! What crosses the gateway and what does not, and who may ask from where.

use farebox_testkit::upstream::Script;

use crate::app::TestApp;

const CLAIMS: [(&str, &str); 17] = [
    ("authorization", "Bearer client-key"),
    ("cookie", "session=1"),
    ("x-api-key", "client-key"),
    ("x-payment-verified", "true"),
    ("x-payment-response", "e30="),
    ("payment-response", "e30="),
    ("payment-receipt", "x"),
    ("payment-retry", "1"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-host", "admin"),
    ("x-forwarded-proto", "https"),
    ("forwarded", "for=127.0.0.1"),
    ("x-real-ip", "127.0.0.1"),
    ("x-original-url", "/admin"),
    ("x-farebox-charged", "0"),
    ("access-control-expose-headers", "PAYMENT-RESPONSE"),
    ("te", "trailers"),
];

#[tokio::test]
async fn a18_forged_claims_have_no_effect_and_go_no_further() {
    let app = TestApp::answering(Script::json("{}")).await;
    let mut unpaid = app.request("GET", "/premium/a", "");
    for (name, value) in CLAIMS {
        unpaid = unpaid.header(name, value);
    }
    TestApp::send(unpaid).await.assert_problem(402, "payment_required");
    assert_eq!(app.received(), 0);
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    for (target, payment) in [("/premium/a", Some(payment)), ("/v1/models", None)] {
        let mut request = app.request("GET", target, "").header("x-mine", "kept");
        for (name, value) in CLAIMS {
            request = request.header(name, value);
        }
        if let Some(payment) = payment {
            request = request.header("payment-signature", payment);
        }
        assert_eq!(TestApp::send(request).await.status, 200);
        let received = app.upstream.received().pop().unwrap();
        assert_eq!(received.headers["x-mine"], "kept");
        assert_eq!(received.headers["authorization"], "Bearer upstream-key");
        assert_eq!(received.headers["host"], app.upstream.address().to_string());
        for (name, _) in CLAIMS.iter().filter(|it| it.0 != "authorization") {
            assert!(!received.headers.contains_key(*name), "{name}");
        }
        assert!(!received.headers.contains_key("payment-signature"));
    }
}

#[tokio::test]
async fn an_upstream_cannot_forge_what_the_gateway_says() {
    let script = Script::json("{}")
        .with_header("payment-response", "forged")
        .with_header("payment-required", "forged")
        .with_header("farebox-receipt", "forged")
        .with_header("access-control-allow-origin", "https://evil.example")
        .with_header("set-cookie", "a=b")
        .with_header("x-kept", "1");
    let app = TestApp::answering(script).await;
    for answer in
        [app.ask("GET", "/v1/models", "").await, app.buy("GET", "/premium/a", "", 1).await]
    {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-kept"), "1");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(!answer.headers.contains_key("set-cookie"));
        assert!(!format!("{:?}", answer.headers).contains("forged"));
    }
}

#[tokio::test]
async fn pages_of_any_origin_may_ask_pay_and_read_what_was_paid() {
    let app = TestApp::answering(Script::json("{}")).await;
    for target in ["/premium/a", "/v1/models", "/v1/chat/completions", "/healthz", "/v1/receipts/x"]
    {
        let request = app
            .request("OPTIONS", target, "")
            .header("origin", "https://page.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "payment-signature");
        let answer = TestApp::send(request).await;
        assert_eq!(answer.status, 204, "{target}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let allowed = answer.header("access-control-allow-headers");
        for name in [
            "payment-signature",
            "x-payment",
            "access-control-expose-headers",
            "payment-retry",
            "authorization",
            "content-type",
        ] {
            assert!(allowed.split(", ").any(|it| it == name), "{name}");
        }
        assert!(answer.header("access-control-allow-methods").contains("POST"));
    }
    let elsewhere = app
        .request("OPTIONS", "/nowhere", "")
        .header("origin", "https://page.example")
        .header("access-control-request-method", "POST");
    assert_eq!(TestApp::send(elsewhere).await.status, 404);
    for answer in [app.ask("GET", "/premium/a", "").await, app.ask("GET", "/nowhere", "").await] {
        let exposed = answer.header("access-control-expose-headers").to_lowercase();
        for name in [
            "payment-required",
            "payment-response",
            "www-authenticate",
            "payment-receipt",
            "farebox-receipt",
        ] {
            assert!(exposed.contains(name), "{name}");
        }
    }
    assert_eq!(app.received(), 0);
}
