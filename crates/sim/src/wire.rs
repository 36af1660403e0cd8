//! Connections between clients and the gateway, and a look at every answer as it leaves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use farebox_gateway::InProcess;
use farebox_protocol::PaymentId;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use crate::event::Event;
use crate::tags::Tags;
use crate::world::World;

/// Room on the wire: little, so that slow readers are felt.
const WIRE_BYTES: usize = 16 * 1024;

/// What serves requests in one process.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) world: Arc<World>,
    pub(crate) gateway: Arc<InProcess>,
    pub(crate) tasks: TaskTracker,
}

impl Served {
    /// A connection; dropping what it returns is hanging up.
    pub(crate) async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let (ours, theirs) = tokio::io::duplex(WIRE_BYTES);
        let served = self.clone();
        self.tasks.spawn(async move {
            let service = service_fn(move |request| served.clone().answer(request));
            let server = hyper::server::conn::http1::Builder::new();
            drop(server.serve_connection(TokioIo::new(theirs), service).await);
        });
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await;
        let (sender, connection) = shaken.map_err(io::Error::other)?;
        self.tasks.spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Watched>, io::Error> {
        let Tags { attempt, payment, name, fit } = Tags::read(request.headers());
        let world = &self.world;
        world.log(Event::Requested { attempt, payment, name, fit });
        let answer = self.gateway.answer(request).await;
        world.port().await;
        let free = answer.headers().contains_key("x-farebox-charged")
            || answer.headers().contains_key("idempotent-replayed");
        let sold = answer.status().is_success() && payment.is_some() && !free;
        let status = answer.status().as_u16();
        world.log(Event::Answered { attempt, payment, status, sold });
        let sold = payment.filter(|_| sold).map(|payment| (attempt, payment));
        let world = Arc::clone(world);
        Ok(answer.map(|body| Watched { body, world, sold, begun: false }))
    }
}

/// The body of an answer, of which is written down when it begins and ends.
pub(crate) struct Watched {
    body: Body,
    world: Arc<World>,
    /// What is sold, until its end.
    sold: Option<(u64, PaymentId)>,
    begun: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some((attempt, payment)) = self.sold {
            let ended = frame.is_none() || (frame.is_some() && self.body.is_end_stream());
            if !self.begun && matches!(frame, Some(Ok(_)) | None) {
                self.begun = true;
                self.world.log(Event::Left { attempt, payment });
            }
            if ended && !matches!(frame, Some(Err(_))) {
                self.world.log(Event::Finished { attempt, payment });
                self.sold = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
