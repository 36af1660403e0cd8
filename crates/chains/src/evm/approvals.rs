//! Sending payers' own approvals of Permit2, and giving them the gas money that takes.
//!
//! Source: x402, extension `erc20ApprovalGasSponsoring`. The specified bundle of funding, approval and
//! settlement is atomic only where a node takes bundles. Here they follow one another, so that a payer
//! may take the money and use the approval's number otherwise: what one payer is ever given is capped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::{Address, Bytes, U256};
use farebox_protocol::Reason;
use serde_json::json;

use super::address::EvmAddress;
use super::broadcast::NotSent;
use super::chain::Chain;
use super::check::{EvmPayment, Refusal};
use super::fees::NoFees;
use super::method::ContractCall;
use super::signers::Signer;
use super::sponsoring::{SignedApproval, Sponsoring};
use super::tracker::{Fate, receipt_call};
use super::transaction::Draft;
use super::verify::{NoStanding, Trial, TrialKind, attempt, read_trial};
use crate::config::PermitSponsoring;
use crate::rpc::{Answer, Call, Receipt, RpcError, Sent, one_word, quantity};

/// No approval takes more gas; official clients sign for 70 000.
const GAS_MAX: u64 = 200_000;
/// What a transfer of ether may take: payers' accounts may have code (EIP-7702).
const FUNDING_GAS: u64 = 50_000;
/// How many payers are remembered for what they were given.
const PAYERS_MAX: usize = 65_536;

/// What payers were given, and the turn of the next one.
#[derive(Debug, Default)]
pub(crate) struct Approvals {
    /// One approval at a time: two payments of a payer come with the same one.
    turn: tokio::sync::Mutex<()>,
    /// In wei, by payer.
    granted: Mutex<HashMap<Address, U256>>,
}

impl Approvals {
    /// What a payer may still be given.
    fn left(&self, payer: Address, cap: u128) -> U256 {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if PAYERS_MAX <= granted.len() && !granted.contains_key(&payer) {
            return U256::ZERO;
        }
        U256::from(cap).saturating_sub(granted.get(&payer).copied().unwrap_or_default())
    }

    fn grant(&self, payer: Address, wei: U256) {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = granted.entry(payer).or_default();
        *sum = sum.saturating_add(wei);
    }
}

impl Chain {
    /// Whether we do what the payer sent this for.
    pub(crate) fn sponsors(&self, sponsoring: &Sponsoring) -> bool {
        let config = &self.config().sponsoring;
        match sponsoring {
            Sponsoring::Permit(_) => config.permits == PermitSponsoring::Submitted,
            Sponsoring::Approval(_) => config.approval_grant_max_wei.is_some(),
        }
    }

    /// What the payer must be given so that its approval can be mined, in wei; or why that cannot be.
    pub(crate) async fn check_approval(
        &self,
        payment: &EvmPayment,
        approval: &SignedApproval,
    ) -> Result<U256, NoStanding> {
        let it = &payment.authorization;
        let refuse = |reason: &Reason, message: String| {
            let message = format!("the sponsored approval: expected {message}");
            Err(NoStanding::Refused(Refusal::of(it.payer, reason, message)))
        };
        let failed = &Reason::Erc20ApprovalTxFailed;
        let approve = ContractCall { to: it.token, input: approval.input.clone() };
        let calls = [
            Call::new("eth_getTransactionCount", json!([it.payer, "latest"])),
            Call::new("eth_getBalance", json!([it.payer, "latest"])),
            attempt(&approve, it.payer, TrialKind::Simulate),
        ];
        let answers: Result<[Answer; 3], _> = self.rpc().batch(&calls).await?.try_into();
        let Ok([count, balance, trial]) = answers else { return Err(RpcError::NoEndpoint.into()) };
        let said = |answer: Answer, call: &Call| {
            answer.map_err(|error| RpcError::Node { method: call.method, error })
        };
        let [ask_count, ask_balance, _] = &calls;
        let count: u64 = quantity(&said(count, ask_count)?)?;
        let balance: U256 = quantity(&said(balance, ask_balance)?)?;
        if count != approval.nonce {
            let found = approval.nonce;
            return refuse(failed, format!("the payer's next number {count}, found {found}"));
        }
        if GAS_MAX < approval.gas_limit {
            return refuse(failed, format!("at most {GAS_MAX} gas, found {}", approval.gas_limit));
        }
        if let Trial::Reverts { why } = read_trial(trial, TrialKind::Simulate)? {
            return refuse(failed, format!("it to run, found that it reverts: {why}"));
        }
        let base = match self.fees.current().await {
            Ok(fees) => fees.base,
            Err(NoFees::Rpc(error)) => return Err(error.into()),
            Err(error @ NoFees::TooDear { .. }) => return refuse(failed, error.to_string()),
        };
        if approval.gas_price_max < base || approval.gas_price_max < approval.tip_max {
            let found = approval.gas_price_max;
            return refuse(failed, format!("at least {base} wei for gas, found {found}"));
        }
        let missing = approval.cost_max().saturating_sub(balance);
        let cap = self.config().sponsoring.approval_grant_max_wei.unwrap_or_default();
        if self.approvals.left(it.payer, cap) < missing {
            let message = format!("gas that costs what is sponsored, found {missing} wei missing");
            return refuse(&Reason::Permit2AllowanceRequired, message);
        }
        Ok(missing)
    }

    /// Gives the payer what its approval needs, sends it and waits for it. The gas money is lost if
    /// the payer is faster with another transaction.
    pub(super) async fn carry_out_approval(
        &self,
        payment: &EvmPayment,
        approval: &SignedApproval,
        signer: &Arc<Signer>,
    ) -> Result<(), NoApproval> {
        let _turn = self.approvals.turn.lock().await;
        if self.is_allowed(payment).await? {
            return Ok(());
        }
        let missing = self.check_approval(payment, approval).await?;
        if !missing.is_zero() {
            self.fund(payment.authorization.payer, missing, signer).await?;
        }
        match self.rpc().send_raw(&approval.raw).await {
            Sent::Accepted => {}
            Sent::Unknown(error) => {
                tracing::warn!(transaction = %approval.hash, %error, "an approval may have been sent");
            }
            Sent::Refused(error) => return Err(NotSent::Approval(error.to_string()).into()),
            Sent::NonceTaken(error) | Sent::NonceTooHigh(error) => {
                return Err(NotSent::Approval(error.shown()).into());
            }
        }
        self.await_approval(approval).await
    }

    /// Whether Permit2 may move what is to be moved.
    async fn is_allowed(&self, payment: &EvmPayment) -> Result<bool, RpcError> {
        let query = payment.method.allowance_query(&payment.authorization);
        let Some(query) = query else { return Ok(true) };
        let call = super::verify::ask(&query);
        let found = self.rpc().call(call.method, call.params).await?;
        Ok(U256::from(payment.amount.units()) <= U256::from_be_bytes(one_word(&found)?.0))
    }

    async fn fund(&self, payer: Address, wei: U256, signer: &Arc<Signer>) -> Result<(), NotSent> {
        let fees = self.fees.current().await?;
        let draft = Draft {
            chain_id: self.chain_id(),
            to: payer,
            input: Bytes::new(),
            gas: FUNDING_GAS,
            value: wei,
        };
        // Counted before it leaves: what may have been given was.
        self.approvals.grant(payer, wei);
        tracing::info!(payer = %EvmAddress::from(payer), %wei, "giving gas money for an approval");
        let departed = self.depart(signer, draft, fees, &|_| {}).await?;
        let fate = tokio::time::timeout(self.config().settle_wait, departed.fate).await;
        match fate {
            Ok(Ok(Fate::Mined(receipt))) if receipt.succeeded() => Ok(()),
            Ok(Ok(_) | Err(_)) | Err(_) => {
                Err(NotSent::Approval("the payer's gas money did not arrive in time".to_owned()))
            }
        }
    }

    async fn await_approval(&self, approval: &SignedApproval) -> Result<(), NoApproval> {
        let look = async {
            loop {
                let call = receipt_call(&approval.hash);
                let answer = self.rpc().call(call.method, call.params).await;
                if let Ok(Some(receipt)) = answer.and_then(Receipt::read) {
                    return receipt;
                }
                tokio::time::sleep(self.tracker.poll_interval()).await;
            }
        };
        match tokio::time::timeout(self.config().settle_wait, look).await {
            Ok(receipt) if receipt.succeeded() => Ok(()),
            Ok(_) => Err(NotSent::Approval("the approval was mined and failed".to_owned()).into()),
            Err(_) => {
                Err(NotSent::Approval("the approval was not mined in time".to_owned()).into())
            }
        }
    }
}

/// Permit2 did not get its allowance.
#[derive(Debug)]
pub(super) enum NoApproval {
    /// It never will by this approval.
    Refused(Refusal),
    /// It may later.
    NotSent(NotSent),
}

impl From<NotSent> for NoApproval {
    fn from(error: NotSent) -> Self {
        Self::NotSent(error)
    }
}

impl From<RpcError> for NoApproval {
    fn from(error: RpcError) -> Self {
        Self::NotSent(NotSent::Approval(error.to_string()))
    }
}

impl From<NoStanding> for NoApproval {
    fn from(error: NoStanding) -> Self {
        match error {
            NoStanding::Refused(refusal) => Self::Refused(refusal),
            NoStanding::Rpc(error) => error.into(),
        }
    }
}
