//! `[ledger]`: where the ledger is. For the commands that look at one, no more of the configuration has
//! to be right than that and the tokens of its amounts, and no secret is read.

use std::path::{Path, PathBuf};

use farebox_protocol::{Asset, Network};
use farebox_store::{PostgresOptions, Replication};
use secrecy::ExposeSecret as _;
use toml::de::DeTable;

use super::problem::{Problem, Problems};
use super::secret::Secrets;
use super::section::{Section, Value};
use super::{Need, table, values};

/// Where the ledger of a gateway is.
#[derive(Clone, Debug)]
pub(crate) enum LedgerAt {
    /// In an SQLite file.
    Sqlite {
        /// Which.
        file: PathBuf,
        /// Bytes that are set aside beside it for the day when the disk is full.
        ballast: u64,
    },
    /// In a PostgreSQL database.
    Postgres(Box<PostgresOptions>),
}

/// Where a ledger is, and tokens that no table knows.
#[derive(Debug)]
pub(crate) struct LedgerPlan {
    /// The SQLite file.
    pub(crate) file: PathBuf,
    /// Tokens with their decimals, as far as the file spells them out.
    pub(crate) tokens: Vec<(Asset, u8)>,
}

/// Reads `[ledger]` and the tokens of `[network.…]`.
pub(super) fn read(text: &str, directory: &Path, problems: &mut Problems) -> Option<LedgerPlan> {
    let (parsed, errors) = DeTable::parse_recoverable(text);
    for error in errors.into_iter().filter(|it| it.message() != "duplicate key") {
        let span = error.span().unwrap_or(0..0);
        problems.push(Problem::error(span, "this is not TOML").label(error.message()));
    }
    let mut root = Section::new("the file", 0..0, parsed.get_ref());
    let ledger = table(&mut root, "ledger", Need::Required, problems)?;
    let file = file(ledger, directory, problems)?;
    let networks = root.get("network").and_then(|it| it.as_section("[network]"));
    let tokens = networks.iter().flat_map(Section::entries).filter_map(|it| {
        let network: Network = it.key().parse().ok()?;
        let mut asset = it.as_section("network")?.get("asset")?.as_section("asset")?;
        let address = asset.get("address")?.as_text()?;
        let decimals = asset.get("decimals")?.count("digits").ok()?;
        Some((Asset::new(network, address).ok()?, u8::try_from(decimals).ok()?))
    });
    Some(LedgerPlan { file, tokens: tokens.collect() })
}

const URL: &str = "`sqlite:` and the path of a file, such as \"sqlite:farebox.db\", \
                   or the address of a PostgreSQL database, such as \"postgresql://user@host/farebox\"";

/// Reads `[ledger]`.
pub(super) fn place(
    mut section: Section<'_>,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<LedgerAt> {
    let Some(url) = section.get("url") else {
        problems.push(section.missing("url"));
        return None;
    };
    let is_sqlite = url.as_text().is_some_and(|it| !is_postgres(it));
    let place = if is_sqlite {
        let file = problems.keep(sqlite_file(&url, &secrets.directory));
        let ballast = section.optional("ballast", problems, ballast).unwrap_or(BALLAST);
        file.map(|file| LedgerAt::Sqlite { file, ballast })
    } else {
        let options = postgres(&url, &mut section, secrets, problems);
        options.map(|it| LedgerAt::Postgres(Box::new(it)))
    };
    section.close(problems);
    place
}

/// Enough to finish some thousand payments.
const BALLAST: u64 = 64 << 20;

fn ballast(value: &Value<'_>) -> Result<u64, Problem> {
    let size = u64::try_from(values::size(value)?).unwrap_or(u64::MAX);
    if 1 << 20 <= size { Ok(size) } else { Err(value.wrong("\"1MiB\" at least")) }
}

fn is_postgres(text: &str) -> bool {
    ["postgres:", "postgresql:"].iter().any(|it| text.starts_with(it))
}

/// The file of a ledger in SQLite, for commands that read no other.
fn file(mut section: Section<'_>, directory: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let url = section.required("url", problems, |value| match value.as_text() {
        Some(text) if !is_postgres(text) => sqlite_file(value, directory),
        Some(_) | None => Err(Problem::error(
            value.span(),
            "this command reads a ledger in an SQLite file, and this one is in PostgreSQL",
        )
        .help("ask the database itself: its tables are described in docs/adr/0018-postgresql.md")
        .masked()),
    });
    // What stands beside an address of PostgreSQL is not looked at here.
    drop(section);
    url
}

fn sqlite_file(value: &Value<'_>, directory: &Path) -> Result<PathBuf, Problem> {
    let text = value.text(URL)?;
    match text.strip_prefix("sqlite:") {
        Some(path) if path.contains(":memory:") => Err(value
            .wrong(URL)
            .help("a ledger in memory would forget who paid; it has to survive a crash")),
        Some(path) if !path.trim().is_empty() && !path.starts_with("//") => {
            Ok(directory.join(path))
        }
        Some(_) | None => Err(value.wrong(URL)),
    }
}

fn postgres(
    url: &Value<'_>,
    section: &mut Section<'_>,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<PostgresOptions> {
    let address = address(url, secrets, problems);
    let node = section.get("node");
    if node.is_none() {
        problems.push(section.missing("node").help(
            "several gateways may work on one database: each needs a name, which it keeps over restarts",
        ));
    }
    let node = node.and_then(|it| problems.keep(values::word(&it)));
    let replication = section.optional("replication", problems, replication).unwrap_or_default();
    let root_certificates = section.optional("root_certificates", problems, |value| {
        Ok(secrets.directory.join(value.text("the path of a file in PEM")?))
    });
    let (address, node) = (address?, node?);
    let options =
        PostgresOptions { replication, root_certificates, ..PostgresOptions::new(address, node) };
    if let Err(error) = options.check() {
        let problem = Problem::error(url.span(), "this ledger cannot be used");
        problems.push(problem.label(error.to_string()).masked());
        return None;
    }
    Some(options)
}

/// The address itself where there is no password in it, or the secret that the value names.
fn address(url: &Value<'_>, secrets: &Secrets, problems: &mut Problems) -> Option<String> {
    let Some(text) = url.as_text() else {
        return secrets.read(url, problems).map(|it| it.expose_secret().to_owned());
    };
    if !PostgresOptions::new(text, "").has_password() {
        return Some(text.to_owned());
    }
    problems.push(
        Problem::error(url.span(), "a secret must not stand in the configuration")
            .label("there is a password in this address")
            .help("write `url = { env = \"NAME\" }` or `url = { file = \"path\" }` instead")
            .masked(),
    );
    None
}

fn replication(value: &Value<'_>) -> Result<Replication, Problem> {
    const EXPECTED: &str =
        "\"none\", or \"synchronous\" if each commit has to be on a second machine";
    match value.text(EXPECTED)? {
        "none" => Ok(Replication::None),
        "synchronous" => Ok(Replication::Synchronous),
        _ => Err(value.wrong(EXPECTED)),
    }
}
