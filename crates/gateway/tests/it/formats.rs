//! Each format sold by tokens: as JSON and as a stream, refused, and failing.

use std::sync::Arc;

use farebox_testkit::gate::Gate;
use farebox_testkit::upstream::{Part, Received, Script};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::app::{Setup, TestApp};

/// What a model of a format is asked, and what it says; input 9 tokens, output 2.
struct Sale {
    path: &'static str,
    request: Value,
    answer: Value,
    /// Nothing where the format has no streams; the last event is the one that waits.
    stream: Option<Vec<String>>,
    /// What the gateway writes into the request.
    enforced: Value,
    /// What the client is not shown of the stream.
    hidden: Option<usize>,
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn named(value: &Value) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap())
}

fn completions() -> Sale {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11});
    let chunk = |text: &str| data(&json!({"choices": [{"index": 0, "text": text}]}));
    Sale {
        path: "/v1/completions",
        request: json!({"model": "m", "prompt": "hi", "max_tokens": 9_999}),
        answer: json!({"choices": [{"index": 0, "text": "hello"}], "usage": usage}),
        stream: Some(vec![
            chunk("hel"),
            chunk("lo"),
            data(&json!({"choices": [], "usage": usage})),
            "data: [DONE]\n\n".to_owned(),
        ]),
        enforced: json!({"max_tokens": 4096}),
        hidden: Some(2),
    }
}

fn embeddings() -> Sale {
    Sale {
        path: "/v1/embeddings",
        request: json!({"model": "m", "input": ["hi", "ho"]}),
        answer: json!({
            "data": [{"embedding": [0.5, -0.25]}, {"embedding": [0.125, 1]}],
            "usage": {"prompt_tokens": 9, "total_tokens": 9},
        }),
        stream: None,
        enforced: json!({}),
        hidden: None,
    }
}

fn responses() -> Sale {
    let response = |status: &str| {
        json!({
            "id": "resp_1",
            "object": "response",
            "status": status,
            "error": null,
            "output": [{"type": "message", "role": "assistant",
                        "content": [{"type": "output_text", "text": "hello"}]}],
            "usage": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
        })
    };
    let delta = |it: &str| named(&json!({"type": "response.output_text.delta", "delta": it}));
    Sale {
        path: "/v1/responses",
        request: json!({"model": "m", "input": "hi"}),
        answer: response("completed"),
        stream: Some(vec![
            named(&json!({"type": "response.created", "response": {"usage": null}})),
            delta("hel"),
            delta("lo"),
            named(&json!({"type": "response.completed", "response": response("completed")})),
        ]),
        enforced: json!({"max_output_tokens": 4096, "store": false}),
        hidden: None,
    }
}

fn messages() -> Sale {
    let message = |content: Value, output: u64| {
        json!({"type": "message", "role": "assistant", "content": content, "usage": {
            "input_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3,
            "output_tokens": output,
        }})
    };
    let delta = |it: &str| {
        let text = json!({"type": "text_delta", "text": it});
        named(&json!({"type": "content_block_delta", "index": 0, "delta": text}))
    };
    let usage = json!({"output_tokens": 2});
    Sale {
        path: "/v1/messages",
        request: json!({
            "model": "m",
            "max_tokens": 9_999,
            "messages": [{"role": "user", "content": "hi"}],
        }),
        answer: message(json!([{"type": "text", "text": "hello"}]), 2),
        stream: Some(vec![
            named(&json!({"type": "message_start", "message": message(json!([]), 1)})),
            "event: ping\ndata: {\"type\": \"ping\"}\n\n".to_owned(),
            delta("hel"),
            delta("lo"),
            named(&json!({"type": "message_delta", "delta": {}, "usage": usage})),
            named(&json!({"type": "message_stop"})),
        ]),
        enforced: json!({"max_tokens": 4096}),
        hidden: None,
    }
}

fn sales() -> [Sale; 4] {
    [completions(), embeddings(), responses(), messages()]
}

impl Sale {
    fn request(&self, stream: bool) -> String {
        let mut request = self.request.clone();
        if stream {
            request["stream"] = json!(true);
        }
        request.to_string()
    }

    /// What the upstream was asked: the request, held to the limits, with our key.
    fn assert_asked(&self, received: &Received) {
        let sent: Value = serde_json::from_slice(&received.body).unwrap();
        for (name, value) in self.enforced.as_object().unwrap() {
            assert_eq!(&sent[name], value, "{name} of {sent}");
        }
        let header = |name: &str| received.headers.get(name).map(|it| it.to_str().unwrap());
        let (authorization, x_api_key) = (header("authorization"), header("x-api-key"));
        if self.path == "/v1/messages" {
            assert_eq!((authorization, x_api_key), (None, Some("upstream-key")));
            assert_eq!(header("anthropic-version"), Some("2023-06-01"));
        } else {
            assert_eq!((authorization, x_api_key), (Some("Bearer upstream-key"), None));
        }
    }

    async fn buy(&self, app: &TestApp, body: &str) -> crate::app::Answer {
        let payment = app.quote("POST", self.path, body, 1).await;
        let request = app
            .request("POST", self.path, body)
            .header("payment-signature", payment)
            .header("x-api-key", "the-clients-own")
            .header("anthropic-version", "2023-06-01");
        TestApp::send(request).await
    }

    async fn receipt(&self, app: &TestApp, answer: &crate::app::Answer) -> Value {
        let receipt = answer.header("farebox-receipt");
        let path = receipt.strip_prefix("https://api.example.com").unwrap();
        app.ask("GET", path, "").await.json()
    }
}

/// `upto`: 9 tokens in at 0.15 and 2 out at 0.60 dollars for a million, rounded up; embeddings have no
/// output.
#[tokio::test]
async fn what_was_used_is_charged_in_every_format() {
    for sale in sales() {
        let whole = Script::json(&sale.answer.to_string());
        let streamed = sale
            .stream
            .as_ref()
            .map(|events| Script::events(events.iter().map(|it| Part::text(it)).collect()));
        for (script, stream) in [Some(whole), streamed].into_iter().zip([false, true]) {
            let Some(script) = script else { continue };
            let setup = Setup { offers: &["upto", "exact"], ..Setup::default() };
            let app = TestApp::start(setup, move |_| script.clone()).await;
            let answer = sale.buy(&app, &sale.request(stream)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            app.until_states(&["settled"]).await;
            let receipt = sale.receipt(&app, &answer).await;
            let expected = if sale.path == "/v1/embeddings" { "2" } else { "3" };
            assert_eq!(receipt["charged"], expected, "{}: {receipt}", sale.path);
            assert_eq!(receipt["scheme"], "upto");
        }
    }
}

#[tokio::test]
async fn json_answers_are_sold() {
    for sale in sales() {
        let app = TestApp::answering(Script::json(&sale.answer.to_string())).await;
        let answer = sale.buy(&app, &sale.request(false)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json(), sale.answer);
        assert!(answer.settlement().unwrap().success, "{}", sale.path);
        assert_eq!(sale.receipt(&app, &answer).await["state"], "settled", "{}", sale.path);
        sale.assert_asked(&app.upstream.received()[0]);
    }
}

#[tokio::test]
async fn streams_are_sold_and_end_with_their_receipt() {
    for sale in sales() {
        let Some(events) = &sale.stream else { continue };
        let parts = events.iter().map(|it| Part::text(it)).collect();
        let app = TestApp::answering(Script::events(parts)).await;
        let answer = sale.buy(&app, &sale.request(true)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (before, rest) = answer.body.split_once(": farebox-receipt ").unwrap();
        let (receipt, last) = rest.split_once('\n').unwrap();
        let (end, shown) = events.split_last().unwrap();
        let shown = shown.iter().enumerate().filter(|(index, _)| Some(*index) != sale.hidden);
        assert_eq!(before, shown.map(|(_, it)| it.as_str()).collect::<String>());
        assert_eq!(last, end);
        let receipt: Value = serde_json::from_str(receipt).unwrap();
        assert_eq!(receipt["usage"]["inputTokens"], 9, "{}", sale.path);
        assert_eq!(receipt["usage"]["outputTokens"], 2, "{}", sale.path);
        assert_eq!(receipt["usage"]["basis"], "reported");
        app.until_states(&["settled"]).await;
        sale.assert_asked(&app.upstream.received()[0]);
    }
}

#[tokio::test]
async fn a_stream_that_begins_with_an_error_costs_nothing() {
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
    for sale in sales().into_iter().filter(|it| it.stream.is_some()) {
        let app = TestApp::answering(Script::events(vec![Part::text(&named(&error))])).await;
        let answer = sale.buy(&app, &sale.request(true)).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        let body = answer.json();
        let told = (&body["type"], &body["error"]["type"]);
        let expected = if sale.path == "/v1/messages" {
            (&json!("error"), &json!("api_error"))
        } else {
            (&json!("urn:farebox:problem:upstream_failed"), &json!("upstream_failed"))
        };
        assert_eq!(told, expected, "{}", sale.path);
        app.until_states(&["released"]).await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_charged_for_what_came() {
    for sale in sales() {
        let Some(events) = &sale.stream else { continue };
        let gate = Arc::new(Gate::default());
        let (end, shown) = events.split_last().unwrap();
        let mut parts: Vec<Part> = shown.iter().map(|it| Part::text(it)).collect();
        parts.extend([Part::Wait(Arc::clone(&gate)), Part::Break]);
        let app = TestApp::answering(Script::events(parts)).await;
        let payment = app.quote("POST", sale.path, &sale.request(true), 1).await;
        let request = app
            .request("POST", sale.path, &sale.request(true))
            .header("payment-signature", payment);
        let mut body = request.send().await.unwrap().bytes_stream();
        let (mut text, mut cut) = (String::new(), false);
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => {
                    text.push_str(std::str::from_utf8(&piece).unwrap());
                    gate.open();
                }
                Err(_) => cut = true,
            }
        }
        assert!(cut && text.contains("hel") && !text.contains(end.as_str()), "{text}");
        app.until_states(&["settled"]).await;
    }
}

#[tokio::test]
async fn what_cannot_be_bounded_is_refused_before_any_payment() {
    let app = TestApp::answering(Script::json("{}")).await;
    for (path, body, pointer) in [
        ("/v1/completions", json!({"prompt": "a", "n": 99}), "/n"),
        ("/v1/embeddings", json!({"input": [{"image": "x"}]}), "/input/0"),
        ("/v1/responses", json!({"input": "a", "background": true}), "/background"),
        (
            "/v1/responses",
            json!({"input": "a", "previous_response_id": "resp_1"}),
            "/previous_response_id",
        ),
        ("/v1/messages", json!({"messages": []}), "/max_tokens"),
        (
            "/v1/messages",
            json!({"max_tokens": 1, "messages": [], "tools": [{"type": "web_search_20250305"}]}),
            "/tools/0/type",
        ),
    ] {
        let answer = app.ask("POST", path, &body.to_string()).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let told = answer.json();
        assert_eq!(told["pointer"], pointer, "{told}");
        assert!(told["error"]["message"].as_str().unwrap().contains("has no price"), "{told}");
        if path == "/v1/messages" {
            assert_eq!(
                (&told["type"], &told["code"]),
                (&json!("error"), &json!("malformed_request"))
            );
        } else {
            answer.assert_problem(400, "malformed_request");
        }
    }
    assert_eq!(app.received(), 0);
}

/// A beta that makes every token dearer has no price here, in whatever header it stands and with or
/// without a payment; others pass on to the upstream.
#[tokio::test]
async fn a_beta_without_a_price_is_refused_before_any_payment() {
    let sale = messages();
    let whole = sale.answer.to_string();
    let app = TestApp::start(Setup::default(), move |_| Script::json(&whole)).await;
    let body = sale.request(false);
    let payment = app.quote("POST", sale.path, &body, 1).await;
    let asked = |betas: &[&'static str], payment: Option<&str>| {
        let request = app.request("POST", sale.path, &body);
        let request = betas.iter().fold(request, |it, beta| it.header("anthropic-beta", *beta));
        TestApp::send(
            payment.into_iter().fold(request, |it, pay| it.header("payment-signature", pay)),
        )
    };
    for betas in [
        &["context-1m-2025-08-07"][..],
        &["files-api-2025-04-14, Context-1M-2025-08-07"],
        &["files-api-2025-04-14", "context-1m-2025-08-07"],
    ] {
        for payment in [None, Some(payment.as_str())] {
            let answer = asked(betas, payment).await;
            assert_eq!(answer.status, 400, "{answer:?}");
            let told = answer.json();
            assert_eq!(
                (&told["type"], &told["code"]),
                (&json!("error"), &json!("malformed_request"))
            );
            let message = told["error"]["message"].as_str().unwrap().to_lowercase();
            assert!(message.contains("`context-1m-2025-08-07`"), "{told}");
            assert!(message.contains("has no price"), "{told}");
        }
    }
    assert_eq!((app.received(), app.states().await.len()), (0, 0));
    let answer = asked(&["files-api-2025-04-14"], Some(&payment)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let received = app.upstream.received();
    assert_eq!(received[0].headers["anthropic-beta"], "files-api-2025-04-14");
}

#[tokio::test]
async fn an_answer_of_another_kind_than_asked_is_metered_all_the_same() {
    // A server that streams although nobody asked it to.
    let sale = responses();
    let events = sale.stream.clone().unwrap();
    let app = TestApp::start(Setup::default(), move |_| {
        Script::events(events.iter().map(|it| Part::text(it)).collect())
    })
    .await;
    let answer = sale.buy(&app, &sale.request(false)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains(": farebox-receipt "));
    app.until_states(&["settled"]).await;
}
