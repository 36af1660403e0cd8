//! One batch, from the first statement to the certainty of its commit.
//!
//! Each transaction begins with locking the node's row: it proves that the name is still ours, and
//! keeps the number of the batch. So when the answer to a COMMIT is lost, the row tells what became of
//! it: locking it again waits until that transaction has ended, and finding the number there means that
//! it was committed. The commit of that look goes behind all others, to a standby too: once it is
//! acknowledged, what it saw is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farebox_billing::ledger::{Account, AccountKey};
use futures_util::try_join;
use tokio::time::{Instant, timeout};
use tokio_postgres::Row;

use crate::postgres::fault::Trouble;
use crate::postgres::load::{Known, Transaction, Wants};
use crate::postgres::loaded::Loaded;
use crate::postgres::open::{Claimed, hold_name};
use crate::postgres::options::PostgresOptions;
use crate::postgres::rows::get;
use crate::postgres::session::{Connected, Connector, Role};
use crate::postgres::shared::Shared;
use crate::postgres::statements::Statements;
use crate::postgres::work::{End, Work};

/// How often a batch is run again that another node got in the way of.
const TRIES: u32 = 20;

/// How often a batch can find out that it wants to see more.
const PASSES: u32 = 16;

/// After a failure to connect, callers are told at once for so long.
const REST: Duration = Duration::from_millis(250);

/// How a batch ended.
pub(super) enum Ended {
    /// All of it in the same way.
    All(End),
    /// It contradicts the tables, and nobody knows which part of it: try each alone.
    OneByOne,
}

/// A connection with its statements.
#[derive(Debug)]
struct Session {
    connected: Connected,
    sql: Statements,
}

/// Runs the batches of a node.
#[derive(Debug)]
pub(super) struct Batcher {
    connector: Connector,
    node: String,
    work_within: Duration,
    commit_within: Duration,
    resolve_within: Duration,
    shared: Arc<Shared>,
    epoch: i64,
    /// The number of the last batch that is known to be committed, or was tried.
    number: i64,
    session: Option<Session>,
    /// Whether the connection holds the lock of the node's name.
    holds_name: bool,
    known: Known,
    /// The batch whose outcome is unknown.
    doubt: Option<i64>,
    rest_until: Option<Instant>,
    fenced: bool,
}

/// What a transaction has done before its commit.
enum Worked {
    /// There is nothing to commit.
    Nothing,
    /// These accounts will be so.
    Changed(BTreeMap<AccountKey, Account>),
}

/// Why a batch is not committed.
enum Failed {
    /// None of it was applied.
    Before(Trouble),
    /// It may be committed or not.
    Unknown(Trouble),
}

impl Batcher {
    pub(super) async fn new(
        connector: Connector,
        options: &PostgresOptions,
        claimed: Claimed,
        connected: Connected,
        shared: Arc<Shared>,
    ) -> Result<Self, Trouble> {
        let sql = Statements::prepare(&connected.client).await?;
        shared.connected();
        Ok(Self {
            connector,
            node: options.node.clone(),
            work_within: options.work_within,
            commit_within: options.commit_within,
            resolve_within: options.resolve_within,
            shared,
            epoch: claimed.epoch,
            number: claimed.batch,
            session: Some(Session { connected, sql }),
            holds_name: true,
            known: Known::default(),
            doubt: None,
            rest_until: None,
            fenced: false,
        })
    }

    /// Whether somebody else is this node now.
    pub(super) fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Whether the outcome of a commit is unknown.
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Runs a batch and commits it; again where another node got in the way.
    pub(super) async fn commit(&mut self, batch: &mut [Box<dyn Work>]) -> Ended {
        let mut tries = TRIES;
        loop {
            let failed = match self.attempt(batch).await {
                Ok(()) => return Ended::All(End::Committed),
                Err(failed) => failed,
            };
            let trouble = match failed {
                Failed::Before(trouble) => trouble,
                Failed::Unknown(trouble) => return Ended::All(self.resolve(trouble).await),
            };
            tries = tries.saturating_sub(1);
            if trouble.is_a_race() && 0 < tries {
                continue;
            }
            if !matches!(trouble, Trouble::Resting) {
                tracing::error!(error = %trouble, operations = batch.len(), "a ledger batch failed");
            }
            let refused = trouble.is_contradiction();
            if refused && 1 < batch.len() {
                return Ended::OneByOne;
            }
            let fenced = matches!(trouble, Trouble::Fenced);
            let trouble = Arc::new(trouble);
            return Ended::All(if fenced {
                End::Fenced(trouble)
            } else if refused {
                End::Refused(trouble)
            } else {
                End::NotApplied(trouble)
            });
        }
    }

    async fn attempt(&mut self, batch: &mut [Box<dyn Work>]) -> Result<(), Failed> {
        let session = self.session().await.map_err(Failed::Before)?;
        let number = self.number.saturating_add(1);
        let work = Box::pin(self.work(&session, batch, number));
        let worked = timeout(self.work_within, work).await;
        let worked = worked.unwrap_or(Err(Trouble::Late(self.work_within)));
        let changed = match worked {
            Ok(Worked::Changed(accounts)) => Some(accounts),
            Ok(Worked::Nothing) => None,
            Err(trouble) => {
                if matches!(trouble, Trouble::Fenced) {
                    self.fenced = true;
                }
                // What we know of our own accounts may be of this transaction.
                self.known = Known::default();
                // A server that is silent would be silent to this, too.
                if !matches!(trouble, Trouble::Late(_)) {
                    self.roll_back(session).await;
                }
                return Err(Failed::Before(trouble));
            }
        };
        let Some(accounts) = changed else {
            self.roll_back(session).await;
            return Ok(());
        };
        self.number = number;
        self.finish(session).await?;
        self.known.learn(accounts);
        Ok(())
    }

    /// Everything before the commit.
    async fn work(
        &self,
        session: &Session,
        batch: &mut [Box<dyn Work>],
        number: i64,
    ) -> Result<Worked, Trouble> {
        let (client, sql) = (&session.connected.client, &session.sql);
        let transaction = Transaction { client, sql, node: &self.node };
        let mut loaded = Loaded::new(&self.node);
        let mut wants = Wants::default();
        for need in batch.iter().flat_map(|it| it.needs()) {
            wants.add(need.clone());
        }
        let begin = async { Ok::<(), Trouble>(client.batch_execute("BEGIN").await?) };
        let first = transaction.load(&wants, &mut loaded, &self.known);
        let ((), journal_seq, ()) = try_join!(begin, self.lock_node(session), first)?;
        run(&transaction, batch, &mut loaded, &self.known).await?;
        let changes = loaded.changes();
        if changes.is_empty() {
            return Ok(Worked::Nothing);
        }
        let lines = i64::try_from(changes.journal.len()).unwrap_or(i64::MAX);
        let last = journal_seq.saturating_add(lines);
        let keep_node = async {
            let kept = client.execute(&sql.keep_node, &[&self.node, &number, &last]).await?;
            if kept == 1 { Ok(()) } else { Err(Trouble::Fenced) }
        };
        try_join!(transaction.save(&changes, journal_seq), keep_node)?;
        Ok(Worked::Changed(changes.accounts))
    }

    /// Locks the node's row, and tells the last line of its journal.
    async fn lock_node(&self, session: &Session) -> Result<i64, Trouble> {
        let row = self.node_row(session).await?;
        get(&row, "journal_seq")
    }

    async fn node_row(&self, session: &Session) -> Result<Row, Trouble> {
        let client = &session.connected.client;
        let row = client.query_opt(&session.sql.lock_node, &[&self.node]).await?;
        let row = row.ok_or(Trouble::Fenced)?;
        if get::<i64>(&row, "epoch")? == self.epoch { Ok(row) } else { Err(Trouble::Fenced) }
    }

    /// The commit. It is never cancelled: a server that is told to stop waiting for its standby says
    /// that it has committed.
    async fn finish(&mut self, session: Session) -> Result<(), Failed> {
        drop(session.connected.take_warning());
        let commit = session.connected.client.batch_execute("COMMIT");
        let trouble = match timeout(self.commit_within, commit).await {
            Ok(Ok(())) => match session.connected.take_warning() {
                None => {
                    self.session = Some(session);
                    return Ok(());
                }
                Some(warning) => Trouble::Warned(warning),
            },
            Ok(Err(error)) => Trouble::Postgres(error),
            Err(_) => Trouble::Late(self.commit_within),
        };
        if trouble.refused_the_commit() {
            self.known = Known::default();
            self.roll_back(session).await;
            return Err(Failed::Before(trouble));
        }
        Err(Failed::Unknown(trouble))
    }

    /// Ends a transaction of which nothing is to stay. If that fails, the connection is given up, and
    /// the server ends the transaction with it.
    async fn roll_back(&mut self, session: Session) {
        let rolled_back = session.connected.client.batch_execute("ROLLBACK");
        if let Ok(Ok(())) = timeout(self.work_within, rolled_back).await {
            self.session = Some(session);
        }
    }

    /// Finds out what became of the last batch.
    async fn resolve(&mut self, trouble: Trouble) -> End {
        tracing::warn!(error = %trouble, "the outcome of a ledger commit is looked for");
        let number = self.number;
        self.doubt = Some(number);
        self.shared.doubt(true);
        self.known = Known::default();
        let found = timeout(self.resolve_within, async {
            loop {
                match self.look_for(number).await {
                    Ok(found) => return Some(found),
                    Err(Trouble::Fenced) => return None,
                    Err(error) => tracing::warn!(%error, "the ledger's server cannot be asked"),
                }
                tokio::time::sleep(REST).await;
            }
        });
        let trouble = Arc::new(trouble);
        match found.await {
            Ok(Some(true)) => End::Committed,
            Ok(Some(false)) => End::NotApplied(trouble),
            Ok(None) | Err(_) => End::Unknown(trouble),
        }
    }

    /// Looks once more for the outcome that is unknown; whether it is known now.
    pub(super) async fn settle_doubt(&mut self) -> bool {
        let Some(number) = self.doubt else { return true };
        match timeout(self.resolve_within, self.look_for(number)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the ledger's server cannot be asked");
                false
            }
            Err(_) => false,
        }
    }

    /// Whether the batch of that number was committed, once nothing can change that any more.
    async fn look_for(&mut self, number: i64) -> Result<bool, Trouble> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        let client = &session.connected.client;
        client.batch_execute("BEGIN").await?;
        let row = self.node_row(&session).await.inspect_err(|error| {
            self.fenced = matches!(error, Trouble::Fenced);
        })?;
        let (last, seq) = (get::<i64>(&row, "batch")?, get::<i64>(&row, "journal_seq")?);
        client.execute(&session.sql.keep_node, &[&self.node, &last, &seq]).await?;
        drop(session.connected.take_warning());
        client.batch_execute("COMMIT").await?;
        if let Some(warning) = session.connected.take_warning() {
            return Err(Trouble::Warned(warning));
        }
        self.session = Some(session);
        self.doubt = None;
        self.shared.doubt(false);
        Ok(number <= last)
    }

    /// The connection, or a new one.
    async fn session(&mut self) -> Result<Session, Trouble> {
        if let Some(session) = self.session.take()
            && !session.connected.client.is_closed()
        {
            if !self.holds_name {
                self.holds_name = hold_name(&session.connected.client, &self.node).await?;
            }
            return Ok(session);
        }
        if self.rest_until.is_some_and(|it| Instant::now() < it) {
            return Err(Trouble::Resting);
        }
        self.connect().await
    }

    async fn connect(&mut self) -> Result<Session, Trouble> {
        self.known = Known::default();
        let made = async {
            let connected = self.connector.connect(Role::Writer).await?;
            let sql = Statements::prepare(&connected.client).await?;
            let holds_name = hold_name(&connected.client, &self.node).await?;
            Ok((Session { connected, sql }, holds_name))
        };
        let made: Result<_, Trouble> = made.await;
        self.rest_until = if made.is_err() { Instant::now().checked_add(REST) } else { None };
        let (session, holds_name) = made?;
        self.holds_name = holds_name;
        self.shared.connected();
        tracing::info!("connected to the ledger's server");
        Ok(session)
    }
}

/// Runs every operation on what is loaded, and again those that turned out to want more.
async fn run(
    transaction: &Transaction<'_>,
    batch: &mut [Box<dyn Work>],
    loaded: &mut Loaded,
    known: &Known,
) -> Result<(), Trouble> {
    let mut waiting: Vec<&mut Box<dyn Work>> = batch.iter_mut().collect();
    for _ in 0..PASSES {
        let mut wants = Wants::default();
        waiting.retain_mut(|work| match work.run(loaded) {
            Some(need) => {
                wants.add(need);
                true
            }
            None => false,
        });
        if waiting.is_empty() {
            break;
        }
        transaction.load(&wants, loaded, known).await?;
    }
    Ok(())
}
