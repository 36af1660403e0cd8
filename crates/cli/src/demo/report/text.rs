//! The report as people read it.

use std::fmt::Write as _;

use farebox_protocol::Amount;

use super::super::scenario::Step;
use super::{Report, Row};
use crate::output::{Align, Paint, Table};

impl Report {
    /// Tables and the sum line, several lines.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        let mut line = |words: &str| {
            // Writing to a string cannot fail.
            writeln!(text, "{words}").unwrap_or_default();
        };
        line(&paint.bold("What was quoted, charged and settled (USDC)"));
        line(&self.purchases().to_string());
        line("");
        line(&paint.bold("Balances on chain"));
        line(&self.accounts().to_string());
        line("");
        line(&paint.bold("Does it add up?"));
        for check in &self.checks {
            let verdict = if check.holds { paint.green("ok ") } else { paint.red("NO ") };
            let numbers = if check.holds {
                check.found.clone()
            } else {
                format!("expected {}, found {}", check.expected, check.found)
            };
            line(&format!("  {verdict} {}: {numbers}", check.what));
        }
        line("");
        line(&self.sum_line(paint));
        if let Some(place) = &self.kept_at {
            line(&format!("The ledger and the configuration are in {place}"));
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn sum_line(&self, paint: Paint) -> String {
        let payer = self.signed(self.balances.payer.after, self.balances.payer.before);
        let seller = self.signed(self.balances.seller.after, self.balances.seller.before);
        let seconds = self.milliseconds / 1000;
        let verdict = if self.adds_up {
            paint.green("It adds up.")
        } else {
            paint.red("IT DOES NOT ADD UP.")
        };
        format!("payer {payer}, seller {seller} USDC, in {seconds} s. {verdict}")
    }

    fn purchases(&self) -> Table {
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new([
            ("#", right),
            ("request", left),
            ("by", left),
            ("quoted", right),
            ("charged", right),
            ("state", left),
            ("transaction", left),
        ]);
        for (number, step) in (1_usize..).zip(&self.steps) {
            let row = self.payments.iter().find(|it| Some(it.id) == step.payment);
            table.row(self.purchase(number, step, row));
        }
        table
    }

    fn purchase(&self, number: usize, step: &Step, row: Option<&Row>) -> [String; 7] {
        let amount = |it: Option<Amount>| {
            it.map_or_else(|| "-".to_owned(), |it| it.in_tokens(self.decimals))
        };
        let transaction = row.and_then(|it| it.transaction.clone());
        [
            number.to_string(),
            step.request.clone(),
            row.map_or_else(|| "-".to_owned(), |it| it.scheme.clone()),
            amount(row.map(|it| it.quoted)),
            amount(row.map(|it| it.charged)),
            row.map_or_else(|| step.end.in_words(), |it| it.state).to_owned(),
            transaction.unwrap_or_else(|| "-".to_owned()),
        ]
    }

    fn accounts(&self) -> Table {
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new([
            ("who", left),
            ("account", left),
            ("before", right),
            ("after", right),
            ("difference", right),
            ("", left),
        ]);
        let balances = &self.balances;
        for (who, it) in [("payer", &balances.payer), ("seller", &balances.seller)] {
            table.row([
                who.to_owned(),
                it.address.clone(),
                it.before.in_tokens(self.decimals),
                it.after.in_tokens(self.decimals),
                self.signed(it.after, it.before),
                "USDC".to_owned(),
            ]);
        }
        let it = &balances.settler_wei;
        let spent = it.before.checked_sub(it.after).unwrap_or_default();
        table.row([
            "settler".to_owned(),
            it.address.clone(),
            it.before.in_tokens(WEI_DECIMALS),
            it.after.in_tokens(WEI_DECIMALS),
            format!("-{}", spent.in_tokens(WEI_DECIMALS)),
            "ETH (gas)".to_owned(),
        ]);
        table
    }

    fn signed(&self, after: Amount, before: Amount) -> String {
        if let Ok(more) = after.checked_sub(before) {
            return format!("+{}", more.in_tokens(self.decimals));
        }
        let less = before.checked_sub(after).unwrap_or_default();
        format!("-{}", less.in_tokens(self.decimals))
    }
}

/// Wei in an ether, as digits.
const WEI_DECIMALS: u8 = 18;
