//! What differs from one EVM payment method to the next, and the table of them.
//!
//! Everything else (flights, nonces, fees, receipts, look-ups) knows payments by this alone. A
//! method is a file that implements [`Scheme`] and [`Method`], and a row here and in
//! [`SCHEMES`](crate::SCHEMES).

use alloy_primitives::{Address, B256, Bytes};
use farebox_protocol::Reason;
use farebox_protocol::wire::PaymentRequirements;
use serde_json::Value;

use super::authorization::{Authorization, Signed};
use super::check::{EvmPayment, Refusal};
use super::exact::Exact;
use super::exact_permit2::ExactPermit2;
use super::token::EvmToken;
use super::upto::Upto;
use crate::rpc::Log;
use crate::scheme::{BadPayload, Scheme};
use crate::schemes::scheme_of;

/// The EVM rows of the table of schemes.
pub(crate) static METHODS: &[&dyn Method] = &[&Exact, &ExactPermit2, &Upto];

/// The method of an offer on an EVM network.
pub(crate) fn method_of(offer: &PaymentRequirements) -> Option<&'static dyn Method> {
    let scheme = scheme_of(offer)?;
    METHODS.iter().copied().find(|it| it.word() == scheme.word())
}

/// A payment method of EVM networks. Every function is pure.
pub(crate) trait Method: Scheme {
    /// The codes of its refusals.
    fn reasons(&self) -> &'static Reasons;

    /// The member of the payload that holds its authorisations.
    fn member(&self) -> &'static str;

    /// Reads a payload's `payload`, for a payment in the token `asset`.
    fn read<'a>(&self, payload: &'a Value, asset: Address) -> Result<Signed<'a>, BadPayload>;

    /// What it wants of an offer's `extra` beside its name.
    fn check_extra(&self, token: &EvmToken, offer: &PaymentRequirements) -> Result<(), Refusal>;

    /// The contract that authorisations must let move the token.
    fn spender(&self, token: Address) -> Address;

    /// The contract that keeps the used nonces and checks signatures.
    fn nonce_keeper(&self, token: Address) -> Address;

    /// Contracts of a fixed address, with their names, without which nothing can be settled.
    fn contracts(&self) -> &'static [(&'static str, Address)];

    /// What the payer signed (EIP-712).
    fn digest(&self, token: &EvmToken, authorization: &Authorization) -> B256;

    /// The question whether a nonce was used or cancelled; [`Method::is_used`] reads the word that
    /// it is answered with.
    fn use_query(&self, authorization: &Authorization) -> ContractCall;

    /// Whether that word says so; `None` if it says nothing.
    fn is_used(&self, authorization: &Authorization, word: B256) -> Option<bool>;

    /// The question what the payer lets the method spend, where it must.
    fn allowance_query(&self, authorization: &Authorization) -> Option<ContractCall>;

    /// The calls that would move the money, any one of them, cheapest first.
    fn settle_calls(&self, payment: &EvmPayment) -> Vec<ContractCall>;

    /// Where transactions that may have used the nonce show.
    fn traces(&self, authorization: &Authorization) -> Traces;

    /// Whether such an event concerns this payment.
    fn is_trace(&self, payment: &EvmPayment, log: &Log) -> bool;

    /// What a transaction that ran to its end proves of a payment.
    fn proof(&self, payment: &EvmPayment, seen: Seen<'_>) -> Proof;

    /// Where that is [`Proof::Unclear`] because several authorisations would leave the same events and
    /// only some of them were paid: which, and how many. The states of their nonces tell more.
    fn rivals(&self, _payment: &EvmPayment, _seen: Seen<'_>) -> Option<Rivals> {
        None
    }
}

/// Authorisations that a transaction tried to settle, whose events cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rivals {
    /// All of them, the payment's own first.
    pub(crate) all: Vec<Authorization>,
    /// How many were settled.
    pub(crate) paid: usize,
}

/// A call of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContractCall {
    pub(crate) to: Address,
    pub(crate) input: Bytes,
}

/// A transaction that ran to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// The call that it is.
    pub(crate) call: &'a ContractCall,
    /// Its events.
    pub(crate) logs: &'a [Log],
}

/// Events to look through.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    /// Of which contracts.
    pub(crate) addresses: Vec<Address>,
    /// `topics` of `eth_getLogs`.
    pub(crate) topics: Value,
    /// Whether a use shows for certain.
    pub(crate) certainty: Certainty,
}

/// Whether the use of a nonce leaves an event in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// It does.
    Always,
    /// Only what moves the money as signed, and cancellations, do.
    Payments,
}

/// What one transaction proves of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The money moved as signed and demanded.
    Paid,
    /// It did not use the nonce.
    Unrelated,
    /// It used the nonce for something else, or moved no money.
    Spent,
    /// It cancelled the nonce, unless that was used already.
    Cancelled,
    /// It cannot be told from what it shows: no verdict either way.
    Unclear,
}

/// The codes of one method's refusals.
#[derive(Debug)]
pub(crate) struct Reasons {
    pub(crate) scheme: Reason,
    pub(crate) network: Reason,
    pub(crate) spender: Reason,
    pub(crate) token: Reason,
    pub(crate) recipient: Reason,
    pub(crate) facilitator: Reason,
    pub(crate) amount: Reason,
    /// More is to be settled than was authorised.
    pub(crate) over: Reason,
    pub(crate) late: Reason,
    pub(crate) early: Reason,
    pub(crate) signature: Reason,
    pub(crate) used: Reason,
    pub(crate) balance: Reason,
    pub(crate) simulation: Reason,
    pub(crate) failed: Reason,
    /// There is no contract where the nonces should be kept.
    pub(crate) no_contract: Reason,
    /// There is one, and it does not know of nonces.
    pub(crate) not_supported: Reason,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schemes::SCHEMES;

    #[test]
    fn every_evm_scheme_is_a_method() {
        let evm = SCHEMES.iter().filter(|it| it.namespace() == "eip155").map(|it| it.word());
        let methods: Vec<&str> = METHODS.iter().map(|it| it.word()).collect();
        assert_eq!(evm.collect::<Vec<_>>(), methods);
    }
}
