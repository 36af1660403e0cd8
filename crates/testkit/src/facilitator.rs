//! A facilitator with a chain of its own in memory: honest by default, and told when to fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use farebox_chains::{
    EvmToken, Facilitator, FacilitatorError, Lookup, NetworkReadiness, SettleError, Settlement,
    Verification, check_payment, check_settlement,
};
use farebox_protocol::wire::{SettleRequest, SupportedResponse, VerifyRequest};
use farebox_protocol::{Amount, PaymentId, Reason, Timestamp};
use serde_json::json;

use crate::gate::Gate;

/// Who settles `upto`.
const SETTLER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// Checks forms, times and signatures as the real one does, and moves balances in memory.
#[derive(Debug)]
pub struct FakeFacilitator {
    token: EvmToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    balances: HashMap<String, u128>,
    landed: HashMap<PaymentId, Settlement>,
    on_verify: OnVerify,
    on_settle: OnSettle,
    readiness: Vec<NetworkReadiness>,
    verifications: u64,
    settlements: u64,
}

/// What happens to verifications.
#[derive(Clone, Debug)]
pub enum OnVerify {
    /// They tell the truth.
    Honest,
    /// They cannot be carried out.
    Unreachable,
    /// They claim that the payment is somebody else's.
    OtherPayer,
    /// They tell the truth when the gate opens.
    Wait(Arc<Gate>),
}

/// What happens to settlements.
#[derive(Clone, Debug)]
pub enum OnSettle {
    /// They move the money.
    Honest,
    /// They are refused for good.
    Reject(Reason),
    /// They cannot be sent.
    NotSent,
    /// They move the money and nobody hears of it.
    LandUnheard,
    /// They move the money when the gate opens.
    Wait(Arc<Gate>),
}

impl FakeFacilitator {
    /// For one token in which everybody has a million units of 10⁻⁶.
    pub fn new(token: EvmToken) -> Arc<Self> {
        let state = State {
            balances: HashMap::new(),
            landed: HashMap::new(),
            on_verify: OnVerify::Honest,
            on_settle: OnSettle::Honest,
            readiness: Vec::new(),
            verifications: 0,
            settlements: 0,
        };
        Arc::new(Self { token, state: Mutex::new(state) })
    }

    /// From now on.
    pub fn on_verify(&self, behaviour: OnVerify) {
        self.state().on_verify = behaviour;
    }

    /// From now on.
    pub fn on_settle(&self, behaviour: OnSettle) {
        self.state().on_settle = behaviour;
    }

    /// On which networks it can settle, from now on.
    pub fn set_readiness(&self, readiness: Vec<NetworkReadiness>) {
        self.state().readiness = readiness;
    }

    /// What an address has; any spelling.
    pub fn set_balance(&self, address: &str, units: u128) {
        self.state().balances.insert(address.to_lowercase(), units);
    }

    /// What an address has; any spelling.
    pub fn balance(&self, address: &str) -> u128 {
        self.state().balance(&address.to_lowercase())
    }

    /// How often it was asked to verify.
    pub fn verifications(&self) -> u64 {
        self.state().verifications
    }

    /// How often it was asked to settle.
    pub fn settlements(&self) -> u64 {
        self.state().settlements
    }

    /// Payments that moved money.
    pub fn landed(&self) -> usize {
        self.state().landed.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the money, once.
    fn land(&self, request: &SettleRequest, now: Timestamp) -> Result<Settlement, SettleError> {
        let rejected = |reason, message| SettleError::Rejected { reason, message };
        let payment = check_settlement(&self.token, request, now)
            .map_err(|refusal| rejected(refusal.reason, refusal.message))?;
        let mut state = self.state();
        if let Some(settlement) = state.landed.get(&payment.id()) {
            return Ok(settlement.clone());
        }
        let payer = payment.payer().to_lower_hex();
        let amount = payment.amount().units();
        let Some(left) = state.balance(&payer).checked_sub(amount) else {
            let reason = Reason::InvalidExactEvmInsufficientBalance;
            return Err(rejected(reason, "not enough".to_owned()));
        };
        let pay_to = payment.pay_to().to_lower_hex();
        let had = state.balance(&pay_to);
        state.balances.insert(payer, left);
        state.balances.insert(pay_to, had.saturating_add(amount));
        let settlement = Settlement {
            // Nothing is sent for nothing.
            transaction: match amount {
                0 => String::new(),
                _ => format!("0x{}", hex::encode(payment.id().as_bytes())),
            },
            network: self.token.network().clone(),
            payer: payment.payer().to_string(),
            amount: payment.amount(),
            final_in: None,
        };
        state.landed.insert(payment.id(), settlement.clone());
        Ok(settlement)
    }
}

impl State {
    fn balance(&self, address: &str) -> u128 {
        self.balances.get(address).copied().unwrap_or(1_000_000)
    }
}

fn unreachable() -> FacilitatorError {
    FacilitatorError { context: "the fake chain".to_owned(), source: None }
}

#[async_trait]
impl Facilitator for FakeFacilitator {
    async fn verify(
        &self,
        request: &VerifyRequest,
        now: Timestamp,
    ) -> Result<Verification, FacilitatorError> {
        let behaviour = {
            let mut state = self.state();
            state.verifications = state.verifications.saturating_add(1);
            state.on_verify.clone()
        };
        if let OnVerify::Wait(gate) = &behaviour {
            gate.pass().await;
        }
        let payment = match (behaviour, check_payment(&self.token, request, now)) {
            (OnVerify::Unreachable, _) => return Err(unreachable()),
            (OnVerify::OtherPayer, Ok(_)) => {
                let payer = "0x000000000000000000000000000000000000dEaD".to_owned();
                return Ok(Verification::Valid { payer, collectable: None });
            }
            (OnVerify::Honest | OnVerify::OtherPayer | OnVerify::Wait(_), Err(refusal)) => {
                return Ok(Verification::Invalid {
                    reason: refusal.reason,
                    message: refusal.message,
                    payer: refusal.payer,
                });
            }
            (OnVerify::Honest | OnVerify::Wait(_), Ok(payment)) => payment,
        };
        let state = self.state();
        let payer = payment.payer().to_string();
        let balance = state.balance(&payer.to_lowercase());
        if state.landed.contains_key(&payment.id()) {
            let reason = Reason::InvalidExactEvmNonceAlreadyUsed;
            let message = "used".to_owned();
            return Ok(Verification::Invalid { reason, message, payer: Some(payer) });
        }
        if balance < payment.amount().units() {
            let reason = Reason::InvalidExactEvmInsufficientBalance;
            let message = "not enough".to_owned();
            return Ok(Verification::Invalid { reason, message, payer: Some(payer) });
        }
        let collectable = Some(Amount::from_units(balance));
        Ok(Verification::Valid { payer, collectable })
    }

    async fn settle(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Settlement, SettleError> {
        let behaviour = {
            let mut state = self.state();
            state.settlements = state.settlements.saturating_add(1);
            state.on_settle.clone()
        };
        match behaviour {
            OnSettle::Honest => self.land(request, now),
            OnSettle::Reject(reason) => {
                Err(SettleError::Rejected { reason, message: "told to".to_owned() })
            }
            OnSettle::NotSent => Err(SettleError::NotSent(unreachable())),
            OnSettle::LandUnheard => {
                let landed = self.land(request, now)?;
                Err(SettleError::Unknown { transaction: Some(landed.transaction) })
            }
            OnSettle::Wait(gate) => {
                gate.pass().await;
                self.land(request, now)
            }
        }
    }

    async fn lookup(
        &self,
        request: &SettleRequest,
        now: Timestamp,
    ) -> Result<Lookup, FacilitatorError> {
        let Ok(payment) = check_settlement(&self.token, request, now) else {
            return Ok(Lookup::CannotTell);
        };
        let landed = self.state().landed.get(&payment.id()).cloned();
        Ok(landed.map_or(Lookup::Open, Lookup::Landed))
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

    fn readiness(&self) -> Vec<NetworkReadiness> {
        self.state().readiness.clone()
    }
}
