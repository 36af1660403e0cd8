//! Any `reqwest-middleware` client becomes one that pays.
//!
//! ```text
//! farebox demo                                  # or any x402 seller
//! AGENT_KEY=0x… cargo run -p farebox-agent --example pay_with_reqwest -- URL
//! ```
//!
//! The key's account needs USDC on the seller's network; nothing else, no gas.

use std::error::Error;
use std::io::{Write as _, stdout};
use std::time::Duration;

use farebox_agent::{Limits, Outcome, PayingMiddleware, Payment, Policy, Usd, Wallet};
use reqwest::redirect;
use reqwest_middleware::ClientBuilder;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: pay_with_reqwest URL")?;
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err("another TLS provider is installed".into());
    }

    // What it may spend: two cents at a time, ten in all.
    let limits = Limits { per_payment: Usd::from_micros(20_000), total: Usd::from_micros(100_000) };
    let layer = PayingMiddleware::new(Wallet::from_env("AGENT_KEY")?, Policy::new(limits));

    // Payments are never sent along a redirect, so the client must not follow any.
    let http = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(Duration::from_mins(2))
        .build()?;
    let client = ClientBuilder::new(http).with(layer.clone()).build();

    let answer = client.get(url).send().await?;
    let mut out = stdout().lock();
    writeln!(out, "{}", answer.status())?;
    match answer.extensions().get::<Payment>() {
        None => writeln!(out, "nothing to pay")?,
        Some(Payment { terms, outcome, .. }) => {
            // By `upto` what was signed is a ceiling, and `charged` may be less.
            let (said, amount) = match outcome {
                Outcome::Paid { charged, .. } => ("paid", *charged),
                Outcome::Accepted => ("accepted", terms.amount),
                Outcome::NotCharged { .. } => ("not charged", terms.amount),
                Outcome::Unknown { .. } => ("outcome unknown", terms.amount),
            };
            let tokens = amount.in_tokens(terms.decimals);
            writeln!(out, "{said}: {tokens} {} to {}", terms.token_name, terms.pay_to)?;
        }
    }
    writeln!(out, "left in the budget: {}", layer.standing().left)?;
    writeln!(out, "{}", answer.text().await?)?;
    Ok(())
}
