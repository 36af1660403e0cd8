//! What the writer and its callers share.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::book::unheard::Unheard;

/// How the writer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Closed,
    /// Somebody else is this node now.
    Fenced,
}

/// What the thread and its callers share.
#[derive(Debug)]
pub(super) struct Shared {
    operations: AtomicU64,
    commits: AtomicU64,
    connections: AtomicU64,
    /// Results that reached nobody.
    unheard: Mutex<Vec<Unheard>>,
    pub(super) standing: watch::Sender<Standing>,
    /// Whether the outcome of a commit is unknown.
    in_doubt: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            operations: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            unheard: Mutex::default(),
            standing: watch::Sender::new(Standing::Open),
            in_doubt: watch::Sender::new(false),
        }
    }

    pub(super) fn adopt(&self, unheard: Vec<Unheard>) {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner).extend(unheard);
    }

    pub(super) fn take_unheard(&self) -> Vec<Unheard> {
        mem::take(&mut *self.unheard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a commit that held.
    pub(super) fn count(&self, operations: usize) {
        let operations = u64::try_from(operations).unwrap_or(u64::MAX);
        self.operations.fetch_add(operations, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Operations, and the commits that they took.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.operations.load(Ordering::Relaxed), self.commits.load(Ordering::Relaxed))
    }

    /// Counts a connection of the writer.
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Release);
    }

    /// How often the writer has connected.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }

    pub(super) fn doubt(&self, in_doubt: bool) {
        self.in_doubt.send_if_modified(|it| mem::replace(it, in_doubt) != in_doubt);
    }

    pub(super) async fn wait_for_certainty(&self) {
        // The sender lives as long as we do.
        drop(self.in_doubt.subscribe().wait_for(|it| !it).await);
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.standing.borrow() != Standing::Open
    }

    /// Waits until somebody else is this node; for ever if that never happens.
    pub(super) async fn fenced(&self) {
        if self.standing.subscribe().wait_for(|it| *it == Standing::Fenced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
