//! `[network."eip155:…"]`: where payments are made, in which token, to whom.

mod tuning;

use std::ops::Range;
use std::time::Duration;

use farebox_chains::{
    EvmAddress, NETWORKS, NetworkConfig, NetworkRow, TokenConfig, find_network, find_network_v1,
};
use farebox_protocol::{Amount, Network};
use secrecy::ExposeSecret;
use url::Url;

use self::tuning::Tuning;
use super::problem::{Problem, Problems};
use super::secret::Secrets;
use super::section::{Section, Value};
use super::values::{self, Transport};

/// How long an authorisation lives if nobody says otherwise: long enough for slow chains, and what
/// the stock servers ask for.
const MAX_TIMEOUT: Duration = Duration::from_mins(5);

/// One network of the file.
#[derive(Clone, Debug)]
pub(crate) struct NetworkPlan {
    /// What verifies and settles on it.
    pub(crate) chain: NetworkConfig,
    /// The token that offers ask for.
    pub(crate) token: TokenConfig,
    /// How people call the token: `usdc`, or its EIP-712 name.
    pub(crate) token_label: String,
    /// Who is paid.
    pub(crate) pay_to: Option<EvmAddress>,
    /// How long an authorisation lives.
    pub(crate) max_timeout: Duration,
    /// The most that one payer may have open.
    pub(crate) exposure_limit: Option<Amount>,
    /// Where its head stands in the file.
    pub(crate) span: Range<usize>,
}

/// Who settles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Settled {
    /// This process.
    Here,
    /// A remote facilitator, on terms of its own.
    #[default]
    Elsewhere,
}

/// What the rest of the file needs to know of the networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Networks {
    /// Those that were read without a mistake, in the order of the file.
    pub(crate) plans: Vec<NetworkPlan>,
    /// Every id that is written down, good or not.
    pub(crate) declared: Vec<String>,
    /// Who settles on them.
    pub(crate) settled: Settled,
}

/// Whether somebody here has to talk to the chains and whether somebody is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// `rpc` must be there: this process settles.
    pub(crate) rpc: Need,
    /// `pay_to` must be there: this process sells.
    pub(crate) pay_to: Need,
}

/// Whether a key can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It cannot.
    Required,
    /// It can.
    Optional,
}

/// Reads all of `[network.…]`.
pub(crate) fn networks(
    all: &Section<'_>,
    needs: Needs,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Networks {
    let settled = match needs.rpc {
        Need::Required => Settled::Here,
        Need::Optional => Settled::Elsewhere,
    };
    let mut networks = Networks { settled, ..Networks::default() };
    for value in all.entries() {
        networks.declared.push(value.key().to_owned());
        if let Some(plan) = network(&value, needs, secrets, problems) {
            networks.plans.push(plan);
        }
    }
    networks.plans.sort_by_key(|it| it.span.start);
    networks
}

fn network(
    value: &Value<'_>,
    needs: Needs,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<NetworkPlan> {
    let name = format!("[network.\"{}\"]", value.key());
    let mut section =
        problems.keep(value.section(&name, "a table with `rpc`, `asset`, `pay_to`"))?;
    let id = problems.keep(network_id(value));
    let row = id.as_ref().and_then(|it| find_network(it.as_str()));
    let rpc = read_rpc(&mut section, needs.rpc, secrets, problems);
    let asset_span = section.get("asset").map_or(section.span(), |it| it.span());
    let token = id.as_ref().and_then(|_| read_asset(&mut section, row, problems));
    let pay_to = read_pay_to(&mut section, needs.pay_to, problems);
    let max_timeout = section.optional("max_timeout", problems, max_timeout);
    let decimals = token.as_ref().map(|it| it.config.decimals);
    let exposure_limit =
        section.optional("exposure_limit", problems, |value| exposure_limit(value, decimals));
    let tuning = Tuning::read(&mut section, problems);
    let seen = rpc.as_ref().is_some_and(|it| !it.is_empty());
    if needs.rpc == Need::Optional
        && needs.pay_to == Need::Required
        && !seen
        && exposure_limit.is_none()
    {
        problems.push(
            Problem::error(value.key_span(), "nothing bounds what one payer may owe here")
                .label("neither `rpc` nor `exposure_limit`")
                .help(
                    "give `rpc`, so that balances are seen, or `exposure_limit = \"5.00\"`, the most, \
                     in dollars, that one payer may have open",
                ),
        );
    }
    section.close(problems);

    let token = token?;
    if let Some((address, span)) = &pay_to
        && *address == token.config.address
    {
        problems.push(
            Problem::error(span.clone(), "`pay_to` is the token's own contract")
                .label("money sent there is lost")
                .related(asset_span, "the token")
                .help("write the account that is to be paid"),
        );
    }
    let mut chain = match row {
        Some(row) => NetworkConfig::from_row(row, id?, rpc?),
        None => NetworkConfig::outside_of_table(id?, rpc?, token.config.clone()),
    };
    if !chain.tokens.contains(&token.config) {
        chain.tokens.retain(|it| it.address != token.config.address);
        chain.tokens.push(token.config.clone());
    }
    tuning.apply(&mut chain);
    Some(NetworkPlan {
        chain,
        token: token.config,
        token_label: token.label,
        pay_to: pay_to.map(|it| it.0),
        max_timeout: max_timeout.unwrap_or(MAX_TIMEOUT),
        exposure_limit,
        span: value.key_span(),
    })
}

fn network_id(value: &Value<'_>) -> Result<Network, Problem> {
    let text = value.key();
    let problem = || {
        Problem::error(value.key_span(), format!("`{text}` is not the id of a network"))
            .label("expected a CAIP-2 id such as \"eip155:8453\"")
    };
    if let Some(row) = find_network_v1(&text.to_lowercase()) {
        return Err(problem().help(format!("{} is written `\"{}\"`", row.display_name, row.id)));
    }
    let known = NETWORKS.iter().map(|it| it.id);
    let network: Network = text.parse().map_err(|_| problem().known(known))?;
    if network.evm_chain_id().is_none() {
        return Err(
            problem().help("payments are made on EVM networks so far: `eip155:` and a number")
        );
    }
    Ok(network)
}

fn read_rpc(
    section: &mut Section<'_>,
    need: Need,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<Vec<Url>> {
    const EXPECTED: &str = "a list of JSON-RPC addresses such as [\"https://…\"]";
    let Some(value) = section.get("rpc") else {
        if need == Need::Optional {
            return Some(Vec::new());
        }
        problems
            .push(section.missing("rpc").help("this process settles, so it must reach the chain"));
        return None;
    };
    let entries = match value.as_text() {
        Some(_) => vec![value.clone()],
        None => problems.keep(value.list(EXPECTED))?,
    };
    if entries.is_empty() {
        problems.push(value.wrong(EXPECTED));
        return None;
    }
    // Every entry is looked at before the first bad one ends it.
    let urls: Vec<Option<Url>> = entries.iter().map(|it| rpc_url(it, secrets, problems)).collect();
    urls.into_iter().collect()
}

fn rpc_url(value: &Value<'_>, secrets: &Secrets, problems: &mut Problems) -> Option<Url> {
    if value.as_text().is_some() {
        return problems.keep(values::base_url(value, Transport::Any).map_err(|problem| {
            problem.help("an address with a key in it can be given as `{ env = \"NAME\" }`")
        }));
    }
    let secret = secrets.read(value, problems)?;
    let url: Option<Url> = secret.expose_secret().parse().ok();
    let url = url.filter(|it| matches!(it.scheme(), "http" | "https") && it.has_host());
    if url.is_none() {
        problems.push(value.wrong("a secret that is an http or https URL"));
    }
    url
}

/// A token and what people call it.
struct Token {
    config: TokenConfig,
    label: String,
}

fn read_asset(
    section: &mut Section<'_>,
    row: Option<&'static NetworkRow>,
    problems: &mut Problems,
) -> Option<Token> {
    let Some(value) = section.get("asset") else {
        let first = row.and_then(|it| it.tokens.first());
        if first.is_none() {
            problems.push(section.missing("asset").help(
                "farebox has no table of this network's tokens: write \
                 `asset = { address = \"0x…\", decimals = 6, name = \"…\", version = \"…\" }`",
            ));
        }
        return first.map(|it| Token { config: it.into(), label: it.symbol.to_uppercase() });
    };
    if let Some(mut table) = value.as_section("`asset`") {
        let token = explicit_asset(&mut table, problems);
        table.close(problems);
        let token = token?;
        warn_of_other_domain(&value, &token, row, problems);
        return Some(Token { label: token.name.clone(), config: token });
    }
    problems.keep(asset_by_symbol(&value, row))
}

fn asset_by_symbol(value: &Value<'_>, row: Option<&'static NetworkRow>) -> Result<Token, Problem> {
    const EXPECTED: &str = "a token's symbol, or { address, decimals, name, version }";
    let symbol = value.text(EXPECTED)?;
    let Some(row) = row else {
        return Err(value
            .wrong("{ address, decimals, name, version }")
            .help("farebox has no table of this network's tokens"));
    };
    let token = row.tokens.iter().find(|it| it.symbol.eq_ignore_ascii_case(symbol));
    token.map(|it| Token { config: it.into(), label: it.symbol.to_uppercase() }).ok_or_else(|| {
        let title = format!("`{symbol}` is not a known token on {}", row.display_name);
        Problem::error(value.span(), title)
            .label(format!("expected {EXPECTED}"))
            .suggest(symbol, row.tokens.iter().map(|it| it.symbol))
    })
}

fn explicit_asset(table: &mut Section<'_>, problems: &mut Problems) -> Option<TokenConfig> {
    let address = table.required("address", problems, values::evm_address);
    let decimals = table.required("decimals", problems, |value| {
        const EXPECTED: &str = "the number of decimals, 1 to 36";
        let number = value.count(EXPECTED)?;
        u8::try_from(number).ok().filter(|it| *it <= 36).ok_or_else(|| value.wrong(EXPECTED))
    });
    let name = table.required("name", problems, values::word);
    let version = table.required("version", problems, values::word);
    Some(TokenConfig { address: address?, decimals: decimals?, name: name?, version: version? })
}

/// A known token with another domain would make every signature wrong.
fn warn_of_other_domain(
    value: &Value<'_>,
    token: &TokenConfig,
    row: Option<&'static NetworkRow>,
    problems: &mut Problems,
) {
    let tokens = row.map(|it| it.tokens).unwrap_or_default();
    let known = tokens.iter().map(TokenConfig::from).find(|it| it.address == token.address);
    if let Some(known) = known.filter(|it| it != token) {
        problems.push(
            Problem::warning(value.span(), "this token is known with other properties").label(
                format!(
                    "known with decimals {}, name \"{}\", version \"{}\"",
                    known.decimals, known.name, known.version
                ),
            ),
        );
    }
}

fn read_pay_to(
    section: &mut Section<'_>,
    need: Need,
    problems: &mut Problems,
) -> Option<(EvmAddress, Range<usize>)> {
    let parse = |value: &Value<'_>| values::evm_address(value).map(|it| (it, value.span()));
    match need {
        Need::Required => section.required("pay_to", problems, parse),
        Need::Optional => section.optional("pay_to", problems, parse),
    }
}

fn max_timeout(value: &Value<'_>) -> Result<Duration, Problem> {
    let span = values::duration(value)?;
    let allowed = Duration::from_secs(30)..=Duration::from_hours(1);
    if allowed.contains(&span) && span.subsec_nanos() == 0 {
        return Ok(span);
    }
    Err(value.wrong("whole seconds, from \"30s\" to \"1h\"").help(
        "authorisations that end sooner cannot be settled in time; long ones keep the risk open",
    ))
}

fn exposure_limit(value: &Value<'_>, decimals: Option<u8>) -> Result<Amount, Problem> {
    let usd = values::usd(value)?;
    if usd.is_zero() {
        return Err(value.wrong("an amount above zero"));
    }
    let rate = usd.rate(decimals.unwrap_or(6), 0).ok().filter(|it| it.per() == 1);
    let rate = rate.ok_or_else(|| value.wrong("an amount that the token can express"))?;
    Ok(Amount::from_units(rate.units()))
}
