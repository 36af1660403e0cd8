//! Sending payers' own approvals of Permit2, and giving them the gas money that takes.
//!
//! Source: x402, extension `erc20ApprovalGasSponsoring`. The specified bundle of funding, approval and
//! settlement is atomic only where a node takes bundles. Here they follow one another, so that a payer
//! may take the money and use the approval's number otherwise: what one payer is ever given is capped, and
//! what all are, and so is the price of gas that a payer can ask to be given.

use std::sync::Arc;

use alloy_primitives::{Address, Bytes, U256};
use farebox_protocol::Reason;
use serde_json::json;

use super::address::EvmAddress;
use super::broadcast::NotSent;
use super::chain::Chain;
use super::check::{EvmPayment, Refusal};
use super::fees::{Fees, NoFees};
use super::grants::Grants;
use super::method::ContractCall;
use super::signers::Signer;
use super::sponsoring::{SignedApproval, Sponsoring};
use super::tracker::{Fate, receipt_call};
use super::transaction::{Cargo, Draft};
use super::turns::Turns;
use super::verify::{NoStanding, Trial, TrialKind, attempt, read_trial};
use crate::config::{ApprovalGrants, PermitSponsoring};
use crate::rpc::{Answer, Call, Receipt, RpcError, Sent, one_word, quantity};

/// No approval takes more gas; official clients sign for 70 000.
const GAS_MAX: u64 = 200_000;
/// What a transfer of ether may take: payers' accounts may have code (EIP-7702).
const FUNDING_GAS: u64 = 50_000;
/// What official clients offer for a unit of gas where they do not ask for its price, in wei.
const USUAL_OFFER_WEI: u128 = 1_000_000_000;

/// What payers were given, and whose approvals are being carried out.
#[derive(Debug, Default)]
pub(crate) struct Approvals {
    grants: Grants,
    /// Two payments of a payer come with the same approval.
    turns: Turns,
}

impl Chain {
    /// Whether we do what the payer sent this for.
    pub(crate) fn sponsors(&self, sponsoring: &Sponsoring) -> bool {
        let config = &self.config().sponsoring;
        match sponsoring {
            Sponsoring::Permit(_) => config.permits == PermitSponsoring::Submitted,
            Sponsoring::Approval(_) => config.approvals.is_some(),
        }
    }

    /// Whether an approval could be carried out for a payment that is not taken yet.
    pub(crate) async fn check_new_approval(
        &self,
        payment: &EvmPayment,
        approval: &SignedApproval,
    ) -> Result<(), NoStanding> {
        match self.check_approval(payment, approval).await {
            Ok(_) => Ok(()),
            Err(Unfit::Never(refusal) | Unfit::Now(refusal)) => Err(NoStanding::Refused(refusal)),
            Err(Unfit::Rpc(error)) => Err(NoStanding::Rpc(error)),
        }
    }

    fn grant_caps(&self) -> ApprovalGrants {
        self.config().sponsoring.approvals.unwrap_or(ApprovalGrants::NONE)
    }

    /// What the payer must be given so that its approval can be mined, in wei; or why that cannot be.
    async fn check_approval(
        &self,
        payment: &EvmPayment,
        approval: &SignedApproval,
    ) -> Result<U256, Unfit> {
        let it = &payment.authorization;
        let refusal = |reason: &Reason, message: String| {
            let message = format!("the sponsored approval: expected {message}");
            Refusal::of(it.payer, reason, message)
        };
        let failed = |message: String| refusal(&Reason::Erc20ApprovalTxFailed, message);
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
            let refusal = failed(format!("the payer's next number {count}, found {found}"));
            // A number that was used is never the next one again.
            return Err(if found < count { Unfit::Never(refusal) } else { Unfit::Now(refusal) });
        }
        if GAS_MAX < approval.gas_limit {
            let found = approval.gas_limit;
            return Err(Unfit::Never(failed(format!("at most {GAS_MAX} gas, found {found}"))));
        }
        if let Trial::Reverts { why } = read_trial(trial, TrialKind::Simulate)? {
            let refusal = failed(format!("it to run, found that it reverts: {why}"));
            return Err(Unfit::Now(refusal));
        }
        let fees = match self.fees.current().await {
            Ok(fees) => fees,
            Err(NoFees::Rpc(error)) => return Err(error.into()),
            Err(error @ NoFees::TooDear { .. }) => {
                return Err(Unfit::Now(failed(format!("cheaper gas: {error}"))));
            }
        };
        let (least, most, found) = (fees.base, dear_gas(fees), approval.gas_price_max);
        if found < least || most < found || found < approval.tip_max {
            let message = format!("an offer of {least} to {most} wei for gas, found {found}");
            return Err(Unfit::Now(failed(message)));
        }
        let missing = approval.cost_max().saturating_sub(balance);
        match self.approvals.grants.check(it.payer, missing, self.grant_caps()) {
            Ok(()) => Ok(missing),
            Err(why) => {
                let message = format!("{why}, found {missing} wei missing");
                Err(Unfit::Now(refusal(&Reason::Permit2AllowanceRequired, message)))
            }
        }
    }

    /// Gives the payer what its approval needs, sends it and waits for it. The gas money is lost if
    /// the payer is faster with another transaction.
    pub(super) async fn carry_out_approval(
        &self,
        payment: &EvmPayment,
        approval: &SignedApproval,
        signer: &Arc<Signer>,
    ) -> Result<(), NoApproval> {
        let payer = payment.authorization.payer;
        let turn = self.approvals.turns.take_within(payer, self.config().settle_wait).await;
        let busy = "another of the same payer is under way";
        let _turn = turn.ok_or_else(|| NotSent::Approval(busy.to_owned()))?;
        if self.is_allowed(payment).await? {
            return Ok(());
        }
        let missing = self.check_approval(payment, approval).await?;
        if !missing.is_zero() {
            self.fund(payer, missing, signer).await?;
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
            cargo: Cargo::default(),
        };
        // Counted before it leaves: what may have been given was.
        let given = self.approvals.grants.give(payer, wei, self.grant_caps());
        given
            .map_err(|why| NotSent::Approval(format!("expected {why}, found {wei} wei missing")))?;
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

/// The most that an approval may offer for a unit of gas: a payer who offers more asks for the difference.
/// Clients offer up to twice the base fee and a tip, which may have fallen since, or what they always do.
fn dear_gas(fees: Fees) -> u128 {
    let price = fees.base.saturating_add(fees.tip);
    price.saturating_mul(5).saturating_div(2).max(USUAL_OFFER_WEI)
}

/// Why an approval cannot be carried out.
#[derive(Debug)]
enum Unfit {
    /// It never can be.
    Never(Refusal),
    /// It cannot be now: for what gas costs, for what is left to be given.
    Now(Refusal),
    /// The chain could not be asked.
    Rpc(RpcError),
}

impl From<RpcError> for Unfit {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

/// Permit2 did not get its allowance.
#[derive(Debug)]
pub(super) enum NoApproval {
    /// It never will by this approval.
    Refused(Refusal),
    /// It may later, once something else has changed.
    NotNow(Refusal),
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

impl From<Unfit> for NoApproval {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Never(refusal) => Self::Refused(refusal),
            Unfit::Now(refusal) => Self::NotNow(refusal),
            Unfit::Rpc(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gas_is_dear_above_what_clients_offer() {
        let fees = |base, tip| Fees { base, max: 0, tip, cap: 0 };
        assert_eq!(dear_gas(fees(10_000_000_000, 2_000_000_000)), 30_000_000_000);
        assert_eq!(dear_gas(fees(5_000_000, 1_000_000)), USUAL_OFFER_WEI);
    }
}
