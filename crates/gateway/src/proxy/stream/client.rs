//! The client's end of a stream: a bounded queue that may lose its reader at any time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, response};
use http_body::Frame;
use tokio::sync::mpsc;

use crate::proxy::reply::Reply;

/// Pieces that wait for a slow client before the upstream is slowed down, too.
const QUEUE: usize = 16;

/// Sends to the client as long as there is one.
#[derive(Debug)]
pub(super) struct Client {
    sender: Option<mpsc::Sender<Result<Bytes, Broken>>>,
    /// How long a client may leave the queue full before it counts as gone.
    patience: Duration,
}

/// Makes the connection end in a way that a client can tell from a complete answer.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer broke off")]
struct Broken;

/// What the connection reads from.
struct Queue(mpsc::Receiver<Result<Bytes, Broken>>);

impl Client {
    /// Sends the head; the body follows.
    pub(super) fn answer(head: response::Parts, patience: Duration, reply: &mut Reply) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        reply.send(Response::from_parts(head, Body::new(Queue(receiver))));
        Self { sender: Some(sender), patience }
    }

    /// Sends pieces in order; never fails, because a client that is gone changes nothing.
    pub(super) async fn send_all(&mut self, pieces: Vec<Bytes>) {
        for piece in pieces {
            self.send(Ok(piece)).await;
        }
    }

    /// Whether nobody listens any more.
    pub(super) fn is_gone(&self) -> bool {
        self.sender.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// The end, as it should be.
    pub(super) fn end(&mut self) {
        self.sender = None;
    }

    /// The end, as it should not be.
    pub(super) async fn cut(&mut self) {
        self.send(Err(Broken)).await;
        self.sender = None;
    }

    async fn send(&mut self, piece: Result<Bytes, Broken>) {
        let Some(sender) = &self.sender else { return };
        match tokio::time::timeout(self.patience, sender.send(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => self.sender = None,
        }
    }
}

impl http_body::Body for Queue {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.poll_recv(context).map(|next| next.map(|piece| piece.map(Frame::data)))
    }
}
