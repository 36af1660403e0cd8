//! `farebox ledger export`: every row, written as it is read.

use std::io::{self, BufWriter, Write};

use farebox_store::{LedgerFile, Order};

use super::columns::{self, Cell};
use super::list::which;
use super::tokens::Tokens;
use super::unreadable;
use crate::args::ledger::{ExportArgs, ExportFormat, Exported};
use crate::failure::{Exit, Failure};
use crate::output;

/// Rows that are read at once: a page is a moment of its own, so that the log of a gateway beside us
/// does not have to wait until everything is written.
const PAGE: usize = 500;

/// Writes what was asked for to standard output.
pub(super) fn run(
    ledger: &LedgerFile,
    tokens: &Tokens,
    args: &ExportArgs,
) -> Result<Exit, Failure> {
    if args.what == Exported::Journal && !args.filter.is_open() {
        return Err(Failure::new("the journal is exported as a whole")
            .help("leave the filters out, or export payments"));
    }
    let (stdout, _) = output::streams();
    let mut writer = BufWriter::new(stdout.lock());
    let written = match args.what {
        Exported::Payments => payments(ledger, tokens, args, &mut writer),
        Exported::Journal => journal(ledger, tokens, args.format, &mut writer),
    };
    match written.and_then(|()| Ok(writer.flush()?)) {
        Ok(()) => Ok(Exit::Done),
        // A reader that has gone (`… | head`) has what it wanted.
        Err(Stopped::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(Stopped::Write(error)) => {
            Err(Failure::new("the export could not be written").because(error))
        }
        Err(Stopped::Read(failure)) => Err(failure.help("what was written is not complete")),
    }
}

/// Why an export ended before its end.
enum Stopped {
    Read(Failure),
    Write(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn payments(
    ledger: &LedgerFile,
    tokens: &Tokens,
    args: &ExportArgs,
    to: &mut impl Write,
) -> Result<(), Stopped> {
    head(&columns::PAYMENTS, args.format, to)?;
    let which = which(&args.filter);
    let mut after = None;
    loop {
        let page = ledger.payments(&which, Order::OldestFirst, after, PAGE);
        let page = page.map_err(|error| Stopped::Read(unreadable(error)))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.payment.terms.id);
        for listed in &page {
            let cells = columns::of_payment(listed, tokens);
            row(&columns::PAYMENTS, &cells, args.format, to)?;
        }
    }
}

fn journal(
    ledger: &LedgerFile,
    tokens: &Tokens,
    format: ExportFormat,
    to: &mut impl Write,
) -> Result<(), Stopped> {
    head(&columns::JOURNAL, format, to)?;
    let mut after = 0;
    loop {
        let page = ledger.journal(after, PAGE);
        let page = page.map_err(|error| Stopped::Read(unreadable(error)))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.seq;
        for line in &page {
            row(&columns::JOURNAL, &columns::of_line(line, tokens), format, to)?;
        }
    }
}

fn head(names: &[&str], format: ExportFormat, to: &mut impl Write) -> io::Result<()> {
    match format {
        ExportFormat::Csv => writeln!(to, "{}", names.join(",")),
        ExportFormat::Jsonl => Ok(()),
    }
}

fn row(
    names: &[&str],
    cells: &[Cell],
    format: ExportFormat,
    to: &mut impl Write,
) -> io::Result<()> {
    match format {
        ExportFormat::Csv => writeln!(to, "{}", columns::line(cells)),
        ExportFormat::Jsonl => {
            serde_json::to_writer(&mut *to, &columns::object(names, cells))?;
            writeln!(to)
        }
    }
}
