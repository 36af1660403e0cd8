//! Opening a ledger: the right server, the right schema, and a name that nobody else has.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::TaskTracker;

use crate::postgres::fault::Trouble;
use crate::postgres::options::{Claim, PostgresOptions};
use crate::postgres::session::{Connected, Connector, Role, Tls};

/// The schema, one step after the other; the table `schema_steps` has those taken.
const MIGRATIONS: [&str; 2] =
    [include_str!("migrations/0001_ledger.sql"), include_str!("migrations/0002_watches.sql")];

/// The first half of our advisory locks: `Fare` in ASCII. The second is 0 for migrations, and the hash
/// of its name for a node.
const LOCKS: i32 = 0x4661_7265;

/// How often a name that is in use is asked for again.
const CLAIM_EVERY: Duration = Duration::from_millis(100);

/// How soon the loss of a server, or of us, is noticed on a connection that says nothing.
const KEEPALIVE: Duration = Duration::from_secs(10);
const LOST_AFTER: Duration = Duration::from_secs(20);

/// Why a ledger in PostgreSQL cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PostgresOpenError {
    /// The options make no sense; the text says which one.
    #[error("the ledger cannot be opened as asked: {0}")]
    Options(String),
    /// The server's certificate cannot be checked.
    #[error("the certificates in {path} cannot be used: {why}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server cannot be reached, or is not fit for a ledger.
    #[error("the ledger's server cannot be used")]
    Server(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A newer Farebox has written it: use that one.
    #[error("the ledger has schema {found}, and this Farebox knows {known} and older only")]
    Newer {
        /// Its schema.
        found: i32,
        /// The newest schema known here.
        known: i32,
    },
    /// Another process has the name of this node: stop that one, or choose another name.
    #[error("the node `{node}` is in use by another process{}", by.as_deref().map(|it| format!(" ({it})")).unwrap_or_default())]
    InUse {
        /// The name.
        node: String,
        /// Where that process is, if the server knows.
        by: Option<String>,
    },
    /// The thread of the ledger could not be started.
    #[error("the ledger cannot be started")]
    Thread(#[source] std::io::Error),
}

impl From<Trouble> for PostgresOpenError {
    fn from(trouble: Trouble) -> Self {
        Self::Server(Box::new(trouble))
    }
}

impl From<tokio_postgres::Error> for PostgresOpenError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from(Trouble::from(error))
    }
}

/// A node's name as it was claimed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed {
    pub(super) epoch: i64,
    pub(super) batch: i64,
}

/// What connects to the server of these options.
pub(super) fn connector(
    options: &PostgresOptions,
    handle: Handle,
    tasks: TaskTracker,
) -> Result<Connector, PostgresOpenError> {
    let (config, tls) = parse(options)?;
    Ok(Connector { config, tls, replication: options.replication, handle, tasks })
}

impl PostgresOptions {
    /// Whether they make sense, as far as that shows without a connection.
    pub fn check(&self) -> Result<(), PostgresOpenError> {
        parse(self).map(drop)
    }

    /// Whether there is a password in the address.
    pub fn has_password(&self) -> bool {
        self.url.parse::<Config>().is_ok_and(|it| it.get_password().is_some())
    }
}

fn parse(options: &PostgresOptions) -> Result<(Config, Tls), PostgresOpenError> {
    let wrong = |why: String| PostgresOpenError::Options(why);
    if options.node.trim().is_empty() {
        return Err(wrong("the node has no name".to_owned()));
    }
    let parsed: Result<Config, _> = options.url.parse();
    let mut config = parsed.map_err(|error| {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        wrong(format!("the address is not one: {why}"))
    })?;
    if config.get_hosts().is_empty() {
        return Err(wrong("the address names no host".to_owned()));
    }
    config
        .application_name(format!("farebox {}", options.node))
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .connect_timeout(KEEPALIVE)
        .keepalives_idle(KEEPALIVE)
        .tcp_user_timeout(LOST_AFTER);
    let tls = tls(&mut config, options)?;
    Ok((config, tls))
}

/// Other machines are spoken to over TLS unless the address says `sslmode=disable`.
fn tls(config: &mut Config, options: &PostgresOptions) -> Result<Tls, PostgresOpenError> {
    let is_near = |it: &Host| match it {
        Host::Unix(_) => true,
        Host::Tcp(name) => ["localhost", "127.0.0.1", "::1"].contains(&name.as_str()),
    };
    let says = options.url.contains("sslmode=");
    let mode = config.get_ssl_mode();
    let all_near = || config.get_hosts().iter().all(is_near);
    if mode == SslMode::Disable || mode == SslMode::Prefer && !says && all_near() {
        return Ok(Tls::Plain);
    }
    config.ssl_mode(SslMode::Require);
    let roots = match &options.root_certificates {
        Some(path) => read_certificates(path)?,
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
    };
    let provider = rustls::crypto::ring::default_provider().into();
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| PostgresOpenError::Options(error.to_string()))?;
    let tls = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(Tls::Rustls(MakeRustlsConnect::new(tls)))
}

fn read_certificates(path: &Path) -> Result<RootCertStore, PostgresOpenError> {
    let wrong = |why: String| PostgresOpenError::Certificates { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|it| wrong(it.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|it| wrong(it.to_string()))?;
        roots.add(certificate).map_err(|it| wrong(it.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("there is none in it".to_owned()));
    }
    Ok(roots)
}

/// Connects, brings the schema up to date, and claims the node's name.
pub(super) async fn open(
    connector: &Connector,
    options: &PostgresOptions,
) -> Result<(Connected, Claimed), PostgresOpenError> {
    let connected = connector.connect(Role::Writer).await?;
    migrate(&connected.client).await?;
    wait_for_name(&connected.client, options).await?;
    let claimed = claim(&connected.client, &options.node).await?;
    Ok((connected, claimed))
}

/// All steps that are missing, in one transaction, by one process at a time.
async fn migrate(client: &Client) -> Result<(), PostgresOpenError> {
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    client.batch_execute("BEGIN").await?;
    client.execute("SELECT pg_advisory_xact_lock($1, 0)", &[&LOCKS]).await?;
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_steps (
                 step     integer PRIMARY KEY,
                 taken_at timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
    let row = client.query_one("SELECT coalesce(max(step), 0) FROM schema_steps", &[]).await?;
    let found: i32 = row.try_get(0)?;
    if known < found {
        client.batch_execute("ROLLBACK").await?;
        return Err(PostgresOpenError::Newer { found, known });
    }
    for (step, sql) in (1_i32..).zip(MIGRATIONS) {
        if found < step {
            client.batch_execute(sql).await?;
            client.execute("INSERT INTO schema_steps (step) VALUES ($1)", &[&step]).await?;
        }
    }
    Ok(client.batch_execute("COMMIT").await?)
}

/// The lock of a node's name lives as long as its writer's connection: nobody takes the name of a living
/// gateway by mistake. What keeps a node that lost it from writing is the epoch.
async fn wait_for_name(
    client: &Client,
    options: &PostgresOptions,
) -> Result<(), PostgresOpenError> {
    let started = Instant::now();
    loop {
        if hold_name(client, &options.node).await? {
            return Ok(());
        }
        match options.claim {
            Claim::TakeOver => return Ok(()),
            Claim::WaitFor(longest) if longest <= started.elapsed() => {
                let by = holder(client, &options.node).await?;
                return Err(PostgresOpenError::InUse { node: options.node.clone(), by });
            }
            Claim::WaitFor(_) => sleep(CLAIM_EVERY).await,
        }
    }
}

/// Takes the lock of a node's name for this connection, if nobody else has it.
pub(super) async fn hold_name(client: &Client, node: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
    client.query_one(sql, &[&LOCKS, &node]).await?.try_get(0)
}

async fn holder(client: &Client, node: &str) -> Result<Option<String>, PostgresOpenError> {
    let sql = "SELECT format('server process %s, from %s since %s', a.pid,
                             coalesce(host(a.client_addr), 'this machine'), a.backend_start)
                 FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
                WHERE l.locktype = 'advisory' AND l.granted
                  AND l.classid = $1::int4::oid AND l.objid = hashtext($2)::oid";
    let row = client.query_opt(sql, &[&LOCKS, &node]).await?;
    Ok(row.map(|it| it.try_get(0)).transpose()?)
}

/// Raises the node's epoch. Waits for what its predecessor may still be committing.
async fn claim(client: &Client, node: &str) -> Result<Claimed, PostgresOpenError> {
    let sql = "INSERT INTO nodes (node, epoch, batch, journal_seq, claimed_at)
               VALUES ($1, 1, 0, 0, now())
               ON CONFLICT (node) DO UPDATE SET epoch = nodes.epoch + 1, claimed_at = now()
               RETURNING epoch, batch";
    let row = client.query_one(sql, &[&node]).await.map_err(|error| {
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            PostgresOpenError::InUse { node: node.to_owned(), by: None }
        } else {
            PostgresOpenError::from(error)
        }
    })?;
    Ok(Claimed { epoch: row.try_get(0)?, batch: row.try_get(1)? })
}
