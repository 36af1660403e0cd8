//! `farebox audit`: is the journal what was written?

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use farebox_billing::audit::{Head, PublicKey, Trust, Verified, Wrong};
use farebox_store::{AuditError, LedgerFile};
use serde_json::{Value, json};

use super::ledger::{find, not_opened, unreadable};
use crate::args::Report;
use crate::args::audit::{AuditCommand, VerifyArgs};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Stream};

/// Runs one of them. They read a file and write text: nothing here waits for a network.
pub(crate) fn run(command: &AuditCommand, output: &Output) -> Result<Exit, Failure> {
    let Some((file, _)) = find(command.place(), output)? else { return Ok(Exit::Failed) };
    let ledger = LedgerFile::open(&file).map_err(|error| not_opened(&file, error))?;
    match command {
        AuditCommand::Verify(args) => verify(&ledger, args, output),
        AuditCommand::Head(_) => match ledger.head().map_err(unreadable)? {
            Some(head) => {
                output.result(head);
                Ok(Exit::Done)
            }
            None => Err(Failure::new("there is no head: nothing was ever journalled")),
        },
    }
}

/// Where it is known from whose seals are to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeysFrom {
    CommandLine,
    BesideTheLedger,
    Nowhere,
}

impl KeysFrom {
    fn as_str(self) -> &'static str {
        match self {
            Self::CommandLine => "command_line",
            Self::BesideTheLedger => "beside_the_ledger",
            Self::Nowhere => "nowhere",
        }
    }
}

fn verify(ledger: &LedgerFile, args: &VerifyArgs, output: &Output) -> Result<Exit, Failure> {
    let heads = args.heads.as_deref().map(heads).transpose()?.unwrap_or_default();
    let (keys, from) = keys(ledger, args)?;
    let verified = match ledger.audit(Trust { keys, heads }) {
        Ok(verified) => Ok(verified),
        Err(AuditError::Wrong(wrong)) => Err(wrong),
        Err(AuditError::Store(error)) => return Err(unreadable(error)),
    };
    match args.report() {
        Report::Json => output.result(object(&verified, from)),
        Report::Text => output.result(text(&verified, from, output)),
    }
    Ok(if verified.is_ok() { Exit::Done } else { Exit::Unsound })
}

/// Whose seals are believed.
fn keys(ledger: &LedgerFile, args: &VerifyArgs) -> Result<(Vec<PublicKey>, KeysFrom), Failure> {
    if !args.keys.is_empty() {
        return Ok((args.keys.clone(), KeysFrom::CommandLine));
    }
    let beside = ledger.audit_key().map_err(|error| {
        Failure::new("the key beside the ledger cannot be read")
            .because(error)
            .help("run this as the user of the gateway, or give the public key with --key")
    })?;
    Ok(match beside {
        Some(key) => (vec![key], KeysFrom::BesideTheLedger),
        None => (Vec::new(), KeysFrom::Nowhere),
    })
}

/// The heads of a file, one a line.
fn heads(file: &Path) -> Result<Vec<Head>, Failure> {
    let failed = || Failure::new(format!("the heads in {} cannot be read", file.display()));
    let text = fs::read_to_string(file).map_err(|error| failed().because(error))?;
    let lines = text.lines().zip(1_u32..).filter(|it| !it.0.trim().is_empty());
    lines
        .map(|(line, number)| {
            line.parse().map_err(|error| {
                failed()
                    .because(error)
                    .help(format!("see line {number}; `farebox audit head` writes them"))
            })
        })
        .collect()
}

/// The result for programs.
fn object(verified: &Result<Verified, Wrong>, from: KeysFrom) -> Value {
    match verified {
        Ok(it) => json!({
            "verified": true,
            "lines": it.lines,
            "seals": it.seals,
            "keys": it.keys.iter().map(|(key, line)| json!({
                "key": key.to_string(),
                "first_line": line,
            })).collect::<Vec<_>>(),
            "keys_from": from.as_str(),
            "heads_met": it.heads,
            "head": it.head.map(|it| it.to_string()),
            "problem": null,
        }),
        Err(wrong) => json!({
            "verified": false,
            "keys_from": from.as_str(),
            "problem": wrong.to_string(),
        }),
    }
}

/// The result for people.
fn text(verified: &Result<Verified, Wrong>, from: KeysFrom, output: &Output) -> String {
    let paint = output.paint(Stream::Result);
    let it = match verified {
        Ok(it) => it,
        Err(wrong) => return format!("{}  {wrong}", paint.red("NOT VERIFIED")),
    };
    let mut text = format!("{}  {} lines in {} seals", paint.green("verified"), it.lines, it.seals);
    for (key, line) in &it.keys {
        // Writing to a text does not fail.
        write!(text, "\n  from line {line} signed by {key}").ok();
    }
    let heads = match it.heads {
        0 => "no head from elsewhere to hold it against: see `farebox audit --help`".to_owned(),
        1 => "as the given head says".to_owned(),
        more => format!("as {more} given heads say"),
    };
    let known = match from {
        KeysFrom::CommandLine => "the given key",
        KeysFrom::BesideTheLedger => "the key beside the ledger",
        KeysFrom::Nowhere => "whatever key: none was given, and there is none beside the ledger",
    };
    write!(text, "\n  by {known}\n  {heads}").ok();
    text
}
