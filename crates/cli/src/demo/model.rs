//! A small model for the demo: an OpenAI-compatible upstream in this process.
//!
//! It writes the same words for the same prompt, answers as JSON or as a stream, reports its usage,
//! and can be told to fail: `"model": "demo-broken"` is an upstream that answers 500.

mod text;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Json, Path};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The model that works.
pub(super) const MODEL: &str = "demo-1";
/// The model that answers every request with 500.
pub(super) const BROKEN_MODEL: &str = "demo-broken";
/// From token to token: fast, and slow enough to be seen.
const TOKEN_PAUSE: Duration = Duration::from_millis(12);
/// Answers never get longer than this.
const TOKENS_MAX: usize = 400;
/// What is written when nothing else is asked for.
const TOKENS_USUAL: u64 = 64;

/// Listens on a free port of the loopback interface and serves until `stop`.
pub(super) async fn start(tasks: &TaskTracker, stop: CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(complete))
        .route("/reports/{name}", get(page))
        .route("/notes/{name}", get(page));
    tasks.spawn(async move {
        let serving = serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "the demo model stopped");
        }
    });
    Ok(address)
}

/// What is read of a request.
#[derive(Debug, Deserialize)]
struct Ask {
    model: String,
    #[serde(default)]
    messages: Vec<Message>,
    max_tokens: Option<u64>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    content: String,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// An answer before it is written out.
struct Answer {
    id: String,
    tokens: Vec<String>,
    prompt_tokens: usize,
    finish_reason: &'static str,
}

impl Answer {
    fn to(ask: &Ask) -> Self {
        let prompt: Vec<&str> =
            ask.messages.iter().flat_map(|it| it.content.split_whitespace()).collect();
        let prompt_text = prompt.join(" ");
        let wanted = ask.max_tokens.unwrap_or(TOKENS_USUAL);
        let wanted = usize::try_from(wanted).unwrap_or(TOKENS_MAX).min(TOKENS_MAX);
        let mut tokens = text::answer(&prompt_text);
        let cut = wanted < tokens.len();
        tokens.truncate(wanted);
        Self {
            id: format!("chatcmpl-{:016x}", text::fingerprint(&prompt_text)),
            tokens,
            // Four tokens frame each message, as in the chat format of most models.
            prompt_tokens: ask.messages.len().saturating_mul(4).saturating_add(prompt.len()),
            finish_reason: if cut { "length" } else { "stop" },
        }
    }

    fn usage(&self) -> Value {
        let (prompt, completion) = (self.prompt_tokens, self.tokens.len());
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt.saturating_add(completion),
        })
    }

    fn chunk(&self, delta: Value, finish_reason: Option<&str>) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": 0, "model": MODEL,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
        })
    }

    fn body(&self) -> Value {
        json!({
            "id": self.id, "object": "chat.completion", "created": 0, "model": MODEL,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": self.tokens.concat() },
                "finish_reason": self.finish_reason,
            }],
            "usage": self.usage(),
        })
    }

    /// The events of a stream, each with the pause before it.
    fn events(self, options: &StreamOptions) -> Vec<(Duration, String)> {
        let event = |it: &Value| format!("data: {it}\n\n");
        let first = self.chunk(json!({ "role": "assistant", "content": "" }), None);
        let mut events = vec![(Duration::ZERO, event(&first))];
        for token in &self.tokens {
            events.push((TOKEN_PAUSE, event(&self.chunk(json!({ "content": token }), None))));
        }
        let last = self.chunk(json!({}), Some(self.finish_reason));
        events.push((Duration::ZERO, event(&last)));
        if options.include_usage {
            let mut usage = self.chunk(json!({}), None);
            if let Some(object) = usage.as_object_mut() {
                object.insert("choices".to_owned(), json!([]));
                object.insert("usage".to_owned(), self.usage());
            }
            events.push((Duration::ZERO, event(&usage)));
        }
        events.push((Duration::ZERO, "data: [DONE]\n\n".to_owned()));
        events
    }
}

async fn models() -> Json<Value> {
    let model =
        |id: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": "farebox" });
    Json(json!({ "object": "list", "data": [model(MODEL), model(BROKEN_MODEL)] }))
}

async fn complete(Json(ask): Json<Ask>) -> Response {
    if ask.model == BROKEN_MODEL {
        let error = json!({ "error": { "message": "out of memory", "type": "server_error" } });
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(error)).into_response();
    }
    let answer = Answer::to(&ask);
    if ask.stream {
        let body = Body::from_stream(paced(answer.events(&ask.stream_options)));
        return ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response();
    }
    let thinking = u32::try_from(answer.tokens.len()).unwrap_or(u32::MAX);
    tokio::time::sleep(TOKEN_PAUSE.saturating_mul(thinking)).await;
    Json(answer.body()).into_response()
}

fn paced(events: Vec<(Duration, String)>) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::iter(events).then(|(pause, event)| async move {
        tokio::time::sleep(pause).await;
        Ok(Bytes::from(event))
    })
}

async fn page(Path(name): Path<String>) -> Json<Value> {
    Json(json!({ "name": name, "text": text::tokens(&name, 40).concat() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Ask {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn usage_counts_what_was_written() {
        let ask = ask(r#"{"model":"demo-1","max_tokens":7,"messages":[{"content":"a b c"}]}"#);
        let body = Answer::to(&ask).body();
        assert_eq!(body["usage"]["prompt_tokens"], 7);
        assert_eq!(body["usage"]["completion_tokens"], 7);
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        assert_eq!(body, Answer::to(&ask).body(), "the same prompt gives the same words");
    }

    #[test]
    fn a_stream_says_the_same_as_the_body() {
        let ask = ask(r#"{"model":"demo-1","max_tokens":30,"messages":[{"content":"hello"}]}"#);
        let whole = Answer::to(&ask).body();
        let events = Answer::to(&ask).events(&StreamOptions { include_usage: true });
        let chunks: Vec<Value> = events
            .iter()
            .filter_map(|it| serde_json::from_str(it.1.strip_prefix("data: ")?.trim()).ok())
            .collect();
        let text: String =
            chunks.iter().filter_map(|it| it["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, whole["choices"][0]["message"]["content"].as_str().unwrap());
        assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
        assert_eq!(events.last().unwrap().1, "data: [DONE]\n\n");
    }
}
