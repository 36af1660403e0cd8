//! What of an upstream's answer reaches whoever paid for it.

use farebox_store::SettleMode;
use farebox_testkit::upstream::{Part, Script};

use crate::app::{Setup, TestApp, chat};

#[tokio::test]
async fn a17_an_upstream_has_no_word_with_caches_about_what_was_paid_for() {
    let app = TestApp::start(Setup::default(), |_| {
        Script::json("{}")
            .with_header("age", "3")
            .with_header("cache-control", "public")
            .with_header("cdn-cache-control", "max-age=60")
            .with_header("cloudflare-cdn-cache-control", "max-age=60")
            .with_header("etag", "\"a\"")
            .with_header("expires", "Thu, 01 Jan 2099 00:00:00 GMT")
            .with_header("last-modified", "Thu, 01 Jan 2015 00:00:00 GMT")
            .with_header("pragma", "cache")
            .with_header("surrogate-control", "max-age=60")
            .with_header("x-accel-expires", "60")
    })
    .await;
    let answer = app.buy("GET", "/premium/a", "", 1).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let caches: Vec<&str> = [
        "age",
        "cdn-cache-control",
        "cloudflare-cdn-cache-control",
        "expires",
        "pragma",
        "surrogate-control",
        "x-accel-expires",
    ]
    .into_iter()
    .filter(|it| answer.headers.contains_key(*it))
    .collect();
    assert!(caches.is_empty(), "{caches:?}");
    assert_eq!(answer.headers.get_all("cache-control").iter().count(), 1);
    assert_eq!(answer.header("cache-control"), "private, no-store");
    assert!(answer.headers.contains_key("etag") && answer.headers.contains_key("last-modified"));
    // What is free is as public as its upstream says.
    let free = app.ask("GET", "/v1/models", "").await;
    assert_eq!(free.header("cdn-cache-control"), "max-age=60");
}

#[tokio::test]
async fn an_answer_that_cannot_be_metered_is_not_served() {
    let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    let scripts = [
        Script::events(vec![Part::text(event), Part::text("data: [DONE]\n\n")]),
        Script::json("{\"choices\":[{\"message\":{\"content\":\"a\"}}]}"),
    ];
    for (settle, code) in
        [(SettleMode::After, "upstream_failed"), (SettleMode::Before, "refund_owed")]
    {
        for (script, stream) in scripts.clone().into_iter().zip([true, false]) {
            let script = script.with_header("content-encoding", "gzip");
            let setup = Setup { settle, ..Setup::default() };
            let app = TestApp::start(setup, move |_| script.clone()).await;
            let answer = app.buy("POST", "/v1/chat/completions", &chat(stream), 1).await;
            answer.assert_problem(502, code);
        }
    }
    for script in scripts {
        let app = TestApp::answering(script.with_header("content-encoding", "identity")).await;
        let answer = app.buy("POST", "/v1/chat/completions", &chat(false), 1).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn what_nobody_meters_may_be_compressed() {
    let app = TestApp::answering(Script::json("x").with_header("content-encoding", "br")).await;
    let answer = app.buy("GET", "/premium/a", "", 1).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, "br"));
}
