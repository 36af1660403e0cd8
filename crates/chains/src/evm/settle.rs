//! Making a payment final: one transaction for each payment, however often it is asked for.
//!
//! A flight is a task of its own, so a caller that goes away changes nothing. It ends when the
//! outcome is certain; callers wait for it within a bound and learn "unknown" past that.

mod together;

use std::sync::Arc;

use alloy_primitives::{B256, U256};
use farebox_protocol::wire::SettleRequest;
use farebox_protocol::{Reason, Timestamp};
use tokio::sync::watch;

use self::together::Alone;
use super::abi;
use super::approvals::NoApproval;
use super::batches::Slot;
use super::broadcast::{Departed, NotSent};
use super::chain::Chain;
use super::check::{self, EvmPayment, Refusal};
use super::find::Found;
use super::flights::{Join, Nothing, Outcome, Pilot, Progress};
use super::method::{ContractCall, Proof, Seen};
use super::signers::Signer;
use super::sponsoring::Sponsoring;
use super::tracker::Fate;
use super::transaction::{Cargo, Draft};
use super::usage::{Usage, ask_at};
use super::verify::{Fault, Manner, NoStanding, Ready, Trial, TrialKind, judge, unspent};
use super::wallets::{NoDeployment, WALLET_GAS_MAX, Wallet};
use crate::facilitator::{FacilitatorError, Lookup, SettleError, Settlement};
use crate::rpc::{Receipt, RpcError, one_word};
use crate::scheme::Charging;

/// No settlement takes more; an estimate above it is a token that does other things.
const GAS_MAX: u64 = 5_000_000;

impl Chain {
    /// Settles a payment, or says what became of it before.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        let payment = match self.read_untimed(request) {
            Err(refusal) if is_of_configuration(&refusal.reason) => {
                return Err(not_served(refusal));
            }
            read => read.map_err(rejected)?,
        };
        if payment.amount.is_zero() && payment.method.charging() == Charging::UpTo {
            self.ask_wallet(&payment).await.map_err(unsettled)?;
            return self.settle_nothing(&payment, now).map_err(rejected);
        }
        let not_sent = |context: &str| {
            let context = context.to_owned();
            Err(SettleError::NotSent(FacilitatorError { context, source: None }))
        };
        let progress = match self.flights.join(&payment) {
            Join::Settled(settlement) => return Ok(settlement),
            Join::Follow(progress) => progress,
            Join::Start(pilot, progress) => {
                self.tasks.spawn(Arc::clone(self).fly(payment, pilot));
                progress
            }
            Join::Conflict => {
                return not_sent("another settlement of the same nonce is under way");
            }
            Join::Unspent => return Err(rejected(unspent(&payment))),
            Join::Full => {
                return not_sent("too many payments are being settled on this network");
            }
        };
        self.await_outcome(progress).await.into_result()
    }

    /// A settlement of nothing (x402, scheme `upto`): nothing is sent and no nonce is used.
    fn settle_nothing(&self, payment: &EvmPayment, now: Timestamp) -> Result<Settlement, Refusal> {
        self.check_settler(payment)?;
        match self.flights.settle_nothing(payment, now) {
            Nothing::Settled => Ok(nothing_of(payment)),
            Nothing::Charged => {
                let message = "expected an unused authorisation, found one that is charged".into();
                let reason = &payment.method.reasons().used;
                Err(Refusal::of(payment.authorization.payer, reason, message))
            }
        }
    }

    /// What became of a payment. Moves nothing.
    pub(crate) async fn look_up(&self, request: &SettleRequest) -> Result<Lookup, RpcError> {
        let payment = match self.read_untimed(request) {
            Ok(payment) => payment,
            Err(refusal) if is_of_configuration(&refusal.reason) => return Ok(Lookup::CannotTell),
            Err(refusal) => return Ok(Lookup::Dead { reason: refusal.reason }),
        };
        if self.flights.is_unspent(&payment) {
            let nothing = payment.amount.is_zero().then(|| nothing_of(&payment));
            let reason = payment.method.reasons().used.clone();
            return Ok(nothing.map_or(Lookup::Dead { reason }, Lookup::Landed));
        }
        let at = match self.usage(&payment, U256::ZERO).await? {
            // Nothing can be settled at any time.
            Usage::Unused { .. } if payment.amount.is_zero() => return Ok(Lookup::Open),
            Usage::Unused { at } => at,
            Usage::Used => {
                return Ok(match self.find(&payment).await? {
                    Found::Paid(settlement) => Lookup::Landed(settlement),
                    Found::NotDeep(_) => Lookup::Open,
                    Found::Elsewhere(_) => {
                        Lookup::Dead { reason: payment.method.reasons().used.clone() }
                    }
                    Found::Nowhere => Lookup::CannotTell,
                });
            }
        };
        Ok(match expired(&payment, at) {
            Some(refusal) => Lookup::Dead { reason: refusal.reason },
            None => Lookup::Open,
        })
    }

    /// The payment, if everything but its time is good: a late repeat asks what became of it.
    pub(super) fn read_untimed(&self, request: &SettleRequest) -> Result<EvmPayment, Refusal> {
        let token = self.token(request.payment_requirements.value())?;
        check::check_untimed(token, request).map(|it| self.with_own_sponsoring(it))
    }

    async fn await_outcome(&self, mut progress: watch::Receiver<Progress>) -> Outcome {
        let ended = progress.wait_for(|it| it.outcome.is_some());
        let ended = tokio::time::timeout(self.config().settle_wait, ended).await;
        let outcome = ended.ok().and_then(Result::ok).and_then(|it| it.outcome.clone());
        // None: it takes too long, or the flight was torn down with the process.
        outcome.unwrap_or_else(|| Outcome::Unknown { transaction: progress.borrow().transaction })
    }

    async fn fly(self: Arc<Self>, payment: EvmPayment, pilot: Pilot) {
        let carried = self.stop.run_until_cancelled(self.carry_out(&payment, &pilot)).await;
        let transaction = pilot.transaction();
        let outcome = carried.unwrap_or(Outcome::Unknown { transaction });
        self.flights.finish(&payment, &pilot, outcome);
    }

    /// Sends the payment whatever the clock here says: only the chain's own time ends it.
    async fn carry_out(self: &Arc<Self>, payment: &EvmPayment, pilot: &Pilot) -> Outcome {
        if let Err(error) = self.resumed().await {
            return Outcome::not_sent(error);
        }
        if let Some(under_way) = self.tracker.follow(payment.id)
            && let Some(outcome) = self.follow(payment, pilot, under_way).await
        {
            return outcome;
        }
        if let Err(refusal) = self.check_settler(payment) {
            return self.not_served_now(payment, refusal).await;
        }
        let Some(signer) = self.signers.take(payment.authorization.settler) else {
            return Outcome::not_sent(self.signers.why_nobody());
        };
        match self.settle_together(payment, pilot, signer).await {
            Ok(outcome) => outcome,
            Err(alone) => self.settle_alone(payment, pilot, signer, alone).await,
        }
    }

    async fn settle_alone(
        &self,
        payment: &EvmPayment,
        pilot: &Pilot,
        signer: &Arc<Signer>,
        Alone { ready, mut slot }: Alone,
    ) -> Outcome {
        let ready = match ready {
            Some(ready) => Ok(ready),
            None => self.make_ready(payment, signer).await,
        };
        let (call, gas) = match ready {
            Ok(ready) => ready,
            Err(outcome) => return outcome,
        };
        let fees = match self.fees.current().await {
            Ok(fees) => fees,
            Err(error) => return Outcome::not_sent(error),
        };
        let draft = Draft::of_call(self.chain_id(), &call, gas).with(self.cargo_of(payment));
        let announce = |transaction| pilot.sent(transaction);
        match self.depart(signer, draft, fees, &announce).await {
            Ok(departed) => {
                slot.iter_mut().for_each(Slot::departed);
                self.await_fate(payment, &call, departed).await
            }
            Err(error) => Outcome::not_sent(error),
        }
    }

    /// The call that settles the payment and the gas that is bought for it; where only the allowance is
    /// missing and the payer sent an approval, after that.
    async fn make_ready(
        &self,
        payment: &EvmPayment,
        signer: &Arc<Signer>,
    ) -> Result<(ContractCall, u64), Outcome> {
        let fault = match self.stand(payment, signer).await? {
            Ok(ready) => return self.buy_gas(payment, ready, signer).await,
            Err(fault) => fault,
        };
        let refusal = match (fault, &payment.sponsoring, payment.unsponsored) {
            (Fault::Allowance(refusal), _, Some(extension)) => {
                let message = format!("{extension} is not sponsored here: {}", refusal.message);
                return Err(self.not_served_now(payment, Refusal { message, ..refusal }).await);
            }
            (Fault::Allowance(_), Some(Sponsoring::Approval(approval)), _) => {
                // No money for what never can be settled.
                self.time_of_unended(payment).await?;
                match self.carry_out_approval(payment, approval, signer).await {
                    Ok(()) => match self.stand(payment, signer).await? {
                        Ok(ready) => return self.buy_gas(payment, ready, signer).await,
                        Err(Fault::Refused(refusal) | Fault::Allowance(refusal)) => refusal,
                    },
                    Err(NoApproval::Refused(refusal)) => refusal,
                    Err(NoApproval::NotNow(refusal)) => {
                        return Err(self.not_served_now(payment, refusal).await);
                    }
                    Err(NoApproval::NotSent(error)) => return Err(Outcome::not_sent(error)),
                }
            }
            (Fault::Refused(refusal) | Fault::Allowance(refusal), _, _) => refusal,
        };
        Err(self.refuse(payment, refusal).await)
    }

    /// How the payment stands, unless it was used.
    async fn stand(
        &self,
        payment: &EvmPayment,
        signer: &Arc<Signer>,
    ) -> Result<Result<Ready, Fault>, Outcome> {
        if let Some(ready) = self.stand_as_usual(payment, signer.address()).await {
            return Ok(Ok(ready));
        }
        let missing = self.missing_contract(payment.method).await.map_err(Outcome::not_sent)?;
        if let Some(contract) = missing {
            return Err(Outcome::not_sent(NotSent::NoContract(contract)));
        }
        let wallet = match self.ready_wallet(payment, signer).await? {
            Ok(wallet) => wallet,
            Err(fault) => return Ok(Err(fault)),
        };
        let kind = TrialKind::Estimate;
        let manner = Manner { from: signer.address(), kind, wallet };
        let judged = self.judge_unused(payment, &manner).await?;
        if let (Ok(Ready { call, gas: Some(gas) }), None) = (&judged, &manner.wallet) {
            self.usual_gas.note(call, *gas);
        }
        Ok(judged)
    }

    /// What the chain's answers mean, unless the payment was used.
    async fn judge_unused(
        &self,
        payment: &EvmPayment,
        manner: &Manner<'_>,
    ) -> Result<Result<Ready, Fault>, Outcome> {
        match self.standing(payment, manner).await {
            Ok(standing) if standing.used => Err(self.follow_use(payment, None).await),
            Ok(standing) => Ok(judge(payment, standing)),
            // So answers a node that is not up to date, too.
            Err(NoStanding::Refused(refusal)) => {
                Err(Outcome::not_sent(NotSent::OddToken(refusal.message)))
            }
            Err(NoStanding::Rpc(error)) => Err(Outcome::not_sent(error)),
        }
    }

    /// The payer's contract, if it must agree; deployed first where it is not there, and only if all
    /// would go well then.
    async fn ready_wallet<'a>(
        &self,
        payment: &'a EvmPayment,
        signer: &Arc<Signer>,
    ) -> Result<Result<Option<Wallet<'a>>, Fault>, Outcome> {
        let find = async || match self.wallet_of(payment).await {
            Ok(wallet) => Ok(Ok(wallet)),
            Err(NoStanding::Refused(refusal)) => Ok(Err(Fault::Refused(refusal))),
            Err(NoStanding::Rpc(error)) => Err(Outcome::not_sent(NotSent::Wallet(error))),
        };
        let is_missing = |it: &Option<Wallet<'_>>| it.is_some_and(|it| it.missing.is_some());
        let found = find().await?;
        if !found.as_ref().is_ok_and(is_missing) {
            return Ok(found);
        }
        let _turn = self.turn_of(payment).await;
        let found = find().await?;
        let Ok(Some(wallet @ Wallet { missing: Some(deployment), .. })) = found else {
            return Ok(found);
        };
        let kind = TrialKind::Simulate;
        let manner = Manner { from: signer.address(), kind, wallet: Some(wallet) };
        if let Err(fault) = self.judge_unused(payment, &manner).await? {
            return Ok(Err(fault));
        }
        match self.deploy(payment, deployment, signer).await {
            Ok(()) => Ok(Ok(Some(wallet.deployed()))),
            Err(NoDeployment::Refused(refusal)) => Ok(Err(Fault::Refused(refusal))),
            Err(NoDeployment::NotSent(error)) => Err(Outcome::not_sent(error)),
        }
    }

    /// What is paid for at most: the estimate and a quarter. What a wallet may refuse is tried once more
    /// just as it will be sent.
    async fn buy_gas(
        &self,
        payment: &EvmPayment,
        ready: Ready,
        signer: &Arc<Signer>,
    ) -> Result<(ContractCall, u64), Outcome> {
        let by_wallet = payment.signed_by.wallet().is_some();
        let max = if by_wallet { WALLET_GAS_MAX } else { GAS_MAX };
        let message = match ready.gas.filter(|it| *it <= max) {
            None => format!("expected a transfer of at most {max} gas, found a dearer one"),
            Some(gas) => {
                let gas = gas.saturating_add(gas / 4);
                if !by_wallet {
                    return Ok((ready.call, gas));
                }
                let fees = self.fees.current().await.map_err(Outcome::not_sent)?;
                match self.rehearse_as_sent(&ready.call, gas, signer, fees).await {
                    Ok(Trial::Runs { .. }) => return Ok((ready.call, gas)),
                    Ok(Trial::Reverts { why }) => {
                        format!("expected the transaction to run, found that it reverts: {why}")
                    }
                    Err(error) => return Err(Outcome::not_sent(NotSent::Wallet(error))),
                }
            }
        };
        let reason = &payment.method.reasons().simulation;
        let refusal = Refusal::of(payment.authorization.payer, reason, message);
        Err(self.refuse(payment, refusal).await)
    }

    /// Before anything was sent: a refusal, unless the chain's time is what stands in the way and
    /// has not run out.
    async fn refuse(&self, payment: &EvmPayment, refusal: Refusal) -> Outcome {
        let at = match self.time_of_unended(payment).await {
            Ok(at) => at,
            Err(outcome) => return outcome,
        };
        let reverts = refusal.reason == payment.method.reasons().simulation;
        if reverts && check::check_window(payment.method, &payment.authorization, at).is_err() {
            return Outcome::not_sent(NotSent::Untimely(refusal.message));
        }
        refused(refusal)
    }

    /// What it takes to settle it is not configured now, and was, for all we know, when the payment was
    /// taken: whoever was served may still be charged, until the chain's time runs out.
    async fn not_served_now(&self, payment: &EvmPayment, refusal: Refusal) -> Outcome {
        match self.time_of_unended(payment).await {
            Ok(_) => Outcome::NotServed { reason: refusal.reason, message: refusal.message },
            Err(outcome) => outcome,
        }
    }

    /// The chain's time, unless the payment ended without us: used, or expired by that time.
    async fn time_of_unended(&self, payment: &EvmPayment) -> Result<Timestamp, Outcome> {
        match self.usage(payment, U256::ZERO).await {
            Ok(Usage::Unused { at }) => match expired(payment, at) {
                Some(refusal) => Err(refused(refusal)),
                None => Ok(at),
            },
            Ok(Usage::Used) => Err(self.follow_use(payment, None).await),
            Err(error) => Err(Outcome::not_sent(error)),
        }
    }

    async fn await_fate(
        &self,
        payment: &EvmPayment,
        call: &ContractCall,
        departed: Departed,
    ) -> Outcome {
        let Departed { transaction, fate } = departed;
        self.learn_fate(payment, call, (transaction, fate.await.ok())).await
    }

    /// What the fate of its own transaction means for a payment.
    pub(super) async fn learn_fate(
        &self,
        payment: &EvmPayment,
        call: &ContractCall,
        (transaction, fate): (B256, Option<Fate>),
    ) -> Outcome {
        match fate {
            Some(Fate::Mined(receipt)) => {
                let hash = receipt.transaction_hash;
                match proof_of(&receipt, call, payment) {
                    Proof::Paid => Outcome::Settled(self.settlement_of(payment, &receipt)),
                    Proof::Spent => without_events(payment, hash),
                    // Somebody may have been faster with the same authorisation: that counts as
                    // settled.
                    Proof::Unrelated | Proof::Cancelled | Proof::Unclear => {
                        self.reconcile(payment, hash, Some(&receipt)).await
                    }
                }
            }
            Some(Fate::Superseded) => self.reconcile(payment, transaction, None).await,
            None => Outcome::Unknown { transaction: Some(transaction) },
        }
    }

    /// What a transaction that settles this payment carries.
    pub(super) fn cargo_of(&self, payment: &EvmPayment) -> Cargo {
        Cargo { payments: vec![payment.id], depth: self.depth_of(payment) }
    }

    /// How many blocks must hold this payment until it is final.
    pub(super) fn depth_of(&self, payment: &EvmPayment) -> u32 {
        let config = self.config();
        let decimals = payment.token.config().decimals;
        config.finality.depth(payment.amount, decimals).max(config.confirmations)
    }

    /// What became of a payment that our own transaction did not make: mined with this receipt, or
    /// never to be mined. Final is only a use that was found, an expiry by the chain's own time, a
    /// token that carried out the call and moved nothing, or a payer who had not the money.
    async fn reconcile(
        &self,
        payment: &EvmPayment,
        ours: B256,
        receipt: Option<&Receipt>,
    ) -> Outcome {
        let since = receipt.map_or(U256::ZERO, |it| it.block_number);
        let at = match self.usage(payment, since).await {
            Ok(Usage::Unused { at }) => at,
            Ok(Usage::Used) => return self.follow_use(payment, Some(ours)).await,
            Err(error) => {
                tracing::warn!(%error, payment = %payment.id, "whether it was used cannot be told");
                return Outcome::Unknown { transaction: Some(ours) };
            }
        };
        if receipt.is_some_and(Receipt::succeeded) {
            return without_events(payment, ours);
        }
        if receipt.is_some() && payment.signed_by.wallet().is_some() {
            // It was tried just before, as it was sent.
            self.wallets.strike(payment.authorization.payer);
        }
        let why = match (expired(payment, at), receipt) {
            (None, Some(receipt)) => self.poor_at(payment, receipt.block_number).await,
            (why, _) => why,
        };
        why.map_or(Outcome::Unknown { transaction: Some(ours) }, refused)
    }

    /// Why a payment that is unused in a block could not be made there: others of its payer took the
    /// money. `None` also where that is not known.
    async fn poor_at(&self, payment: &EvmPayment, block: U256) -> Option<Refusal> {
        let it = &payment.authorization;
        let call = ask_at(&abi::balance_of(it.token, it.payer), block);
        let answer = self.rpc().call(call.method, call.params).await;
        let found = U256::from_be_bytes(one_word(&answer.ok()?).ok()?.0);
        if U256::from(payment.amount.units()) <= found {
            return None;
        }
        let expected = payment.amount;
        let message = format!("expected a balance of at least {expected}, found {found}");
        Some(Refusal::of(it.payer, &payment.method.reasons().balance, message))
    }

    /// Where a used authorisation went.
    async fn follow_use(&self, payment: &EvmPayment, ours: Option<B256>) -> Outcome {
        match self.find(payment).await {
            Ok(Found::Paid(settlement)) => Outcome::Settled(settlement),
            Ok(Found::NotDeep(transaction)) => Outcome::Unknown { transaction: Some(transaction) },
            Ok(Found::Elsewhere(Some(transaction))) if Some(transaction) == ours => {
                without_events(payment, transaction)
            }
            Ok(Found::Elsewhere(transaction)) => Outcome::Rejected {
                reason: payment.method.reasons().used.clone(),
                message: format!(
                    "expected an unused nonce, found it used or cancelled by {}, which did not make \
                     this payment",
                    transaction.map_or_else(|| "a transaction".to_owned(), |it| it.to_string())
                ),
            },
            Ok(Found::Nowhere) => Outcome::Unknown { transaction: ours },
            Err(error) => {
                tracing::warn!(%error, payment = %payment.id, "a used nonce could not be looked into");
                Outcome::Unknown { transaction: ours }
            }
        }
    }
}

/// Why a payment unused in a block of this time never will be made; `None` if it still can be.
fn expired(payment: &EvmPayment, at: Timestamp) -> Option<Refusal> {
    let it = &payment.authorization;
    if at < it.ends() {
        return None;
    }
    let (found, at) = (it.limit.seconds(), at.seconds());
    let message = format!("expected an end of validity after the chain's time {at}, found {found}");
    Some(Refusal::of(it.payer, &payment.method.reasons().late, message))
}

/// Whether a payment is refused for what is configured now, which says nothing of what became of it
/// under an earlier configuration.
pub(crate) fn is_of_configuration(reason: &Reason) -> bool {
    [
        Reason::InvalidNetwork,
        Reason::InvalidPaymentRequirements,
        Reason::UnsupportedScheme,
        Reason::InvalidExactEvmTokenNameMismatch,
        Reason::InvalidExactEvmTokenVersionMismatch,
    ]
    .contains(reason)
}

/// What our own transaction proves.
fn proof_of(receipt: &Receipt, call: &ContractCall, payment: &EvmPayment) -> Proof {
    if !receipt.succeeded() {
        return Proof::Unrelated;
    }
    payment.method.proof(payment, Seen { call, logs: &receipt.logs })
}

/// A settlement that moved nothing.
fn nothing_of(payment: &EvmPayment) -> Settlement {
    Settlement {
        transaction: String::new(),
        network: payment.token.network().clone(),
        payer: payment.payer().to_string(),
        amount: payment.amount,
        final_in: None,
    }
}

/// Carried out, and no money moved (attack A20).
fn without_events(payment: &EvmPayment, transaction: B256) -> Outcome {
    Outcome::Rejected {
        reason: payment.method.reasons().failed.clone(),
        message: format!("expected the payment's Transfer in {transaction}, found none"),
    }
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Rejected { reason: refusal.reason, message: refusal.message }
}

fn unsettled(error: NoStanding) -> SettleError {
    match error {
        NoStanding::Refused(refusal) => rejected(refusal),
        NoStanding::Rpc(error) => {
            let context = NotSent::Wallet(error).to_string();
            SettleError::NotSent(FacilitatorError { context, source: None })
        }
    }
}

/// What is not configured now may have been when the payment was taken.
fn not_served(refusal: Refusal) -> SettleError {
    SettleError::NotServed { reason: refusal.reason, message: refusal.message }
}

fn rejected(refusal: Refusal) -> SettleError {
    SettleError::Rejected { reason: refusal.reason, message: refusal.message }
}
