//! Reads single values: addresses, durations, sizes, prices.
//!
//! Each function says in its problem what it expected.

use std::net::SocketAddr;
use std::time::Duration;

use farebox_billing::UsdPrice;
use farebox_chains::{BadEvmAddress, EvmAddress};
use farebox_gateway::Versions;
use url::{Host, Url};

use super::problem::Problem;
use super::section::Value;

/// A word or a name that is not empty.
pub(crate) fn word(value: &Value<'_>) -> Result<String, Problem> {
    const EXPECTED: &str = "a string that is not empty";
    let text = value.text(EXPECTED)?;
    if text.trim().is_empty() { Err(value.wrong(EXPECTED)) } else { Ok(text.to_owned()) }
}

/// An IP address and a port to listen on.
pub(crate) fn socket_address(value: &Value<'_>) -> Result<SocketAddr, Problem> {
    const EXPECTED: &str = "an IP address and a port such as \"127.0.0.1:8402\"";
    let text = value.text(EXPECTED)?;
    text.parse().map_err(|_| {
        let problem = value.wrong(EXPECTED);
        match text.strip_prefix("localhost:") {
            Some(port) => problem.help(format!("write `127.0.0.1:{port}`")),
            None => match text.strip_prefix(':') {
                Some(port) => problem.help(format!(
                    "write `127.0.0.1:{port}` for this machine alone, `0.0.0.0:{port}` for all"
                )),
                None => problem,
            },
        }
    })
}

/// Whether plain http is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// http and https.
    Any,
    /// https; http only to this machine.
    HttpsUnlessLoopback,
}

/// An http or https address without a user, a query or a fragment.
pub(crate) fn base_url(value: &Value<'_>, transport: Transport) -> Result<Url, Problem> {
    parse_url(value, value.text("an http or https URL")?, transport)
}

/// The same, of a text that `value` led to.
pub(crate) fn parse_url(
    value: &Value<'_>,
    text: &str,
    transport: Transport,
) -> Result<Url, Problem> {
    const EXPECTED: &str = "an http or https URL such as \"https://api.example.com\"";
    let url: Url = text.parse().map_err(|_| value.wrong(EXPECTED))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(value.wrong(EXPECTED));
    }
    if url.password().is_some() || !url.username().is_empty() {
        return Err(value
            .wrong("a URL without a user and a password")
            .help(
                "secrets do not belong into the file; use `{ env = \"NAME\" }` where it is allowed",
            )
            .masked());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(value.wrong("a URL without `?…` and `#…`"));
    }
    let plain = url.scheme() == "http" && !is_loopback(&url);
    if plain && transport == Transport::HttpsUnlessLoopback {
        return Err(value
            .wrong("https; http is for this machine only")
            .help("whoever sits between could change what is verified and settled"));
    }
    Ok(url)
}

/// Whether an address is on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// An EVM address; mixed case must be that of EIP-55.
pub(crate) fn evm_address(value: &Value<'_>) -> Result<EvmAddress, Problem> {
    const EXPECTED: &str = "an address of `0x` and 40 hexadecimal digits";
    let text = value.text(EXPECTED)?;
    let address: EvmAddress = text.parse().map_err(|error| match error {
        BadEvmAddress::Form if looks_like_a_key(text) => value
            .wrong(EXPECTED)
            .help("this has the length of a private key; if it is one, it is not secret any more")
            .masked(),
        BadEvmAddress::Form => value.wrong(EXPECTED),
        BadEvmAddress::Checksum => value
            .wrong("the mixed case that EIP-55 gives to these digits")
            .help("a digit is wrong, or the case was changed: copy the address again")
            .help("if you are sure of every digit, write it in lower case"),
    })?;
    if address.as_bytes() == &[0; 20] {
        return Err(value.wrong("an account's address, not zero"));
    }
    Ok(address)
}

fn looks_like_a_key(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A span of time such as `30s`; at least a millisecond, at most a day.
pub(crate) fn duration(value: &Value<'_>) -> Result<Duration, Problem> {
    const EXPECTED: &str = "a duration such as \"30s\", \"5m\" or \"250ms\", at most \"24h\"";
    let text = value.text(EXPECTED)?;
    let millis = scaled(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)])
        .filter(|it| (1..=86_400_000).contains(it));
    millis.map(Duration::from_millis).ok_or_else(|| value.wrong(EXPECTED))
}

/// A duration, or none: `0s`.
pub(crate) fn pause(value: &Value<'_>) -> Result<Duration, Problem> {
    if value.as_text() == Some("0s") { Ok(Duration::ZERO) } else { duration(value) }
}

/// A number of bytes: `8MiB`, `64KiB`, or a plain number; at least 1 KiB.
pub(crate) fn size(value: &Value<'_>) -> Result<usize, Problem> {
    const EXPECTED: &str = "a size such as \"8MiB\" or \"64KiB\", at least \"1KiB\"";
    let bytes = match value.as_text() {
        Some(text) => scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]),
        None => Some(value.count(EXPECTED)?),
    };
    let bytes = bytes.and_then(|it| usize::try_from(it).ok()).filter(|it| 1024 <= *it);
    bytes.ok_or_else(|| value.wrong(EXPECTED))
}

/// `12s` with a factor for each unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|it: char| !it.is_ascii_digit());
    let unit = text.strip_prefix(digits)?.trim_start();
    let factor = units.iter().find(|it| it.0 == unit)?.1;
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Whether x402 v1 is spoken beside v2.
pub(crate) fn x402_v1(value: &Value<'_>) -> Result<Versions, Problem> {
    Ok(if value.flag()? { Versions::TwoAndOne } else { Versions::TwoOnly })
}

/// A price in US dollars.
pub(crate) fn usd(value: &Value<'_>) -> Result<UsdPrice, Problem> {
    let text = value.text("a price as a string, such as \"0.15\"").map_err(|problem| {
        problem.help("prices are exact decimals, which numbers in TOML are not: put it in quotes")
    })?;
    text.parse().map_err(|error: farebox_billing::BadUsd| {
        let text = error.to_string();
        value.wrong(text.strip_prefix("expected ").unwrap_or(&text))
    })
}

/// Wei, written in gwei: `50` or `"0.01"`.
pub(crate) fn gwei(value: &Value<'_>) -> Result<u128, Problem> {
    const EXPECTED: &str = "a price of gas in gwei, such as 50 or \"0.01\"";
    let text = match value.as_text() {
        Some(text) => text.to_owned(),
        None => value.count(EXPECTED)?.to_string(),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let plain = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || 9 < fraction.len() || 12 < whole.len() {
        return Err(value.wrong(EXPECTED));
    }
    let wei = format!("{whole}{fraction:0<9}").parse().map_err(|_| value.wrong(EXPECTED))?;
    if wei == 0 { Err(value.wrong(EXPECTED)) } else { Ok(wei) }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::super::section::Section;
    use super::*;

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(
        parse: impl Fn(&Value<'_>) -> Result<T, Problem>,
        toml: &str,
        expected: Option<T>,
    ) {
        let text = format!("x = {toml}");
        let table = DeTable::parse(&text).unwrap();
        let value = Section::new("test", 0..0, table.get_ref()).get("x").unwrap();
        assert_eq!(parse(&value).ok(), expected, "{toml}");
    }

    #[test]
    fn durations() {
        check(duration, "\"30s\"", Some(Duration::from_secs(30)));
        check(duration, "\"5m\"", Some(Duration::from_mins(5)));
        check(duration, "\"250ms\"", Some(Duration::from_millis(250)));
        check(duration, "\"24 h\"", Some(Duration::from_hours(24)));
        for bad in ["30", "\"30\"", "\"0s\"", "\"25h\"", "\"s\"", "\"-1s\"", "\"1.5s\"", "\"1é\""]
        {
            check(duration, bad, None);
        }
    }

    #[test]
    fn pauses() {
        check(pause, "\"0s\"", Some(Duration::ZERO));
        check(pause, "\"250ms\"", Some(Duration::from_millis(250)));
        check(pause, "\"0\"", None);
        check(pause, "0", None);
    }

    #[test]
    fn sizes() {
        check(size, "\"8MiB\"", Some(8 << 20));
        check(size, "65_536", Some(65_536));
        check(size, "0x400", Some(1024));
        for bad in ["1023", "0", "-5", "\"8MB\"", "\"8\"", "\"\"", "1.5"] {
            check(size, bad, None);
        }
    }

    #[test]
    fn gas_prices() {
        check(gwei, "50", Some(50_000_000_000));
        check(gwei, "\"0.01\"", Some(10_000_000));
        check(gwei, "\"0.000000001\"", Some(1));
        for bad in ["0", "\"0\"", "0.1", "\"0.0000000001\"", "\"1.\"", "\"-1\""] {
            check(gwei, bad, None);
        }
    }

    #[test]
    fn urls() {
        let any = |it: &Value<'_>| base_url(it, Transport::Any).map(String::from);
        let strict =
            |it: &Value<'_>| base_url(it, Transport::HttpsUnlessLoopback).map(String::from);
        check(any, "\"http://10.0.0.1:8000/v1\"", Some("http://10.0.0.1:8000/v1".to_owned()));
        check(strict, "\"http://localhost:1/\"", Some("http://localhost:1/".to_owned()));
        check(strict, "\"http://[::1]:1/\"", Some("http://[::1]:1/".to_owned()));
        check(strict, "\"http://10.0.0.1/\"", None);
        for bad in ["1", "\"\"", "\"x\"", "\"ftp://x\"", "\"https://u:p@x\"", "\"https://x/?a\""] {
            check(any, bad, None);
        }
    }
}
