//! Local verification of one `exact` payment, no RPC on either side: from the bytes of a facilitator
//! request to "form, terms, time and signature are good".

use std::hint::black_box;
use std::time::Instant;

use alloy_sol_types::eip712_domain;
use anyhow::{Context as _, Result, anyhow, bail};
use farebox_chains::{
    AuthorizationWindow, EvmKey, EvmToken, TokenConfig, check_payment, find_token, sign_exact,
};
use farebox_protocol::wire::{
    Object, PaymentPayload, PaymentRequirements, Raw, ResourceInfo, VerifyRequest,
};
use farebox_protocol::{Amount, Network, Timestamp};
use x402_chain_eip155::v1_eip155_exact::{ExactEvmPayment, assert_enough_value, assert_time};
use x402_chain_eip155::v2_eip155_exact::FacilitatorVerifyRequest;
use x402_chain_eip155::v2_eip155_exact::eip3009::assert_requirements_match;

const TURNS: u32 = 2_000;

/// Prints what each side takes, and the ratio.
pub fn run(rounds: usize) -> Result<()> {
    let (request, token) = signed_request()?;
    let body = serde_json::to_string(&request)?;
    let now = Timestamp::from_seconds(x402_types::timestamp::UnixTimestamp::now().as_secs());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(time(|| {
            let request: VerifyRequest = serde_json::from_str(black_box(&body))?;
            let good = check_payment(&token, &request, now).map_err(|it| anyhow!(it.message))?;
            black_box(good);
            Ok(())
        })?);
        theirs.push(time(|| x402_rs(black_box(&body)))?);
    }
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    let (ours, theirs) = (ours[rounds / 2], theirs[rounds / 2]);
    println!(
        "local exact verification: {ours:.1} µs; x402-rs 2.0.2: {theirs:.1} µs; \
         ratio {:.2}, goal 3.00",
        theirs / ours
    );
    Ok(())
}

fn time(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..TURNS {
        work()?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(TURNS))
}

/// What x402-rs does before it asks its node: parse, compare, time, value, domain, digest, recovery.
fn x402_rs(body: &str) -> Result<()> {
    let request: FacilitatorVerifyRequest = serde_json::from_str(body)?;
    let FacilitatorVerifyRequest::Eip3009 { payment_payload, payment_requirements, .. } = request
    else {
        bail!("not an EIP-3009 payment");
    };
    let accepted = &payment_payload.accepted;
    assert_requirements_match(accepted, &payment_requirements)?;
    let authorization = &payment_payload.payload.authorization;
    if authorization.to != accepted.pay_to {
        bail!("recipient");
    }
    assert_time(authorization.valid_after, authorization.valid_before)?;
    assert_enough_value(&authorization.value, &accepted.amount)?;
    let domain = eip712_domain! {
        name: accepted.extra.name.clone(),
        version: accepted.extra.version.clone(),
        chain_id: 84532,
        verifying_contract: accepted.asset.into(),
    };
    let payment = ExactEvmPayment {
        from: authorization.from,
        to: authorization.to,
        value: authorization.value,
        valid_after: authorization.valid_after,
        valid_before: authorization.valid_before,
        nonce: authorization.nonce,
        signature: payment_payload.payload.signature.clone(),
    };
    // Its fields are private; the constructor has already recovered and compared the signer.
    black_box(payment.as_signed_message(&domain)?);
    Ok(())
}

/// A payment as a stock client would send it.
fn signed_request() -> Result<(VerifyRequest, EvmToken)> {
    let network = Network::eip155(84532);
    let row = find_token(network.as_str(), "usdc").context("no such token")?;
    let config = TokenConfig::from(row);
    let token = EvmToken::new(network.clone(), config).context("no such token")?;
    let mut extra = Object::new();
    extra.insert("name".to_owned(), "USDC".into());
    extra.insert("version".to_owned(), "2".into());
    let requirements = PaymentRequirements {
        scheme: "exact".to_owned(),
        network,
        amount: Amount::from_units(10_000),
        asset: token.address().to_string(),
        pay_to: crate::farebox::PAY_TO.to_owned(),
        max_timeout_seconds: 300,
        extra,
        rest: Object::new(),
    };
    let key = EvmKey::from_hex(crate::farebox::KEYS[1])?;
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: Timestamp::from_seconds(4_000_000_000),
    };
    let payload = PaymentPayload {
        x402_version: 2,
        payload: sign_exact(&key, &requirements, window, [7; 32])?,
        resource: Some(ResourceInfo {
            url: "http://127.0.0.1/premium/report".to_owned(),
            description: None,
            mime_type: None,
            rest: Object::new(),
        }),
        accepted: requirements.clone(),
        extensions: None,
        rest: Object::new(),
    };
    let request = VerifyRequest {
        x402_version: 2,
        payment_payload: Raw::new(payload)?,
        payment_requirements: Raw::new(requirements)?,
    };
    Ok((request, token))
}
