//! `offer = ["upto", "exact"]`: the ways to pay, best first.
//!
//! A scheme alone is offered on every network of the file; `{ scheme = …, network = … }` on one.
//! Without the key the offers are those that stock clients can take: see [`standard`].

use farebox_billing::Price;
use farebox_chains::{PermitSponsoring, SCHEMES, find_scheme};
use farebox_gateway::{OfferTemplate, OfferToken};
use farebox_store::SettleMode;

use super::super::network::{NetworkPlan, Networks, Settled};
use super::super::problem::{Problem, Problems};
use super::super::section::Value;

const EXPECTED: &str = "a list of schemes such as [\"exact\"]";

/// What is offered where nothing is said. `upto` goes first only where a client that knows both
/// schemes and has no allowance can buy all the same, because permits are sponsored here; a client
/// that knows `exact` alone takes that either way (ADR 0011).
pub(super) fn standard(
    price: Price,
    settle: SettleMode,
    networks: &Networks,
) -> Vec<OfferTemplate> {
    let by_usage = price.needs_meter() && settle != SettleMode::Before;
    let offers_on = |plan: &NetworkPlan| {
        let sponsored = networks.settled == Settled::Here
            && plan.chain.sponsoring.permits == PermitSponsoring::Submitted;
        let upto = (by_usage && sponsored).then(|| template("upto", plan)).flatten();
        upto.into_iter().chain(template("exact", plan))
    };
    if price == Price::Free {
        Vec::new()
    } else {
        networks.plans.iter().flat_map(offers_on).collect()
    }
}

/// Reads it; `None` after a mistake.
pub(super) fn read(
    value: &Value<'_>,
    price: Option<Price>,
    networks: &Networks,
    problems: &mut Problems,
) -> Option<Vec<OfferTemplate>> {
    let entries = problems.keep(value.list(EXPECTED))?;
    if price == Some(Price::Free) && !entries.is_empty() {
        problems.push(
            Problem::error(value.span(), "a free route has nothing to offer payments for")
                .label("remove it, or set a price"),
        );
        return None;
    }
    if entries.is_empty() && price != Some(Price::Free) {
        problems.push(value.wrong(format!("{EXPECTED}, at least one")));
        return None;
    }
    let mut offers = Vec::new();
    let mut complete = true;
    for entry in &entries {
        match entry_offers(entry, networks, problems) {
            Some(more) => {
                report_doubles(entry, &offers, &more, problems);
                offers.extend(more);
            }
            None => complete = false,
        }
    }
    complete.then_some(offers)
}

fn entry_offers(
    entry: &Value<'_>,
    networks: &Networks,
    problems: &mut Problems,
) -> Option<Vec<OfferTemplate>> {
    let Some(mut section) = entry.as_section("the offer") else {
        let name = problems.keep(entry.text("a scheme, or { scheme, network }"))?;
        problems.keep(known_scheme(entry, name))?;
        if networks.declared.is_empty() {
            problems.push(
                Problem::error(entry.span(), "there is no network to be paid on")
                    .label("offered on every `[network.…]`, and there is none")
                    .help("add a table such as `[network.\"eip155:8453\"]`"),
            );
            return None;
        }
        return Some(networks.plans.iter().filter_map(|it| template(name, it)).collect());
    };
    let scheme = section.required("scheme", problems, |it| {
        let name = it.text("the name of a scheme")?;
        known_scheme(it, name).map(|()| name)
    });
    let network = section.required("network", problems, |it| known_network(it, networks));
    section.close(problems);
    let (scheme, network) = (scheme?, network?);
    let plan = networks.plans.iter().find(|it| it.chain.network.as_str() == network)?;
    let offer = template(scheme, plan);
    if offer.is_none() && plan.pay_to.is_some() {
        problems.push(entry.wrong(format!("a scheme that works on `{network}`")));
    }
    offer.map(|it| vec![it])
}

fn known_scheme(value: &Value<'_>, name: &str) -> Result<(), Problem> {
    if SCHEMES.iter().any(|it| it.word() == name) {
        return Ok(());
    }
    Err(Problem::error(value.span(), format!("unknown scheme `{name}`"))
        .label("expected the name of a payment scheme")
        .suggest(name, SCHEMES.iter().map(|it| it.word())))
}

fn known_network<'f>(value: &Value<'f>, networks: &Networks) -> Result<&'f str, Problem> {
    let name = value.text("the id of a network")?;
    if networks.declared.iter().any(|it| it == name) {
        return Ok(name);
    }
    Err(Problem::error(value.span(), format!("the network `{name}` is not configured"))
        .label(format!("expected one that has a table `[network.\"{name}\"]`"))
        .known(networks.declared.iter().map(String::as_str)))
}

fn template(scheme: &str, plan: &NetworkPlan) -> Option<OfferTemplate> {
    Some(OfferTemplate {
        scheme: find_scheme(scheme, plan.chain.network.namespace())?,
        network: plan.chain.network.clone(),
        token: OfferToken {
            address: plan.token.address.to_string(),
            decimals: plan.token.decimals,
            name: plan.token.name.clone(),
            version: plan.token.version.clone(),
        },
        pay_to: plan.pay_to?.to_string(),
        max_timeout_seconds: plan.max_timeout.as_secs(),
        exposure_limit: plan.exposure_limit,
    })
}

fn report_doubles(
    entry: &Value<'_>,
    earlier: &[OfferTemplate],
    more: &[OfferTemplate],
    problems: &mut Problems,
) {
    let same =
        |a: &OfferTemplate, b: &OfferTemplate| a.scheme == b.scheme && a.network == b.network;
    if let Some(double) = more.iter().find(|it| earlier.iter().any(|other| same(it, other))) {
        let title = format!("`{}` on {} is offered twice", double.scheme.word(), double.network);
        problems.push(Problem::error(entry.span(), title).label("already offered before this"));
    }
}
