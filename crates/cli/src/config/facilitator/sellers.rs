//! `keys` and `min_amount` of `[facilitator]`: for whom this process settles, and what.

use std::ops::Range;

use farebox_billing::UsdPrice;
use farebox_chains::EvmAddress;
use farebox_gateway::{Callers, FacilitatorTerms, Seller};
use farebox_protocol::{Amount, Asset};
use secrecy::{ExposeSecret, SecretString};

use super::super::network::NetworkPlan;
use super::super::problem::{Problem, Problems};
use super::super::secret::Secrets;
use super::super::section::{Section, Value};
use super::super::server::Reach;
use super::super::values;

/// A shorter key can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// For whom this process settles besides itself, and what.
#[derive(Debug)]
pub(crate) struct Service {
    /// Those who have a key; empty if nobody is asked for one.
    sellers: Vec<Seller>,
    /// The least that is settled, in dollars.
    min_amount: Option<UsdPrice>,
    /// Who reaches the endpoints.
    reach: Reach,
}

impl Service {
    /// Reads what `[facilitator]` says of it.
    pub(super) fn read(
        section: &mut Section<'_>,
        reach: Reach,
        secrets: &Secrets,
        problems: &mut Problems,
    ) -> Self {
        let keys = section.get("keys");
        let sellers = keys.map(|it| read_sellers(&it, secrets, problems)).unwrap_or_default();
        let min_amount = section.optional("min_amount", problems, values::usd);
        Self { sellers, min_amount, reach }
    }

    /// What is doubtful about endpoints on these terms; `span` opens them.
    pub(super) fn check(&self, span: Range<usize>, problems: &mut Problems) {
        if self.reach == Reach::Everybody && self.sellers.is_empty() {
            problems.push(
                Problem::warning(span, "anybody may settle here, and these signers pay the gas")
                    .label("other machines can reach it, and no `keys` are given")
                    .help(
                        "give each seller a key: \
                         `keys = [{ name = \"shop\", key = { file = \"shop.key\" } }]`",
                    )
                    .help(
                        "`upto` is not settled until then: its amount is whatever the caller says",
                    ),
            );
        }
    }

    /// The same for the endpoints; `own` are the accounts that the gateway beside them sells for.
    pub(crate) fn terms(&self, networks: &[NetworkPlan], own: Vec<EvmAddress>) -> FacilitatorTerms {
        let callers = match self.reach {
            _ if !self.sellers.is_empty() => Callers::Sellers(self.sellers.clone()),
            Reach::ThisMachine => Callers::Trusted,
            Reach::Everybody => Callers::Anybody,
        };
        let minimums = match self.min_amount {
            Some(usd) => networks.iter().flat_map(|it| minimums(it, usd)).collect(),
            None => Vec::new(),
        };
        FacilitatorTerms { callers, own, minimums }
    }
}

/// The amount in units of every token of a network, rounded up.
fn minimums(plan: &NetworkPlan, usd: UsdPrice) -> impl Iterator<Item = (Asset, Amount)> {
    plan.chain.tokens.iter().filter_map(move |token| {
        let asset = Asset::new(plan.chain.network.clone(), &token.address.to_string()).ok()?;
        // Where no amount of the token is as much, nothing is settled in it.
        let rate = usd.rate(token.decimals, 0).ok();
        let units = rate
            .and_then(|it| it.units().checked_add(it.per().checked_sub(1)?)?.checked_div(it.per()));
        Some((asset, units.map_or(Amount::MAX, Amount::from_units)))
    })
}

fn read_sellers(value: &Value<'_>, secrets: &Secrets, problems: &mut Problems) -> Vec<Seller> {
    const EXPECTED: &str = "a list such as [{ name = \"shop\", key = { file = \"shop.key\" } }]";
    let entries = problems.keep(value.list(EXPECTED)).unwrap_or_default();
    let mut seen: Vec<Seen<'_>> = Vec::new();
    let mut sellers = Vec::new();
    for entry in &entries {
        let section = problems.keep(entry.section("`keys`", "a table with `name` and `key`"));
        let Some(mut section) = section else { continue };
        let name = section.required("name", problems, values::word);
        let key = section.get("key");
        if key.is_none() {
            problems.push(section.missing("key"));
        }
        let key = key.and_then(|it| read_key(&it, secrets, problems));
        let pay_to = section.get("pay_to");
        let pay_to = match &pay_to {
            Some(value) => read_accounts(value, problems),
            None => Some(Vec::new()),
        };
        section.close(problems);
        let (Some(name), Some(key), Some(pay_to)) = (name, key, pay_to) else { continue };
        sellers.push(Seller::new(name.clone(), &key, pay_to));
        let this = Seen { name, key, entry };
        problems.extend(seen.iter().find_map(|it| it.conflict(&this)));
        seen.push(this);
    }
    sellers
}

/// A seller and where it stands.
struct Seen<'v> {
    name: String,
    key: SecretString,
    entry: &'v Value<'v>,
}

impl Seen<'_> {
    /// What a later one has in common with it, which tells neither from the other.
    fn conflict(&self, later: &Self) -> Option<Problem> {
        let title = if self.name == later.name {
            format!("the name `{}` is given twice", self.name)
        } else if self.key.expose_secret() == later.key.expose_secret() {
            format!("`{}` and `{}` have the same key", self.name, later.name)
        } else {
            return None;
        };
        let problem = Problem::error(later.entry.span(), title).label("the same as …");
        Some(problem.related(self.entry.span(), "… this one"))
    }
}

fn read_key(value: &Value<'_>, secrets: &Secrets, problems: &mut Problems) -> Option<SecretString> {
    let key = bearer(value, secrets, problems)?;
    if key.expose_secret().len() < KEY_BYTES_MIN {
        let problem = value.wrong(format!("a key of at least {KEY_BYTES_MIN} characters"));
        problems.push(problem.help("`openssl rand -hex 32` makes one"));
        return None;
    }
    Some(key)
}

/// A secret that is sent as `Authorization: Bearer …`.
pub(super) fn bearer(
    value: &Value<'_>,
    secrets: &Secrets,
    problems: &mut Problems,
) -> Option<SecretString> {
    let key = secrets.read(value, problems)?;
    let text = key.expose_secret();
    if text.is_empty() || !text.bytes().all(|it| it.is_ascii_graphic()) {
        problems.push(value.wrong("a key of visible ASCII characters, without spaces"));
        return None;
    }
    Some(key)
}

fn read_accounts(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<EvmAddress>> {
    const EXPECTED: &str = "a list of accounts such as [\"0x…\"]";
    let entries = problems.keep(value.list(EXPECTED))?;
    if entries.is_empty() {
        problems.push(value.wrong(format!("{EXPECTED}, at least one; without the key, any")));
        return None;
    }
    let accounts: Vec<Option<EvmAddress>> =
        entries.iter().map(|it| problems.keep(values::evm_address(it))).collect();
    accounts.into_iter().collect()
}
