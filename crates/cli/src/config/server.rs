//! `[server]` and `[limits]`.

use std::net::SocketAddr;
use std::time::Duration;

use farebox_gateway::{Limits, Versions};
use url::Url;

use super::problem::{Problem, Problems};
use super::section::{Section, Value};
use super::values::{self, Transport};

/// `[server]`.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// What clients call it.
    pub(crate) public_url: Url,
    /// Whose payments routes take that do not say it themselves.
    pub(crate) versions: Versions,
    /// How long it says that it is not ready, and serves, before it stops at SIGTERM.
    pub(crate) lame_duck: Duration,
}

/// Who reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// What runs on this machine.
    ThisMachine,
    /// Other machines, by themselves or through whatever has the public address.
    Everybody,
}

impl Server {
    /// Who reaches it.
    pub(crate) fn reach(&self) -> Reach {
        if self.listen.ip().is_loopback() && values::is_loopback(&self.public_url) {
            Reach::ThisMachine
        } else {
            Reach::Everybody
        }
    }
}

/// As long as the usual load balancer takes to notice.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// Reads `[server]`.
pub(crate) fn server(mut section: Section<'_>, problems: &mut Problems) -> Option<Server> {
    let listen_value = section.get("listen");
    let listen = section.required("listen", problems, values::socket_address);
    let declared = section.get("public_url");
    let public_url = match (&declared, listen) {
        (Some(value), _) => problems.keep(public_url(value)),
        (None, Some(listen)) if listen.ip().is_loopback() => local_url(listen),
        (None, Some(_)) => {
            problems.push(section.missing("public_url").help(
                "offers carry the address that clients use, and this one listens to other machines",
            ));
            None
        }
        (None, None) => None,
    };
    if let (Some(value), Some(url), Some(listen)) = (&declared, &public_url, listen)
        && url.scheme() == "http"
        && !(listen.ip().is_loopback() && values::is_loopback(url))
    {
        let related = listen_value.map(|it| it.span()).unwrap_or_default();
        problems.push(
            Problem::warning(value.span(), "clients are told to come over plain http")
                .label("not https")
                .related(related, "and other machines can reach it")
                .help("put a TLS proxy in front and write its https address here")
                .help("prompts and payments are readable on the way, and careful agents refuse"),
        );
    }
    let versions = section.optional("x402_v1", problems, values::x402_v1).unwrap_or_default();
    let lame_duck = section.optional("lame_duck", problems, values::pause).unwrap_or(LAME_DUCK);
    section.close(problems);
    Some(Server { listen: listen?, public_url: public_url?, versions, lame_duck })
}

fn public_url(value: &Value<'_>) -> Result<Url, Problem> {
    let url = values::base_url(value, Transport::Any)?;
    if url.path() == "/" {
        return Ok(url);
    }
    Err(value
        .wrong("an address without a path")
        .help("routes are matched against the whole path: a proxy in front must not add to it"))
}

/// The address of a listener on this machine.
fn local_url(listen: SocketAddr) -> Option<Url> {
    format!("http://{listen}/").parse().ok()
}

/// Reads `[limits]`: what is not written keeps the value that suits most gateways.
pub(crate) fn limits(mut section: Section<'_>, problems: &mut Problems) -> Limits {
    let standard = Limits::STANDARD;
    let mut size = |section: &mut Section<'_>, key, standard: usize| {
        section.optional(key, problems, values::size).unwrap_or(standard)
    };
    let request_bytes_max = size(&mut section, "request_bytes_max", standard.request_bytes_max);
    let withheld_bytes_max = size(&mut section, "withheld_bytes_max", standard.withheld_bytes_max);
    let mut span = |section: &mut Section<'_>, key, standard: Duration| {
        section.optional(key, problems, values::duration).unwrap_or(standard)
    };
    let header_timeout = span(&mut section, "header_timeout", standard.header_timeout);
    let quote_ttl = span(&mut section, "quote_ttl", standard.quote_ttl);
    let settle_wait = span(&mut section, "settle_wait", standard.settle_wait);
    let drain = span(&mut section, "drain", standard.drain);
    let keep_alive = span(&mut section, "keep_alive", standard.keep_alive);
    let write_timeout = span(&mut section, "write_timeout", standard.write_timeout);
    let mut connections =
        |section: &mut Section<'_>, key| section.optional(key, problems, connections);
    let connections_max =
        connections(&mut section, "connections_max").unwrap_or(standard.connections_max);
    // By itself, half of all: no single address keeps the others out.
    let connections_per_address_max = connections(&mut section, "connections_per_address_max")
        .unwrap_or(connections_max.div_ceil(2));
    section.close(problems);
    Limits {
        request_bytes_max,
        withheld_bytes_max,
        header_timeout,
        keep_alive,
        write_timeout,
        connections_max,
        connections_per_address_max,
        quote_ttl,
        settle_wait,
        drain,
    }
}

fn connections(value: &Value<'_>) -> Result<usize, Problem> {
    let count = value.count("a number of connections of at least 1")?;
    usize::try_from(count).map_err(|_| value.wrong("a smaller number"))
}
