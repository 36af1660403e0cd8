//! Queries that change nothing, all on one connection: they are sent one behind the other and do not
//! wait for each other's answers.

use std::sync::Arc;
use std::time::Duration;

use farebox_protocol::{Network, PaymentId, Timestamp};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::book::settlements::PAUSE_MAX;
use crate::port::{StoreError, StoredPayment};
use crate::postgres::fault::Trouble;
use crate::postgres::rows::{self, Read};
use crate::postgres::session::{Connected, Connector, Role};
use crate::postgres::shared::Shared;
use crate::transactions::KeptTransaction;

/// How long a query may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The statements of the reading connection.
#[derive(Debug)]
struct Reading {
    connected: Connected,
    lookup: Statement,
    list: Statement,
    next_due: Statement,
    watched: Statement,
    /// The connection of the writer that was current when this one was made.
    beside: u64,
}

/// Reads for everybody.
#[derive(Debug)]
pub(super) struct Reader {
    connector: Connector,
    node: String,
    shared: Arc<Shared>,
    reading: Mutex<Option<Arc<Reading>>>,
}

impl Reader {
    pub(super) fn new(connector: Connector, node: String, shared: Arc<Shared>) -> Self {
        Self { connector, node, shared, reading: Mutex::default() }
    }

    /// What is known of a payment. While the outcome of a commit is unknown it waits, and then fails:
    /// what it could see might yet change, or not survive.
    pub(super) async fn lookup(&self, id: PaymentId) -> Result<Option<StoredPayment>, StoreError> {
        self.within(async {
            self.shared.wait_for_certainty().await;
            let reading = self.reading().await?;
            let id: &[u8] = id.as_bytes();
            let row = reading.connected.client.query_opt(&reading.lookup, &[&id]).await?;
            row.as_ref().map(rows::stored).transpose()
        })
        .await
    }

    /// Payments in the order of their admission.
    pub(super) async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.within(async {
            let reading = self.reading().await?;
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            let after = after.as_ref().map(|it| it.as_bytes().as_slice());
            let found = reading.connected.client.query(&reading.list, &[&after, &max]).await?;
            found.iter().map(rows::stored).collect()
        })
        .await
    }

    /// When the next settlement is due that this node may take.
    pub(super) async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.within(async {
            let reading = self.reading().await?;
            let client = &reading.connected.client;
            let row: Option<Row> = client.query_opt(&reading.next_due, &[&self.node]).await?;
            row.map_or(Ok(None), |it| rows::optional_time(&it, "due_at"))
        })
        .await
    }

    /// Settled payments that have to be looked at.
    pub(super) async fn watched(
        &self,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<StoredPayment>, StoreError> {
        self.within(async {
            let reading = self.reading().await?;
            let (max, far) = (i64::try_from(max).unwrap_or(i64::MAX), now.plus(PAUSE_MAX));
            let (now, far) = (rows::millis(now), rows::millis(far));
            let client = &reading.connected.client;
            let found = client.query(&reading.watched, &[&now, &far, &max]).await?;
            found.iter().map(rows::stored).collect()
        })
        .await
    }

    /// The transactions of this node on a network that have not ended.
    pub(super) async fn open_transactions(
        &self,
        network: &Network,
    ) -> Result<Vec<KeptTransaction>, StoreError> {
        self.within(async {
            self.shared.wait_for_certainty().await;
            let reading = self.reading().await?;
            let sql = "SELECT * FROM transactions
                        WHERE node = $1 AND network = $2 AND ended IS NULL ORDER BY seq";
            let parameters: [&(dyn ToSql + Sync); 2] = [&self.node, &network.as_str()];
            let found = reading.connected.client.query(sql, &parameters).await?;
            found.iter().map(|it| rows::transaction(it, network)).collect()
        })
        .await
    }

    async fn within<T>(&self, query: impl Future<Output = Read<T>>) -> Result<T, StoreError> {
        if self.shared.is_closed() {
            return Err(StoreError::Unavailable("the ledger is closed".into()));
        }
        let answer = timeout(ANSWER_WITHIN, query).await;
        let answer = answer.unwrap_or(Err(Trouble::Late(ANSWER_WITHIN)));
        answer.map_err(Trouble::into_store_error)
    }

    /// The connection, made anew when it broke or when the writer has made a new one: behind the same
    /// address there may be another server since.
    async fn reading(&self) -> Result<Arc<Reading>, Trouble> {
        let mut current = self.reading.lock().await;
        let beside = self.shared.connections();
        if let Some(reading) = &*current
            && reading.beside == beside
            && !reading.connected.client.is_closed()
        {
            return Ok(Arc::clone(reading));
        }
        *current = None;
        let connected = self.connector.connect(Role::Reader).await?;
        let client = &connected.client;
        let (lookup, list, next_due, watched) = futures_util::try_join!(
            client.prepare("SELECT * FROM payments JOIN terms USING (seq) WHERE id = $1"),
            client.prepare(include_str!("sql/list.sql")),
            client.prepare(include_str!("sql/next_due.sql")),
            client.prepare(include_str!("sql/watched.sql")),
        )?;
        let reading = Arc::new(Reading { connected, lookup, list, next_due, watched, beside });
        *current = Some(Arc::clone(&reading));
        Ok(reading)
    }
}
