//! The one writer of a node: whatever has queued becomes one transaction.
//!
//! A commit costs the same for one operation as for two hundred, and one row that everybody wants is
//! locked once for all of them. So the writer takes what is waiting, loads and locks what it needs, runs
//! the operations, writes what has changed, commits, and only then answers. While it does, the next
//! batch queues by itself; nobody waits for a timer. It has a thread of its own, on which the
//! connections live too.

use std::io;
use std::mem;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::book::unheard::{self, Unheard};
use crate::port::StoreError;
use crate::postgres::batch::{Batcher, Ended};
use crate::postgres::fault::{Done, Need, Trouble};
use crate::postgres::loaded::Loaded;
use crate::postgres::open::{self, PostgresOpenError};
use crate::postgres::options::PostgresOptions;
use crate::postgres::session::Connector;
use crate::postgres::shared::{Shared, Standing};
use crate::postgres::work::{Asked, End, Pending, Work};
use crate::waiting::Waiting;

/// While the outcome of a commit is unknown, it is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a batch waits for the callers that were just answered.
const COMPANY_WITHIN: Duration = Duration::from_micros(500);

/// What the thread is told.
enum Message {
    Work(Box<dyn Work>),
    /// Look at what is unheard.
    Wake,
    Close(oneshot::Sender<()>),
}

/// The callers' end of the writer. Dropping it waits until the queue is written.
#[derive(Debug)]
pub(super) struct Writer {
    sender: Option<mpsc::Sender<Message>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread and opens the ledger on it.
    pub(super) async fn start(
        options: PostgresOptions,
    ) -> Result<(Self, Connector), PostgresOpenError> {
        let (sender, receiver) = mpsc::channel(options.queue.max(1));
        let shared = Arc::new(Shared::new());
        let (reply, opened) = oneshot::channel();
        let start = Start { options, receiver, shared: Arc::clone(&shared), reply };
        let thread = thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || start.run())
            .map_err(PostgresOpenError::Thread)?;
        let ended = |_| PostgresOpenError::Thread(io::ErrorKind::BrokenPipe.into());
        let connector = opened.await.map_err(ended)??;
        Ok((Self { sender: Some(sender), shared, thread: Some(thread) }, connector))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs an operation and waits until it is durable. If the caller stops waiting, the operation
    /// happens all the same, but what its result alone would have proved is taken back.
    pub(super) async fn call<T, F>(&self, asked: Asked<T, F>) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Loaded) -> Done<T> + Send + 'static,
    {
        let closed = || StoreError::Unavailable(Gone.into());
        let sender = self.sender.as_ref().ok_or_else(closed)?;
        let evidence = asked.evidence;
        let (reply, answer) = oneshot::channel();
        let pending: Box<dyn Work> = Box::new(Pending::new(asked, reply));
        sender.send(Message::Work(pending)).await.map_err(|_| closed())?;
        let pass_on = |unheard: Vec<Unheard>| {
            if !unheard.is_empty() {
                self.shared.adopt(unheard);
                // If there is no room, then the writer is about to look anyway.
                drop(sender.try_send(Message::Wake));
            }
        };
        Waiting::new(answer, evidence, pass_on).answer().await
    }

    /// Writes what is queued and closes the connection.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (reply, closed) = oneshot::channel();
        if let Some(sender) = &self.sender
            && sender.send(Message::Close(reply)).await.is_ok()
            && closed.await.is_ok()
        {
            return Ok(());
        }
        match *self.shared.standing.borrow() {
            Standing::Open | Standing::Closed => Ok(()),
            Standing::Fenced => Err(StoreError::Unavailable(Gone.into())),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The ledger was closed, or its node is somebody else now.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it is closed")]
struct Gone;

/// What the thread begins with.
struct Start {
    options: PostgresOptions,
    receiver: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    reply: oneshot::Sender<Result<Connector, PostgresOpenError>>,
}

impl Start {
    fn run(self) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                drop(self.reply.send(Err(PostgresOpenError::Thread(error))));
                return;
            }
        };
        runtime.block_on(async {
            let tasks = TaskTracker::new();
            let Self { options, receiver, shared, reply } = self;
            match open(&options, tasks.clone(), &shared).await {
                Ok((batcher, connector)) => {
                    if reply.send(Ok(connector)).is_ok() {
                        let (max, closers) = (options.max_batch.max(1), Vec::new());
                        let answered = 0;
                        let engine = Engine { receiver, shared, batcher, max, answered, closers };
                        Box::pin(engine.run()).await;
                    }
                }
                Err(error) => drop(reply.send(Err(error))),
            }
        });
    }
}

async fn open(
    options: &PostgresOptions,
    tasks: TaskTracker,
    shared: &Arc<Shared>,
) -> Result<(Batcher, Connector), PostgresOpenError> {
    let connector = open::connector(options, Handle::current(), tasks)?;
    let (connected, claimed) = open::open(&connector, options).await?;
    let shared = Arc::clone(shared);
    let batcher = Batcher::new(connector.clone(), options, claimed, connected, shared).await?;
    Ok((batcher, connector))
}

/// The thread's side.
struct Engine {
    receiver: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    batcher: Batcher,
    max: usize,
    /// How many callers were answered at the end of the last batch.
    answered: usize,
    closers: Vec<oneshot::Sender<()>>,
}

impl Engine {
    async fn run(mut self) {
        let mut standing = Standing::Closed;
        while let Some(batch) = self.next_batch().await {
            self.write(batch).await;
            if self.batcher.is_fenced() {
                tracing::error!("another process has claimed the name of this node");
                standing = Standing::Fenced;
                self.refuse_the_rest();
                break;
            }
        }
        drop(self.batcher);
        self.shared.doubt(false);
        self.shared.standing.send_replace(standing);
        for closer in self.closers {
            // Whoever asked may have stopped waiting.
            closer.send(()).ok();
        }
    }

    /// Waits for an operation and takes those that queued behind it; `None` at the end. While the
    /// outcome of a commit is unknown, an empty batch comes after a moment.
    async fn next_batch(&mut self) -> Option<Vec<Box<dyn Work>>> {
        let mut batch = Vec::new();
        let first = if self.batcher.in_doubt() {
            let Ok(first) = timeout(LOOK_EVERY, self.receiver.recv()).await else {
                return Some(batch);
            };
            first
        } else {
            self.receiver.recv().await
        };
        self.sort(first?, &mut batch);
        self.take_waiting(&mut batch);
        // Whoever was just answered comes back in a moment, and a commit costs the same with them:
        // without this, half of them would wait for the other half's commit, for ever in turn.
        let expected = batch.len().saturating_add(mem::take(&mut self.answered)).min(self.max);
        let until = Instant::now().checked_add(COMPANY_WITHIN);
        while let Some(until) = until
            && batch.len() < expected
            && let Ok(Some(message)) = timeout_at(until, self.receiver.recv()).await
        {
            self.sort(message, &mut batch);
            self.take_waiting(&mut batch);
        }
        Some(batch)
    }

    fn take_waiting(&mut self, batch: &mut Vec<Box<dyn Work>>) {
        while batch.len() < self.max {
            let Ok(message) = self.receiver.try_recv() else { break };
            self.sort(message, batch);
        }
    }

    fn sort(&mut self, message: Message, batch: &mut Vec<Box<dyn Work>>) {
        match message {
            Message::Work(work) => batch.push(work),
            Message::Wake => {}
            Message::Close(closer) => {
                // What was accepted is still written; nothing new is accepted.
                self.receiver.close();
                self.closers.push(closer);
            }
        }
    }

    /// One batch; and if it left something without an owner, then that at once.
    async fn write(&mut self, batch: Vec<Box<dyn Work>>) {
        if self.batcher.in_doubt() && !self.batcher.settle_doubt().await {
            let trouble = Arc::new(Trouble::Resting);
            self.answer(batch, &End::NotApplied(trouble));
            return;
        }
        if self.write_once(batch).await {
            self.write_once(Vec::new()).await;
        }
    }

    /// Takes back what is unheard, runs the batch, commits, answers. Whether it holds.
    async fn write_once(&mut self, mut batch: Vec<Box<dyn Work>>) -> bool {
        let unheard = self.shared.take_unheard();
        if unheard.is_empty() {
            return self.write_batch(batch).await;
        }
        let (reply, mut answer) = oneshot::channel();
        let all = unheard.clone();
        let needs = unheard.iter().map(|it| Need::Payment(it.payment())).collect();
        let asked = Asked::new(needs, move |it: &mut Loaded| unheard::take_back(it, &all));
        batch.insert(0, Box::new(Pending::new(asked, reply)));
        let held = self.write_batch(batch).await;
        if !matches!(answer.try_recv(), Ok(Ok(()))) {
            // It goes with the next batch.
            self.shared.adopt(unheard);
        }
        held
    }

    /// Runs, commits, answers; one by one what would not go together.
    async fn write_batch(&mut self, mut batch: Vec<Box<dyn Work>>) -> bool {
        if batch.is_empty() {
            return true;
        }
        match self.batcher.commit(&mut batch).await {
            Ended::All(end) => {
                let held = matches!(end, End::Committed);
                self.answer(batch, &end);
                held
            }
            Ended::OneByOne => {
                for work in batch {
                    let mut alone = vec![work];
                    let end = match self.batcher.commit(&mut alone).await {
                        Ended::All(end) => end,
                        Ended::OneByOne => End::NotApplied(Arc::new(Trouble::Overtaken)),
                    };
                    self.answer(alone, &end);
                }
                true
            }
        }
    }

    fn answer(&mut self, batch: Vec<Box<dyn Work>>, end: &End) {
        self.answered = batch.len();
        if matches!(end, End::Committed) {
            self.shared.count(batch.len());
        }
        for work in batch {
            self.shared.adopt(work.answer(end));
        }
    }

    /// After the last batch: nobody is left waiting.
    fn refuse_the_rest(&mut self) {
        self.receiver.close();
        let end = End::Fenced(Arc::new(Trouble::Fenced));
        while let Ok(message) = self.receiver.try_recv() {
            match message {
                Message::Work(work) => drop(work.answer(&end)),
                Message::Wake => {}
                Message::Close(closer) => self.closers.push(closer),
            }
        }
    }
}
