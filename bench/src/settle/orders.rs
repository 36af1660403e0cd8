//! Payments signed beforehand, each with a nonce of its own, by several payers that need no ether.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{Address, B256, U256, keccak256};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use farebox_chains::{AuthorizationWindow, EvmKey, sign_exact};
use farebox_protocol::wire::{
    Object, PaymentPayload, PaymentRequirements, Raw, ResourceInfo, SettleRequest,
};
use farebox_protocol::{Amount, Network, Timestamp};

use super::node::{CHAIN_ID, Rpc, TOKEN};

/// What each payment moves, in atomic units.
pub const AMOUNT: u128 = 10;
const PAYERS: u64 = 16;
/// What each payer has: more than is ever paid.
const PURSE: u128 = 1 << 60;
/// Far away, and known to every side as a number of ten digits.
const VALID_BEFORE: u64 = 4_000_000_000;

static NONCE: AtomicU64 = AtomicU64::new(0);

/// The payers' keys.
pub static KEYS: LazyLock<Vec<B256>> =
    LazyLock::new(|| (0..PAYERS).map(|it| keccak256(format!("payer {it}"))).collect());

/// Bodies of `POST /settle`.
pub struct Orders(pub Vec<Bytes>);

/// Gives every payer tokens.
pub async fn fund(rpc: &Rpc) -> Result<()> {
    for key in KEYS.iter() {
        let payer = alloy_signer_local::PrivateKeySigner::from_bytes(key)?.address();
        rpc.set_tokens(payer, PURSE).await?;
    }
    Ok(())
}

/// A payment's nonce: never used before.
pub fn fresh_nonce() -> B256 {
    keccak256(U256::from(NONCE.fetch_add(1, Ordering::Relaxed)).to_be_bytes::<32>())
}

impl Orders {
    pub fn sign(count: usize, pay_to: Address) -> Result<Self> {
        let requirements = requirements(pay_to);
        let keys: Vec<EvmKey> =
            KEYS.iter().map(|it| EvmKey::from_bytes(it.0)).collect::<Result<_, _>>()?;
        let order = |index: usize| {
            let key = keys.get(index % keys.len()).context("no payer")?;
            body(key, &requirements)
        };
        (0..count).map(order).collect::<Result<_>>().map(Self)
    }
}

fn requirements(pay_to: Address) -> PaymentRequirements {
    let mut extra = Object::new();
    extra.insert("name".to_owned(), "USDC".into());
    extra.insert("version".to_owned(), "2".into());
    PaymentRequirements {
        scheme: "exact".to_owned(),
        network: Network::eip155(CHAIN_ID),
        amount: Amount::from_units(AMOUNT),
        asset: TOKEN.to_string(),
        pay_to: pay_to.to_string(),
        max_timeout_seconds: 300,
        extra,
        rest: Object::new(),
    }
}

fn body(key: &EvmKey, requirements: &PaymentRequirements) -> Result<Bytes> {
    let window = AuthorizationWindow {
        valid_after: Timestamp::from_seconds(0),
        valid_before: Timestamp::from_seconds(VALID_BEFORE),
    };
    let payload = PaymentPayload {
        x402_version: 2,
        payload: sign_exact(key, requirements, window, fresh_nonce().0)?,
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
    let request = SettleRequest {
        x402_version: 2,
        payment_payload: Raw::new(payload)?,
        payment_requirements: Raw::new(requirements.clone())?,
    };
    Ok(serde_json::to_vec(&request)?.into())
}
