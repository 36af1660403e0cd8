//! How a ledger in PostgreSQL is used.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How a ledger in PostgreSQL is used. All but the address and the node's name have good defaults.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Where it is: `postgresql://user:password@host/database`, with several hosts if there are
    /// standbys. A direct connection: what pools connections by transaction cannot be used.
    pub url: String,
    /// The name of this gateway among those that share the database; not empty. It must stay the same
    /// over restarts: what a node has left in the middle of something is put in order when it comes
    /// back.
    pub node: String,
    /// Whether a commit has to be on a second machine as well.
    pub replication: Replication,
    /// The certificates that the server's one is checked against, a file in PEM; those of the public
    /// authorities if there is none.
    pub root_certificates: Option<PathBuf>,
    /// What to do when the node's name is in use.
    pub claim: Claim,
    /// The most operations in one commit.
    pub max_batch: usize,
    /// Operations that may queue before callers wait for a place.
    pub queue: usize,
    /// How long a transaction may take until its commit; then it is given up.
    pub work_within: Duration,
    /// How long a commit may take; then its outcome is unknown.
    pub commit_within: Duration,
    /// How long to look for the outcome of a commit before callers are told that it is unknown.
    pub resolve_within: Duration,
}

/// Whether a commit has to be on a second machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// No: one server, or the operator's own arrangement.
    #[default]
    None,
    /// Yes: a server that does not wait for a standby is refused.
    Synchronous,
}

/// What to do when the name of a node is in use by another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Wait until that connection ends, but not longer than this.
    WaitFor(Duration),
    /// Take the name at once: whoever has it can commit nothing from then on.
    TakeOver,
}

impl PostgresOptions {
    /// The defaults, for that address and node.
    pub fn new(url: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            node: node.into(),
            replication: Replication::None,
            root_certificates: None,
            claim: Claim::WaitFor(Duration::from_secs(20)),
            max_batch: 256,
            queue: 1024,
            work_within: Duration::from_secs(15),
            commit_within: Duration::from_secs(10),
            resolve_within: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    /// Without the address: there may be a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("node", &self.node)
            .field("replication", &self.replication)
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}
