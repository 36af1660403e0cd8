//! What was paid, told to a person on standard error.
//!
//! Sellers write some of these words, so control characters never reach the terminal.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;

use farebox_agent::{
    Choice, Funding, Outcome, PassedOver, PayError, Payment, Proof, Standing, Terms, Usd, WhyNot,
};
use farebox_billing::{Receipt, ReceiptState};
use farebox_chains::Charging;
use farebox_protocol::{Amount, Reason};

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
                self.line(
                    "  help: nothing was signed; see --max-payment, --network, --token and --rpc",
                );
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

    /// What would be paid, and why that.
    pub(super) fn would_pay(&mut self, choice: &Choice) {
        let Choice { place, offer, funding, others } = choice;
        let token = offer.token.config();
        let amount = offer.amount();
        let tokens = amount.in_tokens(token.decimals);
        let network = offer.token.network();
        let up_to = match offer.scheme.charging() {
            Charging::Whole => "",
            Charging::UpTo => "up to ",
        };
        let name = &token.name;
        self.line(format!("would pay {up_to}{tokens} {name} ({amount} units) on {network}"));
        self.field("by", format!("{}, offer {place}: {}", offer.scheme.word(), moved_by(*funding)));
        self.field("to", offer.pay_to);
        self.field("asset", offer.token.address());
        self.field("valid", format!("{} s", offer.validity().as_secs()));
        for PassedOver { place, why } in others {
            match why {
                WhyNot::Refused(refusal) => self.line(format!("  not offer {place}: {refusal}")),
                WhyNot::Behind { scheme, worth, funding } => {
                    let moved_by = moved_by(*funding);
                    self.line(format!(
                        "  not offer {place}: {scheme}, at most {worth}, {moved_by}"
                    ));
                }
            }
        }
        if !others.is_empty() {
            self.line(ORDER);
        }
    }

    /// What was paid and what became of it.
    pub(super) fn payment(&mut self, payment: &Payment, standing: Standing) {
        self.outcome(payment);
        self.terms(&payment.terms);
        self.proof(payment);
        if let Some(url) = &payment.receipt_url {
            self.field("receipt", url);
        }
        let Standing { left, reserved, .. } = standing;
        let kept = if reserved == Usd::ZERO {
            String::new()
        } else {
            format!(", {reserved} of the rest reserved for what may yet be charged")
        };
        self.field("budget", format!("{left} left{kept}"));
    }

    fn outcome(&mut self, payment: &Payment) {
        let Terms { amount, decimals, token_name, network, scheme, .. } = &payment.terms;
        let of = |it: Amount| {
            format!("{} {token_name} ({it} units) on {network}", it.in_tokens(*decimals))
        };
        let signed = match scheme.charging() {
            Charging::Whole => of(*amount),
            Charging::UpTo => format!("up to {}", of(*amount)),
        };
        match &payment.outcome {
            Outcome::Paid { charged, .. } => {
                self.line(format!("paid {}", of(*charged)));
                if charged < amount {
                    self.line(format!("  signed for {signed}"));
                }
            }
            Outcome::Accepted => self.line(format!("paid {signed}; it settles later")),
            Outcome::NotCharged { reason } => {
                self.line(format!("not charged, says the seller: {reason}"));
                self.line(format!(
                    "  signed for {signed}, which nobody can settle once it expires"
                ));
                if reason == Reason::Permit2AllowanceRequired.as_str() {
                    self.line(ALLOWANCE);
                }
            }
            Outcome::Unknown { why } => {
                self.line(format!("UNKNOWN whether charged: {why}"));
                self.line(format!("  signed for {signed}"));
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

/// How an offer's money gets moved.
fn moved_by(funding: Funding) -> &'static str {
    match funding {
        Funding::Token => "moved by the token itself",
        Funding::Allowance => "moved by Permit2, whose allowance is there",
        Funding::Permit { .. } => "moved by Permit2, on a permit for this amount alone",
        Funding::Unsure => "moved by Permit2, whose allowance nobody knows; see --rpc",
    }
}

/// How the offer was chosen.
const ORDER: &str =
    "  order: what can surely be moved, the lowest amount, upto before exact, the seller's";
/// What to do where Permit2 may not spend the token.
const ALLOWANCE: &str = "\
  help: Permit2 may not spend your token: give --rpc with your key so that a permit is signed, or approve \
  Permit2 (0x000000000022D473030F116dDEE9F6B43aC78BA3) once";
