//! What was paid, told to a person on standard error.
//!
//! Sellers write some of these words, so control characters never reach the terminal.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;

use farebox_agent::{Offer, Outcome, PayError, Payment, Proof, Standing, Terms};
use farebox_billing::{Receipt, ReceiptState};

/// Writes lines; what cannot be written is lost, as the exit code says the rest.
pub(super) struct Report<'a>(&'a mut (dyn Write + Send));

impl<'a> Report<'a> {
    pub(super) fn new(to: &'a mut (dyn Write + Send)) -> Self {
        Self(to)
    }

    /// One line, with nothing in it that a terminal would act on.
    pub(super) fn line(&mut self, text: impl Display) {
        let text = text.to_string();
        let mut safe = String::with_capacity(text.len());
        for character in text.chars() {
            if character.is_control() {
                safe.extend(character.escape_default());
            } else {
                safe.push(character);
            }
        }
        drop(writeln!(self.0, "{safe}"));
    }

    fn field(&mut self, name: &str, value: impl Display) {
        self.line(format!("  {name:<8} {value}"));
    }

    /// An error with its causes.
    pub(super) fn error(&mut self, error: &(dyn Error + 'static)) {
        self.line(format!("error: {error}"));
        let mut told = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !told.contains(&text) {
                self.line(format!("  because: {text}"));
            }
            told = text;
            cause = error.source();
        }
    }

    /// Why nothing came back.
    pub(super) fn payment_error(&mut self, error: &PayError) {
        match error {
            PayError::Refused(refusals) if !refusals.0.is_empty() => {
                self.line("error: payment refused: no offer is within your policy");
                for (place, refusal) in refusals.0.iter().enumerate() {
                    let number = place.saturating_add(1);
                    self.line(format!("  offer {number}: {refusal}"));
                }
                self.line("  help: nothing was signed; see --max-payment, --network and --token");
            }
            PayError::NoAnswer { payment, .. } => {
                self.error(error);
                self.terms(&payment.terms);
                self.outcome(payment);
            }
            PayError::Unreachable(_)
            | PayError::NotRepeatable
            | PayError::CarriesPayment
            | PayError::PlainHttp { .. }
            | PayError::Redirected { .. }
            | PayError::Challenge(_)
            | PayError::Refused(_)
            | PayError::Sign(_)
            | PayError::NotSent(_) => self.error(error),
        }
    }

    /// What would be paid.
    pub(super) fn would_pay(&mut self, offer: &Offer) {
        let token = offer.token.config();
        let amount = offer.amount();
        let tokens = amount.in_tokens(token.decimals);
        let network = offer.token.network();
        self.line(format!("would pay {tokens} {} ({amount} units) on {network}", token.name));
        self.field("to", offer.pay_to);
        self.field("asset", offer.token.address());
        self.field("valid", format!("{} s", offer.validity().as_secs()));
    }

    /// What was paid and what became of it.
    pub(super) fn payment(&mut self, payment: &Payment, standing: Standing) {
        self.outcome(payment);
        self.terms(&payment.terms);
        self.proof(payment);
        if let Some(url) = &payment.receipt_url {
            self.field("receipt", url);
        }
        self.field("budget", format!("{} left", standing.left));
    }

    fn outcome(&mut self, payment: &Payment) {
        let Terms { amount, decimals, token_name, network, .. } = &payment.terms;
        let tokens = amount.in_tokens(*decimals);
        let paid = format!("{tokens} {token_name} ({amount} units) on {network}");
        match &payment.outcome {
            Outcome::Paid { .. } => self.line(format!("paid {paid}")),
            Outcome::Accepted => self.line(format!("paid {paid}; it settles later")),
            Outcome::NotCharged { reason } => {
                self.line(format!("not charged, says the seller: {reason}"));
                self.line(format!("  signed for {paid}, which nobody can settle once it expires"));
            }
            Outcome::Unknown { why } => {
                self.line(format!("UNKNOWN whether charged: {why}"));
                self.line(format!("  signed for {paid}"));
                self.line("  help: look at the receipt or the chain before you pay again");
            }
        }
    }

    fn terms(&mut self, terms: &Terms) {
        self.field("from", terms.payer);
        self.field("to", terms.pay_to);
        self.field("asset", terms.asset);
        self.field("payment", terms.id);
    }

    fn proof(&mut self, payment: &Payment) {
        match &payment.outcome {
            Outcome::Paid { proof: Proof::Settlement(settlement), .. } => {
                self.field("tx", &settlement.transaction);
            }
            Outcome::Paid { proof: Proof::Receipt(receipt), .. } => self.receipt(receipt),
            Outcome::Accepted | Outcome::NotCharged { .. } | Outcome::Unknown { .. } => {}
        }
        match payment.stream_receipt() {
            Some(Ok(receipt)) => self.receipt(receipt),
            Some(Err(bad)) => self.line(format!("  the receipt in the stream does not fit: {bad}")),
            None => {}
        }
    }

    fn receipt(&mut self, receipt: &Receipt) {
        if let ReceiptState::Settled { transaction } = &receipt.state {
            self.field("tx", transaction);
        }
        let charged = format!("{} of {} units", receipt.charged, receipt.quoted);
        self.field("charged", charged);
    }
}
