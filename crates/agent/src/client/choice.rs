//! Which of the offers that may be paid is taken, and what is said of the others.
//!
//! First what can certainly be moved, then what costs least at most, then `upto` before `exact`
//! because it may cost less, then the seller's order. Nothing here is left to chance.

use std::collections::VecDeque;

use farebox_chains::{Charging, EvmAddress};

use super::Purse;
use super::funding::{Allowances, ClaimNumber, Funding, Sponsoring};
use crate::budget::{OverBudget, Reservation};
use crate::challenge::{Challenge, Version};
use crate::error::{PayError, Refusals};
use crate::offer::{Examiner, Offer, Refusal};
use crate::payment::sponsors_permits;
use crate::transport::Transport;
use crate::usd::Usd;

/// The offer that is taken.
#[derive(Debug)]
pub struct Choice {
    /// Its place among the seller's, from 1.
    pub place: usize,
    /// What is paid.
    pub offer: Offer,
    /// How the money gets moved.
    pub funding: Funding,
    /// The others, in the seller's order.
    pub others: Vec<PassedOver>,
}

/// An offer that is not taken.
#[derive(Debug)]
pub struct PassedOver {
    /// Its place among the seller's, from 1.
    pub place: usize,
    /// Why not.
    pub why: WhyNot,
}

/// Why an offer is not taken.
#[derive(Debug)]
pub enum WhyNot {
    /// It may not be paid.
    Refused(Refusal),
    /// It may, and comes after the one that is.
    Behind {
        /// How it would be paid: the word of its scheme.
        scheme: &'static str,
        /// The most that it would count.
        worth: Usd,
        /// How its money would be moved.
        funding: Funding,
    },
}

/// The offer that is taken, with what was set aside for it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) choice: Choice,
    pub(super) reservation: Reservation,
    pub(super) claim: Option<ClaimNumber>,
}

/// An offer that may be paid.
struct Candidate {
    place: usize,
    offer: Offer,
    funding: Funding,
}

impl Candidate {
    fn rank(&self) -> (bool, Usd, bool, usize) {
        let unsure = self.funding == Funding::Unsure;
        let whole = self.offer.scheme.charging() == Charging::Whole;
        (unsure, self.offer.worth, whole, self.place)
    }
}

impl From<Candidate> for PassedOver {
    fn from(Candidate { place, offer, funding }: Candidate) -> Self {
        let (scheme, worth) = (offer.scheme.word(), offer.worth);
        Self { place, why: WhyNot::Behind { scheme, worth, funding } }
    }
}

impl Purse {
    /// The best offer that the policy allows and the budget has room for. Without a payer nothing is
    /// asked of a chain and nothing claimed.
    pub(super) async fn choose(
        &self,
        challenge: &Challenge,
        payer: Option<EvmAddress>,
        transport: &mut dyn Transport,
    ) -> Result<Chosen, PayError> {
        let sponsoring = sponsoring_of(challenge);
        let (mut candidates, mut others) = self.rank(challenge, payer, sponsoring).await;
        while let Some(candidate) = candidates.pop_front() {
            let taken = self.take(&candidate, payer, sponsoring, transport).await;
            match taken {
                Ok((reservation, funding, claim)) => {
                    others.extend(candidates.into_iter().map(PassedOver::from));
                    others.sort_by_key(|it| it.place);
                    let Candidate { place, offer, .. } = candidate;
                    let choice = Choice { place, offer, funding, others };
                    return Ok(Chosen { choice, reservation, claim });
                }
                Err(refusal) => {
                    let why = WhyNot::Refused(refusal);
                    others.push(PassedOver { place: candidate.place, why });
                }
            }
        }
        others.sort_by_key(|it| it.place);
        let refusals = others.into_iter().filter_map(|it| match it.why {
            WhyNot::Refused(refusal) => Some(refusal),
            WhyNot::Behind { .. } => None,
        });
        Err(PayError::Refused(Refusals(refusals.collect())))
    }

    /// The offers that may be paid, best first, and the others.
    async fn rank(
        &self,
        challenge: &Challenge,
        payer: Option<EvmAddress>,
        sponsoring: Sponsoring,
    ) -> (VecDeque<Candidate>, Vec<PassedOver>) {
        let examiner = Examiner { policy: &self.policy, payer, version: challenge.version };
        let (mut candidates, mut others) = (Vec::new(), Vec::new());
        let mut known = Allowances::default();
        for (place, entry) in (1_usize..).zip(&challenge.accepts) {
            let examined = match examiner.examine(entry) {
                Ok(offer) => {
                    let funding = self.funding(&offer, payer, sponsoring, &mut known).await;
                    funding.map(|funding| Candidate { place, offer, funding })
                }
                Err(refusal) => Err(refusal),
            };
            match examined {
                Ok(candidate) => candidates.push(candidate),
                Err(refusal) => others.push(PassedOver { place, why: WhyNot::Refused(refusal) }),
            }
        }
        candidates.sort_by_key(Candidate::rank);
        (candidates.into(), others)
    }

    /// Sets aside what the candidate takes.
    async fn take(
        &self,
        candidate: &Candidate,
        payer: Option<EvmAddress>,
        sponsoring: Sponsoring,
        transport: &mut dyn Transport,
    ) -> Result<(Reservation, Funding, Option<ClaimNumber>), Refusal> {
        let Candidate { offer, funding, .. } = candidate;
        let reservation = self.reserve(offer.worth, transport).await.map_err(Refusal::Budget)?;
        let Some(payer) = payer else { return Ok((reservation, *funding, None)) };
        match self.claim(offer, *funding, payer, sponsoring).await {
            Ok((funding, claim)) => Ok((reservation, funding, claim)),
            Err(refusal) => {
                self.budget.release(reservation);
                Err(refusal)
            }
        }
    }

    /// Reserves, after a look at what has become free where it is not enough else.
    async fn reserve(
        &self,
        worth: Usd,
        transport: &mut dyn Transport,
    ) -> Result<Reservation, OverBudget> {
        match self.budget.reserve(worth, self.clock.now()) {
            Err(OverBudget::Total { asked, left, .. }) if self.open.could_free(asked, left) => {
                Box::pin(self.look_again(transport)).await;
                self.budget.reserve(worth, self.clock.now())
            }
            reserved => reserved,
        }
    }
}

/// Whether permits are submitted; v1 knows of none.
pub(super) fn sponsoring_of(challenge: &Challenge) -> Sponsoring {
    let declared = sponsors_permits(challenge.extensions.as_ref());
    match challenge.version {
        Version::Two if declared => Sponsoring::Declared,
        Version::One | Version::Two => Sponsoring::Absent,
    }
}
