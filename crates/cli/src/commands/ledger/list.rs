//! `farebox ledger list`: payments, the last one first.

use farebox_store::{LedgerFile, Listed, Order, Which};
use serde_json::{Value, json};

use super::tokens::Tokens;
use super::{columns, unreadable};
use crate::args::Report;
use crate::args::ledger::{Filter, ListArgs};
use crate::failure::{Exit, Failure};
use crate::moment;
use crate::output::{Align, Output, Table};

/// Prints those that were asked for.
pub(super) fn run(
    ledger: &LedgerFile,
    tokens: &Tokens,
    args: &ListArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    // One more, to know whether there are more.
    let asked = limit.saturating_add(1);
    let found = ledger.payments(&which(&args.filter), Order::NewestFirst, None, asked);
    let mut found = found.map_err(unreadable)?;
    let more = limit < found.len();
    found.truncate(limit);
    match args.form.report() {
        Report::Json => {
            let rows = found.iter().map(|it| {
                Value::Object(columns::object(&columns::PAYMENTS, &columns::of_payment(it, tokens)))
            });
            let rows: Vec<Value> = rows.collect();
            output.result(json!({ "payments": rows, "more": more }));
        }
        Report::Text if found.is_empty() => output.result("There is no such payment."),
        Report::Text => {
            output.result(table(&found, tokens));
            if more {
                output.progress(format!(
                    "(the last {limit}; `--limit` shows more, `farebox ledger export` all)"
                ));
            }
        }
    }
    Ok(Exit::Done)
}

/// What a filter leaves.
pub(super) fn which(filter: &Filter) -> Which {
    Which {
        state: filter.state.map(|it| it.as_str().to_owned()),
        payer: filter.payer.clone(),
        route: filter.route.clone(),
        since: filter.since,
        until: filter.until,
    }
}

fn table(found: &[Listed], tokens: &Tokens) -> Table {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("admitted", left),
        ("state", left),
        ("held", right),
        ("charged", right),
        ("token", left),
        ("route", left),
        ("payer", left),
        ("payment", left),
    ]);
    for Listed { payment, .. } in found {
        let terms = &payment.terms;
        let charge = columns::charge(&payment.state);
        let owed = if payment.refund_owed.is_some() { ", owed back" } else { "" };
        table.row([
            moment::text(payment.admitted_at),
            format!("{}{owed}", payment.state.name()),
            tokens.text(terms.limit, &terms.asset),
            charge.map_or_else(|| "-".to_owned(), |it| tokens.text(it, &terms.asset)),
            Tokens::name(&terms.asset),
            terms.route.clone(),
            terms.payer.clone(),
            terms.id.to_string(),
        ]);
    }
    table
}
