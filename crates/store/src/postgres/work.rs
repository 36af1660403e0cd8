//! One operation on its way through the writer.

use tokio::sync::oneshot;

use crate::book::unheard::{self, Evidence, Unheard};
use crate::port::StoreError;
use crate::postgres::fault::{Done, Fault, Need, SharedTrouble};
use crate::postgres::loaded::Loaded;
use farebox_protocol::PaymentId;

/// How the commit of a batch ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// It is durable.
    Committed,
    /// None of it was applied.
    NotApplied(SharedTrouble),
    /// None of it was applied, and none of it ever can be.
    Refused(SharedTrouble),
    /// None of it was applied, because somebody else is this node now.
    Fenced(SharedTrouble),
    /// It may be committed or not.
    Unknown(SharedTrouble),
}

/// What a caller asks for.
pub(super) struct Asked<T, F> {
    work: F,
    needs: Vec<Need>,
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
    F: Fn(&mut Loaded) -> Done<T>,
{
    /// An operation whose result can be asked for again. `needs` is what it is known to want; more is
    /// loaded when it turns out to be missing.
    pub(super) fn new(needs: Vec<Need>, work: F) -> Self {
        Self { work, needs, evidence: unheard::none, if_gone: IfGone::RunAnyway }
    }

    /// An operation whose result is evidence.
    pub(super) fn proving(needs: Vec<Need>, work: F, evidence: Evidence<T>) -> Self {
        Self { work, needs, evidence, if_gone: IfGone::Skip }
    }
}

/// An operation in a batch, whatever its result is.
pub(super) trait Work: Send {
    /// What it is known to want.
    fn needs(&self) -> &[Need];

    /// Runs on what is loaded; its own failure spoils nothing else. Run again, it forgets what came of
    /// it before. What it misses, if it could not run.
    fn run(&mut self, loaded: &mut Loaded) -> Option<Need>;

    /// Tells the caller; gives back what nobody will ever resolve.
    fn answer(self: Box<Self>, end: &End) -> Vec<Unheard>;
}

/// The ordinary [`Work`].
pub(super) struct Pending<T, F> {
    asked: Asked<T, F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Pending<T, F> {
    pub(super) fn new(asked: Asked<T, F>, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { asked, result: None, reply }
    }

    /// The one payment that it is about, if it is about one.
    fn payment(&self) -> Option<PaymentId> {
        match self.asked.needs.as_slice() {
            [Need::Payment(id), ..] => Some(*id),
            _ => None,
        }
    }
}

impl<T, F> Work for Pending<T, F>
where
    T: Send,
    F: Fn(&mut Loaded) -> Done<T> + Send,
{
    fn needs(&self) -> &[Need] {
        &self.asked.needs
    }

    fn run(&mut self, loaded: &mut Loaded) -> Option<Need> {
        self.result = None;
        if self.asked.if_gone == IfGone::Skip && self.reply.is_closed() {
            return None;
        }
        let moment = loaded.now();
        let result = (self.asked.work)(loaded);
        if result.is_err() {
            loaded.back_to(&moment);
        }
        match result {
            Err(Fault::Missing(need)) => return Some(need),
            Err(Fault::Store(error)) => self.result = Some(Err(error)),
            Ok(result) => self.result = Some(Ok(result)),
        }
        None
    }

    fn answer(self: Box<Self>, end: &End) -> Vec<Unheard> {
        let payment = self.payment();
        let evidence = self.asked.evidence;
        let unavailable =
            |it: &SharedTrouble| StoreError::Unavailable(Box::new(SharedTrouble::clone(it)));
        let error = match (end, self.result) {
            (End::Committed, Some(result)) => {
                return match self.reply.send(result) {
                    Err(Ok(unheard)) => evidence(&unheard),
                    Err(Err(_)) | Ok(()) => Vec::new(),
                };
            }
            (End::Unknown(trouble), result) => {
                let trouble = SharedTrouble::clone(trouble);
                drop(self.reply.send(Err(StoreError::Unknown(Box::new(trouble)))));
                return match result {
                    Some(Ok(unheard)) => evidence(&unheard),
                    Some(Err(_)) | None => Vec::new(),
                };
            }
            (End::Refused(trouble), _) => StoreError::Corrupt(trouble.to_string()),
            (End::Fenced(trouble), _) => {
                payment.map_or_else(|| unavailable(trouble), StoreError::Fenced)
            }
            (End::NotApplied(trouble), _) => unavailable(trouble),
            (End::Committed, None) => StoreError::Unavailable("the operation was not run".into()),
        };
        drop(self.reply.send(Err(error)));
        Vec::new()
    }
}
