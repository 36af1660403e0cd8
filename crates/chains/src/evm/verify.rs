//! What a chain says of a payment that is good by itself: nonce, balance, allowance, simulation.

use alloy_primitives::{Address, U256};
use farebox_protocol::wire::VerifyRequest;
use farebox_protocol::{Amount, Reason, Timestamp};
use serde_json::{Value, json};

use super::abi;
use super::address::EvmAddress;
use super::chain::Chain;
use super::check::{self, EvmPayment, Refusal};
use super::method::ContractCall;
use super::permit2::revert_name;
use super::sponsoring::Sponsoring;
use super::wallets::{Wallet, Word, refusal_of};
use crate::facilitator::Verification;
use crate::rpc::{Answer, Call, NodeError, RpcError, garbage, one_word, quantity, word};

/// What a chain says, as of its latest block.
#[derive(Debug)]
pub(crate) struct Standing {
    /// What the payer's contract says of the signature, where one must be asked.
    pub(crate) word: Option<Word>,
    /// Whether the nonce was used or cancelled.
    pub(crate) used: bool,
    /// What the payer holds.
    pub(crate) balance: U256,
    /// What the payer lets the method spend, where it must.
    pub(crate) allowance: Option<U256>,
    /// The calls that could settle it, in the method's order, and what each would do.
    pub(crate) trials: Vec<(ContractCall, Trial)>,
}

/// What a call would do now.
#[derive(Debug)]
pub(crate) enum Trial {
    /// It would run.
    Runs {
        /// On so much gas, where that was asked for.
        gas: Option<u64>,
    },
    /// It would revert.
    Reverts {
        /// The contract's own words.
        why: String,
    },
}

/// How calls are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrialKind {
    /// `eth_call`.
    Simulate,
    /// `eth_estimateGas`: simulates too.
    Estimate,
}

/// As whom, how, and of what kind of payer calls are tried.
pub(crate) struct Manner<'a> {
    /// Who would send them.
    pub(crate) from: Address,
    pub(crate) kind: TrialKind,
    /// The payer's contract, where it must agree.
    pub(crate) wallet: Option<Wallet<'a>>,
}

impl Manner<'_> {
    fn attempt(&self, call: &ContractCall) -> Call {
        match &self.wallet {
            Some(wallet) => wallet.attempt(call, self.from, self.kind),
            None => attempt(call, self.from, self.kind),
        }
    }

    fn read_trial(&self, answer: Answer) -> Result<Trial, RpcError> {
        match &self.wallet {
            Some(wallet) => wallet.read_trial(answer, self.kind),
            None => read_trial(answer, self.kind),
        }
    }
}

/// A call that would settle a payment.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) call: ContractCall,
    /// What it takes, where that was asked for.
    pub(crate) gas: Option<u64>,
}

/// Why a payment cannot be settled as it stands.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is not good.
    Refused(Refusal),
    /// The method may not spend the token yet; nothing else is known to be wrong.
    Allowance(Refusal),
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
    /// Verifies a payment: first by itself, then with one question to the chain; with two where the
    /// payer is a contract.
    pub(crate) async fn verify(
        &self,
        request: &VerifyRequest,
        now: Timestamp,
    ) -> Result<Verification, RpcError> {
        let token = self.token(request.payment_requirements.value());
        let payment = token.and_then(|it| check::check_but_for_wallet(it, request, now));
        let payment = payment.and_then(|it| self.check_own(it));
        let payment = match payment {
            Ok(payment) => payment,
            Err(refusal) => return Ok(invalid(refusal)),
        };
        match self.unless_doubted(&payment, self.verify_on_chain(&payment)).await {
            Ok(collectable) => Ok(Verification::Valid {
                payer: payment.payer().to_string(),
                collectable: Some(collectable),
            }),
            Err(NoStanding::Refused(refusal)) => Ok(invalid(refusal)),
            Err(NoStanding::Rpc(error)) => Err(error),
        }
    }

    /// What depends on who we are and what we saw before: the facilitator that is named, what was
    /// settled at nothing, and what is sponsored here.
    fn check_own(&self, payment: EvmPayment) -> Result<EvmPayment, Refusal> {
        self.check_settler(&payment)?;
        if self.flights.is_unspent(&payment) {
            return Err(unspent(&payment));
        }
        Ok(self.with_own_sponsoring(payment))
    }

    /// The authorisation names one of our signers, or nobody.
    pub(crate) fn check_settler(&self, payment: &EvmPayment) -> Result<(), Refusal> {
        let Some(settler) = payment.authorization.settler else { return Ok(()) };
        if self.signers.of(settler).is_some() {
            return Ok(());
        }
        let found = EvmAddress::from(settler);
        let message = format!("expected the facilitator to be one of ours, found {found}");
        let reason = &payment.method.reasons().facilitator;
        Err(Refusal::of(payment.authorization.payer, reason, message))
    }

    /// The payment without what is not sponsored here.
    pub(crate) fn with_own_sponsoring(&self, mut payment: EvmPayment) -> EvmPayment {
        let (ours, others) = match payment.sponsoring {
            Some(sponsoring) if !self.sponsors(&sponsoring) => (None, Some(sponsoring.extension())),
            ours => (ours, None),
        };
        (payment.sponsoring, payment.unsponsored) = (ours, others);
        payment
    }

    async fn verify_on_chain(&self, payment: &EvmPayment) -> Result<Amount, NoStanding> {
        if let Some(missing) = self.missing_contract(payment.method).await? {
            let message = format!("expected a contract {missing} on {}", self.network());
            let reason = &payment.method.reasons().no_contract;
            let refusal = Refusal::of(payment.authorization.payer, reason, message);
            return Err(NoStanding::Refused(refusal));
        }
        let _place = self.wallets.place(payment).await;
        let wallet = self.wallet_of(payment).await?;
        let from = payment.authorization.settler.unwrap_or_else(|| self.signers.simulated());
        let manner = Manner { from, kind: TrialKind::Simulate, wallet };
        let standing = self.standing(payment, &manner).await?;
        let collectable = collectable(payment, standing.balance, standing.allowance);
        match (judge(payment, standing), &payment.sponsoring) {
            (Ok(_), _) => Ok(collectable),
            (Err(Fault::Allowance(_)), Some(Sponsoring::Approval(approval))) => {
                self.check_new_approval(payment, approval).await.map(|()| collectable)
            }
            (Err(Fault::Refused(refusal) | Fault::Allowance(refusal)), _) => {
                Err(NoStanding::Refused(refusal))
            }
        }
    }

    /// The most that can be collected of the payer in this way, as of the latest block.
    pub(crate) async fn collectable(&self, payment: &EvmPayment) -> Result<Amount, RpcError> {
        let it = &payment.authorization;
        let mut calls = vec![ask(&abi::balance_of(it.token, it.payer))];
        calls.extend(payment.method.allowance_query(it).iter().map(ask));
        let mut answers = self.rpc().batch(&calls).await?.into_iter();
        let balance = read_word(answers.next().ok_or(RpcError::NoEndpoint)?)?;
        let allowance = answers.next().map(read_word).transpose()?;
        Ok(collectable(payment, balance, allowance))
    }

    /// One question instead of many, for the usual case: a call that runs on the usual gas uses a good
    /// nonce and moves what is there. `None`: it takes a closer look, as contracts' payments always do.
    pub(crate) async fn stand_as_usual(
        &self,
        payment: &EvmPayment,
        from: Address,
    ) -> Option<Ready> {
        if payment.signed_by.wallet().is_some() {
            return None;
        }
        let call = payment.method.settle_calls(payment).into_iter().next()?;
        let gas = self.usual_gas.of(&call)?;
        let with_gas = json!({
            "from": from, "to": call.to, "data": call.input, "gas": format!("{gas:#x}"),
        });
        let answer = self.rpc().call("eth_call", json!([with_gas, "latest"])).await;
        answer.is_ok().then_some(Ready { call, gas: Some(gas) })
    }

    /// The wallet's word, nonce, balance, allowance and trials in one batch.
    pub(crate) async fn standing(
        &self,
        payment: &EvmPayment,
        manner: &Manner<'_>,
    ) -> Result<Standing, NoStanding> {
        let it = &payment.authorization;
        let allowance = payment.method.allowance_query(it);
        let ways = payment.method.settle_calls(payment);
        let question = manner.wallet.as_ref().map(|it| it.question(payment, manner.from));
        let mut calls: Vec<Call> = question.into_iter().collect();
        calls.push(ask(&payment.method.use_query(it)));
        calls.push(ask(&abi::balance_of(it.token, it.payer)));
        calls.extend(allowance.iter().map(ask));
        calls.extend(ways.iter().map(|way| manner.attempt(way)));
        let mut answers = self.rpc().batch(&calls).await?.into_iter();
        let mut next = || answers.next().ok_or(RpcError::NoEndpoint);
        let word = match &manner.wallet {
            Some(wallet) => Some(wallet.read_word(next()?)?),
            None => None,
        };
        let used = read_used(payment, next()?)?;
        let balance = read_word(next()?)?;
        let allowance = match allowance {
            Some(_) => Some(read_word(next()?)?),
            None => None,
        };
        let mut trials = Vec::with_capacity(ways.len());
        for way in ways {
            trials.push((way, manner.read_trial(next()?)?));
        }
        Ok(Standing { word, used, balance, allowance, trials })
    }
}

/// A read of the latest state.
pub(crate) fn ask(call: &ContractCall) -> Call {
    Call::new("eth_call", json!([{"to": call.to, "data": call.input}, "latest"]))
}

/// A call as if it were sent by `from`.
pub(crate) fn attempt(call: &ContractCall, from: Address, kind: TrialKind) -> Call {
    let method = match kind {
        TrialKind::Simulate => "eth_call",
        TrialKind::Estimate => "eth_estimateGas",
    };
    Call::new(method, json!([{"from": from, "to": call.to, "data": call.input}, "latest"]))
}

/// The first call that would settle a payment that stands so, or why there is none, by the specified
/// order.
pub(crate) fn judge(payment: &EvmPayment, standing: Standing) -> Result<Ready, Fault> {
    let (payer, reasons) = (payment.authorization.payer, payment.method.reasons());
    let refused = |reason, message| Err(Fault::Refused(Refusal::of(payer, reason, message)));
    if let Some(refusal) = standing.word.and_then(|it| refusal_of(payment, it)) {
        return Err(Fault::Refused(refusal));
    }
    if standing.used {
        let nonce = payment.authorization.nonce;
        return refused(&reasons.used, format!("expected an unused nonce, found {nonce} used"));
    }
    let needed = payment.amount;
    if standing.balance < U256::from(needed.units()) {
        let found = standing.balance;
        let message = format!("expected a balance of at least {needed}, found {found}");
        return refused(&reasons.balance, message);
    }
    let mut reverted = String::from("no call is known");
    for (call, trial) in standing.trials {
        match trial {
            Trial::Runs { gas } => return Ok(Ready { call, gas }),
            Trial::Reverts { why } => reverted = why,
        }
    }
    if let Some(found) = standing.allowance.filter(|it| *it < U256::from(needed.units())) {
        let message =
            format!("expected an allowance for Permit2 of at least {needed}, found {found}");
        let reason = &Reason::Permit2AllowanceRequired;
        return Err(Fault::Allowance(Refusal::of(payer, reason, message)));
    }
    let message = format!("expected the transfer to run, found that it reverts: {reverted}");
    refused(&reasons.simulation, message)
}

/// A payment that was settled at nothing: nothing of it can be charged any more.
pub(crate) fn unspent(payment: &EvmPayment) -> Refusal {
    let message = "expected an unused authorisation, found one that was settled at nothing".into();
    Refusal::of(payment.authorization.payer, &payment.method.reasons().used, message)
}

fn read_used(payment: &EvmPayment, answer: Answer) -> Result<bool, NoStanding> {
    let it = &payment.authorization;
    let reasons = payment.method.reasons();
    let keeper = EvmAddress::from(payment.method.nonce_keeper(it.token));
    let state = match answer {
        Ok(value) => word(&value)?,
        Err(error) if is_revert(&error) => {
            let found = revert_of(&error);
            let message = format!("expected {keeper} to tell of its nonces, found {found}");
            let refusal = Refusal::of(it.payer, &reasons.not_supported, message);
            return Err(NoStanding::Refused(refusal));
        }
        Err(error) => return Err(RpcError::Node { method: "eth_call", error }.into()),
    };
    let Some(state) = state else {
        let message = format!("expected a contract at {keeper}, found none");
        return Err(NoStanding::Refused(Refusal::of(it.payer, &reasons.no_contract, message)));
    };
    let odd = || garbage("something that says nothing of a nonce");
    payment.method.is_used(it, state).ok_or_else(|| odd().into())
}

/// A number that the token says.
fn read_word(answer: Answer) -> Result<U256, RpcError> {
    let value = answer.map_err(|error| RpcError::Node { method: "eth_call", error })?;
    Ok(U256::from_be_bytes(one_word(&value)?.0))
}

pub(crate) fn read_trial(answer: Answer, kind: TrialKind) -> Result<Trial, RpcError> {
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
pub(crate) fn is_revert(error: &NodeError) -> bool {
    let words = error.message.to_ascii_lowercase();
    let said = [
        "revert",
        "invalid opcode",
        "out of gas",
        "outofgas",
        "gas required exceeds",
        "stack underflow",
        "evm error",
    ];
    error.code == 3 || said.iter().any(|it| words.contains(it))
}

/// The contract's own words where there are any, else the node's.
fn revert_of(error: &NodeError) -> String {
    let data = error.data.as_ref();
    let data = data.and_then(|it| it.as_str().or_else(|| it.get("data").and_then(Value::as_str)));
    let bytes = data.and_then(|it| hex::decode(it.strip_prefix("0x").unwrap_or(it)).ok());
    let text = bytes.and_then(|it| {
        let named = || revert_name(&it).map(str::to_owned);
        abi::revert_text(&it).or_else(named)
    });
    text.unwrap_or_else(|| error.shown())
}

/// The most that can be collected of a payer who has so much and lets the method move so much of it.
/// Where that does not cover the payment, what the payer signed besides takes its place: a permit sets an
/// allowance and does not add to it, so several payments that come with one share what it allows (attack
/// A5).
fn collectable(payment: &EvmPayment, balance: U256, allowance: Option<U256>) -> Amount {
    let needed = U256::from(payment.amount.units());
    let allowed = match (allowance, &payment.sponsoring) {
        (None, _) => U256::MAX,
        (Some(allowance), Some(sponsoring)) if allowance < needed => sponsoring.allows(),
        (Some(allowance), _) => allowance,
    };
    // More than can be told apart is the most that can.
    u128::try_from(balance.min(allowed)).map_or(Amount::MAX, Amount::from_units)
}

pub(crate) fn invalid(refusal: Refusal) -> Verification {
    let Refusal { reason, message, payer } = refusal;
    Verification::Invalid { reason, message, payer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evm::check::tests::payment;

    #[test]
    fn the_cheapest_call_that_runs_is_taken() {
        let payment = payment();
        let call = |byte| ContractCall { to: Address::repeat_byte(byte), input: [].into() };
        let runs = |gas| Trial::Runs { gas: Some(gas) };
        let reverts = || Trial::Reverts { why: "TRANSFER_FROM_FAILED".to_owned() };
        let with = |allowance: Option<u64>, trials| Standing {
            word: None,
            used: false,
            balance: U256::MAX,
            allowance: allowance.map(U256::from),
            trials,
        };
        let both = vec![(call(1), runs(7)), (call(2), runs(8))];
        let ready = judge(&payment, with(None, both)).unwrap();
        assert_eq!((ready.call, ready.gas), (call(1), Some(7)));
        let second = vec![(call(1), reverts()), (call(2), runs(8))];
        assert_eq!(judge(&payment, with(Some(0), second)).unwrap().call, call(2));
        let none = || vec![(call(1), reverts())];
        assert!(matches!(judge(&payment, with(Some(999), none())), Err(Fault::Allowance(_))));
        assert!(matches!(judge(&payment, with(Some(1_000), none())), Err(Fault::Refused(_))));
        assert!(matches!(judge(&payment, with(None, none())), Err(Fault::Refused(_))));
    }
}
