//! The PostgreSQL engine: one database, any number of gateways, every answer durable.
//!
//! Each gateway is a *node* with a name. Its writes go through one writer that commits what has queued
//! ([`writer`], [`batch`]), on rows that it locks first ([`load`]); its reads go through one connection
//! ([`reader`]). The rules are in [`crate::book`]. Decisions: ADR 0018.

mod batch;
mod check;
mod fault;
mod load;
mod loaded;
mod numeric;
pub(crate) mod open;
pub(crate) mod options;
mod reader;
mod rows;
mod save;
mod session;
mod shared;
mod statements;
mod transactions;
mod work;
mod writer;

use std::time::Duration;

use async_trait::async_trait;
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, PaymentId, Timestamp};
use tokio::time::timeout;

use crate::book::audit::CheckReport;
use crate::book::holds::{self, Charge, HoldName};
use crate::book::{recovery, settlements, unheard, watches};
use crate::port::{
    Admit, Admitted, AnswerMark, CaptureFailed, Captured, Hold, Job, Ledger, Recovered, Resolution,
    StoreError, StoredPayment, Watch,
};
use crate::postgres::fault::{Done, Due, Need, Trouble};
use crate::postgres::loaded::Loaded;
use crate::postgres::open::PostgresOpenError;
use crate::postgres::options::PostgresOptions;
use crate::postgres::reader::Reader;
use crate::postgres::rows::array;
use crate::postgres::session::{Connector, Role};
use crate::postgres::work::Asked;
use crate::postgres::writer::Writer;
use crate::sqlite::WriterCounts;

/// How long a query of its own connection may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A ledger in PostgreSQL 15 or newer.
///
/// Dropping it writes what is queued and waits for that; [`Ledger::close`] does so without blocking
/// the thread.
#[derive(Debug)]
pub struct PostgresLedger {
    writer: Writer,
    reader: Reader,
    connector: Connector,
}

impl PostgresLedger {
    /// Connects, brings the schema up to date and claims the node's name. Call [`Ledger::recover`]
    /// before anything else; it puts in order what this node has left, and nothing of other nodes.
    pub async fn open(options: PostgresOptions) -> Result<Self, PostgresOpenError> {
        let node = options.node.clone();
        let (writer, connector) = Writer::start(options).await?;
        let shared = std::sync::Arc::clone(writer.shared());
        let reader = Reader::new(connector.clone(), node, shared);
        Ok(Self { writer, reader, connector })
    }

    /// Waits until another process has claimed the name of this node; for ever if that never happens.
    /// The process should then end: it can write nothing any more.
    pub async fn failed(&self) {
        self.writer.shared().fenced().await;
    }

    /// How much the writer has done.
    pub fn writer_counts(&self) -> WriterCounts {
        let (operations, commits) = self.writer.shared().counts();
        WriterCounts { operations, commits }
    }

    /// Audits the database: one settlement for each charge, and every row and account equal to what the
    /// journal says when it is replayed through the life cycle. Reads all of it, on a connection of its
    /// own, as of one moment; the gateways go on meanwhile.
    pub async fn check(&self) -> Result<CheckReport, StoreError> {
        let connected = self.connector.connect(Role::Reader).await;
        let mut connected = connected.map_err(Trouble::into_store_error)?;
        check::check(&mut connected.client).await.map_err(Trouble::into_store_error)
    }

    async fn with<T: Send + 'static>(
        &self,
        hold: &Hold,
        work: impl Fn(&mut Loaded, HoldName) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let hold = HoldName::of(hold);
        let needs = vec![Need::Payment(hold.id)];
        self.writer.call(Asked::new(needs, move |it| work(it, hold))).await
    }

    async fn on<T: Send + 'static>(
        &self,
        id: PaymentId,
        work: impl Fn(&mut Loaded) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.call(Asked::new(vec![Need::Payment(id)], work)).await
    }

    async fn find_secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        let mut fresh = [0; 32];
        getrandom::fill(&mut fresh).map_err(|error| {
            let why = format!("the system gives no randomness: {error}");
            StoreError::Unavailable(why.into())
        })?;
        let connected = self.connector.connect(Role::Writer).await;
        let connected = connected.map_err(Trouble::into_store_error)?;
        let unknown = |error| StoreError::Unknown(Box::new(error));
        let insert = "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let value = fresh.as_slice();
        connected.client.execute(insert, &[&name, &value]).await.map_err(unknown)?;
        if let Some(warning) = connected.take_warning() {
            return Err(StoreError::Unknown(Box::new(Trouble::Warned(warning))));
        }
        let select = "SELECT value FROM secrets WHERE name = $1";
        let row = connected.client.query_one(select, &[&name]).await.map_err(unknown)?;
        array(&row, "value").map_err(Trouble::into_store_error)
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn admit(&self, admit: Admit) -> Result<Admitted, StoreError> {
        let parties = crate::book::record::parties(&admit.terms);
        let mut needs = vec![Need::Payment(admit.terms.id), Need::Accounts(parties)];
        needs.extend(admit.keys.iter().map(|it| Need::Key(it.name)));
        let work = move |it: &mut Loaded| holds::admit(it, &admit);
        self.writer.call(Asked::proving(needs, work, unheard::in_admitted)).await
    }

    async fn begin_serve(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError> {
        self.with(hold, move |it, hold| holds::begin_serve(it, hold, now)).await
    }

    async fn meter(
        &self,
        hold: &Hold,
        delivered: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.with(hold, move |it, hold| holds::meter(it, hold, delivered, now)).await
    }

    async fn capture(
        &self,
        hold: Hold,
        charge: Amount,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<Captured, CaptureFailed> {
        let charge = Charge { units: charge, mark };
        let done = self.with(&hold, move |it, name| holds::capture(it, name, charge, now)).await;
        done.map_err(|source| CaptureFailed { hold, source })
    }

    async fn release(&self, hold: &Hold, why: Release, now: Timestamp) -> Result<(), StoreError> {
        self.with(hold, move |it, hold| holds::release(it, hold, why, now)).await
    }

    async fn withdraw(
        &self,
        hold: &Hold,
        why: Release,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.with(hold, move |it, hold| holds::withdraw(it, hold, why, now)).await
    }

    async fn mark_answer(
        &self,
        id: PaymentId,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.on(id, move |it| holds::mark_answer(it, id, mark, now)).await
    }

    async fn owe_refund(&self, id: PaymentId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        let why = why.to_owned();
        self.on(id, move |it| holds::owe_refund(it, id, &why, now)).await
    }

    async fn lease_jobs(
        &self,
        only: Option<PaymentId>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        let far = now.plus(settlements::PAUSE_MAX);
        let needs = only.map_or_else(
            || vec![Need::Due(Due { now, far, max })],
            |id| vec![Need::Payment(id), Need::Terms(id)],
        );
        let work = move |it: &mut Loaded| settlements::lease(it, only, max, now);
        self.writer.call(Asked::proving(needs, work, unheard::in_leased)).await
    }

    async fn resolve_job(
        &self,
        id: PaymentId,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        self.on(id, move |it| settlements::resolve(it, id, &resolution, now)).await
    }

    async fn watch(&self, id: PaymentId, look_at: Option<Timestamp>) -> Result<(), StoreError> {
        self.on(id, move |it| watches::watch(it, id, look_at)).await
    }

    async fn due_watches(&self, max: usize, now: Timestamp) -> Result<Vec<Watch>, StoreError> {
        let found = self.reader.watched(max, now).await?;
        Ok(found.into_iter().filter_map(watches::of).collect())
    }

    async fn reopen(
        &self,
        id: PaymentId,
        transaction: &str,
        now: Timestamp,
    ) -> Result<Payment, StoreError> {
        let transaction = transaction.to_owned();
        self.on(id, move |it| watches::reopen(it, id, &transaction, now)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.reader.next_due().await
    }

    async fn lookup(&self, id: PaymentId) -> Result<Option<StoredPayment>, StoreError> {
        self.reader.lookup(id).await
    }

    async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.reader.list(after, max).await
    }

    async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        let needs = vec![Need::Unfinished];
        self.writer.call(Asked::new(needs, move |it| recovery::recover(it, now))).await
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        let late = |_| StoreError::Unknown(Box::new(Trouble::Late(ANSWER_WITHIN)));
        timeout(ANSWER_WITHIN, self.find_secret(name)).await.map_err(late)?
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.writer.close().await
    }
}
