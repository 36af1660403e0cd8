//! A chain that delays, drops, reorganises and lags, and the facilitator in front of it.
//!
//! What becomes of a transaction is decided when it is broadcast; when the gateway hears of it is
//! another matter. Nothing here runs by itself: whoever asks is told how things stand at that time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use farebox_chains::{
    EvmPayment, EvmToken, Facilitator, FacilitatorError, Lookup, SettleError, Settlement,
    Verification, check_payment, check_settlement,
};
use farebox_protocol::wire::{SettleRequest, SupportedResponse, VerifyRequest};
use farebox_protocol::{Amount, Digest, PaymentId, Reason, Timestamp};
use serde_json::json;

use crate::bug::Bug;
use crate::event::Event;
use crate::world::World;

/// Who settles `upto`.
const SETTLER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
/// What every payer holds.
const BALANCE: u128 = 1_000_000;
/// So long in a block, a transaction is final.
const DEPTH_MS: u64 = 6_000;
/// How far a node may lag behind.
const LAG_MAX_MS: u64 = 20_000;
/// How much longer than an authorisation its end is doubted.
const DOUBT_MS: u64 = 30_000;

/// The chain and its facilitator.
#[derive(Debug)]
pub(crate) struct Chain {
    world: Arc<World>,
    token: EvmToken,
    sent: Mutex<BTreeMap<PaymentId, Sent>>,
}

/// All that was broadcast for one payment.
#[derive(Clone, Debug)]
struct Sent {
    payer: String,
    /// In this order; they have one nonce, so that one of them lands at most. Another nonce is
    /// another payment, which only [`Bug::SignsAgain`] makes of it.
    transactions: Vec<Transaction>,
}

/// One transaction, and what becomes of it.
#[derive(Clone, Debug)]
struct Transaction {
    hash: String,
    amount: Amount,
    fate: Fate,
}

/// What a chain makes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is in a block from then on, for good.
    Lands { at: u64 },
    /// It is in a block for a while, and never again.
    Vanishes { from: u64, until: u64 },
    /// It is in a block from then on, and moves nothing.
    Reverts { at: u64 },
    /// It is never in a block.
    Dropped,
}

impl Sent {
    /// A transaction that may land yet, or has landed.
    fn under_way(&self, now: u64) -> Option<&Transaction> {
        self.transactions.iter().find(|it| match it.fate {
            Fate::Lands { .. } | Fate::Reverts { .. } => true,
            Fate::Vanishes { until, .. } => now < until,
            Fate::Dropped => false,
        })
    }

    /// A transaction that is known to have reverted: sent again, it would revert again.
    fn reverted(&self, now: u64) -> Option<Transaction> {
        let known = |it: &&Transaction| {
            matches!(it.fate, Fate::Reverts { .. }) && it.known_at().is_some_and(|at| at <= now)
        };
        self.transactions.iter().find(known).cloned()
    }
}

impl Transaction {
    /// Whether it is in a block at that time, and moved the money.
    fn is_in_block(&self, at: u64) -> bool {
        match self.fate {
            Fate::Lands { at: landed } => landed <= at,
            Fate::Vanishes { from, until } => from <= at && at < until,
            Fate::Reverts { .. } | Fate::Dropped => false,
        }
    }

    /// When it is known for good what became of it; `None` if it can still be tried again.
    fn known_at(&self) -> Option<u64> {
        match self.fate {
            Fate::Lands { at } | Fate::Reverts { at } => Some(at.saturating_add(DEPTH_MS)),
            Fate::Vanishes { .. } | Fate::Dropped => None,
        }
    }
}

/// What has landed of a payment: by which transaction, and how much in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Landed {
    pub(crate) payment: PaymentId,
    pub(crate) transactions: Vec<(String, Amount)>,
}

/// What a settlement asks for, checked.
struct Order {
    payment: EvmPayment,
    valid_before: u64,
    payer: String,
    amount: Amount,
}

fn unreachable() -> FacilitatorError {
    FacilitatorError { context: "a node".to_owned(), source: None }
}

fn rejected(reason: Reason, message: &str) -> SettleError {
    SettleError::Rejected { reason, message: message.to_owned() }
}

impl Chain {
    pub(crate) fn new(world: Arc<World>, token: EvmToken) -> Self {
        Self { world, token, sent: Mutex::default() }
    }

    fn sent(&self) -> MutexGuard<'_, BTreeMap<PaymentId, Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that has landed by now.
    pub(crate) fn landed(&self) -> Vec<Landed> {
        let now = self.world.millis();
        let landed = |(payment, sent): (&PaymentId, &Sent)| {
            let final_ones = sent.transactions.iter().filter(|it| it.is_in_block(now));
            let transactions = final_ones.map(|it| (it.hash.clone(), it.amount)).collect();
            Landed { payment: *payment, transactions }
        };
        self.sent().iter().map(landed).filter(|it| !it.transactions.is_empty()).collect()
    }

    /// What a payer still has.
    fn balance(&self, payer: &str) -> u128 {
        let sent = self.sent();
        let of_payer = sent.values().filter(|it| it.payer == payer);
        let now = self.world.millis();
        let moved = of_payer.flat_map(|it| &it.transactions).filter(|it| it.is_in_block(now));
        BALANCE.saturating_sub(moved.map(|it| it.amount.units()).sum())
    }

    /// The way to the node, which takes a while and may lead nowhere.
    async fn reach(&self) -> Result<(), FacilitatorError> {
        self.world.port().await;
        self.world.pause(1, 200).await;
        self.world.port().await;
        if self.world.strikes(|it| it.node_unreachable) {
            return Err(unreachable());
        }
        Ok(())
    }

    fn order(&self, request: &SettleRequest, now: Timestamp) -> Result<Order, SettleError> {
        let checked = check_settlement(&self.token, request, now);
        let payment = checked.map_err(|it| rejected(it.reason, &it.message))?;
        let payload = &request.payment_payload.value().payload;
        let field = |pointer| payload.pointer(pointer).and_then(|it| it.as_str());
        let deadline = field("/authorization/validBefore")
            .or_else(|| field("/permit2Authorization/deadline"))
            .and_then(|it| it.parse::<u64>().ok())
            .unwrap_or_default();
        let amount = match self.world.bug {
            Some(Bug::SettlesTheLimit) => payment.authorized(),
            _ => payment.amount(),
        };
        let payer = payment.payer().to_lower_hex();
        Ok(Order { payment, valid_before: deadline.saturating_mul(1_000), payer, amount })
    }

    /// Sends what is not on its way already; the transaction to wait for.
    fn broadcast(&self, order: &Order) -> Transaction {
        let now = self.world.millis();
        let id = order.payment.id();
        let fate = self.fate(order, now);
        let mut sent = self.sent();
        let entry = sent
            .entry(id)
            .or_insert_with(|| Sent { payer: order.payer.clone(), transactions: Vec::new() });
        let under_way = entry.under_way(now).cloned();
        if let Some(under_way) = under_way
            && self.world.bug != Some(Bug::SignsAgain)
        {
            return under_way;
        }
        let number = entry.transactions.len();
        let hash = format!("0x{}{number:02x}", hex::encode(id.as_bytes().get(..8).unwrap_or(&[])));
        let transaction = Transaction { hash: hash.clone(), amount: order.amount, fate };
        entry.transactions.push(transaction.clone());
        drop(sent);
        self.world.log(Event::Broadcast { payment: id, transaction: hash });
        transaction
    }

    fn fate(&self, order: &Order, now: u64) -> Fate {
        let world = &self.world;
        let late = world.strikes(|it| it.transaction_late);
        let delay =
            world.luck(|it| if late { it.between(10_000, 90_000) } else { it.below(5_000) });
        let at = now.saturating_add(delay).saturating_add(500);
        if order.valid_before <= at {
            return Fate::Reverts { at };
        }
        if world.strikes(|it| it.transaction_dropped) {
            return Fate::Dropped;
        }
        if world.strikes(|it| it.reverted) {
            return Fate::Reverts { at };
        }
        if world.strikes(|it| it.reorg) {
            // Shorter in a block than anybody believes in.
            let until = at.saturating_add(world.luck(|it| it.between(500, DEPTH_MS - 500)));
            return Fate::Vanishes { from: at, until };
        }
        Fate::Lands { at }
    }

    fn settlement(&self, order: &Order, transaction: &Transaction) -> Settlement {
        Settlement {
            transaction: transaction.hash.clone(),
            network: self.token.network().clone(),
            payer: order.payment.payer().to_string(),
            amount: order.payment.amount(),
            final_in: None,
        }
    }

    /// Waits for a transaction, as long as the facilitator has patience.
    async fn wait_for(
        &self,
        order: &Order,
        transaction: Transaction,
    ) -> Result<Settlement, SettleError> {
        let world = &self.world;
        let began = world.millis();
        let unanswered = world.strikes(|it| it.node_unanswered);
        let patience =
            world.luck(|it| if unanswered { it.below(4_000) } else { it.between(15_000, 30_000) });
        let known_at = match (world.bug, transaction.fate) {
            (Some(Bug::IgnoresReorgs), Fate::Vanishes { from, .. }) => Some(from),
            (Some(Bug::IgnoresReorgs), Fate::Lands { at }) => Some(at),
            _ => transaction.known_at(),
        };
        let deadline = began.saturating_add(patience);
        let until = known_at.map_or(deadline, |it| it.min(deadline));
        tokio::time::sleep(Duration::from_millis(until.saturating_sub(began))).await;
        world.port().await;
        if known_at.is_some_and(|it| it <= until) {
            return match transaction.fate {
                Fate::Reverts { .. } if world.bug != Some(Bug::BelievesTheStatus) => {
                    Err(rejected(Reason::UnexpectedSettleError, "reverted"))
                }
                Fate::Lands { .. }
                | Fate::Vanishes { .. }
                | Fate::Reverts { .. }
                | Fate::Dropped => Ok(self.settlement(order, &transaction)),
            };
        }
        if world.bug == Some(Bug::UnknownMeansFailed) {
            return Err(rejected(Reason::UnexpectedSettleError, "timed out"));
        }
        let transaction = world.luck(|it| it.percent(70)).then_some(transaction.hash);
        Err(SettleError::Unknown { transaction })
    }

    async fn try_to_settle(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        let order = self.order(request, early(now))?;
        self.reach().await.map_err(SettleError::NotSent)?;
        let earlier = self.sent().get(&order.payment.id()).cloned();
        let now_ms = self.world.millis();
        if let Some(reverted) = earlier.as_ref().and_then(|it| it.reverted(now_ms)) {
            return self.wait_for(&order, reverted).await;
        }
        // What may land yet is waited for, whatever the time.
        if earlier.as_ref().is_none_or(|it| it.under_way(now_ms).is_none()) {
            let checked = check_settlement(&self.token, request, now);
            checked.map_err(|it| rejected(it.reason, &it.message))?;
            if self.balance(&order.payer) < order.amount.units() {
                let reason = Reason::InvalidExactEvmInsufficientBalance;
                return Err(rejected(reason, "not enough"));
            }
        }
        let transaction = self.broadcast(&order);
        self.world.port().await;
        self.wait_for(&order, transaction).await
    }

    async fn look(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Lookup, FacilitatorError> {
        let Ok(order) = self.order(request, early(now)) else {
            return Ok(Lookup::CannotTell);
        };
        self.reach().await?;
        let world = &self.world;
        let lags = world.strikes(|it| it.node_lags);
        let lag = if lags { world.luck(|it| it.below(LAG_MAX_MS)) } else { 0 };
        let seen = world.millis().saturating_sub(lag);
        let sent = self.sent().get(&order.payment.id()).cloned();
        let transactions = sent.map(|it| it.transactions).unwrap_or_default();
        let depth = if world.bug == Some(Bug::IgnoresReorgs) { 0 } else { DEPTH_MS };
        let deep =
            |it: &&Transaction| it.is_in_block(seen.saturating_sub(depth)) && it.is_in_block(seen);
        if let Some(landed) = transactions.iter().find(deep) {
            return Ok(Lookup::Landed(self.settlement(&order, landed)));
        }
        if order.valid_before.saturating_add(DOUBT_MS) <= seen {
            let reason = Reason::InvalidExactEvmPayloadAuthorizationValidBefore;
            return Ok(Lookup::Dead { reason });
        }
        Ok(Lookup::Open)
    }
}

/// A time at which every authorisation of this world is still good: looking is not sending.
fn early(now: Timestamp) -> Timestamp {
    now.minus(Duration::from_hours(24))
}

#[async_trait]
impl Facilitator for Chain {
    async fn verify(
        &self,
        request: &VerifyRequest,
        now: Timestamp,
    ) -> Result<Verification, FacilitatorError> {
        self.reach().await?;
        let payment = match check_payment(&self.token, request, now) {
            Ok(payment) => payment,
            Err(refusal) => {
                return Ok(Verification::Invalid {
                    reason: refusal.reason,
                    message: refusal.message,
                    payer: refusal.payer,
                });
            }
        };
        let payer = payment.payer().to_string();
        let invalid = |reason, message: &str| Verification::Invalid {
            reason,
            message: message.to_owned(),
            payer: Some(payer.clone()),
        };
        let seen = self.world.millis();
        let sent = self.sent().get(&payment.id()).cloned();
        if sent.is_some_and(|it| it.transactions.iter().any(|it| it.is_in_block(seen))) {
            return Ok(invalid(Reason::InvalidExactEvmNonceAlreadyUsed, "used"));
        }
        let balance = self.balance(&payment.payer().to_lower_hex());
        if balance < payment.amount().units() {
            return Ok(invalid(Reason::InvalidExactEvmInsufficientBalance, "not enough"));
        }
        Ok(Verification::Valid { payer, collectable: Some(Amount::from_units(balance)) })
    }

    async fn settle(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        let Ok(order) = self.order(request, early(now)) else {
            return self.try_to_settle(request, now).await;
        };
        let payment = order.payment.id();
        let payload = Digest::of(request.payment_payload.text().as_bytes());
        let amount = request.payment_requirements.value().amount;
        self.world.log(Event::SettleAsked { payment, payload, amount });
        let told = self.try_to_settle(request, now).await;
        self.world.log(Event::SettleTold { payment, told: format!("{told:?}") });
        told
    }

    async fn lookup(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Lookup, FacilitatorError> {
        if self.world.bug == Some(Bug::ResendsWithoutLooking) {
            return Ok(Lookup::CannotTell);
        }
        let found = self.look(request, now).await;
        if let Ok(order) = self.order(request, early(now)) {
            let told = format!("{found:?}");
            self.world.log(Event::LookedUp { payment: order.payment.id(), told });
        }
        found
    }

    async fn supported(&self) -> Result<SupportedResponse, FacilitatorError> {
        let network = self.token.network();
        let upto = json!({"facilitatorAddress": SETTLER});
        serde_json::from_value(json!({
            "kinds": [
                {"x402Version": 2, "scheme": "exact", "network": network},
                {"x402Version": 2, "scheme": "upto", "network": network, "extra": upto},
            ],
            "extensions": ["eip2612GasSponsoring"],
            "signers": {"eip155:*": [SETTLER]},
        }))
        .map_err(|_| unreachable())
    }
}
