//! `[[upstream]]`: the APIs that do the work.

use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::{ApiKey, Upstream};
use http::HeaderName;
use url::Url;

use super::problem::{Problem, Problems};
use super::secret::Secrets;
use super::section::{Section, Value};
use super::values::{self, Transport};

/// A model may think for long before the first byte.
const HEAD_TIMEOUT: Duration = Duration::from_mins(2);
/// A stream that says nothing for so long is dead.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Where the Anthropic API is.
const ANTHROPIC_HOST: &str = "api.anthropic.com";
/// Headers that mean something to HTTP, and so cannot carry a key.
const NOT_FOR_KEYS: [&str; 10] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What the routes need to know of the upstreams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstreams {
    /// Those that were read without a mistake.
    pub(crate) good: Vec<Arc<Upstream>>,
    /// Every name that is written down, good or not.
    pub(crate) declared: Vec<String>,
}

/// Reads every `[[upstream]]`.
pub(crate) fn upstreams(list: &Value<'_>, secrets: &Secrets, problems: &mut Problems) -> Upstreams {
    let mut upstreams = Upstreams::default();
    let mut names: Vec<Value<'_>> = Vec::new();
    for entry in problems.keep(list.list("`[[upstream]]` tables")).unwrap_or_default() {
        let section = entry.section("[[upstream]]", "a table with `name` and `url`");
        let Some(mut section) = problems.keep(section) else { continue };
        if let Some(name) = section.get("name") {
            let same = names.iter().find(|it| it.as_text() == name.as_text());
            if let (Some(first), Some(text)) = (same, name.as_text()) {
                problems.push(
                    Problem::error(name.span(), format!("two upstreams are called `{text}`"))
                        .label("the same name as …")
                        .related(first.span(), "… this one"),
                );
            }
            upstreams.declared.extend(name.as_text().map(ToOwned::to_owned));
            names.push(name);
        }
        upstreams.good.extend(upstream(section, secrets, problems).map(Arc::new));
    }
    upstreams
}

/// `{ env = "…" }` or `{ file = "…" }`, and `header` where the key does not go into
/// `Authorization: Bearer …`.
fn read_key(value: &Value<'_>, secrets: &Secrets, problems: &mut Problems) -> Option<ApiKey> {
    let mut section = Secrets::section(value, problems)?;
    let header = section.get("header");
    let key = secrets.read_section(value, section, problems);
    match header {
        None => Some(ApiKey::Bearer(key?)),
        Some(header) => {
            let name = problems.keep(header_name(&header));
            Some(ApiKey::Header { name: name?, key: key? })
        }
    }
}

fn header_name(value: &Value<'_>) -> Result<HeaderName, Problem> {
    let expected = "the name of a header such as `x-api-key`";
    let name: HeaderName = value.text(expected)?.parse().map_err(|_| value.wrong(expected))?;
    if NOT_FOR_KEYS.contains(&name.as_str()) {
        return Err(value.wrong("the name of a header that is not part of HTTP itself"));
    }
    Ok(name)
}

fn upstream(
    mut section: Section<'_>,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<Upstream> {
    let name = section.required("name", problems, values::word);
    let url = section.required("url", problems, |it| values::base_url(it, Transport::Any));
    let key_value = section.get("api_key");
    let api_key = key_value.as_ref().map(|it| read_key(it, secrets, problems));
    if let (Some(value), Some(url)) = (&key_value, &url)
        && url.scheme() == "http"
        && !values::is_loopback(url)
    {
        problems.push(
            Problem::warning(value.key_span(), "this key travels over plain http")
                .label("readable on the way")
                .help("use an https address for the upstream"),
        );
    }
    if let (Some(value), Some(Some(ApiKey::Bearer(_)))) = (&key_value, &api_key)
        && url.as_ref().and_then(Url::host_str) == Some(ANTHROPIC_HOST)
    {
        problems.push(
            Problem::warning(value.key_span(), "this API looks for its key in another header")
                .label("sent as `Authorization: Bearer …`")
                .help("add `header = \"x-api-key\"`"),
        );
    }
    let head_timeout = section.optional("head_timeout", problems, values::duration);
    let idle_timeout = section.optional("idle_timeout", problems, values::duration);
    section.close(problems);
    let api_key = match api_key {
        Some(read) => Some(read?),
        None => None,
    };
    Some(Upstream {
        name: name?,
        url: url?,
        api_key,
        head_timeout: head_timeout.unwrap_or(HEAD_TIMEOUT),
        idle_timeout: idle_timeout.unwrap_or(IDLE_TIMEOUT),
    })
}
