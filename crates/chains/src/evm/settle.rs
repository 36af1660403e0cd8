//! Making a payment final: one transaction for each payment, however often it is asked for.
//!
//! A flight is a task of its own, so a caller that goes away changes nothing. It ends when the
//! outcome is certain; callers wait for it within a bound and learn "unknown" past that.

use std::sync::Arc;

use alloy_primitives::B256;
use farebox_protocol::wire::SettleRequest;
use farebox_protocol::{Reason, Timestamp};
use tokio::sync::watch;

use super::abi;
use super::broadcast::{Departed, NotSent};
use super::chain::Chain;
use super::check::{self, ExactPayment, Refusal};
use super::find::{Found, settlement_of};
use super::flights::{Join, Outcome, Pilot, Progress};
use super::tracker::Fate;
use super::transaction::Draft;
use super::verify::{NoStanding, Standing, Trial, TrialKind, judge};
use crate::facilitator::{FacilitatorError, Lookup, SettleError, Settlement};
use crate::rpc::{Receipt, RpcError, quantity};

/// No settlement takes more; an estimate above it is a token that does other things.
const GAS_MAX: u64 = 5_000_000;

impl Chain {
    /// Settles a payment, or says what became of it before.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        let payment = self.read_signed(request).map_err(rejected)?;
        let progress = match self.flights.join(&payment) {
            Join::Settled(settlement) => return Ok(settlement),
            Join::Follow(progress) => progress,
            Join::Start(pilot, progress) => {
                self.tasks.spawn(Arc::clone(self).fly(payment, now, pilot));
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
        let from = self.signers.simulated();
        let standing = match self.standing(&payment, from, TrialKind::Simulate).await {
            Ok(standing) => standing,
            Err(NoStanding::Refused(refusal)) => {
                return Ok(Lookup::Dead { reason: refusal.reason });
            }
            Err(NoStanding::Rpc(error)) => return Err(error),
        };
        if standing.used {
            return Ok(match self.find(&payment).await? {
                Found::Paid(settlement) => Lookup::Landed(settlement),
                Found::PaidNotDeep(_) => Lookup::Open,
                Found::Elsewhere(_) => {
                    Lookup::Dead { reason: Reason::InvalidExactEvmNonceAlreadyUsed }
                }
                Found::Nowhere => Lookup::CannotTell,
            });
        }
        // The token compares with the time of a block, so the chain's own clock decides.
        let latest = serde_json::json!(["latest", false]);
        let block = self.rpc().call("eth_getBlockByNumber", latest).await?;
        let time: u64 = quantity(block.get("timestamp").unwrap_or_default())?;
        if payment.authorization.ends() <= Timestamp::from_seconds(time) {
            let reason = Reason::InvalidExactEvmPayloadAuthorizationValidBefore;
            return Ok(Lookup::Dead { reason });
        }
        Ok(Lookup::Open)
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

    async fn fly(self: Arc<Self>, payment: ExactPayment, now: Timestamp, pilot: Pilot) {
        let carried = self.stop.run_until_cancelled(self.carry_out(&payment, now, &pilot)).await;
        let transaction = pilot.transaction();
        let outcome = carried.unwrap_or(Outcome::Unknown { transaction });
        self.flights.finish(&payment, &pilot, outcome);
    }

    async fn carry_out(&self, payment: &ExactPayment, now: Timestamp, pilot: &Pilot) -> Outcome {
        let Some(signer) = self.signers.pick() else { return Outcome::not_sent(NotSent::NoSigner) };
        let standing = match self.standing(payment, signer.address(), TrialKind::Estimate).await {
            Ok(standing) => standing,
            Err(NoStanding::Refused(refusal)) => return refused(refusal),
            Err(NoStanding::Rpc(error)) => return Outcome::not_sent(error),
        };
        if standing.used {
            return self.reconcile(payment, None).await;
        }
        let gas = match check::check_window(&payment.authorization, now)
            .and_then(|()| gas_limit(payment, &standing))
        {
            Ok(gas) => gas,
            Err(refusal) => return refused(refusal),
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

    async fn await_fate(&self, payment: &ExactPayment, departed: Departed) -> Outcome {
        let transaction = Some(departed.transaction);
        match departed.fate.await {
            Ok(Fate::Mined(receipt)) if is_payment(&receipt, payment) => {
                Outcome::Settled(settlement_of(payment, &receipt))
            }
            // Somebody may have been faster with the same authorisation: that counts as settled.
            Ok(Fate::Mined(receipt)) => self.reconcile(payment, Some(receipt)).await,
            Ok(Fate::Superseded) => self.reconcile_superseded(payment, departed.transaction).await,
            Err(_) => Outcome::Unknown { transaction },
        }
    }

    /// Where the nonce went, if our own transaction did not move the money.
    async fn reconcile(&self, payment: &ExactPayment, ours: Option<Receipt>) -> Outcome {
        let hash = ours.as_ref().map(|it| it.transaction_hash);
        let found = match self.find_use(payment).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, payment = %payment.id, "a used nonce could not be looked into");
                return Outcome::Unknown { transaction: hash };
            }
        };
        match (found, ours) {
            (Some(Found::Paid(settlement)), _) => Outcome::Settled(settlement),
            (Some(Found::PaidNotDeep(settlement)), _) => {
                Outcome::Unknown { transaction: settlement.transaction.parse().ok() }
            }
            (Some(Found::Elsewhere(transaction)), _) => Outcome::Rejected {
                reason: Reason::InvalidExactEvmNonceAlreadyUsed,
                message: format!(
                    "expected an unused nonce, found it used or cancelled by {transaction}, which \
                     did not make this payment"
                ),
            },
            (None, Some(ours)) => Outcome::Rejected {
                reason: Reason::InvalidExactEvmTransactionFailed,
                message: failure_of(&ours),
            },
            (Some(Found::Nowhere), _) | (None, None) => Outcome::Unknown { transaction: hash },
        }
    }

    /// Where the nonce went; nothing if it is unused.
    async fn find_use(&self, payment: &ExactPayment) -> Result<Option<Found>, RpcError> {
        let from = self.signers.simulated();
        let used = match self.standing(payment, from, TrialKind::Simulate).await {
            Ok(standing) => standing.used,
            Err(NoStanding::Refused(_)) => false,
            Err(NoStanding::Rpc(error)) => return Err(error),
        };
        if used { self.find(payment).await.map(Some) } else { Ok(None) }
    }

    /// Our own transaction never will be carried out; somebody else's may have been.
    async fn reconcile_superseded(&self, payment: &ExactPayment, ours: B256) -> Outcome {
        match self.find_use(payment).await {
            Ok(Some(Found::Paid(settlement))) => Outcome::Settled(settlement),
            Ok(None) => Outcome::not_sent(NotSent::Superseded(ours)),
            Ok(Some(_)) | Err(_) => Outcome::Unknown { transaction: Some(ours) },
        }
    }
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
    receipt.succeeded() && abi::shows_payment(&receipt.logs, payment)
}

fn failure_of(receipt: &Receipt) -> String {
    let transaction = receipt.transaction_hash;
    if receipt.succeeded() {
        format!(
            "expected the payment's Transfer and AuthorizationUsed in {transaction}, found none"
        )
    } else {
        format!("expected {transaction} to run, found that it reverted")
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
