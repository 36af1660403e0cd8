//! The way back from the task that owns a payment to the connection that asked.

use axum::body::Body;
use http::Response;
use tokio::sync::oneshot;

use crate::problem::{Kind, Problem};

/// Gives the one answer. The connection may be gone; that changes nothing.
#[derive(Debug)]
pub(crate) struct Reply(Option<oneshot::Sender<Result<Response<Body>, Problem>>>);

/// Waits for the answer.
#[derive(Debug)]
pub(crate) struct Waiting(oneshot::Receiver<Result<Response<Body>, Problem>>);

impl Reply {
    /// Both ends.
    pub(crate) fn channel() -> (Self, Waiting) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), Waiting(receiver))
    }

    /// The answer; dropped where nobody waits any more.
    pub(crate) fn send(&mut self, response: Response<Body>) {
        if let Some(sender) = self.0.take() {
            drop(sender.send(Ok(response)));
        }
    }

    /// Why there is none. Where nobody hears it, the log does.
    pub(crate) fn refuse(&mut self, problem: Problem) {
        let unheard = match self.0.take() {
            Some(sender) => sender.send(Err(problem)).err().and_then(Result::err),
            None => Some(problem),
        };
        if let Some(problem) = unheard {
            tracing::warn!(code = problem.kind().code(), ?problem, "payment ended in a problem");
        }
    }
}

impl Waiting {
    /// The answer, whenever it comes.
    pub(crate) async fn wait(self) -> Result<Response<Body>, Problem> {
        let lost = |_| Problem::new(Kind::Internal, "The work on this payment broke off.");
        self.0.await.map_err(lost)?
    }
}
