//! What wallets did not sign, remembered for a moment.
//!
//! Whether a contract signed costs questions to the chain, and anybody can claim that one did. So the same
//! claim is refused again without asking, and of one payer only so many false ones are looked into in
//! a while; payments that its key signed are not meant by it. All wallets together share a queue.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, B256, Keccak256};
use farebox_protocol::Reason;
use tokio::time::Instant;

use super::chain::Chain;
use super::check::{EvmPayment, Refusal};
use super::signed_by::WalletSignature;
use super::verify::NoStanding;
use crate::rpc::RpcError;

/// For how many blocks a wallet's word stands: it may have another owner then.
const STANDS_BLOCKS: u32 = 2;
/// How many false claims on one payer are looked into …
const FALSE_MAX: u32 = 16;
/// … in so long a time.
const FALSE_IN: Duration = Duration::from_secs(10);
/// How much is remembered. Where it is full of what still stands, more is looked into.
const REMEMBERED_MAX: usize = 8_192;

/// The claims that were false.
#[derive(Debug, Default)]
pub(crate) struct Doubts(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    refused: HashMap<B256, (Refusal, Instant)>,
    /// How many since when, by payer.
    counts: HashMap<Address, (u32, Instant)>,
}

/// What is to be done with a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Ask,
    /// As it was a moment ago.
    Refuse(Refusal),
    /// Not now.
    Spare,
}

impl Chain {
    /// What a question to the payer's wallet comes to, unless that is known, or was asked too often.
    pub(crate) async fn unless_doubted<T>(
        &self,
        payment: &EvmPayment,
        question: impl Future<Output = Result<T, NoStanding>>,
    ) -> Result<T, NoStanding> {
        let Some(wallet) = payment.signed_by.wallet() else { return question.await };
        let (payer, claim) = (payment.authorization.payer, claim(payment, wallet));
        let doubts = &self.wallets.doubts;
        let stands = self.config().block_time.saturating_mul(STANDS_BLOCKS);
        match doubts.lock().judge((payer, claim), stands, Instant::now()) {
            Verdict::Ask => {}
            Verdict::Refuse(refusal) => return Err(NoStanding::Refused(refusal)),
            Verdict::Spare => return Err(NoStanding::Rpc(RpcError::Spared)),
        }
        let result = question.await;
        if let Err(NoStanding::Refused(refusal)) = &result
            && is_of_wallet(payment, &refusal.reason)
        {
            doubts.lock().note((payer, claim), refusal.clone(), stands, Instant::now());
        }
        result
    }
}

impl Doubts {
    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn judge(&self, (payer, claim): (Address, B256), stands: Duration, now: Instant) -> Verdict {
        let fresh = |at: &Instant, span| now.saturating_duration_since(*at) < span;
        if let Some((refusal, _)) = self.refused.get(&claim).filter(|it| fresh(&it.1, stands)) {
            return Verdict::Refuse(refusal.clone());
        }
        match self.counts.get(&payer).filter(|it| fresh(&it.1, FALSE_IN)) {
            Some((count, _)) if FALSE_MAX <= *count => Verdict::Spare,
            Some(_) | None => Verdict::Ask,
        }
    }

    fn note(
        &mut self,
        (payer, claim): (Address, B256),
        refusal: Refusal,
        stands: Duration,
        now: Instant,
    ) {
        let fresh = |at: &Instant, span| now.saturating_duration_since(*at) < span;
        if REMEMBERED_MAX <= self.refused.len() {
            self.refused.retain(|_, (_, at)| fresh(at, stands));
        }
        if self.refused.len() < REMEMBERED_MAX {
            self.refused.insert(claim, (refusal, now));
        }
        if REMEMBERED_MAX <= self.counts.len() {
            self.counts.retain(|_, (_, since)| fresh(since, FALSE_IN));
        }
        if REMEMBERED_MAX <= self.counts.len() && !self.counts.contains_key(&payer) {
            return;
        }
        let (count, since) = self.counts.entry(payer).or_insert((0, now));
        if !fresh(since, FALSE_IN) {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
    }
}

/// Who is said to have signed what, and how that is to be seen.
fn claim(payment: &EvmPayment, wallet: &WalletSignature) -> B256 {
    let mut hash = Keccak256::new();
    hash.update(payment.authorization.payer);
    hash.update(wallet.digest);
    if let Some(deployment) = &wallet.deployment {
        hash.update(deployment.factory);
        hash.update(deployment.input.len().to_be_bytes());
        hash.update(&deployment.input);
    }
    hash.update(&wallet.bytes);
    hash.finalize()
}

/// Whether it is the wallet's word, and not what the payer has.
fn is_of_wallet(payment: &EvmPayment, reason: &Reason) -> bool {
    *reason == payment.method.reasons().signature
        || matches!(reason, Reason::Eip6492FactoryNotAllowed | Reason::SmartWalletDeploymentFailed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn false_claims_are_remembered_for_a_moment_and_within_bounds() {
        let mut book = Book::default();
        let (start, stands) = (Instant::now(), Duration::from_secs(4));
        let of = |payer: u8, claim: u64| {
            (Address::with_last_byte(payer), B256::from(alloy_primitives::U256::from(claim)))
        };
        let refusal = || Refusal::new(Reason::InvalidExactEvmSignature, "expected another".into());
        assert_eq!(book.judge(of(1, 0), stands, start), Verdict::Ask);
        for claim in 0..15 {
            book.note(of(1, claim), refusal(), stands, start);
        }
        assert_eq!(book.judge(of(1, 3), stands, start), Verdict::Refuse(refusal()));
        assert_eq!(book.judge(of(1, 99), stands, start), Verdict::Ask);
        book.note(of(1, 15), refusal(), stands, start);
        assert_eq!(book.judge(of(1, 99), stands, start), Verdict::Spare);
        assert_eq!(book.judge(of(2, 99), stands, start), Verdict::Ask);
        // A wallet's word may change, and nobody is spared for ever.
        let later = start + stands;
        assert_eq!(book.judge(of(1, 3), stands, later), Verdict::Spare);
        let later = start + FALSE_IN;
        assert_eq!(book.judge(of(1, 3), stands, later), Verdict::Ask);
        book.note(of(1, 3), refusal(), stands, later);
        assert_eq!(book.judge(of(1, 99), stands, later), Verdict::Ask);
        // Memory is bounded, and what was forgotten is asked again.
        for claim in 0..10_000 {
            book.note(of(3, 1_000 + claim), refusal(), stands, later);
        }
        assert_eq!(book.refused.len(), REMEMBERED_MAX);
        assert_eq!(book.judge(of(4, 10_999), stands, later), Verdict::Ask);
    }
}
