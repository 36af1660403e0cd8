//! A caller of a writer, who may stop waiting at any moment.

use tokio::sync::oneshot;

use crate::book::unheard::{Evidence, Unheard};
use crate::port::StoreError;

/// A caller who waits for an answer. If it stops waiting just when the answer has come, what the
/// answer proves is passed on.
pub(crate) struct Waiting<T, P: Fn(Vec<Unheard>)> {
    answer: oneshot::Receiver<Result<T, StoreError>>,
    evidence: Evidence<T>,
    pass_on: P,
}

impl<T, P: Fn(Vec<Unheard>)> Waiting<T, P> {
    pub(crate) fn new(
        answer: oneshot::Receiver<Result<T, StoreError>>,
        evidence: Evidence<T>,
        pass_on: P,
    ) -> Self {
        Self { answer, evidence, pass_on }
    }

    /// The answer; unknown if the writer died without giving one.
    pub(crate) async fn answer(mut self) -> Result<T, StoreError> {
        let answer = (&mut self.answer).await;
        answer.unwrap_or_else(|gone| Err(StoreError::Unknown(Box::new(gone))))
    }
}

impl<T, P: Fn(Vec<Unheard>)> Drop for Waiting<T, P> {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Ok(unheard)) = self.answer.try_recv() {
            (self.pass_on)((self.evidence)(&unheard));
        }
    }
}
