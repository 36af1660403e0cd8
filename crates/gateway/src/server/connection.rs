//! One connection: HTTP/1.1, or HTTP/2 for clients that begin with its preface.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::listening::{Answers, Bounds, Lives};
use super::pulse::{Beating, Pulse, Still};
use super::wire::Wire;

/// What a client that speaks HTTP/2 without TLS sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The room for a request head: above our own limits, so that our own 431 is the answer.
const HEAD_BUFFER_BYTES: usize = 64 * 1024;
/// Likewise for the number of headers.
const HEADERS_PARSED_MAX: usize = 256;
/// Requests at one time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// How often a silent HTTP/2 client is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How often a connection is looked at that has sent a part of the preface.
const PREFACE_POLL: Duration = Duration::from_millis(2);

/// How the client speaks.
enum Protocol {
    Http1,
    Http2,
}

/// Runs spawned streams where a shutdown waits for them.
#[derive(Clone, Debug)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// A connection that can be asked to finish what runs and end.
trait Graceful: Future<Output = Result<(), hyper::Error>> {
    fn finish(self: Pin<&mut Self>);
}

/// Serves until the client or the gateway is done.
pub(super) async fn serve(stream: TcpStream, answers: impl Answers, bounds: Bounds, lives: Lives) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection without TCP_NODELAY");
    }
    let protocol = tokio::select! {
        () = lives.stop.cancelled() => return,
        protocol = tokio::time::timeout(bounds.header_timeout, sniff(&stream)) => protocol,
    };
    let Ok(Ok(protocol)) = protocol else { return };
    let pulse = Arc::new(Pulse::default());
    let io = TokioIo::new(Wire::new(stream, Arc::clone(&pulse), bounds));
    let requests = Arc::clone(&pulse);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answers, open) = (answers.clone(), requests.begin());
        async move {
            let answer = answers.answer(request).await;
            Ok::<Response<Beating>, Infallible>(answer.map(|body| Beating::new(body, open)))
        }
    });
    let held = Held { lives: &lives, pulse: &pulse, bounds };
    match protocol {
        Protocol::Http1 => {
            // Between two requests and within a head, time is watched by the wire and the pulse.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .max_buf_size(HEAD_BUFFER_BYTES)
                .max_headers(HEADERS_PARSED_MAX)
                .serve_connection(io, service);
            held.until_done(connection).await;
        }
        Protocol::Http2 => {
            let connection = http2::Builder::new(Tracked(lives.connections.clone()))
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(HEAD_BUFFER_BYTES).unwrap_or(u32::MAX))
                .max_concurrent_streams(STREAMS_MAX)
                .keep_alive_interval(PING_INTERVAL)
                .serve_connection(io, service);
            held.until_done(connection).await;
        }
    }
}

/// What decides how long a connection is held.
struct Held<'a> {
    lives: &'a Lives,
    pulse: &'a Pulse,
    bounds: Bounds,
}

impl Held<'_> {
    async fn until_done(self, connection: impl Graceful) {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            still = self.pulse.still(self.bounds) => {
                tracing::debug!(?still, "connection given up");
                if still == Still::Stuck {
                    return;
                }
                connection.as_mut().finish();
                let last = tokio::time::timeout(self.bounds.write_timeout, connection);
                let Ok(ended) = last.await else { return };
                ended
            }
            () = self.lives.stop.cancelled() => {
                connection.as_mut().finish();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.lives.abort.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended early");
        }
    }
}

impl<S> Graceful for http1::Connection<TokioIo<Wire>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Beating>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<Wire>, S, Tracked>
where
    S: hyper::service::HttpService<Incoming, ResBody = Beating>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Looks at the first bytes without taking them.
async fn sniff(stream: &TcpStream) -> io::Result<Protocol> {
    let mut first = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        let seen = first.get(..length).unwrap_or_default();
        if seen.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(seen) {
            return Ok(Protocol::Http1);
        }
        if length == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
        // A peek is ready as long as anything is there, so waiting for more takes a pause.
        tokio::time::sleep(PREFACE_POLL).await;
    }
}
