//! `farebox ledger balances`: what stands where.

use std::collections::BTreeMap;
use std::fmt::Display;

use farebox_billing::ledger::{Account, AccountKey, AccountName};
use farebox_protocol::{Amount, Asset};
use farebox_store::{LedgerFile, Total};
use serde_json::{Value, json};

use super::tokens::Tokens;
use super::unreadable;
use crate::args::Report;
use crate::args::ledger::{BalancesArgs, Payers};
use crate::failure::{Exit, Failure};
use crate::output::{Align, Output, Stream, Table};

/// Prints the accounts and the sums of the payments.
pub(super) fn run(
    ledger: &LedgerFile,
    tokens: &Tokens,
    args: &BalancesArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let accounts = rows(ledger.accounts().map_err(unreadable)?, args.payers())?;
    let totals = ledger.totals().map_err(unreadable)?;
    match args.form.report() {
        Report::Json => {
            let accounts: Vec<Value> = accounts.iter().map(|it| it.object(tokens)).collect();
            let totals: Vec<Value> = totals.iter().map(|it| total_object(it, tokens)).collect();
            output.result(json!({ "accounts": accounts, "payments": totals }));
        }
        Report::Text if totals.is_empty() => output.result("There are no payments yet."),
        Report::Text => {
            let paint = output.paint(Stream::Result);
            output.result(format!("{}\n{}", paint.bold("Accounts"), table(&accounts, tokens)));
            let totals = total_table(&totals, tokens);
            output.result(format!("\n{}\n{totals}", paint.bold("Payments by state")));
        }
    }
    Ok(Exit::Done)
}

/// An account, or all of one kind together.
struct Row {
    asset: Asset,
    name: String,
    accounts: u64,
    account: Account,
}

impl Row {
    fn object(&self, tokens: &Tokens) -> Value {
        let (account, asset) = (&self.account, &self.asset);
        json!({
            "network": asset.network(),
            "asset": asset.address(),
            "decimals": tokens.decimals(asset),
            "account": self.name,
            "accounts": self.accounts,
            "debits_pending_units": account.debits_pending,
            "debits_posted_units": account.debits_posted,
            "credits_pending_units": account.credits_pending,
            "credits_posted_units": account.credits_posted,
        })
    }
}

/// Payers are many; unless each of them is asked for, the accounts of one kind are one row.
fn rows(all: Vec<(AccountKey, Account)>, payers: Payers) -> Result<Vec<Row>, Failure> {
    let mut rows: BTreeMap<(Asset, String), Row> = BTreeMap::new();
    for (AccountKey { asset, name }, account) in all {
        let name = match (&name, payers) {
            (AccountName::Payer(_), Payers::Together) => "payer:*".to_owned(),
            (AccountName::Loss(_), Payers::Together) => "loss:*".to_owned(),
            (AccountName::Refund(_), Payers::Together) => "refund:*".to_owned(),
            (AccountName::Revenue(_) | AccountName::Chain(_), _) | (_, Payers::Each) => {
                name.to_string()
            }
        };
        let empty = || Row {
            asset: asset.clone(),
            name: name.clone(),
            accounts: 0,
            account: Account::ZERO,
        };
        let row = rows.entry((asset.clone(), name.clone())).or_insert_with(empty);
        row.accounts = row.accounts.saturating_add(1);
        row.account = row.account.plus(&account).map_err(|error| {
            Failure::new(format!("the accounts {name} cannot be added up")).because(error)
        })?;
    }
    Ok(rows.into_values().collect())
}

fn table(rows: &[Row], tokens: &Tokens) -> Table {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("token", left),
        ("account", left),
        ("debits", right),
        ("credits", right),
        ("balance", left),
        ("debits pending", right),
        ("credits pending", right),
    ]);
    for Row { asset, name, accounts, account } in rows {
        let text = |amount: Amount| tokens.text(amount, asset);
        let side = |amount: Amount, word: &dyn Display| format!("{} {word}", text(amount));
        let balance = match (account.debit_balance(), account.credit_balance()) {
            (Amount::ZERO, Amount::ZERO) => "-".to_owned(),
            (Amount::ZERO, credit) => side(credit, &"cr"),
            (debit, _) => side(debit, &"dr"),
        };
        let many = name.ends_with('*');
        table.row([
            Tokens::name(asset),
            if many { format!("{name} ({accounts})") } else { name.clone() },
            text(account.debits_posted),
            text(account.credits_posted),
            balance,
            text(account.debits_pending),
            text(account.credits_pending),
        ]);
    }
    table
}

fn total_object(total: &Total, tokens: &Tokens) -> Value {
    json!({
        "network": total.asset.network(),
        "asset": total.asset.address(),
        "decimals": tokens.decimals(&total.asset),
        "state": total.state,
        "payments": total.payments,
        "units": total.units,
        "refunds_owed": total.refunds_owed,
        "refund_units": total.refund_units,
    })
}

fn total_table(totals: &[Total], tokens: &Tokens) -> Table {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("token", left),
        ("state", left),
        ("payments", right),
        ("amount", right),
        ("owed back", right),
    ]);
    for total in totals {
        let owed = (total.refunds_owed != 0).then(|| tokens.text(total.refund_units, &total.asset));
        table.row([
            Tokens::name(&total.asset),
            total.state.to_owned(),
            total.payments.to_string(),
            tokens.text(total.units, &total.asset),
            owed.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}
