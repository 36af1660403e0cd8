//! Attack A14: no spelling of a URL walks around its price. Raw bytes on real sockets.

use farebox_testkit::upstream::Script;

use crate::app::TestApp;

async fn check(app: &TestApp, request: &str, expected: &[u16]) {
    let answer = app.raw(request.as_bytes()).await;
    let status = answer.split(' ').nth(1).and_then(|it| it.parse::<u16>().ok());
    assert!(status.is_some_and(|it| expected.contains(&it)), "{request:?}: {answer}");
    if !expected.contains(&200) {
        assert_eq!(app.received(), 0, "{request:?} reached the upstream");
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a14_no_spelling_reaches_the_upstream_unpaid() {
    let app = TestApp::answering(Script::json("{}")).await;
    for target in ["/premium/a", "/premium/%61", "/premium/a?x", "/premium/..a", "/premium/"] {
        check(&app, &get(target), &[402]).await;
    }
    for target in [
        "/premium/../v1/models",
        "/v1/models/../../premium/a",
        "/v1/models/%2e%2e/%2e%2e/premium/a",
        "/%2e/premium/a",
        "//premium/a",
        "/premium//a",
        "/v1/models;/../premium",
        "/premium/a;x=1",
        "/premium%2Fa",
        "/premium%2fa",
        "/premium%5Ca",
        "/premium\\a",
        "/premium/a%00",
        "/premium/%zz",
        "/premium/%",
        "/premium/%252e%252e/a",
        "/premium/%c0%ae",
        "/premium/%ff",
        "*",
    ] {
        check(&app, &get(target), &[400]).await;
    }
    for target in
        ["/Premium/a", "/PREMIUM/a", "/premium", "/premium./a", "/v1/models/", "/v1/models.", "/v1"]
    {
        check(&app, &get(target), &[404]).await;
    }
    check(&app, &get(&format!("/premium/{}", "a".repeat(9000))), &[400]).await;
}

#[tokio::test]
async fn a14_absolute_form_is_the_same_request_or_none() {
    let app = TestApp::answering(Script::json("{}")).await;
    let absolute = |host: &str, target: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
    };
    check(&app, &absolute("h", "http://h/premium/a"), &[402]).await;
    check(&app, &absolute("h", "http://H/premium/a"), &[402]).await;
    for (host, target) in [
        ("h", "http://other/premium/a"),
        ("h", "http://other/v1/models"),
        ("h", "http://h:81/v1/models"),
        ("h", "http://user@h/v1/models"),
        ("h", "http://h/a/../premium/a"),
    ] {
        check(&app, &absolute(host, target), &[400]).await;
    }
    check(&app, "CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\nconnection: close\r\n\r\n", &[400]).await;
    let twice = "GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n";
    check(&app, twice, &[400]).await;
}

#[tokio::test]
async fn a14_methods_have_prices_of_their_own() {
    let app = TestApp::answering(Script::json("{}")).await;
    let request = |method: &str, target: &str| {
        format!(
            "{method} {target} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
    };
    for (method, target) in [
        ("POST", "/premium/a"),
        ("HEAD", "/premium/a"),
        ("OPTIONS", "/premium/a"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models"),
        ("get", "/premium/a"),
        ("PURGE", "/premium/a"),
        ("POST", "/healthz"),
        ("DELETE", "/v1/receipts/x"),
    ] {
        check(&app, &request(method, target), &[405]).await;
    }
    let answer = app.ask("DELETE", "/v1/models", "").await;
    assert_eq!(answer.header("allow"), "GET");
}

#[tokio::test]
async fn a14_http2_has_the_same_rules() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let app = TestApp::answering(Script::json("{}")).await;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for (target, status) in [
        ("/premium/a", 402),
        ("/premium/%2e%2e/%2Fa", 400),
        ("/premium//a", 400),
        ("/Premium/a", 404),
        ("/v1/models", 200),
    ] {
        let answer = http2.get(app.url(target)).send().await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(answer.status().as_u16(), status, "{target}");
    }
    assert_eq!(app.received(), 1);
}

#[tokio::test]
async fn what_belongs_to_the_gateway_is_not_forwarded() {
    let app = TestApp::answering(Script::json("{}")).await;
    assert_eq!(app.ask("GET", "/healthz", "").await.json()["status"], "ok");
    assert_eq!(app.ask("GET", "/readyz", "").await.json()["status"], "ready");
    for id in ["", "x", "pay_00", &format!("pay_{}", "0".repeat(64))] {
        let answer = app.ask("GET", &format!("/v1/receipts/{id}"), "").await;
        answer.assert_problem(404, "no_such_route");
    }
    assert_eq!(app.received(), 0);
}
