//! An upstream that answers, stalls and cuts.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farebox_gateway::Dial;
use farebox_protocol::Amount;
use http::{Request, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::event::Event;
use crate::tags::Tags;
use crate::world::World;

/// Room on the wire.
const WIRE_BYTES: usize = 16 * 1024;
/// Longer than any gateway waits.
const STALL: Duration = Duration::from_mins(10);

/// The upstream, as one process sees it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) world: Arc<World>,
    pub(crate) tasks: TaskTracker,
}

/// The upstream breaks off.
#[derive(Debug, thiserror::Error)]
#[error("the upstream breaks off")]
struct BreaksOff;

type Body = BoxBody<Bytes, BreaksOff>;

impl Dial for Upstream {
    fn dial(&self, _url: &Uri) -> io::Result<DuplexStream> {
        if self.world.is_dead() || self.world.strikes(|it| it.upstream_fails / 2) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(WIRE_BYTES);
        let world = Arc::clone(&self.world);
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                work(Arc::clone(&world), tasks.clone(), request)
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
            drop(connection.await);
        });
        Ok(ours)
    }
}

async fn work(
    world: Arc<World>,
    tasks: TaskTracker,
    request: Request<Incoming>,
) -> Result<Response<Body>, BreaksOff> {
    let tags = Tags::read(request.headers());
    world.port().await;
    world.log(Event::UpstreamAsked { attempt: tags.attempt, payment: tags.payment });
    world.port().await;
    let body = request.into_body().collect().await.map_err(|_| BreaksOff)?.to_bytes();
    world.pause(5, 3_000).await;
    world.port().await;
    if world.strikes(|it| it.upstream_stalls) {
        tokio::time::sleep(STALL).await;
    }
    if world.strikes(|it| it.upstream_fails) {
        if world.luck(|it| it.percent(50)) {
            return Err(BreaksOff);
        }
        let mut refused = whole(Bytes::from_static(b"{\"error\":{\"message\":\"overloaded\"}}"));
        *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(refused);
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    if asked.is_null() {
        world.log(Event::Used { attempt: tags.attempt, cost: world.prices.of_thing() });
        return Ok(whole(Bytes::from_static(b"a thing")));
    }
    let usage = (world.luck(|it| it.between(1, 8)), world.luck(|it| it.between(1, 100)));
    let cost = world.prices.of_tokens(usage.0, usage.1);
    if asked.get("stream").and_then(Value::as_bool) != Some(true) {
        world.log(Event::Used { attempt: tags.attempt, cost });
        return Ok(whole(completion(usage)));
    }
    let (sender, receiver) = mpsc::channel(1);
    tasks.spawn(stream(Arc::clone(&world), sender, (tags.attempt, usage, cost)));
    let mut response = Response::new(BoxBody::new(Pieces(receiver)));
    let kind = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}

fn whole(body: Bytes) -> Response<Body> {
    let never = |it: Infallible| match it {};
    let mut response = Response::new(BoxBody::new(Full::new(body).map_err(never)));
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn told((input, output): (u64, u64)) -> Value {
    let total = input.saturating_add(output);
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": total})
}

fn completion(usage: (u64, u64)) -> Bytes {
    let message = json!({"role": "assistant", "content": "words"});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    let body = json!({
        "id": "c", "object": "chat.completion", "model": "m", "choices": [choice],
        "usage": told(usage),
    });
    Bytes::from(body.to_string())
}

/// Sends the events of a stream one by one; whoever reads them may be gone.
async fn stream(
    world: Arc<World>,
    sender: mpsc::Sender<Result<Bytes, BreaksOff>>,
    (attempt, usage, cost): (u64, (u64, u64), Amount),
) {
    let pieces = world.luck(|it| it.between(1, 6));
    for _ in 0..pieces {
        let delta = json!({"index": 0, "delta": {"content": "some words of many "}});
        let event = json!({"id": "c", "object": "chat.completion.chunk", "choices": [delta]});
        let sent = sender.send(Ok(Bytes::from(format!("data: {event}\n\n")))).await;
        if sent.is_err() || world.is_dead() {
            return;
        }
        world.pause(5, 2_000).await;
        if world.strikes(|it| it.upstream_stalls / 2) {
            tokio::time::sleep(STALL).await;
        }
        if world.strikes(|it| it.upstream_cuts) {
            drop(sender.send(Err(BreaksOff)).await);
            return;
        }
    }
    world.log(Event::Used { attempt, cost });
    let last = json!({
        "id": "c", "object": "chat.completion.chunk", "choices": [], "usage": told(usage),
    });
    let end = format!("data: {last}\n\ndata: [DONE]\n\n");
    drop(sender.send(Ok(Bytes::from(end))).await);
}

/// A body that comes piece by piece.
struct Pieces(mpsc::Receiver<Result<Bytes, BreaksOff>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BreaksOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BreaksOff>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|it| it.map(Frame::data)))
    }
}
