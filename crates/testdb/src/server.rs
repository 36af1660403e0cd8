//! The server: made, started, crashed, started again, stopped.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

use crate::programs::{self, User};

/// Starts the server and ends it at once when standard input closes, so that it cannot outlive a
/// test that was killed before it could clean up. The server handles SIGQUIT by itself: it ends
/// without writing anything, as in a crash.
const GUARD: &str = r#""$0" "$@" </dev/null & read -r _; kill -QUIT $!; wait"#;

/// Where a directory is in memory.
const MEMORY: &str = "/dev/shm";

/// The server's own superuser; nobody else can reach its socket.
const SUPERUSER: &str = "farebox";
/// In the socket's file name only.
const PORT: u16 = 5432;

/// How often a starting server is looked at, every [`POLL_EVERY`]: a minute, because cold starts beside
/// a busy compiler are slow.
const POLLS: u32 = 6_000;
const POLL_EVERY: Duration = Duration::from_millis(10);
const READY: &str = "database system is ready to accept connections";

/// Durable, as in production, and small.
const SETTINGS: &str = "
listen_addresses = ''
unix_socket_permissions = 0777
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 150
shared_buffers = 32MB
max_wal_size = 256MB
autovacuum_naptime = 5s
log_checkpoints = off
";

/// A running server, ended on drop.
#[derive(Debug)]
pub struct PostgresServer {
    directory: TempDir,
    programs: PathBuf,
    user: Option<User>,
    guard: Option<Child>,
    databases: AtomicU64,
}

/// Why there is no server to test on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It was never installed. The text tells what to do.
    #[error("PostgreSQL is not installed: run ./test, it installs what the tests need")]
    Missing,
    /// The operating system refused.
    #[error("{what} failed")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The cluster could not be made, or the server did not get ready.
    #[error("{what} failed; it said:\n{output}")]
    Refused {
        /// Which program.
        what: &'static str,
        /// What it wrote.
        output: String,
    },
    /// It runs but did not do what it was told.
    #[error("the server refused")]
    Sql(#[from] tokio_postgres::Error),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::System { what, source }
}

impl PostgresServer {
    /// Makes a cluster and starts its server. Blocks for about a second.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with("")
    }

    /// The same in memory, where the system has such a place, for tests that are not about the disk:
    /// everything is forced to it all the same, in no time.
    pub fn start_in_memory() -> Result<Self, ServerError> {
        let memory = Path::new(MEMORY);
        if memory.is_dir() { Self::start_in(TempDir::new_in(memory), "") } else { Self::start() }
    }

    /// With more lines of `postgresql.conf`; they override ours.
    pub fn start_with(settings: &str) -> Result<Self, ServerError> {
        Self::start_in(TempDir::new(), settings)
    }

    fn start_in(directory: io::Result<TempDir>, settings: &str) -> Result<Self, ServerError> {
        let search_path = search_path();
        let programs = programs::find(&search_path).ok_or(ServerError::Missing)?;
        let user = User::of_servers();
        let directory = directory.map_err(system("a temporary directory"))?;
        if let Some(User { id, group }) = user {
            chown(directory.path(), Some(id), Some(group)).map_err(system("chown"))?;
        }
        // Everybody may look for the socket; the data directory is the server's alone.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), open).map_err(system("chmod"))?;
        let databases = AtomicU64::new(0);
        let mut server = Self { directory, programs, user, guard: None, databases };
        server.make_cluster(settings)?;
        server.start_again()?;
        Ok(server)
    }

    fn make_cluster(&self, settings: &str) -> Result<(), ServerError> {
        let mut command = Command::new(self.programs.join("initdb"));
        command
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--username={SUPERUSER}"))
            .arg("--pgdata")
            .arg(self.data())
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        User::run(self.user, &mut command);
        let made = command.output().map_err(system("initdb"))?;
        if !made.status.success() {
            let output = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(ServerError::Refused { what: "initdb", output });
        }
        let file = self.data().join("postgresql.conf");
        let written = fs::read_to_string(&file).map_err(system("postgresql.conf"))?;
        let socket = self.directory.path().display();
        let all = format!("{written}{SETTINGS}unix_socket_directories = '{socket}'\n{settings}\n");
        fs::write(&file, all).map_err(system("postgresql.conf"))
    }

    /// Starts the server after [`PostgresServer::crash`]; waits until it takes connections.
    pub fn start_again(&mut self) -> Result<(), ServerError> {
        self.crash();
        let log = fs::File::create(self.log_file()).map_err(system("the log"))?;
        let mut command = Command::new("sh");
        command
            .args(["-c", GUARD])
            .arg(self.programs.join("postgres"))
            .arg("-D")
            .arg(self.data())
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(system("the log"))?)
            .stderr(log);
        User::run(self.user, &mut command);
        self.guard = Some(command.spawn().map_err(system("postgres"))?);
        for _ in 0..POLLS {
            if self.log().contains(READY) {
                return Ok(());
            }
            thread::sleep(POLL_EVERY);
        }
        Err(ServerError::Refused { what: "postgres", output: self.log() })
    }

    /// Ends the server at once, as in a crash: no checkpoint, every connection cut, the log is what
    /// is left.
    pub fn crash(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // The guard ends when the server has; a failure leaves nothing to do.
            drop(guard.wait());
        }
    }

    /// What the server logged since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The address of a database, as users write it.
    pub fn url(&self, database: &str) -> String {
        let directory = self.directory.path().display().to_string().replace('/', "%2F");
        format!("postgresql://{SUPERUSER}@{directory}:{PORT}/{database}")
    }

    /// Makes an empty database and tells its address.
    pub async fn database(&self) -> Result<String, ServerError> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0 STRATEGY wal_log");
        self.execute("postgres", &sql).await?;
        Ok(self.url(&name))
    }

    /// Runs statements in a database, as the superuser.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<(), ServerError> {
        self.with_client(database, async |client| client.batch_execute(sql).await).await
    }

    /// Asks a database with a connection of its own, as the superuser.
    pub async fn with_client<T>(
        &self,
        database: &str,
        ask: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, ServerError> {
        let config: Config = self.url(database).parse()?;
        let (client, connection) = config.connect(NoTls).await?;
        let asked = async {
            let answer = ask(&client).await;
            drop(client);
            answer
        };
        // A lost connection is told by the answer.
        let (answer, _ended) = tokio::join!(asked, connection);
        Ok(answer?)
    }

    /// The directory with the server's programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Where its socket lies.
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.crash();
    }
}

#[expect(clippy::disallowed_methods, reason = "programs are looked for where a shell would")]
fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn number(server: &PostgresServer, sql: &str) -> i64 {
        server.with_client("test_0", async |it| it.query_one(sql, &[]).await).await.unwrap().get(0)
    }

    #[tokio::test]
    async fn a_commit_survives_a_crash_and_the_server_ends_with_its_owner() {
        let mut server = PostgresServer::start_with("work_mem = 5MB").unwrap();
        let url = server.database().await.unwrap();
        assert!(url.ends_with("/test_0"), "{url}");
        server.execute("test_0", "CREATE TABLE t (n bigint)").await.unwrap();
        server.execute("test_0", "INSERT INTO t VALUES (42)").await.unwrap();
        let sure = "SELECT count(*) FROM pg_settings
                     WHERE (name, setting) IN (('fsync', 'on'), ('work_mem', '5120'))";
        assert_eq!(number(&server, sure).await, 2);
        let process = number(&server, "SELECT pg_backend_pid()::bigint").await;
        server.crash();
        assert!(!Path::new(&format!("/proc/{process}")).exists());
        assert!(server.with_client("test_0", async |_| Ok(())).await.is_err());
        server.start_again().unwrap();
        assert!(server.log().contains("not properly shut down"), "{}", server.log());
        assert_eq!(number(&server, "SELECT n FROM t").await, 42);
        let directory = server.socket_directory().to_owned();
        drop(server);
        assert!(!directory.exists());
    }
}
