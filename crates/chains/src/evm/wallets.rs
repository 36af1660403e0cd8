//! Payers that are contracts: is the wallet there, what does it say of its signature, and deploying one
//! that is not there yet.
//!
//! Sources: ERC-1271, ERC-6492; the order of `@x402/evm` 2.27.0. Nothing that a wallet says is believed
//! for longer than until the next question (attack A10): it is asked at verification, asked again with the
//! estimate of the settlement, and the very transaction that is to be sent is tried once more. All of it
//! on bounded gas. What it burns all the same, by changing its mind between that and the block, it burns
//! twice and not again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use farebox_protocol::Reason;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::abi;
use super::address::EvmAddress;
use super::broadcast::NotSent;
use super::chain::Chain;
use super::check::{EvmPayment, Refusal};
use super::deployed::has_code;
use super::doubts::Doubts;
use super::fees::Fees;
use super::method::ContractCall;
use super::rehearsal::{DEPLOYMENT_GAS_MAX, Rehearsed, rehearse};
use super::signed_by::{Deployment, WalletSignature};
use super::signers::Signer;
use super::tracker::Fate;
use super::transaction::{Cargo, Draft};
use super::turns::{Turn, Turns};
use super::verify::{NoStanding, Trial, TrialKind, attempt, is_revert, read_trial};
use crate::rpc::{Answer, Call, RpcError, quantity};

/// The most gas that a wallet may take to say whether it signed, and that a settlement may take whose
/// payer is one. A passkey checked in Solidity takes about 350 000.
pub(crate) const WALLET_GAS_MAX: u64 = 1_000_000;

/// `isValidSignature(bytes32,bytes)`: the question, and as a word the answer "yes".
const IS_VALID_SIGNATURE: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];

/// How many payments of wallets are looked into at a time: they cost more questions than others, so
/// they have a queue of their own.
const QUEUE: usize = 32;
/// After how many transactions that a wallet let fail it is not believed any more …
const STRIKES_MAX: u32 = 2;
/// … and for how long.
const STRIKES_KEPT: Duration = Duration::from_hours(1);
/// How many such wallets are remembered.
const STRUCK_MAX: usize = 65_536;

/// What is known of the wallets of one network.
#[derive(Debug)]
pub(crate) struct Wallets {
    queue: Semaphore,
    /// Transactions that a wallet let fail, and when the last one did.
    strikes: Mutex<HashMap<Address, (u32, Instant)>>,
    /// One deployment of a wallet at a time.
    turns: Turns,
    /// How many deployments were paid for.
    deployments: AtomicU64,
    /// What they did not sign.
    pub(super) doubts: Doubts,
}

impl Default for Wallets {
    fn default() -> Self {
        Self {
            queue: Semaphore::new(QUEUE),
            strikes: Mutex::default(),
            turns: Turns::default(),
            deployments: AtomicU64::new(0),
            doubts: Doubts::default(),
        }
    }
}

impl Wallets {
    /// A place in the queue, which is kept until it is dropped; none is needed for payers' own keys.
    pub(super) async fn place(&self, payment: &EvmPayment) -> Option<SemaphorePermit<'_>> {
        payment.signed_by.wallet()?;
        // It is never closed.
        self.queue.acquire().await.ok()
    }

    /// A transaction failed that this wallet had agreed to.
    pub(super) fn strike(&self, wallet: Address) {
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        if STRUCK_MAX <= strikes.len() {
            strikes.retain(|_, (_, at)| at.elapsed() < STRIKES_KEPT);
        }
        if STRUCK_MAX <= strikes.len() {
            let oldest = strikes.iter().min_by_key(|(_, (_, at))| *at).map(|(wallet, _)| *wallet);
            oldest.and_then(|it| strikes.remove(&it));
        }
        let now = Instant::now();
        let (count, at) = strikes.entry(wallet).or_insert((0, now));
        *count = if at.elapsed() < STRIKES_KEPT { count.saturating_add(1) } else { 1 };
        *at = now;
    }

    fn is_out(&self, wallet: Address) -> bool {
        let strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        let struck = strikes.get(&wallet);
        struck.is_some_and(|(count, at)| STRIKES_MAX <= *count && at.elapsed() < STRIKES_KEPT)
    }
}

/// A payer that is a contract, or will be one.
#[derive(Clone, Copy)]
pub(crate) struct Wallet<'a> {
    signature: &'a WalletSignature,
    /// How it is made, if it is not there.
    pub(crate) missing: Option<&'a Deployment>,
}

/// What a wallet says of its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// That it is its own.
    Signed,
    /// Anything else, or nothing within its gas.
    NotSigned,
    /// There is no wallet to ask: it could not be deployed.
    NotDeployed,
}

impl Wallet<'_> {
    /// The same once it is there.
    pub(super) fn deployed(self) -> Self {
        Self { missing: None, ..self }
    }

    /// The question to the wallet.
    pub(crate) fn question(&self, payment: &EvmPayment, sender: Address) -> Call {
        let (payer, digest) = (payment.authorization.payer, self.signature.digest);
        let input = abi::encode_with_bytes(IS_VALID_SIGNATURE, &[digest], &self.signature.bytes);
        let call = ContractCall { to: payer, input };
        match self.missing {
            Some(deployment) => rehearse(deployment, &call, WALLET_GAS_MAX, sender),
            None => with_gas(&call, Address::ZERO, TrialKind::Simulate),
        }
    }

    /// What it says; whatever the wallet does by itself is an answer, and only the node's own failures
    /// are errors.
    pub(crate) fn read_word(&self, answer: Answer) -> Result<Word, RpcError> {
        let value = match answer {
            Ok(value) => value,
            Err(error) if self.missing.is_none() && is_revert(&error) => {
                return Ok(Word::NotSigned);
            }
            Err(error) => return Err(RpcError::Node { method: "eth_call", error }),
        };
        let yes = B256::right_padding_from(&IS_VALID_SIGNATURE);
        let signed = |yes| if yes { Word::Signed } else { Word::NotSigned };
        if self.missing.is_none() {
            return Ok(signed(value.as_str() == Some(yes.to_string().as_str())));
        }
        let rehearsed = Rehearsed::read(&value)?;
        let says_yes = rehearsed.ran
            && rehearsed.size == U256::from(32)
            && rehearsed.answer.as_slice() == yes.as_slice();
        if !says_yes && !rehearsed.deployed {
            return Ok(Word::NotDeployed);
        }
        Ok(signed(says_yes))
    }

    /// A call that would settle, tried on bounded gas.
    pub(crate) fn attempt(&self, call: &ContractCall, from: Address, kind: TrialKind) -> Call {
        match self.missing {
            Some(deployment) => rehearse(deployment, call, WALLET_GAS_MAX, from),
            None => with_gas(call, from, kind),
        }
    }

    /// What it would do.
    pub(crate) fn read_trial(&self, answer: Answer, kind: TrialKind) -> Result<Trial, RpcError> {
        if self.missing.is_none() {
            return read_trial(answer, kind);
        }
        let value = answer.map_err(|error| RpcError::Node { method: "eth_call", error })?;
        let rehearsed = Rehearsed::read(&value)?;
        if rehearsed.ran {
            return Ok(Trial::Runs { gas: None });
        }
        Ok(Trial::Reverts { why: rehearsed.why() })
    }
}

/// The refusal that a wallet's word means.
pub(crate) fn refusal_of(payment: &EvmPayment, word: Word) -> Option<Refusal> {
    let payer = payment.authorization.payer;
    let wallet = EvmAddress::from(payer);
    match word {
        Word::Signed => None,
        Word::NotSigned => {
            let message = format!(
                "`payload.signature`: expected {wallet} to say by ERC-1271 that it signed, found \
                 another answer, or none within {WALLET_GAS_MAX} gas"
            );
            Some(Refusal::of(payer, &payment.method.reasons().signature, message))
        }
        Word::NotDeployed => Some(not_deployed(payment, "found that its factory reverts")),
    }
}

fn not_deployed(payment: &EvmPayment, found: &str) -> Refusal {
    let payer = payment.authorization.payer;
    let wallet = EvmAddress::from(payer);
    let message = format!("expected {wallet} to be deployed as its signature says, {found}");
    Refusal::of(payer, &Reason::SmartWalletDeploymentFailed, message)
}

fn with_gas(call: &ContractCall, from: Address, kind: TrialKind) -> Call {
    let mut question = attempt(call, from, kind);
    if let Some(request) = question.params.get_mut(0).and_then(Value::as_object_mut) {
        request.insert("gas".to_owned(), json!(format!("{WALLET_GAS_MAX:#x}")));
    }
    question
}

impl Chain {
    /// The payer's contract, if a contract must say whether it signed: there, or to be deployed by a
    /// factory that is trusted. A payer without any did not sign.
    pub(crate) async fn wallet_of<'a>(
        &self,
        payment: &'a EvmPayment,
    ) -> Result<Option<Wallet<'a>>, NoStanding> {
        let Some(signature) = payment.signed_by.wallet() else { return Ok(None) };
        let payer = payment.authorization.payer;
        if self.wallets.is_out(payer) {
            let message = format!(
                "expected a wallet that keeps its word, found {}, which let {STRIKES_MAX} \
                 transactions fail that it had agreed to",
                EvmAddress::from(payer)
            );
            let reason = &payment.method.reasons().simulation;
            return Err(NoStanding::Refused(Refusal::of(payer, reason, message)));
        }
        if self.is_there(payer).await? {
            return Ok(Some(Wallet { signature, missing: None }));
        }
        let Some(deployment) = &signature.deployment else {
            return Err(NoStanding::Refused(payment.not_signed()));
        };
        let factory = EvmAddress::from(deployment.factory);
        if !self.config().smart_wallet_factories.contains(&factory) {
            let message = format!(
                "expected a deployed wallet, or one of a factory that is trusted here, found {factory}"
            );
            let reason = &Reason::Eip6492FactoryNotAllowed;
            return Err(NoStanding::Refused(Refusal::of(payer, reason, message)));
        }
        Ok(Some(Wallet { signature, missing: Some(deployment) }))
    }

    /// Whether the payer's contract, where one must, says that it signed: for what is not tried here, or
    /// settled at nothing.
    pub(crate) async fn ask_wallet(&self, payment: &EvmPayment) -> Result<(), NoStanding> {
        let _place = self.wallets.place(payment).await;
        let Some(wallet) = self.wallet_of(payment).await? else { return Ok(()) };
        let from = payment.authorization.settler.unwrap_or_else(|| self.signers.simulated());
        let answers = self.rpc().batch(&[wallet.question(payment, from)]).await?;
        let word = wallet.read_word(answers.into_iter().next().ok_or(RpcError::NoEndpoint)?)?;
        refusal_of(payment, word).map_or(Ok(()), |it| Err(NoStanding::Refused(it)))
    }

    /// Whether an account has code.
    pub(super) async fn is_there(&self, account: Address) -> Result<bool, RpcError> {
        let code = self.rpc().call("eth_getCode", json!([account, "latest"])).await?;
        Ok(has_code(Some(&code)))
    }

    /// The turn of a payment whose wallet is to be deployed, so that one is deployed once.
    pub(super) async fn turn_of(&self, payment: &EvmPayment) -> Turn {
        self.wallets.turns.take(payment.authorization.payer).await
    }

    /// Deploys a payer's wallet, and waits until the nodes have it: whoever asks again meanwhile finds
    /// this one under way.
    pub(super) async fn deploy(
        &self,
        payment: &EvmPayment,
        deployment: &Deployment,
        signer: &Arc<Signer>,
    ) -> Result<(), NoDeployment> {
        let call = ContractCall { to: deployment.factory, input: deployment.input.clone() };
        let mut estimate = attempt(&call, signer.address(), TrialKind::Estimate);
        if let Some(request) = estimate.params.get_mut(0).and_then(Value::as_object_mut) {
            request.insert("gas".to_owned(), json!(format!("{DEPLOYMENT_GAS_MAX:#x}")));
        }
        let gas: u64 = match self.rpc().call(estimate.method, estimate.params).await {
            Ok(gas) => quantity(&gas)?,
            Err(RpcError::Node { error, .. }) if is_revert(&error) => {
                let found = format!("found that its factory reverts: {}", error.shown());
                return self.deployed_by_others(payment, &found).await;
            }
            Err(error) => return Err(error.into()),
        };
        let fees = self.fees.current().await.map_err(NotSent::from)?;
        let draft = Draft {
            chain_id: self.chain_id(),
            to: call.to,
            input: call.input,
            gas: gas.saturating_add(gas / 4).min(DEPLOYMENT_GAS_MAX),
            value: U256::ZERO,
            cargo: Cargo::default(),
        };
        let payer = payment.authorization.payer;
        let count = self.wallets.deployments.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let (wallet, factory) = (EvmAddress::from(payer), EvmAddress::from(deployment.factory));
        tracing::info!(%wallet, %factory, gas, count, "deploying a payer's wallet");
        let departed = self.depart(signer, draft, fees, &|_| {}).await?;
        match departed.fate.await {
            Ok(Fate::Mined(receipt)) if receipt.succeeded() => {}
            Ok(Fate::Mined(receipt)) => {
                let found = format!("found that {} failed", receipt.transaction_hash);
                let others = self.deployed_by_others(payment, &found).await;
                if matches!(others, Err(NoDeployment::Refused(_))) {
                    self.wallets.strike(payer);
                }
                return others;
            }
            Ok(Fate::Superseded) | Err(_) => {
                return Err(NotSent::Deployment("its transaction was superseded").into());
            }
        }
        // A node may be behind the one that gave the receipt.
        let look = async {
            while !self.is_there(payer).await.unwrap_or(false) {
                tokio::time::sleep(self.tracker.poll_interval()).await;
            }
        };
        if tokio::time::timeout(self.config().settle_wait, look).await.is_err() {
            self.wallets.strike(payer);
            return Err(NotSent::Deployment("its factory made nothing").into());
        }
        Ok(())
    }

    /// Whether somebody else was faster: factories may refuse to make a wallet twice.
    async fn deployed_by_others(
        &self,
        payment: &EvmPayment,
        found: &str,
    ) -> Result<(), NoDeployment> {
        if self.is_there(payment.authorization.payer).await? {
            return Ok(());
        }
        Err(NoDeployment::Refused(not_deployed(payment, found)))
    }

    /// Tries the very transaction that would be sent, with its gas and its price: a wallet may tell a
    /// simulation, which pays no gas, from a transaction.
    pub(super) async fn rehearse_as_sent(
        &self,
        call: &ContractCall,
        gas: u64,
        signer: &Arc<Signer>,
        fees: Fees,
    ) -> Result<Trial, RpcError> {
        let request = json!({
            "from": signer.address(),
            "to": call.to,
            "data": call.input,
            "gas": format!("{gas:#x}"),
            "maxFeePerGas": format!("{:#x}", fees.max),
            "maxPriorityFeePerGas": format!("{:#x}", fees.tip),
        });
        let answers =
            self.rpc().batch(&[Call::new("eth_call", json!([request, "latest"]))]).await?;
        let answer = answers.into_iter().next().ok_or(RpcError::NoEndpoint)?;
        read_trial(answer, TrialKind::Simulate)
    }
}

/// A wallet was not deployed.
#[derive(Debug)]
pub(super) enum NoDeployment {
    /// It never will be by this signature.
    Refused(Refusal),
    /// It may be later.
    NotSent(NotSent),
}

impl From<NotSent> for NoDeployment {
    fn from(error: NotSent) -> Self {
        Self::NotSent(error)
    }
}

impl From<RpcError> for NoDeployment {
    fn from(error: RpcError) -> Self {
        Self::NotSent(NotSent::Wallet(error))
    }
}
