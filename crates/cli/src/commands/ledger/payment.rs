//! `farebox ledger payment`: the whole story of one payment.

use std::fmt::Write as _;

use farebox_store::{JournalLine, LedgerFile, Listed, SettlementView, Story};
use serde_json::{Value, json};

use super::tokens::Tokens;
use super::{columns, unreadable};
use crate::args::Report;
use crate::args::ledger::PaymentArgs;
use crate::failure::{Exit, Failure};
use crate::moment;
use crate::output::{Align, Output, Paint, Stream, Table};

/// Prints it.
pub(super) fn run(
    ledger: &LedgerFile,
    tokens: &Tokens,
    args: &PaymentArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let Some(story) = ledger.story(args.id).map_err(unreadable)? else {
        output.progress(format!("There is no payment {}.", args.id));
        return Ok(Exit::NoSuchPayment);
    };
    match args.form.report() {
        Report::Json => output.result(object(&story, tokens)),
        Report::Text => output.result(text(&story, tokens, output.paint(Stream::Result))),
    }
    Ok(Exit::Done)
}

fn object(story: &Story, tokens: &Tokens) -> Value {
    let attempts = story.settlements.last().map(|it| it.attempts);
    let listed = Listed { payment: story.payment.clone(), attempts };
    let cells = columns::of_payment(&listed, tokens);
    let journal: Vec<Value> = story
        .journal
        .iter()
        .map(|it| {
            json!({
                "seq": it.seq,
                "at": moment::text(it.at),
                "event": it.event,
                "amount_units": it.amount,
                "detail": it.detail,
                "state": it.state,
            })
        })
        .collect();
    let settlements: Vec<Value> = story
        .settlements
        .iter()
        .map(|it| {
            json!({
                "generation": it.generation,
                "status": it.status,
                "queued_at": moment::text(it.created_at),
                "due_at": moment::text(it.due_at),
                "attempts": it.attempts,
                "may_have_been_sent": it.may_have_been_sent,
                "transaction": it.transaction,
                "outcome": it.outcome,
            })
        })
        .collect();
    json!({
        "payment": columns::object(&columns::PAYMENTS, &cells),
        "generation": story.generation,
        "settlements": settlements,
        "journal": journal,
    })
}

fn text(story: &Story, tokens: &Tokens, paint: Paint) -> String {
    let payment = &story.payment;
    let terms = &payment.terms;
    let amount = |it| format!("{} {}", tokens.text(it, &terms.asset), Tokens::name(&terms.asset));
    let (transaction, reason) = columns::ends(&payment.state);
    let charge = columns::charge(&payment.state);
    let mut lines = vec![
        ("state", payment.state.name().to_owned()),
        ("route", terms.route.clone()),
        ("held", amount(terms.limit)),
        ("charged", charge.map_or_else(|| "-".to_owned(), amount)),
        ("payer", terms.payer.clone()),
        ("paid to", terms.pay_to.clone()),
        ("scheme", format!("{}, settled {}", terms.scheme, settle_in_words(story))),
        ("settle by", moment::text(terms.settle_by)),
        ("admitted", moment::text(payment.admitted_at)),
        ("changed", moment::text(payment.changed_at)),
        ("answer", columns::mark_in_words(payment.answer).to_owned()),
        ("prices", terms.price_version.clone()),
    ];
    let optional = [
        ("transaction", transaction),
        ("reason", reason),
        ("owed back", payment.refund_owed.as_deref()),
    ];
    lines.extend(optional.into_iter().filter_map(|(name, it)| Some((name, it?.to_owned()))));
    let mut text = paint.bold(terms.id);
    for (name, value) in lines {
        // Writing to a string cannot fail.
        write!(text, "\n  {name:<12}{value}").unwrap_or_default();
    }
    let journal = journal(&story.journal, |it| tokens.text(it, &terms.asset));
    write!(text, "\n\n{}\n{journal}", paint.bold("What happened")).unwrap_or_default();
    if !story.settlements.is_empty() {
        let queue = settlements(&story.settlements);
        write!(text, "\n\n{}\n{queue}", paint.bold("Its settlement")).unwrap_or_default();
    }
    text
}

fn settle_in_words(story: &Story) -> &'static str {
    match story.payment.terms.settle {
        farebox_store::SettleMode::After => "before the answer leaves, or after a stream",
        farebox_store::SettleMode::Before => "before the work",
        farebox_store::SettleMode::Background => "in the background",
    }
}

fn journal(lines: &[JournalLine], amount: impl Fn(farebox_protocol::Amount) -> String) -> Table {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("at", left),
        ("event", left),
        ("state", left),
        ("amount", right),
        ("detail", left),
    ]);
    for line in lines {
        table.row([
            moment::text(line.at),
            line.event.clone(),
            line.state.unwrap_or("?").to_owned(),
            line.amount.map(&amount).unwrap_or_default(),
            line.detail.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn settlements(all: &[SettlementView]) -> Table {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("hold", right),
        ("status", left),
        ("queued", left),
        ("due", left),
        ("tries in vain", right),
        ("may be sent", left),
        ("last heard of", left),
        ("outcome", left),
    ]);
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for it in all {
        let due = if it.status == "done" { "-".to_owned() } else { moment::text(it.due_at) };
        table.row([
            it.generation.to_string(),
            it.status.clone(),
            moment::text(it.created_at),
            due,
            it.attempts.to_string(),
            if it.may_have_been_sent { "yes" } else { "no" }.to_owned(),
            or_none(&it.transaction),
            or_none(&it.outcome),
        ]);
    }
    table
}
