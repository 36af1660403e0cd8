//! The most that a node gives: the same transfers as whole transactions, signed beforehand with the
//! right nonces, sent as fast as the node takes them, their receipts awaited.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy_consensus::{SignableTransaction as _, TxEip1559};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::{SolCall as _, SolStruct as _, eip712_domain, sol};
use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fire::Fired;
use super::node::{CHAIN_ID, Rpc, TOKEN};
use super::orders::{AMOUNT, KEYS, fresh_nonce};
use super::sides::{pay_to, signer};

const GAS: u64 = 120_000;
/// How often it is asked what was mined.
const POLL: Duration = Duration::from_millis(2);
const MAX_FEE: u128 = 1_000_000_000_000_000;

sol! {
    struct TransferWithAuthorization {
        address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce;
    }
    function transferWithAuthorization(
        address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce,
        uint8 v, bytes32 r, bytes32 s
    ) external;
}

/// An account that sends what others signed.
pub struct Ceiling {
    sender: PrivateKeySigner,
    pay_to: Address,
    payers: Vec<PrivateKeySigner>,
}

struct Ready {
    raw: Bytes,
    hash: B256,
    nonce: u64,
}

impl Ceiling {
    /// The account after those of the `sides`.
    pub async fn new(rpc: &Rpc, sides: usize) -> Result<Self> {
        let sender: PrivateKeySigner = signer(sides).parse()?;
        let payers = KEYS.iter().map(PrivateKeySigner::from_bytes).collect::<Result<_, _>>()?;
        let ceiling = Self { sender, pay_to: pay_to(sides), payers };
        rpc.fill(ceiling.sender.address()).await?;
        rpc.set_tokens(ceiling.pay_to, AMOUNT).await?;
        Ok(ceiling)
    }

    /// What was sent, and how many payments arrived.
    pub async fn fire(
        &mut self,
        rpc: &Rpc,
        in_flight: usize,
        count: usize,
        span: Duration,
    ) -> Result<(Fired, u128)> {
        let nonce = rpc.mined_nonce(self.sender.address()).await?;
        let ready: Vec<Ready> =
            (0..count).map(|it| self.sign(it, nonce + it as u64)).rev().collect::<Result<_>>()?;
        let before = rpc.tokens_of(self.pay_to).await?;
        let left = Arc::new(Mutex::new(ready));
        let begun = Instant::now();
        let mut fired = Fired::default();
        let (counted, mined) = watch::channel(nonce);
        let counting = tokio::spawn(keep_counting(rpc.clone(), self.sender.address(), counted));
        let mut slots = JoinSet::new();
        for _ in 0..in_flight {
            slots.spawn(slot(rpc.clone(), Arc::clone(&left), mined.clone(), begun + span));
        }
        while let Some(slot) = slots.join_next().await {
            fired.absorb(slot??);
        }
        fired.seconds = begun.elapsed().as_secs_f64();
        counting.abort();
        let moved = rpc.tokens_of(self.pay_to).await?.saturating_sub(before) / AMOUNT;
        Ok((fired, moved))
    }

    fn sign(&self, index: usize, nonce: u64) -> Result<Ready> {
        let payer = self.payers.get(index % self.payers.len()).context("no payer")?;
        let authorization = TransferWithAuthorization {
            from: payer.address(),
            to: self.pay_to,
            value: U256::from(AMOUNT),
            validAfter: U256::ZERO,
            validBefore: U256::from(4_000_000_000_u64),
            nonce: fresh_nonce(),
        };
        let domain = eip712_domain! {
            name: "USDC", version: "2", chain_id: CHAIN_ID, verifying_contract: TOKEN,
        };
        let signature = payer.sign_hash_sync(&authorization.eip712_signing_hash(&domain))?;
        let call = transferWithAuthorizationCall {
            from: authorization.from,
            to: authorization.to,
            value: authorization.value,
            validAfter: authorization.validAfter,
            validBefore: authorization.validBefore,
            nonce: authorization.nonce,
            v: 27 + u8::from(signature.v()),
            r: signature.r().into(),
            s: signature.s().into(),
        };
        let transaction = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: GAS,
            max_fee_per_gas: MAX_FEE,
            max_priority_fee_per_gas: 1,
            to: TxKind::Call(TOKEN),
            value: U256::ZERO,
            access_list: Default::default(),
            input: call.abi_encode().into(),
        };
        let signature = self.sender.sign_hash_sync(&transaction.signature_hash())?;
        let signed = transaction.into_signed(signature);
        Ok(Ready { raw: signed.encoded_2718().into(), hash: *signed.hash(), nonce })
    }
}

async fn slot(
    rpc: Rpc,
    left: Arc<Mutex<Vec<Ready>>>,
    mined: watch::Receiver<u64>,
    end: Instant,
) -> Result<Fired> {
    let mut fired = Fired::default();
    let mut mined = mined;
    while Instant::now() < end {
        let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(ready) = next else { break };
        let begun = Instant::now();
        rpc.send_raw(&ready.raw).await?;
        mined.wait_for(|count| ready.nonce < *count).await?;
        // The count may be ahead of the receipts.
        while !rpc.is_mined(&ready.hash).await? {
            tokio::time::sleep(POLL).await;
        }
        fired.settled += 1;
        fired.micros.push(u64::try_from(begun.elapsed().as_micros())?);
        fired.transactions.push(ready.hash.to_string());
    }
    Ok(fired)
}

/// Tells how many transactions of an account were mined: one question for all slots, because a node that
/// is asked for every receipt over and over has less time to mine.
async fn keep_counting(rpc: Rpc, account: Address, mined: watch::Sender<u64>) -> Result<()> {
    loop {
        mined.send_replace(rpc.mined_nonce(account).await?);
        tokio::time::sleep(POLL).await;
    }
}
