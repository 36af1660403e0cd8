//! Making a payment final: one transaction for each payment, however often it is asked for.
//!
//! A flight is a task of its own, so a caller that goes away changes nothing. It ends when the
//! outcome is certain; callers wait for it within a bound and learn "unknown" past that.

use std::sync::Arc;

use alloy_primitives::{B256, U256};
use farebox_protocol::wire::SettleRequest;
use farebox_protocol::{Reason, Timestamp};
use tokio::sync::watch;

use super::abi::{self, Proof};
use super::broadcast::{Departed, NotSent};
use super::chain::Chain;
use super::check::{self, ExactPayment, Refusal};
use super::find::{Found, settlement_of};
use super::flights::{Join, Outcome, Pilot, Progress};
use super::tracker::Fate;
use super::transaction::Draft;
use super::usage::Usage;
use super::verify::{NoStanding, Standing, Trial, TrialKind, judge};
use crate::facilitator::{FacilitatorError, Lookup, SettleError, Settlement};
use crate::rpc::{Receipt, RpcError};

/// No settlement takes more; an estimate above it is a token that does other things.
const GAS_MAX: u64 = 5_000_000;

impl Chain {
    /// Settles a payment, or says what became of it before.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        request: &SettleRequest,
    ) -> Result<Settlement, SettleError> {
        let payment = self.read_signed(request).map_err(rejected)?;
        let progress = match self.flights.join(&payment) {
            Join::Settled(settlement) => return Ok(settlement),
            Join::Follow(progress) => progress,
            Join::Start(pilot, progress) => {
                self.tasks.spawn(Arc::clone(self).fly(payment, pilot));
                progress
            }
            Join::Conflict => {
                let context = "another authorisation with the same nonce is being settled".into();
                return Err(SettleError::NotSent(FacilitatorError { context, source: None }));
            }
            Join::Full => {
                let context = "too many payments are being settled on this network".into();
                return Err(SettleError::NotSent(FacilitatorError { context, source: None }));
            }
        };
        self.await_outcome(progress).await.into_result()
    }

    /// What became of a payment. Moves nothing.
    pub(crate) async fn look_up(&self, request: &SettleRequest) -> Result<Lookup, RpcError> {
        let payment = match self.read_signed(request) {
            Ok(payment) => payment,
            Err(refusal) if is_of_configuration(&refusal.reason) => return Ok(Lookup::CannotTell),
            Err(refusal) => return Ok(Lookup::Dead { reason: refusal.reason }),
        };
        let at = match self.usage(&payment, U256::ZERO).await? {
            Usage::Unused { at } => at,
            Usage::Used => {
                return Ok(match self.find(&payment).await? {
                    Found::Paid(settlement) => Lookup::Landed(settlement),
                    Found::NotDeep(_) => Lookup::Open,
                    Found::Elsewhere(_) => {
                        Lookup::Dead { reason: Reason::InvalidExactEvmNonceAlreadyUsed }
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
    fn read_signed(&self, request: &SettleRequest) -> Result<ExactPayment, Refusal> {
        let token = self.token(request.payment_requirements.value())?;
        let payload = check::check_terms(token, request)?;
        check::check_signature(token, &payload)
    }

    async fn await_outcome(&self, mut progress: watch::Receiver<Progress>) -> Outcome {
        let ended = progress.wait_for(|it| it.outcome.is_some());
        let ended = tokio::time::timeout(self.config().settle_wait, ended).await;
        let outcome = ended.ok().and_then(Result::ok).and_then(|it| it.outcome.clone());
        // None: it takes too long, or the flight was torn down with the process.
        outcome.unwrap_or_else(|| Outcome::Unknown { transaction: progress.borrow().transaction })
    }

    async fn fly(self: Arc<Self>, payment: ExactPayment, pilot: Pilot) {
        let carried = self.stop.run_until_cancelled(self.carry_out(&payment, &pilot)).await;
        let transaction = pilot.transaction();
        let outcome = carried.unwrap_or(Outcome::Unknown { transaction });
        self.flights.finish(&payment, &pilot, outcome);
    }

    /// Sends the payment whatever the clock here says: only the chain's own time ends it.
    async fn carry_out(&self, payment: &ExactPayment, pilot: &Pilot) -> Outcome {
        let Some(signer) = self.signers.pick() else { return Outcome::not_sent(NotSent::NoSigner) };
        let standing = match self.standing(payment, signer.address(), TrialKind::Estimate).await {
            Ok(standing) => standing,
            // So answers a node that is not up to date, too.
            Err(NoStanding::Refused(refusal)) => {
                return Outcome::not_sent(NotSent::OddToken(refusal.message));
            }
            Err(NoStanding::Rpc(error)) => return Outcome::not_sent(error),
        };
        if standing.used {
            return self.follow_use(payment, None).await;
        }
        let gas = match gas_limit(payment, &standing) {
            Ok(gas) => gas,
            Err(refusal) => return self.refuse(payment, refusal).await,
        };
        let fees = match self.fees.current().await {
            Ok(fees) => fees,
            Err(error) => return Outcome::not_sent(error),
        };
        let draft = Draft {
            chain_id: self.chain_id(),
            to: payment.token.address().alloy(),
            input: abi::transfer_with_authorization(payment),
            gas,
        };
        let announce = |transaction| pilot.sent(transaction);
        match self.depart(signer, draft, fees, &announce).await {
            Ok(departed) => self.await_fate(payment, departed).await,
            Err(error) => Outcome::not_sent(error),
        }
    }

    /// Before anything was sent: a refusal, unless the chain's time is what stands in the way and
    /// has not run out.
    async fn refuse(&self, payment: &ExactPayment, refusal: Refusal) -> Outcome {
        let at = match self.usage(payment, U256::ZERO).await {
            Ok(Usage::Unused { at }) => at,
            Ok(Usage::Used) => return self.follow_use(payment, None).await,
            Err(error) => return Outcome::not_sent(error),
        };
        if let Some(refusal) = expired(payment, at) {
            return refused(refusal);
        }
        let reverts = refusal.reason == Reason::InvalidExactEvmTransactionSimulationFailed;
        if reverts && check::check_window(&payment.authorization, at).is_err() {
            return Outcome::not_sent(NotSent::Untimely(refusal.message));
        }
        refused(refusal)
    }

    async fn await_fate(&self, payment: &ExactPayment, departed: Departed) -> Outcome {
        let transaction = departed.transaction;
        match departed.fate.await {
            Ok(Fate::Mined(receipt)) if is_payment(&receipt, payment) => {
                Outcome::Settled(settlement_of(payment, &receipt))
            }
            // Somebody may have been faster with the same authorisation: that counts as settled.
            Ok(Fate::Mined(receipt)) => {
                let hash = receipt.transaction_hash;
                self.reconcile(payment, hash, Some(&receipt)).await
            }
            Ok(Fate::Superseded) => self.reconcile(payment, transaction, None).await,
            Err(_) => Outcome::Unknown { transaction: Some(transaction) },
        }
    }

    /// What became of a payment that our own transaction did not make: mined with this receipt, or
    /// never to be mined. Final is only a use that was found, an expiry by the chain's own time, or
    /// a token that carried out the call and moved nothing.
    async fn reconcile(
        &self,
        payment: &ExactPayment,
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
            return without_events(ours);
        }
        expired(payment, at).map_or(Outcome::Unknown { transaction: Some(ours) }, refused)
    }

    /// Where a used authorisation went.
    async fn follow_use(&self, payment: &ExactPayment, ours: Option<B256>) -> Outcome {
        match self.find(payment).await {
            Ok(Found::Paid(settlement)) => Outcome::Settled(settlement),
            Ok(Found::NotDeep(transaction)) => Outcome::Unknown { transaction: Some(transaction) },
            Ok(Found::Elsewhere(transaction)) if Some(transaction) == ours => {
                without_events(transaction)
            }
            Ok(Found::Elsewhere(transaction)) => Outcome::Rejected {
                reason: Reason::InvalidExactEvmNonceAlreadyUsed,
                message: format!(
                    "expected an unused nonce, found it used or cancelled by {transaction}, which \
                     did not make this payment"
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
fn expired(payment: &ExactPayment, at: Timestamp) -> Option<Refusal> {
    let it = &payment.authorization;
    if at < it.ends() {
        return None;
    }
    let found = it.valid_before;
    let message =
        format!("expected validBefore after the chain's time {}, found {found}", at.seconds());
    let reason = Reason::InvalidExactEvmPayloadAuthorizationValidBefore;
    Some(check::refusal_of(it.from, reason, message))
}

/// Whether a payment is refused for what is configured now, which says nothing of what became of it
/// under an earlier configuration.
fn is_of_configuration(reason: &Reason) -> bool {
    [
        Reason::InvalidNetwork,
        Reason::InvalidPaymentRequirements,
        Reason::InvalidExactEvmTokenNameMismatch,
        Reason::InvalidExactEvmTokenVersionMismatch,
    ]
    .contains(reason)
}

fn is_payment(receipt: &Receipt, payment: &ExactPayment) -> bool {
    receipt.succeeded() && abi::proof_of(&receipt.logs, payment) == Proof::Paid
}

/// Carried out, and no money moved (attack A20).
fn without_events(transaction: B256) -> Outcome {
    Outcome::Rejected {
        reason: Reason::InvalidExactEvmTransactionFailed,
        message: format!(
            "expected the payment's Transfer and AuthorizationUsed in {transaction}, found none"
        ),
    }
}

/// What is paid for at most: the estimate and a quarter.
fn gas_limit(payment: &ExactPayment, standing: &Standing) -> Result<u64, Refusal> {
    if let Some(refusal) = judge(payment, standing) {
        return Err(refusal);
    }
    let estimate = match standing.trial {
        Trial::Runs { gas: Some(gas) } if gas <= GAS_MAX => gas,
        Trial::Runs { .. } | Trial::Reverts { .. } => {
            let message =
                format!("expected a transfer of at most {GAS_MAX} gas, found a dearer one");
            let reason = Reason::InvalidExactEvmTransactionSimulationFailed;
            return Err(check::refusal_of(payment.authorization.from, reason, message));
        }
    };
    Ok(estimate.saturating_add(estimate / 4))
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Rejected { reason: refusal.reason, message: refusal.message }
}

fn rejected(refusal: Refusal) -> SettleError {
    SettleError::Rejected { reason: refusal.reason, message: refusal.message }
}
