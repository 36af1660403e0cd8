//! `[facilitator]`: who verifies and settles, this process or a remote one.

pub(crate) mod sellers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use farebox_chains::{EvmAddress, EvmKey};
use secrecy::SecretString;
use url::{Host, Url};

use self::sellers::{Service, bearer};
use super::problem::{Problem, Problems};
use super::secret::Secrets;
use super::section::{Section, Value};
use super::server::Reach;
use super::values::{self, Transport};

/// Who verifies and settles.
#[derive(Debug)]
pub(crate) enum FacilitatorPlan {
    /// This process.
    InProcess {
        /// The accounts that pay the gas.
        keys: Vec<EvmKey>,
        /// Whether a gateway lets others settle here, too.
        endpoints: Endpoints,
        /// On which terms others may.
        service: Service,
        /// Where a facilitator without a ledger keeps what it signs.
        data_dir: PathBuf,
    },
    /// Others.
    Remote {
        /// Their addresses, best first.
        urls: Vec<Url>,
        /// The longest wait for an answer.
        timeout: Duration,
        /// What they know this gateway by.
        api_key: Option<SecretString>,
    },
}

/// The facilitator's endpoints on a gateway's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// There are none.
    Closed,
    /// Others may verify and settle; this process pays the gas.
    Open,
}

impl FacilitatorPlan {
    /// On which terms it settles for others; `None` if others settle for it.
    pub(crate) fn service(&self) -> Option<&Service> {
        match self {
            Self::InProcess { service, .. } => Some(service),
            Self::Remote { .. } => None,
        }
    }

    /// Where it keeps what it signs, if it has no ledger; `None` if others settle for it.
    pub(crate) fn data_dir(&self) -> Option<&Path> {
        match self {
            Self::InProcess { data_dir, .. } => Some(data_dir),
            Self::Remote { .. } => None,
        }
    }

    /// On which terms a gateway shows it to others; `None` if it does not.
    pub(crate) fn shown(&self) -> Option<&Service> {
        match self {
            Self::InProcess { endpoints: Endpoints::Open, service, .. } => Some(service),
            Self::InProcess { endpoints: Endpoints::Closed, .. } | Self::Remote { .. } => None,
        }
    }
}

/// Where a facilitator keeps what it signs, beside its configuration.
const DATA_DIR: &str = "farebox-facilitator";

/// A settlement waits for blocks, and slow chains take their time.
const REMOTE_TIMEOUT: Duration = Duration::from_mins(1);

/// Which of the two the file names, told before it is read in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `signers`.
    InProcess,
    /// `url`.
    Remote,
}

/// What the file is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A gateway: others may settle for it, and it may show its own facilitator.
    Gateway,
    /// A facilitator itself.
    Facilitator,
}

/// Reads `[facilitator]`.
pub(crate) fn facilitator(
    mut section: Section<'_>,
    (role, reach): (Role, Reach),
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<FacilitatorPlan> {
    let signers = section.get("signers");
    let url = section.get("url");
    let plan = match (&signers, &url) {
        (Some(signers), None) => {
            let (endpoints, service) = read_service(&mut section, (role, reach), secrets, problems);
            let data_dir = read_data_dir(&mut section, role, secrets, problems);
            read_signers(signers, secrets, problems).map(|keys| FacilitatorPlan::InProcess {
                keys,
                endpoints,
                service,
                data_dir,
            })
        }
        (None, Some(url)) if role == Role::Gateway => {
            read_remote(&mut section, url, secrets, problems)
        }
        (None, Some(url)) => {
            problems.push(
                Problem::error(url.key_span(), "a facilitator cannot send payments on to another")
                    .label("expected `signers = [{ file = \"settler.key\" }]`"),
            );
            None
        }
        (Some(signers), Some(url)) => {
            // Their own mistakes are told as well, and a key that stands there is hidden.
            drop((read_signers(signers, secrets, problems), read_urls(url, problems)));
            drop(read_service(&mut section, (role, reach), secrets, problems));
            drop(read_data_dir(&mut section, role, secrets, problems));
            drop(read_remote_options(&mut section, secrets, problems));
            problems.push(
                Problem::error(url.key_span(), "both `signers` and `url` are given")
                    .label("a remote facilitator settles …")
                    .related(signers.key_span(), "… or this process does")
                    .help("keep one of the two"),
            );
            None
        }
        (None, None) => {
            problems.push(
                Problem::error(
                    section.span(),
                    format!("{} names nobody who settles", section.name()),
                )
                .label("expected `signers` or `url`")
                .help("to settle in this process: `signers = [{ file = \"settler.key\" }]`")
                .help("to have it done: `url = [\"https://…\"]`"),
            );
            None
        }
    };
    section.close(problems);
    plan
}

/// Whether others may settle here, and on which terms.
fn read_service(
    section: &mut Section<'_>,
    (role, reach): (Role, Reach),
    secrets: &Secrets,
    problems: &mut Problems,
) -> (Endpoints, Service) {
    let serve = section.get("serve");
    let endpoints = serve.as_ref().and_then(|it| problems.keep(read_endpoints(it)));
    let endpoints = endpoints.unwrap_or(Endpoints::Closed);
    let of_no_use: Vec<_> = ["keys", "min_amount"]
        .into_iter()
        .filter_map(|it| section.get(it))
        .filter(|_| role == Role::Gateway && endpoints == Endpoints::Closed)
        .collect();
    for value in of_no_use {
        problems.push(
            Problem::warning(value.key_span(), format!("`{}` has no effect here", value.key()))
                .label("a gateway lets nobody settle")
                .help("add `serve = true`, or remove this key"),
        );
    }
    let service = Service::read(section, reach, secrets, problems);
    match (role, &serve, endpoints) {
        (Role::Facilitator, _, _) => service.check(section.span(), problems),
        (Role::Gateway, Some(serve), Endpoints::Open) => service.check(serve.key_span(), problems),
        (Role::Gateway, _, _) => {}
    }
    (endpoints, service)
}

/// A directory, relative to that of the configuration.
fn read_data_dir(
    section: &mut Section<'_>,
    role: Role,
    secrets: &Secrets,
    problems: &mut Problems,
) -> PathBuf {
    const EXPECTED: &str = "the path of a directory, such as \"/var/lib/farebox\"";
    let value = section.get("data_dir");
    if let (Some(value), Role::Gateway) = (&value, role) {
        problems.push(
            Problem::warning(value.key_span(), "`data_dir` has no effect here")
                .label("a gateway keeps what it signs in its ledger")
                .help("remove this key"),
        );
    }
    let path = value.and_then(|it| problems.keep(it.text(EXPECTED).map(ToOwned::to_owned)));
    secrets.directory.join(path.as_deref().unwrap_or(DATA_DIR))
}

fn read_remote(
    section: &mut Section<'_>,
    url: &Value<'_>,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<FacilitatorPlan> {
    let (timeout, api_key) = read_remote_options(section, secrets, problems);
    let urls = read_urls(url, problems)?;
    let hosts = || urls.iter().map(Url::host);
    if api_key.is_some() && hosts().any(|it: Option<Host<&str>>| hosts().next() != Some(it)) {
        problems.push(
            Problem::warning(url.span(), "one `api_key` is sent to all of these hosts")
                .label("each of them could use it at the others"),
        );
    }
    Some(FacilitatorPlan::Remote { urls, timeout, api_key })
}

fn read_remote_options(
    section: &mut Section<'_>,
    secrets: &Secrets,
    problems: &mut Problems,
) -> (Duration, Option<SecretString>) {
    let timeout = section.optional("timeout", problems, remote_timeout);
    let api_key = section.get("api_key").and_then(|it| bearer(&it, secrets, problems));
    (timeout.unwrap_or(REMOTE_TIMEOUT), api_key)
}

fn read_signers(
    value: &Value<'_>,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<Vec<EvmKey>> {
    const EXPECTED: &str = "a list of keys such as [{ file = \"settler.key\" }]";
    let entries = problems.keep(value.list(EXPECTED))?;
    if entries.is_empty() {
        problems.push(value.wrong(format!("{EXPECTED}, at least one")));
        return None;
    }
    let mut seen: Vec<(EvmAddress, &Value<'_>)> = Vec::new();
    let mut keys = Vec::new();
    for entry in &entries {
        let Some(key) = secrets.read_key(entry, problems) else { continue };
        match seen.iter().find(|it| it.0 == key.address()) {
            Some((address, first)) => problems.push(
                Problem::error(entry.span(), format!("the account {address} is given twice"))
                    .label("the same key as …")
                    .related(first.span(), "… this one"),
            ),
            None => seen.push((key.address(), entry)),
        }
        keys.push(key);
    }
    (keys.len() == entries.len()).then_some(keys)
}

fn read_endpoints(value: &Value<'_>) -> Result<Endpoints, Problem> {
    Ok(if value.flag()? { Endpoints::Open } else { Endpoints::Closed })
}

fn remote_timeout(value: &Value<'_>) -> Result<Duration, Problem> {
    let span = values::duration(value)?;
    if Duration::from_secs(30) <= span {
        return Ok(span);
    }
    Err(value.wrong("\"30s\" at least: a settlement waits for blocks"))
}

fn read_urls(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Url>> {
    const EXPECTED: &str = "a list of addresses such as [\"https://facilitator.example.com\"]";
    let entries = match value.as_text() {
        Some(_) => vec![value.clone()],
        None => problems.keep(value.list(EXPECTED))?,
    };
    if entries.is_empty() {
        problems.push(value.wrong(EXPECTED));
        return None;
    }
    let urls: Vec<Option<Url>> = entries
        .iter()
        .map(|it| problems.keep(values::base_url(it, Transport::HttpsUnlessLoopback)))
        .collect();
    urls.into_iter().collect()
}
