//! What a transaction proves that settles several payments through Multicall3.
//!
//! Permit2 says nothing of nonces in events, and Multicall3 nothing of the calls that failed. Where a
//! transaction is one `aggregate3` of nothing but settlements in one token, each settlement that ran
//! left a `Transfer` of the token and the proxy's `Settled`, in the order of the calls, and nothing else
//! could leave the two. So what ran is counted. Settlements of the same money between the same two look
//! alike: only if all of those ran, or none, do the events say which.

use alloy_primitives::{Address, B256, U256};
use farebox_protocol::Amount;

use super::super::authorization::{Authorization, Limit};
use super::super::exact::TRANSFERS;
use super::super::multicall::read_aggregate;
use super::{
    ContractCall, EvmPayment, Proof, Proxy, Rivals, Seen, Settled, Settler, abi, account,
    is_settlement, settle_words, settled_by,
};
use crate::rpc::Log;

/// A transaction that settles in one token, and does nothing else.
pub(super) struct Batch {
    /// What the calls of the proxy ask for, each authorisation once.
    asked: Vec<Settled>,
    /// What the events say was moved by the proxy.
    moved: Vec<Moved>,
    proxy: &'static Proxy,
}

/// From whom, to whom, how much; as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved([B256; 3]);

/// A transaction of this shape; `None` of any other, of which nothing is said here.
pub(super) fn read(payment: &EvmPayment, proxy: &'static Proxy, seen: Seen<'_>) -> Option<Batch> {
    if proxy.settler != Settler::Anybody {
        return None;
    }
    let token = payment.authorization.token;
    let mut asked: Vec<Settled> = Vec::new();
    for call in read_aggregate(seen.call)? {
        if is_transfer(&call, token) {
            continue;
        }
        let settled = settled_by(&call.input, proxy).filter(|_| call.to == proxy.address)?;
        if settled.words.first() != Some(&account(token)) {
            return None;
        }
        if !asked.contains(&settled) {
            asked.push(settled);
        }
    }
    Some(Batch { asked, moved: moved_by(proxy, token, seen.logs)?, proxy })
}

/// Whether a call moves the token by EIP-3009.
fn is_transfer(call: &ContractCall, token: Address) -> bool {
    call.to == token && TRANSFERS.iter().any(|it| call.input.starts_with(it))
}

/// What each of the proxy's events came after; `None` if one came after nothing.
fn moved_by(proxy: &Proxy, token: Address, logs: &[Log]) -> Option<Vec<Moved>> {
    let mut last = None;
    let mut moved = Vec::new();
    for log in logs.iter().filter(|it| !it.removed) {
        if log.address == token && log.topics.first() == Some(&abi::TRANSFER) {
            let [_, from, to] = *<&[B256; 3]>::try_from(log.topics.as_slice()).ok()?;
            let amount = B256::try_from(log.data.as_ref()).ok()?;
            last = Some(Moved([from, to, amount]));
        } else if is_settlement(proxy, log) {
            moved.push(last.take()?);
        }
    }
    Some(moved)
}

impl Settled {
    /// What it moves: the words are token, amount, nonce, deadline, owner, payee, start.
    fn moves(&self) -> Option<Moved> {
        Some(Moved([self.owner, *self.words.get(5)?, *self.words.get(1)?]))
    }
}

impl Batch {
    pub(super) fn proof(&self, payment: &EvmPayment) -> Proof {
        let it = &payment.authorization;
        let own = [account(it.payer), it.nonce];
        let mut asked = self.asked.iter().filter(|it| [it.owner, it.nonce] == own);
        let asked = match (asked.next(), asked.next()) {
            (None, _) => return Proof::Unrelated,
            (Some(asked), None) => asked,
            // One nonce, signed twice.
            (Some(_), Some(_)) => return Proof::Unclear,
        };
        let (alike, paid) = self.alike(asked);
        match paid {
            0 => Proof::Unrelated,
            paid if paid != alike.len() => Proof::Unclear,
            _ if asked.words == settle_words(payment, self.proxy.settler) => Proof::Paid,
            _ => Proof::Spent,
        }
    }

    /// The settlements that move the same as this one, and how many of them ran.
    fn alike(&self, asked: &Settled) -> (Vec<&Settled>, usize) {
        let moves = asked.moves();
        let alike = self.asked.iter().filter(|it| it.moves() == moves).collect();
        let paid = self.moved.iter().filter(|it| Some(**it) == moves).count();
        (alike, paid)
    }

    pub(super) fn rivals(&self, payment: &EvmPayment) -> Option<Rivals> {
        let words = settle_words(payment, self.proxy.settler);
        let own = self.asked.iter().find(|it| it.words == words)?;
        let (alike, paid) = self.alike(own);
        let others = alike.into_iter().filter(|it| it.words != words);
        let others = others.map(|it| it.authorization(payment));
        let all: Option<Vec<Authorization>> =
            [Some(payment.authorization)].into_iter().chain(others).collect();
        let all = all?;
        let mut nonces: Vec<B256> = all.iter().map(|it| it.nonce).collect();
        nonces.sort_unstable();
        nonces.dedup();
        // One nonce, signed twice, cannot be counted; nor can more payments than there are.
        (nonces.len() == all.len() && 0 < paid && paid < all.len()).then_some(Rivals { all, paid })
    }
}

impl Settled {
    /// What was signed for it, if it moves what the payment does.
    fn authorization(&self, payment: &EvmPayment) -> Option<Authorization> {
        let word = |index: usize| Some(U256::from_be_bytes(self.words.get(index)?.0));
        Some(Authorization {
            value: Amount::from_units(u128::try_from(word(1)?).ok()?),
            nonce: self.nonce,
            limit: Limit::Through(word(3)?),
            valid_after: word(6)?,
            ..payment.authorization
        })
    }
}

#[cfg(test)]
mod tests;
