//! Connections: made on the ledger's own runtime, fit for a ledger, and listened to.
//!
//! A warning during a commit is no remark: with synchronous replication it says that the server has
//! stopped waiting for its standby, and reports success all the same.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::TaskTracker;

use crate::postgres::fault::Trouble;
use crate::postgres::options::Replication;

/// The oldest server that is known to do what is asked of it.
const OLDEST: i32 = 150_000;

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What a connection that writes is set to. Waiting for locks ends, so that one stuck node does not
/// hold up all others; and a transaction whose node was stopped in the middle is rolled back by the
/// server, which also notices soon when a node is cut off: its name is free then. Statements work on few rows of large tables, whatever the statistics say of an empty one.
const WRITER: &str = "
    SET client_min_messages = warning;
    SET default_transaction_isolation = 'read committed';
    SET lock_timeout = '8s';
    SET statement_timeout = '20s';
    SET idle_in_transaction_session_timeout = '10s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 2;
    SET tcp_user_timeout = '20s';
    SET enable_seqscan = off;
    SET enable_mergejoin = off;
    SET plan_cache_mode = force_generic_plan;
    SET jit = off";

/// What a connection that only reads is set to.
const READER: &str = "
    SET client_min_messages = warning;
    SET default_transaction_read_only = on;
    SET lock_timeout = '8s'";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// Makes connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) config: Config,
    pub(super) tls: Tls,
    pub(super) replication: Replication,
    pub(super) handle: Handle,
    pub(super) tasks: TaskTracker,
}

/// How a connection is protected.
#[derive(Clone)]
pub(super) enum Tls {
    /// Not: a Unix socket, or this machine.
    Plain,
    /// By TLS, the server's certificate checked.
    Rustls(MakeRustlsConnect),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Rustls(_) => "Rustls",
        })
    }
}

/// The last warning of a connection.
pub(super) type Warning = Arc<Mutex<Option<String>>>;

/// A connection that is set up.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: Client,
    warning: Warning,
}

impl Connected {
    /// The last warning since this was asked before.
    pub(super) fn take_warning(&self) -> Option<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Connector {
    /// Connects, checks the server, and sets the connection up.
    pub(super) async fn connect(&self, role: Role) -> Result<Connected, Trouble> {
        let late = |_| Trouble::Late(CONNECT_WITHIN);
        let connected = timeout(CONNECT_WITHIN, async {
            let connected = self.connect_unchecked().await?;
            self.check(&connected.client).await?;
            let settings = match role {
                Role::Writer => WRITER,
                Role::Reader => READER,
            };
            connected.client.batch_execute(settings).await?;
            Ok(connected)
        });
        connected.await.map_err(late)?
    }

    /// The connection lives on the ledger's runtime, whoever asked for it.
    async fn connect_unchecked(&self) -> Result<Connected, Trouble> {
        let (reply, answer) = oneshot::channel();
        let config = self.config.clone();
        match &self.tls {
            Tls::Plain => {
                self.tasks.spawn_on(connect_and_drive(config, NoTls, reply), &self.handle);
            }
            Tls::Rustls(tls) => {
                let tls = tls.clone();
                self.tasks.spawn_on(connect_and_drive(config, tls, reply), &self.handle);
            }
        }
        let gone = |_| Trouble::Unfit("the ledger is being closed".to_owned());
        Ok(answer.await.map_err(gone)??)
    }

    /// Refuses a server on which `Ok` would not mean durable. Asked of every connection: behind one
    /// address there may be another server by now.
    async fn check(&self, client: &Client) -> Result<(), Trouble> {
        let unfit = |why: String| Err(Trouble::Unfit(why));
        let row = client
            .query_one(
                "SELECT current_setting('server_version_num')::int4,
                        current_setting('server_version'), pg_is_in_recovery(),
                        current_setting('fsync'), current_setting('synchronous_commit'),
                        current_setting('synchronous_standby_names')",
                &[],
            )
            .await?;
        let (number, version): (i32, &str) = (row.try_get(0)?, row.try_get(1)?);
        if number < OLDEST {
            return unfit(format!(
                "this is PostgreSQL {version}, and 15 is the oldest that will do"
            ));
        }
        if row.try_get(2)? {
            return unfit("this server is a standby, and nothing can be written there".to_owned());
        }
        if row.try_get::<_, &str>(3)? != "on" {
            return unfit("`fsync` is off: what is committed would not survive".to_owned());
        }
        let (commit, standbys): (&str, &str) = (row.try_get(4)?, row.try_get(5)?);
        if self.replication == Replication::Synchronous {
            if standbys.trim().is_empty() {
                return unfit(
                    "`synchronous_standby_names` is empty: no commit waits for a second machine"
                        .to_owned(),
                );
            }
            if matches!(commit, "off" | "local" | "remote_write") {
                return unfit(format!(
                    "`synchronous_commit` is {commit}: no commit waits for a second disk"
                ));
            }
        }
        if matches!(commit, "off" | "local" | "remote_write") {
            client.batch_execute("SET synchronous_commit = on").await?;
        }
        Ok(())
    }
}

async fn connect_and_drive<T>(
    config: Config,
    tls: T,
    reply: oneshot::Sender<Result<Connected, tokio_postgres::Error>>,
) where
    T: MakeTlsConnect<Socket>,
{
    let (client, connection) = match config.connect(tls).await {
        Ok(connected) => connected,
        Err(error) => {
            drop(reply.send(Err(error)));
            return;
        }
    };
    let warning = Warning::default();
    let connected = Connected { client, warning: Arc::clone(&warning) };
    if reply.send(Ok(connected)).is_ok() {
        drive(connection, &warning).await;
    }
}

/// Until the connection ends or its client is dropped. What went wrong is told to whoever waits for an
/// answer.
async fn drive<S>(mut connection: Connection<Socket, S>, warning: &Warning)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message
            && notice.parsed_severity() == Some(Severity::Warning)
        {
            tracing::warn!(warning = notice.message(), "PostgreSQL warns");
            let text = notice.message().to_owned();
            *warning.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
    }
}
