//! `farebox ledger check`: is it sound?

use farebox_store::{CheckReport, LedgerFile};
use serde_json::{Value, json};

use super::unreadable;
use crate::args::Report;
use crate::args::ledger::CheckArgs;
use crate::failure::{Exit, Failure};
use crate::output::{Output, Stream};

/// Checks, and tells what is wrong.
pub(super) fn run(ledger: &LedgerFile, args: &CheckArgs, output: &Output) -> Result<Exit, Failure> {
    let report = ledger.check().map_err(unreadable)?;
    match args.form.report() {
        Report::Json => output.result(object(&report)),
        Report::Text => output.result(text(&report, output)),
    }
    Ok(if report.is_sound() { Exit::Done } else { Exit::Unsound })
}

/// The report for programs.
fn object(report: &CheckReport) -> Value {
    let problems: Vec<Value> = report
        .problems
        .iter()
        .map(|it| json!({ "payment": it.payment, "problem": it.what }))
        .collect();
    json!({
        "sound": report.is_sound(),
        "payments": report.payments,
        "journal_entries": report.entries,
        "problem_count": report.problem_count,
        "problems": problems,
    })
}

/// The report for people.
pub(super) fn text(report: &CheckReport, output: &Output) -> String {
    let paint = output.paint(Stream::Result);
    let checked = format!("{} payments, {} journal entries", report.payments, report.entries);
    if report.is_sound() {
        return format!("{}  {checked}", paint.green("sound"));
    }
    let lines: Vec<String> = report.problems.iter().map(|it| format!("\n  - {it}")).collect();
    let count = report.problem_count;
    format!("{}  {checked}; {count} problems:{}", paint.red("NOT SOUND"), lines.concat())
}
