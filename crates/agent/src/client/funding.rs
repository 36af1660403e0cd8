//! Whether what is paid over Permit2 can be moved: what Permit2 may spend of the wallet's token, and
//! how much of that is spoken for by payments on their way.
//!
//! Two permits with one nonce exclude each other, and two payments can lean on one allowance, so each
//! payment claims its part before it is signed. A claim ends when the chain shows that its payment
//! was settled, or that it ended unused.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farebox_chains::{
    EvmAddress, EvmPayment, EvmToken, PayerNode, PayerUsage, Permit2Allowance, TransferMethod,
};
use farebox_protocol::{Amount, Timestamp};
use futures_util::future::join_all;

use super::Purse;
use crate::offer::{NoPermit, Offer, Refusal};
use crate::policy::Permit2Approval;

/// How long after its end a claim is given up without asking: clocks differ.
const CLOCKS_DIFFER: Duration = Duration::from_mins(1);
/// The most claims that are looked after at a time.
const CLAIMS_MAX: usize = 64;

/// How the money of an offer gets moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Funding {
    /// By the token itself, on the payment's signature.
    Token,
    /// By Permit2, which may spend enough of it.
    Allowance,
    /// By Permit2, which gets a permit (EIP-2612) for just the offer's amount along with the payment.
    Permit {
        /// The permit's.
        nonce: u64,
    },
    /// By Permit2; whether that may spend enough, nobody here knows.
    Unsure,
}

/// Parts of allowances that payments have claimed.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Vec<Claim>>);

/// Names a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClaimNumber(u64);

#[derive(Debug)]
struct Claim {
    number: ClaimNumber,
    token: EvmToken,
    amount: Amount,
    ends: Timestamp,
    /// Once it is signed.
    payment: Option<EvmPayment>,
}

impl Claims {
    /// Claims what the offer takes.
    fn take(
        &self,
        offer: &Offer,
        found: Permit2Allowance,
        sponsoring: Sponsoring,
        ends: Timestamp,
    ) -> Result<(Funding, ClaimNumber), Refusal> {
        let mut claims = self.lock();
        let ours = claims.iter().filter(|it| it.token == offer.token);
        let taken = ours.fold(0_u128, |sum, it| sum.saturating_add(it.amount.units()));
        let left = Amount::from_units(found.amount.units().saturating_sub(taken));
        let funding = if offer.amount() <= left {
            Funding::Allowance
        } else if taken == 0 {
            fund(offer, found, sponsoring)?
        } else {
            return Err(Refusal::Underway);
        };
        if CLAIMS_MAX <= claims.len() {
            return Err(Refusal::Underway);
        }
        let last = claims.iter().map(|it| it.number.0).max();
        let number = ClaimNumber(last.map_or(0, |it| it.wrapping_add(1)));
        let (token, amount) = (offer.token.clone(), offer.amount());
        claims.push(Claim { number, token, amount, ends, payment: None });
        Ok((funding, number))
    }

    /// What was signed on a claim, if there is one.
    pub(super) fn signed(&self, claim: Option<ClaimNumber>, payment: Option<&EvmPayment>) {
        if let Some(it) = self.lock().iter_mut().find(|it| Some(it.number) == claim) {
            it.payment = payment.cloned();
        }
    }

    /// Nothing was sent on it.
    pub(super) fn forget(&self, claim: Option<ClaimNumber>) {
        self.lock().retain(|it| Some(it.number) != claim);
    }

    /// Lets go of what was settled, and of what ended.
    async fn prune(&self, node: &PayerNode, token: &EvmToken, now: Timestamp) {
        self.lock().retain(|it| now < it.ends.plus(CLOCKS_DIFFER));
        let signed = |it: &Claim| {
            let payment = it.payment.clone().filter(|_| it.token == *token)?;
            Some((it.number, it.ends, payment))
        };
        let signed: Vec<_> = self.lock().iter().filter_map(signed).collect();
        let asked =
            signed.iter().map(async |(number, ends, payment)| match node.usage(payment).await {
                Ok(PayerUsage::Used) => Some(*number),
                Ok(PayerUsage::Unused { at }) => (*ends <= at).then_some(*number),
                Err(_) => None,
            });
        let over: Vec<ClaimNumber> = join_all(asked).await.into_iter().flatten().collect();
        self.lock().retain(|it| !over.contains(&it.number));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Claim>> {
        // Every change is one whole call, so a poisoned list is still a true one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the seller has permits submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sponsoring {
    Declared,
    Absent,
}

/// What an offer over Permit2 is moved by, if the whole allowance is there for it.
fn fund(
    offer: &Offer,
    found: Permit2Allowance,
    sponsoring: Sponsoring,
) -> Result<Funding, Refusal> {
    let needed = offer.amount();
    if needed <= found.amount {
        return Ok(Funding::Allowance);
    }
    let refuse = |obstacle| Refusal::Allowance { needed, found: found.amount, obstacle };
    match (sponsoring, found.permit_nonce) {
        (Sponsoring::Absent, _) => Err(refuse(NoPermit::NotSponsored)),
        (Sponsoring::Declared, None) => Err(refuse(NoPermit::NoNonce)),
        (Sponsoring::Declared, Some(nonce)) => Ok(Funding::Permit { nonce }),
    }
}

/// What is asked while offers are compared, once for each token.
#[derive(Debug, Default)]
pub(super) struct Allowances(Vec<(EvmToken, Option<Permit2Allowance>)>);

impl Purse {
    /// How an offer would be moved.
    pub(super) async fn funding(
        &self,
        offer: &Offer,
        payer: Option<EvmAddress>,
        sponsoring: Sponsoring,
        known: &mut Allowances,
    ) -> Result<Funding, Refusal> {
        match offer.scheme.method() {
            TransferMethod::Eip3009 => return Ok(Funding::Token),
            TransferMethod::Permit2 => {}
        }
        let Some(node) = self.policy.node(offer.token.network()) else {
            return Ok(match self.policy.permit2_approval {
                Permit2Approval::Given => Funding::Allowance,
                Permit2Approval::Unknown => Funding::Unsure,
            });
        };
        let Some(payer) = payer else { return Ok(Funding::Unsure) };
        let asked_before = known.0.iter().find(|(token, _)| *token == offer.token);
        let found = if let Some((_, found)) = asked_before {
            *found
        } else {
            let found = allowance(node, &offer.token, payer).await;
            known.0.push((offer.token.clone(), found));
            found
        };
        found.map_or(Ok(Funding::Unsure), |found| fund(offer, found, sponsoring))
    }

    /// Claims what the offer takes of an allowance, as that is now. Nothing is claimed where nobody
    /// knows an allowance.
    pub(super) async fn claim(
        &self,
        offer: &Offer,
        funding: Funding,
        payer: EvmAddress,
        sponsoring: Sponsoring,
    ) -> Result<(Funding, Option<ClaimNumber>), Refusal> {
        let node = self.policy.node(offer.token.network());
        let (Some(node), Funding::Allowance | Funding::Permit { .. }) = (node, funding) else {
            return Ok((funding, None));
        };
        // Asked again: another payment may have been settled since.
        for _ in 0..2 {
            let Some(found) = allowance(node, &offer.token, payer).await else {
                return Ok((Funding::Unsure, None));
            };
            let now = self.clock.now();
            let ends = now.plus(offer.validity()).plus(Duration::from_secs(1));
            match self.claims.take(offer, found, sponsoring, ends) {
                Err(Refusal::Underway) => self.claims.prune(node, &offer.token, now).await,
                taken => return taken.map(|(funding, claim)| (funding, Some(claim))),
            }
        }
        Err(Refusal::Underway)
    }
}

async fn allowance(
    node: &PayerNode,
    token: &EvmToken,
    payer: EvmAddress,
) -> Option<Permit2Allowance> {
    let found = node.permit2_allowance(token, payer).await;
    let silent = |error: &_| {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(network = %token.network(), %error, source, "Permit2's allowance is not known");
    };
    found.inspect_err(silent).ok()
}
