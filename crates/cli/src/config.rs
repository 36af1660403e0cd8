//! The configuration file: read whole, with every mistake told at once.
//!
//! The TOML is walked with its spans ([`section`]); each part becomes plain validated values of the
//! crates that run on them. Environment variables override nothing: they only hold secrets.

mod facilitator;
mod ledger;
mod network;
mod problem;
mod route;
mod secret;
mod section;
mod server;
mod summary;
mod upstream;
mod values;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::Renderer;
use farebox_gateway::{GatewayConfig, Limits, Route, facilitator_paths};
use toml::de::DeTable;

pub(crate) use self::facilitator::FacilitatorPlan;
use self::facilitator::{Kind, Role};
pub(crate) use self::ledger::{LedgerAt, LedgerPlan};
pub(crate) use self::network::NetworkPlan;
use self::network::{Need, Needs};
use self::problem::{Problem, Problems, Source};
use self::route::Declared;
use self::secret::Secrets;
use self::section::{Section, Value};
use self::server::{Reach, Server};
pub(crate) use self::summary::summary;
use crate::env;
use crate::failure::Failure;
use crate::output::Paint;

/// What the file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `farebox serve`: everything must be there.
    Serve,
    /// `farebox facilitator`: `[server]`, `[network.…]` and `[facilitator]` are enough.
    Facilitator,
    /// `farebox config check`: what the file looks like it is for.
    AsWritten,
}

/// A configuration without mistakes.
#[derive(Debug)]
pub(crate) struct Config {
    /// The networks, in the order of the file.
    pub(crate) networks: Vec<NetworkPlan>,
    /// Who verifies and settles.
    pub(crate) facilitator: FacilitatorPlan,
    /// `[server]`.
    pub(crate) server: Server,
    /// Bounds on connections and requests, and on a shutdown.
    pub(crate) limits: Limits,
    /// What only a gateway has; `None` for a facilitator alone.
    pub(crate) selling: Option<Selling>,
}

/// What only a gateway has.
#[derive(Clone, Debug)]
pub(crate) struct Selling {
    /// Where the ledger is.
    pub(crate) ledger: LedgerAt,
    /// For the gateway.
    pub(crate) gateway: GatewayConfig,
    /// The route that nobody wrote: the free list of models.
    implied: Option<Arc<Route>>,
}

impl Selling {
    /// Whether nobody wrote this route.
    pub(crate) fn is_implied(&self, route: &Arc<Route>) -> bool {
        self.implied.as_ref().is_some_and(|it| Arc::ptr_eq(it, route))
    }
}

/// A configuration, and what is doubtful about it, ready to be shown.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// To run on.
    pub(crate) config: Config,
    /// Warnings; empty if there are none.
    pub(crate) warnings: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It has mistakes; the text shows them all.
    #[error("{0}")]
    Mistakes(String),
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unreadable { path, source } => {
                Self::new(format!("cannot read the configuration {}", path.display()))
                    .because(source)
                    .help("`farebox init` writes one to begin with")
            }
            LoadError::Mistakes(report) => Self::new(report),
        }
    }
}

/// Reads where the ledger is, and nothing that only a gateway needs.
pub(crate) fn load_ledger(path: &Path, paint: Paint) -> Result<LedgerPlan, LoadError> {
    let source = open(path)?;
    let mut problems = Problems::default();
    let plan = ledger::read(&source.text, directory(path), &mut problems);
    plan.ok_or_else(|| LoadError::Mistakes(problems.render(&source, &renderer(paint))))
}

fn open(path: &Path) -> Result<Source, LoadError> {
    let text = fs::read_to_string(path)
        .map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    Ok(Source { path: path.display().to_string(), text })
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn renderer(paint: Paint) -> Renderer {
    match paint {
        Paint::Plain => Renderer::plain(),
        Paint::Colour => Renderer::styled(),
    }
}

/// Reads and checks a file.
pub(crate) fn load(path: &Path, purpose: Purpose, paint: Paint) -> Result<Loaded, LoadError> {
    let source = open(path)?;
    let secrets = Secrets { directory: directory(path).to_owned(), variable: env::var };
    let renderer = renderer(paint);
    let mut problems = Problems::default();
    let config = read(&source.text, purpose, &secrets, &mut problems);
    match config {
        Some(config) if !problems.fatal() => {
            let silent = problems.is_empty();
            let warnings = if silent { String::new() } else { problems.render(&source, &renderer) };
            Ok(Loaded { config, warnings })
        }
        Some(_) | None => Err(LoadError::Mistakes(problems.render(&source, &renderer))),
    }
}

fn read(
    text: &str,
    purpose: Purpose,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<Config> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let broken = errors.iter().any(|it| it.message() != "duplicate key");
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        problems.push(Problem::error(span, "this is not TOML").label(error.message()));
    }
    // What a broken file means is guesswork; a key that stands twice is no obstacle.
    if broken {
        return None;
    }
    let root = Section::new("the file", 0..0, table.get_ref());
    let tables = Tables::take(root, purpose, problems);
    read_tables(tables, secrets, problems)
}

/// The tables of the file.
#[derive(Debug)]
struct Tables<'f> {
    sells: Sells,
    server: Option<Section<'f>>,
    ledger: Option<Section<'f>>,
    limits: Option<Section<'f>>,
    networks: Option<Section<'f>>,
    facilitator: Option<Section<'f>>,
    upstream: Option<Value<'f>>,
    route: Option<Value<'f>>,
}

/// Whether the file is one of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sells {
    Yes,
    No,
}

impl Sells {
    /// How much the parts of a gateway are needed.
    fn need(self) -> Need {
        match self {
            Self::Yes => Need::Required,
            Self::No => Need::Optional,
        }
    }
}

impl<'f> Tables<'f> {
    fn take(mut root: Section<'f>, purpose: Purpose, problems: &mut Problems) -> Self {
        let upstream = root.get("upstream");
        let route = root.get("route");
        let has_ledger = root.get("ledger").is_some();
        let gateway = match purpose {
            Purpose::Serve => true,
            Purpose::Facilitator => false,
            Purpose::AsWritten => has_ledger || upstream.is_some() || route.is_some(),
        };
        let sells = if gateway { Sells::Yes } else { Sells::No };
        let tables = Self {
            sells,
            server: table(&mut root, "server", Need::Required, problems),
            ledger: table(&mut root, "ledger", sells.need(), problems),
            limits: table(&mut root, "limits", Need::Optional, problems),
            networks: table(&mut root, "network", Need::Required, problems),
            facilitator: table(&mut root, "facilitator", Need::Required, problems),
            upstream,
            route,
        };
        for (value, name) in [(&tables.upstream, "[[upstream]]"), (&tables.route, "[[route]]")] {
            if value.is_none() && sells == Sells::Yes {
                problems.push(root.missing_table(name));
            }
        }
        root.close(problems);
        tables
    }
}

fn table<'f>(
    root: &mut Section<'f>,
    key: &'static str,
    need: Need,
    problems: &mut Problems,
) -> Option<Section<'f>> {
    let name = format!("[{key}]");
    let Some(value) = root.get(key) else {
        if need == Need::Required {
            problems.push(root.missing_table(&name));
        }
        return None;
    };
    problems.keep(value.section(&name, "a table"))
}

fn read_tables(tables: Tables<'_>, secrets: &Secrets, problems: &mut Problems) -> Option<Config> {
    let sells = tables.sells;
    let server = tables.server.and_then(|it| server::server(it, problems));
    let kind = tables.facilitator.as_ref().and_then(facilitator_kind);
    let role = match sells {
        Sells::Yes => Role::Gateway,
        Sells::No => Role::Facilitator,
    };
    let reach = server.as_ref().map_or(Reach::ThisMachine, Server::reach);
    let facilitator = tables
        .facilitator
        .and_then(|it| facilitator::facilitator(it, (role, reach), secrets, problems));
    let shown = facilitator.as_ref().and_then(FacilitatorPlan::shown);
    let needs = Needs {
        rpc: if kind == Some(Kind::Remote) { Need::Optional } else { Need::Required },
        pay_to: sells.need(),
    };
    let networks = tables
        .networks
        .map(|it| network::networks(&it, needs, secrets, problems))
        .unwrap_or_default();
    let ledger = tables.ledger.and_then(|it| ledger::place(it, secrets, problems));
    let limits = tables.limits.map_or(Limits::STANDARD, |it| server::limits(it, problems));
    let upstreams = tables.upstream.map(|it| upstream::upstreams(&it, secrets, problems));
    let declared = Declared {
        networks: &networks,
        upstreams: &upstreams.unwrap_or_default(),
        public_url: server.as_ref().map(|it| &it.public_url),
        versions: server.as_ref().map(|it| it.versions).unwrap_or_default(),
        taken: &shown.map(|_| facilitator_paths()).unwrap_or_default(),
    };
    let routes = tables.route.map(|it| route::routes(&it, declared, problems)).unwrap_or_default();
    let server = server?;
    let selling = match sells {
        Sells::Yes => Some(selling_of(&server, ledger?, routes, limits)),
        Sells::No => None,
    };
    Some(Config { networks: networks.plans, facilitator: facilitator?, server, limits, selling })
}

fn facilitator_kind(section: &Section<'_>) -> Option<Kind> {
    section.entries().find_map(|it| match it.key() {
        "signers" => Some(Kind::InProcess),
        "url" => Some(Kind::Remote),
        _ => None,
    })
}

fn selling_of(
    server: &Server,
    ledger: LedgerAt,
    mut routes: Vec<Arc<Route>>,
    limits: Limits,
) -> Selling {
    let implied = route::implied_models_route(&routes);
    routes.extend(implied.clone());
    let gateway = GatewayConfig { public_url: server.public_url.clone(), routes, limits };
    Selling { ledger, gateway, implied }
}
