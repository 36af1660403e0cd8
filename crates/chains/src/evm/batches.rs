//! Settling several payments in one transaction, where it does not matter who sends it.
//!
//! Payments join the line of their signer and token. One of them that nobody joins is settled by itself,
//! at once. Those who go together are tried together: what fails there is settled by itself, so that it
//! learns its own reason. What fails in the block does too, once its nonce is known to be unused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::{Address, B256};
use serde_json::json;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::broadcast::{Departed, NotSent};
use super::chain::Chain;
use super::check::EvmPayment;
use super::deployed::has_code;
use super::flights::Pilot;
use super::line::{Limits, Line, Next};
use super::method::ContractCall;
use super::multicall::{aggregate, read_results};
use super::signers::Signer;
use super::tracker::Fate;
use super::transaction::{Cargo, Draft, PLAIN_TRANSFER_GAS};
use crate::rpc::{Answer, Call, Receipt, RpcError};

/// What a member takes besides its own call: the words around it, and Multicall3's work.
const MEMBER_GAS: u64 = 12_000;

/// The lines of one network.
#[derive(Debug, Default)]
pub(crate) struct Batches(Mutex<HashMap<Place, Arc<Queue>>>);

/// Signer and token. One token in each transaction, so that what it proves can be told from its events.
type Place = (Address, Address);

/// One line, and who works on it.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Rung when something changes.
    bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    line: Line<Member>,
    has_runner: bool,
}

/// A payment that waits to be settled with others.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) payer: Address,
    pub(crate) call: ContractCall,
    /// What it takes alone.
    pub(crate) gas: u64,
    pub(crate) cargo: Cargo,
    pub(crate) pilot: Pilot,
    pub(crate) verdict: oneshot::Sender<Verdict>,
}

/// What became of a member.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nobody else came: it goes by itself, and is waited for as others are.
    Alone(Slot),
    /// It did not run with the others: it is to be looked at by itself.
    Failed,
    /// Nothing was sent.
    NotSent(NotSent),
    /// The transaction is in a block, as deep as configured.
    Mined(Arc<Landed>),
    /// Another transaction took the number of this one.
    Superseded(B256),
}

/// A mined transaction of several payments.
#[derive(Debug)]
pub(crate) struct Landed {
    pub(crate) call: ContractCall,
    pub(crate) receipt: Receipt,
}

/// One transaction's share in how busy a line is, from before it is sent until it is certain.
#[derive(Debug)]
pub(crate) struct Slot {
    queue: Arc<Queue>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing,
    InFlight,
}

impl Batches {
    fn queue(&self, place: Place) -> Arc<Queue> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queues.entry(place).or_default())
    }
}

impl Queue {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next to go; `None` once nobody waits.
    async fn next(self: &Arc<Self>, limits: Limits) -> Option<(Vec<Member>, Slot)> {
        loop {
            let next = self.with(|it| {
                let next = it.line.next(Instant::now(), limits);
                it.has_runner = !matches!(next, Next::Idle);
                next
            });
            match next {
                Next::Idle => return None,
                Next::Go(members) => {
                    let slot = Slot { queue: Arc::clone(self), stage: Stage::Preparing };
                    return Some((members, slot));
                }
                Next::Wait(until) => {
                    let _changed = tokio::time::timeout_at(until, self.bell.notified()).await;
                }
            }
        }
    }
}

impl Slot {
    /// It was sent, or may have been.
    pub(crate) fn departed(&mut self) {
        if self.stage == Stage::Preparing {
            self.stage = Stage::InFlight;
            self.queue.with(|it| it.line.departed());
            self.queue.bell.notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.queue.with(|it| match self.stage {
            Stage::Preparing => it.line.given_up(),
            Stage::InFlight => it.line.landed(),
        });
        self.queue.bell.notify_one();
    }
}

impl Member {
    fn end(self, verdict: Verdict) {
        // Whoever waited may be gone with the process.
        drop(self.verdict.send(verdict));
    }
}

fn end_all(members: Vec<Member>, verdict: impl Fn() -> Verdict) {
    for member in members {
        member.end(verdict());
    }
}

impl Chain {
    /// Puts a payment in its line.
    pub(super) fn join_line(
        self: &Arc<Self>,
        payment: &EvmPayment,
        member: Member,
        signer: &Arc<Signer>,
        limits: Limits,
    ) {
        let queue = self.batches.queue((signer.address(), payment.authorization.token));
        let gas = member.gas;
        let has_runner = queue.with(|it| {
            it.line.push(member, gas, Instant::now());
            std::mem::replace(&mut it.has_runner, true)
        });
        queue.bell.notify_one();
        if !has_runner {
            let run = Arc::clone(self).run_line(queue, Arc::clone(signer), limits);
            let stop = self.stop.clone();
            self.tasks.spawn(async move { stop.run_until_cancelled_owned(run).await });
        }
    }

    /// Sends off those who wait, until nobody does. What comes meanwhile goes together next.
    async fn run_line(self: Arc<Self>, queue: Arc<Queue>, signer: Arc<Signer>, limits: Limits) {
        while let Some((members, slot)) = queue.next(limits).await {
            self.send_off(&signer, members, slot).await;
        }
    }

    async fn send_off(self: &Arc<Self>, signer: &Arc<Signer>, members: Vec<Member>, slot: Slot) {
        let members = match <[Member; 1]>::try_from(members) {
            Ok([only]) => return only.end(Verdict::Alone(slot)),
            Err(members) => members,
        };
        let mut good = Vec::with_capacity(members.len());
        let runs = self.try_together(signer, &members).await.unwrap_or_else(|error| {
            tracing::info!(%error, "payments that could not be tried together go one by one");
            Vec::new()
        });
        for (index, member) in members.into_iter().enumerate() {
            if runs.get(index) == Some(&true) {
                good.push(member);
            } else {
                member.end(Verdict::Failed);
            }
        }
        let good = match <[Member; 1]>::try_from(good) {
            Ok([only]) => return only.end(Verdict::Alone(slot)),
            Err(good) => good,
        };
        if !good.is_empty() {
            self.send_together(signer, good, slot).await;
        }
    }

    /// Which of them would run now, one after the other, with the gas that is bought for them. A payer
    /// with code does not: it could burn what the others need (attack A10).
    async fn try_together(
        &self,
        signer: &Arc<Signer>,
        members: &[Member],
    ) -> Result<Vec<bool>, RpcError> {
        let call = together(members);
        let request = json!({
            "from": signer.address(),
            "to": call.to,
            "data": call.input,
            "gas": format!("{:#x}", gas_of(members)),
        });
        let mut payers: Vec<Address> = members.iter().map(|it| it.payer).collect();
        payers.sort_unstable();
        payers.dedup();
        let mut calls = vec![Call::new("eth_call", json!([request, "latest"]))];
        let code = |it: &Address| Call::new("eth_getCode", json!([it, "latest"]));
        calls.extend(payers.iter().map(code));
        let mut answers = self.rpc().batch(&calls).await?.into_iter();
        let mut said = |method| {
            let answer: Answer = answers.next().ok_or(RpcError::NoEndpoint)?;
            answer.map_err(|error| RpcError::Node { method, error })
        };
        let results = read_results(&said("eth_call")?, members.len())?;
        let mut with_code = Vec::new();
        for payer in payers {
            if has_code(Some(&said("eth_getCode")?)) {
                with_code.push(payer);
            }
        }
        let runs = results.into_iter().zip(members);
        Ok(runs.map(|(runs, it)| runs && !with_code.contains(&it.payer)).collect())
    }

    async fn send_together(
        self: &Arc<Self>,
        signer: &Arc<Signer>,
        members: Vec<Member>,
        mut slot: Slot,
    ) {
        let fees = match self.fees.current().await {
            Ok(fees) => fees,
            Err(error) => {
                return end_all(members, || Verdict::NotSent(NotSent::Fees(error.clone())));
            }
        };
        let call = together(&members);
        let draft =
            Draft::of_call(self.chain_id(), &call, gas_of(&members)).with(cargo_of(&members));
        let announce = |transaction| members.iter().for_each(|it| it.pilot.sent(transaction));
        match self.depart(signer, draft, fees, &announce).await {
            Ok(departed) => {
                slot.departed();
                tracing::debug!(transaction = %departed.transaction, members = members.len(), "sent");
                let carry = carry(departed, call, members, slot);
                let stop = self.stop.clone();
                self.tasks.spawn(async move { stop.run_until_cancelled_owned(carry).await });
            }
            Err(error) => end_all(members, || Verdict::NotSent(error.clone())),
        }
    }
}

/// Waits until the fate of a transaction is certain, and tells all its members.
async fn carry(departed: Departed, call: ContractCall, members: Vec<Member>, slot: Slot) {
    let transaction = departed.transaction;
    match departed.fate.await {
        Ok(Fate::Mined(receipt)) => {
            drop(slot);
            let landed = Arc::new(Landed { call, receipt });
            end_all(members, || Verdict::Mined(Arc::clone(&landed)));
        }
        Ok(Fate::Superseded) => end_all(members, || Verdict::Superseded(transaction)),
        // Members whose verdict is dropped know what may have been sent.
        Err(_) => {}
    }
}

fn together(members: &[Member]) -> ContractCall {
    let calls: Vec<ContractCall> = members.iter().map(|it| it.call.clone()).collect();
    aggregate(&calls)
}

/// All that the members are.
fn cargo_of(members: &[Member]) -> Cargo {
    Cargo {
        payments: members.iter().flat_map(|it| it.cargo.payments.iter().copied()).collect(),
        depth: members.iter().map(|it| it.cargo.depth).max().unwrap_or_default(),
    }
}

/// What is paid for at most: what each takes alone, but for what is paid once a transaction.
fn gas_of(members: &[Member]) -> u64 {
    let each = |it: &Member| it.gas.saturating_sub(PLAIN_TRANSFER_GAS).saturating_add(MEMBER_GAS);
    members.iter().map(each).fold(PLAIN_TRANSFER_GAS, u64::saturating_add)
}
