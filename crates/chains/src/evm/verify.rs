//! What a chain says of a payment that is good by itself: nonce, balance, simulation.

use alloy_primitives::{Address, B256, Bytes, U256};
use farebox_protocol::wire::VerifyRequest;
use farebox_protocol::{Amount, Reason, Timestamp};
use serde_json::{Value, json};

use super::abi;
use super::chain::Chain;
use super::check::{self, ExactPayment, Refusal, refusal_of};
use crate::facilitator::Verification;
use crate::rpc::{Answer, Call, NodeError, RpcError, one_word, quantity, word};

/// What a chain says, as of its latest block.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Whether the nonce was used or cancelled.
    pub(crate) used: bool,
    /// What the payer holds.
    pub(crate) balance: U256,
    /// What the transfer would do: the gas that it takes where that was asked for, or why it would
    /// revert.
    pub(crate) trial: Trial,
}

/// What the transfer would do now.
#[derive(Debug)]
pub(crate) enum Trial {
    /// It would run.
    Runs {
        /// On so much gas, where that was asked for.
        gas: Option<u64>,
    },
    /// It would revert.
    Reverts {
        /// The token's own words.
        why: String,
    },
}

/// How the transfer is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrialKind {
    /// `eth_call`.
    Simulate,
    /// `eth_estimateGas`: simulates too.
    Estimate,
}

/// A chain could not say how a payment stands, or says that this is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoStanding {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl Chain {
    /// Verifies a payment: first by itself, then with one question to the chain.
    pub(crate) async fn verify(
        &self,
        request: &VerifyRequest,
        now: Timestamp,
    ) -> Result<Verification, RpcError> {
        let token = self.token(request.payment_requirements.value());
        let payment = match token.and_then(|it| check::check_exact(it, request, now)) {
            Ok(payment) => payment,
            Err(refusal) => return Ok(invalid(refusal)),
        };
        let from = self.signers.simulated();
        match self.standing(&payment, from, TrialKind::Simulate).await {
            Ok(standing) => Ok(match judge(&payment, &standing) {
                Some(refusal) => invalid(refusal),
                None => Verification::Valid {
                    payer: payment.payer().to_string(),
                    balance: Some(amount(standing.balance)),
                },
            }),
            Err(NoStanding::Refused(refusal)) => Ok(invalid(refusal)),
            Err(NoStanding::Rpc(error)) => Err(error),
        }
    }

    /// What the payer holds, as of the latest block.
    pub(crate) async fn balance(&self, payment: &ExactPayment) -> Result<Amount, RpcError> {
        let call = abi::balance_of(payment.authorization.from);
        let call = call_of(payment, call, None, "eth_call");
        let balance = self.rpc().call(call.method, call.params).await?;
        Ok(amount(U256::from_be_bytes(one_word(&balance)?.0)))
    }

    /// Nonce, balance and trial in one batch.
    pub(crate) async fn standing(
        &self,
        payment: &ExactPayment,
        from: Address,
        kind: TrialKind,
    ) -> Result<Standing, NoStanding> {
        let it = &payment.authorization;
        let transfer = abi::transfer_with_authorization(payment);
        let trial = match kind {
            TrialKind::Simulate => call_of(payment, transfer, Some(from), "eth_call"),
            TrialKind::Estimate => call_of(payment, transfer, Some(from), "eth_estimateGas"),
        };
        let state = abi::authorization_state(it.from, it.nonce);
        let calls = [
            call_of(payment, state, None, "eth_call"),
            call_of(payment, abi::balance_of(it.from), None, "eth_call"),
            trial,
        ];
        let answers: [Answer; 3] = match self.rpc().batch(&calls).await?.try_into() {
            Ok(answers) => answers,
            Err(_) => return Err(RpcError::NoEndpoint.into()),
        };
        let [state, balance, trial] = answers;
        let used = read_used(payment, state)?;
        let balance = balance.map_err(|error| RpcError::Node { method: "eth_call", error })?;
        let balance = U256::from_be_bytes(one_word(&balance)?.0);
        Ok(Standing { used, balance, trial: read_trial(trial, kind)? })
    }
}

fn call_of(
    payment: &ExactPayment,
    data: Bytes,
    from: Option<Address>,
    method: &'static str,
) -> Call {
    let to = payment.token.address().alloy();
    let call = match from {
        Some(from) => json!({"from": from, "to": to, "data": data}),
        None => json!({"to": to, "data": data}),
    };
    Call::new(method, json!([call, "latest"]))
}

/// Why a payment that stands so is not good, by the specified order; `None`: it is.
pub(crate) fn judge(payment: &ExactPayment, standing: &Standing) -> Option<Refusal> {
    let payer = payment.authorization.from;
    if standing.used {
        let message =
            format!("expected an unused nonce, found {} used", payment.authorization.nonce);
        return Some(refusal_of(payer, Reason::InvalidExactEvmNonceAlreadyUsed, message));
    }
    let value = payment.authorization.value;
    if standing.balance < U256::from(value.units()) {
        let message = format!("expected a balance of at least {value}, found {}", standing.balance);
        return Some(refusal_of(payer, Reason::InvalidExactEvmInsufficientBalance, message));
    }
    if let Trial::Reverts { why } = &standing.trial {
        let message = format!("expected the transfer to run, found that it reverts: {why}");
        return Some(refusal_of(
            payer,
            Reason::InvalidExactEvmTransactionSimulationFailed,
            message,
        ));
    }
    None
}

fn read_used(payment: &ExactPayment, answer: Answer) -> Result<bool, NoStanding> {
    let payer = payment.authorization.from;
    let token = payment.token.address();
    let state = match answer {
        Ok(value) => word(&value)?,
        Err(error) if is_revert(&error) => {
            let message = format!("expected {token} to have EIP-3009, found {}", revert_of(&error));
            let reason = Reason::InvalidExactEvmEip3009NotSupported;
            return Err(NoStanding::Refused(refusal_of(payer, reason, message)));
        }
        Err(error) => return Err(RpcError::Node { method: "eth_call", error }.into()),
    };
    let Some(state) = state else {
        let message = format!("expected a contract at {token}, found none");
        let refusal = refusal_of(payer, Reason::AssetNotDeployedContract, message);
        return Err(NoStanding::Refused(refusal));
    };
    Ok(state != B256::ZERO)
}

fn read_trial(answer: Answer, kind: TrialKind) -> Result<Trial, RpcError> {
    match (answer, kind) {
        (Ok(_), TrialKind::Simulate) => Ok(Trial::Runs { gas: None }),
        (Ok(value), TrialKind::Estimate) => Ok(Trial::Runs { gas: Some(quantity(&value)?) }),
        (Err(error), _) if is_revert(&error) => Ok(Trial::Reverts { why: revert_of(&error) }),
        (Err(error), TrialKind::Simulate) => Err(RpcError::Node { method: "eth_call", error }),
        (Err(error), TrialKind::Estimate) => {
            Err(RpcError::Node { method: "eth_estimateGas", error })
        }
    }
}

/// Whether a node says that the call itself failed, and not that it could not try.
fn is_revert(error: &NodeError) -> bool {
    let words = error.message.to_ascii_lowercase();
    let said =
        ["revert", "invalid opcode", "out of gas", "gas required exceeds", "stack underflow"];
    error.code == 3 || said.iter().any(|it| words.contains(it))
}

/// The contract's own words where there are any, else the node's.
fn revert_of(error: &NodeError) -> String {
    let data = error.data.as_ref();
    let data = data.and_then(|it| it.as_str().or_else(|| it.get("data").and_then(Value::as_str)));
    let bytes = data.and_then(|it| hex::decode(it.strip_prefix("0x").unwrap_or(it)).ok());
    let text = bytes.and_then(|it| abi::revert_text(&it));
    text.unwrap_or_else(|| error.shown())
}

/// A balance; more than can be told apart is the most that can.
fn amount(balance: U256) -> Amount {
    u128::try_from(balance).map_or(Amount::MAX, Amount::from_units)
}

pub(crate) fn invalid(refusal: Refusal) -> Verification {
    let Refusal { reason, message, payer } = refusal;
    Verification::Invalid { reason, message, payer }
}
