//! `[facilitator]`: who verifies and settles, this process or a remote one.

use std::time::Duration;

use farebox_chains::{EvmAddress, EvmKey};
use url::Url;

use super::problem::{Problem, Problems};
use super::secret::Secrets;
use super::section::{Section, Value};
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
    },
    /// Others.
    Remote {
        /// Their addresses, best first.
        urls: Vec<Url>,
        /// The longest wait for an answer.
        timeout: Duration,
    },
}

/// The facilitator's endpoints on a gateway's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// There are none.
    Closed,
    /// Whoever reaches the port may verify and settle; this process pays the gas.
    Open,
}

impl FacilitatorPlan {
    /// What a gateway shows of it.
    pub(crate) fn endpoints(&self) -> Endpoints {
        match self {
            Self::InProcess { endpoints, .. } => *endpoints,
            Self::Remote { .. } => Endpoints::Closed,
        }
    }
}

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

/// Whether a remote facilitator makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemoteAllowed {
    /// For a gateway.
    Yes,
    /// Not for what is a facilitator itself.
    No,
}

/// Reads `[facilitator]`.
pub(crate) fn facilitator(
    mut section: Section<'_>,
    remote: RemoteAllowed,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<FacilitatorPlan> {
    let signers = section.get("signers");
    let url = section.get("url");
    let timeout = match &url {
        Some(_) => section.optional("timeout", problems, remote_timeout),
        None => None,
    };
    let timeout = timeout.unwrap_or(REMOTE_TIMEOUT);
    let endpoints = match &signers {
        Some(_) => section.optional("serve", problems, read_endpoints),
        None => None,
    };
    let endpoints = endpoints.unwrap_or(Endpoints::Closed);
    let plan = match (&signers, &url) {
        (Some(signers), None) => read_signers(signers, secrets, problems)
            .map(|keys| FacilitatorPlan::InProcess { keys, endpoints }),
        (None, Some(url)) if remote == RemoteAllowed::Yes => {
            read_urls(url, problems).map(|urls| FacilitatorPlan::Remote { urls, timeout })
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
