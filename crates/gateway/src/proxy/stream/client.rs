//! The client's end of a stream: a bounded queue that may lose its reader at any time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, response};
use http_body::Frame;
use tokio::sync::mpsc;

use crate::kept::Recording;
use crate::proxy::reply::Reply;

/// Pieces that wait for a slow client before the upstream is slowed down, too.
const QUEUE: usize = 16;

/// What the connection is given. A queue that closes without its end is a broken answer, whoever
/// gave up on it.
#[derive(Debug)]
enum Item {
    Piece(Bytes),
    End,
}

/// Sends to the client as long as there is one.
#[derive(Debug)]
pub(super) struct Client {
    sender: Option<mpsc::Sender<Item>>,
    /// How long a client may leave the queue full before it counts as gone.
    patience: Duration,
    /// What was sent so far, whether or not it came; none where it is not kept or became too much.
    recording: Option<Recording>,
}

/// Makes the connection end in a way that a client can tell from a complete answer.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
struct Broken;

/// What the connection reads from.
#[derive(Debug)]
struct Queue {
    items: mpsc::Receiver<Item>,
    ended: bool,
}

impl Client {
    /// Sends the head; the body follows.
    pub(super) fn answer(head: response::Parts, patience: Duration, reply: &mut Reply) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        reply.send(Response::from_parts(head, Body::new(Queue { items: receiver, ended: false })));
        Self { sender: Some(sender), patience, recording: None }
    }

    /// Remembers from here on what is sent.
    pub(super) fn record(&mut self, recording: Option<Recording>) {
        self.recording = recording;
    }

    /// Whether what is sent is remembered.
    pub(super) fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// What was sent.
    pub(super) fn recorded(&mut self) -> Option<Recording> {
        self.recording.take()
    }

    /// Sends pieces in order; never fails, because a client that is gone changes nothing.
    pub(super) async fn send_all(&mut self, pieces: Vec<Bytes>) {
        for piece in pieces {
            self.recording = self.recording.take().and_then(|it| it.with(&piece));
            self.send(Item::Piece(piece)).await;
        }
    }

    /// Whether nobody listens any more.
    pub(super) fn is_gone(&self) -> bool {
        self.sender.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// Returns when nobody listens any more.
    pub(super) async fn gone(&self) {
        if let Some(sender) = &self.sender {
            sender.closed().await;
        }
    }

    /// The end, as it should be.
    pub(super) async fn end(&mut self) {
        self.send(Item::End).await;
        self.sender = None;
    }

    /// The end, as it should not be. Nothing is sent from here on.
    pub(super) fn cut(&mut self) {
        self.sender = None;
        self.recording = None;
    }

    async fn send(&mut self, item: Item) {
        let Some(sender) = &self.sender else { return };
        match tokio::time::timeout(self.patience, sender.send(item)).await {
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
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.items.poll_recv(context));
        self.ended = !matches!(item, Some(Item::Piece(_)));
        Poll::Ready(match item {
            Some(Item::Piece(piece)) => Some(Ok(Frame::data(piece))),
            Some(Item::End) => None,
            None => Some(Err(Broken)),
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn connected() -> (Client, Queue) {
        let (sender, items) = mpsc::channel(QUEUE);
        let patience = Duration::from_secs(1);
        (Client { sender: Some(sender), patience, recording: None }, Queue { items, ended: false })
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_end_that_was_told_is_an_end() {
        let piece = || vec![Bytes::from_static(b"x")];
        let (mut client, queue) = connected();
        client.send_all(piece()).await;
        client.end().await;
        assert_eq!(queue.collect().await.unwrap().to_bytes(), "x");

        let (mut client, queue) = connected();
        client.send_all(piece()).await;
        client.cut();
        assert!(queue.collect().await.is_err());

        // A reader that is too slow loses the rest, and must be able to tell.
        let (mut client, queue) = connected();
        for _ in 0..=QUEUE {
            client.send_all(piece()).await;
        }
        client.end().await;
        assert!(client.is_gone() && queue.collect().await.is_err());
    }
}
