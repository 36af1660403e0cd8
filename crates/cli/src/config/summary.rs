//! What a configuration means, in words.

use std::fmt::Write as _;

use farebox_billing::Price;
use farebox_chains::stock_v1_name;
use farebox_gateway::{OfferTemplate, Route, Versions};
use farebox_store::Replication;

use super::{Config, FacilitatorPlan, LedgerAt, NetworkPlan, Selling};
use crate::output::{Align, Table};

/// A summary of several lines: where, who settles, on which networks, what is sold.
pub(crate) fn summary(config: &Config) -> String {
    let mut text = format!("listens on  {}", config.server.listen);
    if config.selling.is_some() {
        line(&mut text, format_args!("clients use {}", config.server.public_url));
    }
    if let Some(LedgerAt::Postgres(options)) = config.selling.as_ref().map(|it| &it.ledger) {
        let twice = match options.replication {
            Replication::None => "",
            Replication::Synchronous => ", each commit on a second machine",
        };
        line(&mut text, format_args!("books in    PostgreSQL, as node {}{twice}", options.node));
    }
    match &config.facilitator {
        FacilitatorPlan::InProcess { keys, .. } => {
            for key in keys {
                line(&mut text, format_args!("settles     by {} (gas)", key.address()));
            }
        }
        FacilitatorPlan::Remote { urls, .. } => {
            for url in urls {
                line(&mut text, format_args!("settles     through {url}"));
            }
        }
    }
    line(&mut text, format_args!("\n{}", networks(&config.networks)));
    if let Some(selling) = &config.selling {
        line(&mut text, format_args!("\n{}", routes(selling)));
    }
    text
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    write!(text, "\n{words}").unwrap_or_default();
}

fn networks(plans: &[NetworkPlan]) -> Table {
    let left = Align::Left;
    let mut table =
        Table::new([("network", left), ("token", left), ("paid to", left), ("authorised", left)]);
    for plan in plans {
        let limit = plan
            .exposure_limit
            .map(|it| format!(", at most {} open", it.in_tokens(plan.token.decimals)));
        table.row([
            plan.chain.network.to_string(),
            format!("{} {}", plan.token_label, plan.token.address),
            plan.pay_to.map_or_else(|| "-".to_owned(), |it| it.to_string()),
            format!("{} s{}", plan.max_timeout.as_secs(), limit.unwrap_or_default()),
        ]);
    }
    table
}

fn routes(selling: &Selling) -> Table {
    let left = Align::Left;
    let mut table = Table::new([
        ("route", left),
        ("upstream", left),
        ("price", left),
        ("offers", left),
        ("settles", left),
        ("x402", left),
    ]);
    for route in &selling.gateway.routes {
        let implied = selling.is_implied(route);
        table.row([
            if implied { format!("{} (implied)", route.name) } else { route.name.clone() },
            route.upstream.name.clone(),
            price_in_words(&route.price),
            offers(route),
            if route.offers.is_empty() { "-" } else { route.settle.as_str() }.to_owned(),
            versions(route).to_owned(),
        ]);
    }
    table
}

/// A price as a person would say it.
pub(crate) fn price_in_words(price: &Price) -> String {
    match price {
        Price::Free => "free".to_owned(),
        Price::PerRequest(usd) => format!("${usd} a request"),
        Price::Tokens { input_per_1m, output_per_1m } => {
            format!("${input_per_1m} per 1M tokens in, ${output_per_1m} out")
        }
    }
}

/// Which versions of x402 a route is paid by; v1 has `exact` by EIP-3009 alone, on networks that its
/// clients have a name for.
fn versions(route: &Route) -> &'static str {
    let by_v1 =
        |it: &OfferTemplate| it.scheme.word() == "exact" && stock_v1_name(&it.network).is_some();
    match route.versions {
        _ if route.offers.is_empty() => "-",
        Versions::TwoAndOne if route.offers.iter().any(by_v1) => "v2, v1",
        Versions::TwoAndOne | Versions::TwoOnly => "v2",
    }
}

fn offers(route: &Route) -> String {
    let offers: Vec<String> =
        route.offers.iter().map(|it| format!("{} {}", it.scheme.word(), it.network)).collect();
    if offers.is_empty() { "-".to_owned() } else { offers.join(", ") }
}
