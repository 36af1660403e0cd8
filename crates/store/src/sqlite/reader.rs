//! Threads that only read, each with a connection of its own.
//!
//! Dedicated threads and not the runtime's blocking pool: their connections and prepared statements
//! stay warm, their number is a bound on what the file is asked at once, and the ledger can be
//! opened without a runtime. They see every commit that was answered, for a write is answered after
//! its commit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::port::StoreError;
use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::writer::Gone;

/// Makes a connection that cannot write.
pub(super) type ConnectReadOnly = Arc<dyn Fn() -> rusqlite::Result<Connection> + Send + Sync>;

/// Whether a connection is fit for the next query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connected {
    Well,
    Doubtful,
}

/// Takes a connection, or why there is none, and answers whoever asked.
type Query = Box<dyn FnOnce(rusqlite::Result<&Connection>) -> Connected + Send>;

enum Message {
    Query(Query),
    Close,
}

/// The callers' end.
#[derive(Debug)]
pub(super) struct Readers {
    sender: Option<mpsc::Sender<Message>>,
    closed: AtomicBool,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts `threads` of them behind a queue of `queue`.
    pub(super) fn start(
        connect: &ConnectReadOnly,
        threads: usize,
        queue: usize,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let receiver = Arc::new(Mutex::new(receiver));
        let start_one = |_| {
            let (connect, receiver) = (Arc::clone(connect), Arc::clone(&receiver));
            let name = "ledger-reader".to_owned();
            thread::Builder::new().name(name).spawn(move || serve(&connect, &receiver))
        };
        let threads = (0..threads.max(1)).map(start_one).collect::<Result<_, _>>()?;
        Ok(Self { sender: Some(sender), closed: AtomicBool::new(false), threads })
    }

    /// Runs a query; every error means that there is no answer, not that there is nothing.
    pub(super) async fn query<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Done<T> + Send + 'static,
    {
        let gone = || StoreError::Unavailable(Gone.into());
        if self.closed.load(Ordering::Acquire) {
            return Err(gone());
        }
        let sender = self.sender.as_ref().ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        let message = Message::Query(Box::new(move |connection| {
            let result = connection.map_err(Fault::Sqlite).and_then(query);
            let connected = match &result {
                Err(Fault::Sqlite(_)) => Connected::Doubtful,
                Err(Fault::Store(_)) | Ok(_) => Connected::Well,
            };
            // Whoever asked may have stopped waiting.
            drop(reply.send(result.map_err(Fault::into_store_error)));
            connected
        }));
        sender.send(message).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Lets what is queued be answered and refuses the rest.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(sender) = &self.sender {
            // It fails only if they are closed already.
            drop(sender.send(Message::Close).await);
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.sender.take());
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn serve(connect: &ConnectReadOnly, receiver: &Mutex<mpsc::Receiver<Message>>) {
    let mut connection = None;
    loop {
        let message = {
            let mut receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
            match receiver.blocking_recv() {
                Some(Message::Close) => {
                    receiver.close();
                    continue;
                }
                None => return,
                Some(Message::Query(query)) => query,
            }
        };
        let connected = match connection.take() {
            Some(connected) => Ok(connected),
            None => connect(),
        };
        match connected {
            Ok(connected) => {
                if message(Ok(&connected)) == Connected::Well {
                    connection = Some(connected);
                }
            }
            Err(error) => {
                message(Err(error));
            }
        }
    }
}
