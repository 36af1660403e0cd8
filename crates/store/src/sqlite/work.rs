//! One operation on its way through the writer, and its caller who waits.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::book::unheard::{self, Evidence, Unheard};
use crate::port::StoreError;
use crate::sqlite::fault::{Done, Fault, is_full};
use crate::sqlite::rows::Rows;

/// How the commit of a batch ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// It is durable.
    Committed,
    /// None of it was applied.
    NotApplied(Arc<rusqlite::Error>),
    /// The commit failed; it may be on the disk or not.
    Unknown(Arc<rusqlite::Error>),
}

/// What a caller asks for.
pub(super) struct Asked<T, F> {
    /// The operation; runs in a savepoint.
    pub(super) work: F,
    /// What its result is the only evidence of.
    pub(super) evidence: Evidence<T>,
    if_gone: IfGone,
}

/// What to do for a caller that had stopped waiting before its turn came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfGone {
    /// What is booked is booked.
    RunAnyway,
    /// Nothing: nobody could use what it would make.
    Skip,
}

impl<T, F> Asked<T, F>
where
    F: FnOnce(&mut Rows<'_>) -> Done<T>,
{
    /// An operation whose result can be asked for again.
    pub(super) fn new(work: F) -> Self {
        Self { work, evidence: unheard::none, if_gone: IfGone::RunAnyway }
    }

    /// An operation whose result is evidence.
    pub(super) fn proving(work: F, evidence: Evidence<T>) -> Self {
        Self { work, evidence, if_gone: IfGone::Skip }
    }
}

/// An operation in a batch, whatever its result is.
pub(super) trait Work: Send {
    /// Runs in a savepoint: its own failure spoils nothing else. An error means that the whole
    /// transaction is lost.
    fn run(&mut self, rows: &mut Rows<'_>) -> rusqlite::Result<()>;

    /// Tells the caller; gives back what nobody will ever resolve.
    fn answer(self: Box<Self>, end: &End) -> Vec<Unheard>;
}

/// The ordinary [`Work`].
pub(super) struct Pending<T, F> {
    work: Option<F>,
    result: Option<Done<T>>,
    evidence: Evidence<T>,
    if_gone: IfGone,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Pending<T, F> {
    pub(super) fn new(asked: Asked<T, F>, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self {
            work: Some(asked.work),
            result: None,
            evidence: asked.evidence,
            if_gone: asked.if_gone,
            reply,
        }
    }
}

impl<T, F> Work for Pending<T, F>
where
    T: Send,
    F: FnOnce(&mut Rows<'_>) -> Done<T> + Send,
{
    fn run(&mut self, rows: &mut Rows<'_>) -> rusqlite::Result<()> {
        if self.if_gone == IfGone::Skip && self.reply.is_closed() {
            return Ok(());
        }
        let Some(work) = self.work.take() else { return Ok(()) };
        let connection = rows.connection;
        connection.prepare_cached("SAVEPOINT operation")?.execute([])?;
        let mark = rows.books.mark();
        let result = match work(rows) {
            // Without room for one there is none for the others.
            Err(Fault::Sqlite(error)) if is_full(&error) => return Err(error),
            result => result,
        };
        if connection.is_autocommit() {
            // Some errors (no room, no memory, no disk) take the whole transaction with them.
            return Err(match result {
                Err(Fault::Sqlite(error)) => error,
                Err(Fault::Store(_)) | Ok(_) => rusqlite::Error::InvalidQuery,
            });
        }
        if result.is_err() {
            rows.books.undo_to(mark);
            connection.prepare_cached("ROLLBACK TO operation")?.execute([])?;
        }
        connection.prepare_cached("RELEASE operation")?.execute([])?;
        self.result = Some(result);
        Ok(())
    }

    fn answer(self: Box<Self>, end: &End) -> Vec<Unheard> {
        let error = match (end, self.result) {
            (End::Committed, Some(result)) => {
                let result = result.map_err(Fault::into_store_error);
                return match self.reply.send(result) {
                    Err(Ok(unheard)) => (self.evidence)(&unheard),
                    Err(Err(_)) | Ok(()) => Vec::new(),
                };
            }
            (End::Unknown(error), result) => {
                drop(self.reply.send(Err(StoreError::Unknown(Box::new(Arc::clone(error))))));
                return match result {
                    Some(Ok(unheard)) => (self.evidence)(&unheard),
                    Some(Err(_)) | None => Vec::new(),
                };
            }
            (End::NotApplied(error), _) => StoreError::Unavailable(Box::new(Arc::clone(error))),
            (End::Committed, None) => StoreError::Unavailable("the operation was not run".into()),
        };
        drop(self.reply.send(Err(error)));
        Vec::new()
    }
}
