//! What keeps transactions moving: sending them again, paying more, filling gaps.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

use alloy_primitives::B256;
use futures_util::future::join_all;

use super::Tracker;
use super::items::Item;
use crate::evm::fees::Fees;
use crate::evm::transaction::{Draft, SignedTransaction};
use crate::rpc::{RpcError, Sent};

/// The shortest time between two rounds.
const ROUND_MIN: Duration = Duration::from_millis(500);
/// In how many rounds in a row another transaction must hold the number of one that nobody has a
/// receipt of, until that one is given up: nodes may lag behind one another.
const SUPERSEDED_ROUNDS: u32 = 3;
/// In how many rounds in a row the nodes must refuse a transaction that may have been sent, until
/// one that does nothing is put in its place: later ones wait for its number.
const REFUSED_ROUNDS: u32 = 3;
/// After how many rounds with new blocks a transaction that is its account's next, and offers enough, is
/// offered at a higher price all the same: whoever makes the blocks does not want it at this one.
const STUCK_ROUNDS: u32 = 5;
/// In every how many rounds one is sent again that waits behind others of its account: it is likely to
/// be where they are, and the first of them is sent again in each.
const BEHIND_ROUNDS: u32 = 4;
/// The most transactions that are sent again in one round.
const RESENT_MAX: usize = 100;

/// A transaction that is not in a block.
struct Waiting {
    key: B256,
    newest: SignedTransaction,
    rounds: u32,
    passed_over: u32,
}

/// Where a transaction is among those of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing of its account is before it.
    Next,
    /// It waits for others.
    Behind,
}

/// Those that are sent again, lowest numbers first. What came since the last round is left alone.
fn in_line(mut waiting: Vec<Waiting>) -> Vec<(Waiting, Place)> {
    waiting.sort_by_key(|it| (it.newest.nonce(), it.newest.signer.address()));
    let mut seen = HashSet::new();
    let place = |it: Waiting| {
        let is_first = seen.insert(it.newest.signer.address());
        (it, if is_first { Place::Next } else { Place::Behind })
    };
    let is_due = |(it, place): &(Waiting, Place)| match place {
        Place::Next => 1 < it.rounds,
        Place::Behind => it.rounds.is_multiple_of(BEHIND_ROUNDS),
    };
    waiting.into_iter().map(place).filter(is_due).take(RESENT_MAX).collect()
}

impl Tracker {
    /// Every two blocks.
    pub(super) fn upkeep_interval(&self) -> Duration {
        self.parts.block_time.saturating_mul(2).max(ROUND_MIN)
    }

    /// One round. Transactions that came since the last one are left alone, and so are those in a
    /// block: nodes call their numbers taken, by nobody else.
    pub(super) async fn keep_up(&self) {
        if let Err(error) = self.look_at_landed().await {
            tracing::debug!(%error, "what has landed could not be looked at");
        }
        let waiting = in_line(self.next_round());
        let gaps = self.parts.signers.all().iter().any(|it| it.nonces.has_gap());
        if waiting.is_empty() && !gaps {
            return;
        }
        let fees = match self.parts.fees.current().await {
            Ok(fees) => Some(fees),
            Err(error) => {
                tracing::warn!(%error, "waiting transactions are sent again at their old price");
                None
            }
        };
        let sends = waiting.into_iter().map(|(it, place)| self.send_again(it, place, fees));
        join_all(sends).await;
        if let Some(fees) = fees {
            self.fill_gaps(fees).await;
        }
    }

    /// Those that are not in a block, one round older.
    fn next_round(&self) -> Vec<Waiting> {
        let grown = {
            let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
            // A chain that stands still passes nobody over.
            let grown = u32::from(heads.upkept < heads.latest);
            heads.upkept = heads.latest;
            grown
        };
        self.with(|items| {
            let mut waiting = Vec::new();
            for (key, item) in items.iter_mut().filter(|(_, it)| it.launched && !it.mined) {
                item.rounds = item.rounds.saturating_add(1);
                item.passed_over = item.passed_over.saturating_add(grown);
                let (key, rounds, passed_over) = (*key, item.rounds, item.passed_over);
                if let Some(newest) = item.versions.last().cloned() {
                    waiting.push(Waiting { key, newest, rounds, passed_over });
                }
            }
            waiting
        })
    }

    /// The same bytes, or a dearer version where the price has risen past what it offers or it is stuck.
    async fn send_again(&self, waiting: Waiting, place: Place, fees: Option<Fees>) {
        let is_stuck = place == Place::Next && STUCK_ROUNDS <= waiting.passed_over;
        let Waiting { key, newest, .. } = waiting;
        if is_stuck {
            // It may wait for a number that the chain has forgotten.
            newest.signer.nonces.doubt();
        }
        let wanting = fees.filter(|it| is_stuck || newest.is_outpriced(*it));
        if let Some(dearer) = wanting.and_then(|it| newest.dearer(it)) {
            tracing::info!(transaction = %dearer.hash, replaces = %newest.hash, "gas price raised");
            return self.send_instead(&key, dearer).await;
        }
        let sent = self.send_version(&newest).await;
        let standing = self.with(|items| {
            items.change(&key, |item| {
                let taken = matches!(sent, Sent::NonceTaken(_));
                item.superseded = if taken { item.superseded.saturating_add(1) } else { 0 };
                let refused = matches!(
                    sent,
                    Sent::Refused(RpcError::Node { .. }) | Sent::Unknown(RpcError::Node { .. })
                );
                item.refused = if refused { item.refused.saturating_add(1) } else { 0 };
                (item.superseded, item.refused, item.has_filler())
            })
        });
        let Some((superseded, refused, has_filler)) = standing else { return };
        if SUPERSEDED_ROUNDS <= superseded {
            tracing::warn!(transaction = %newest.hash, "its nonce was used by another transaction");
            self.superseded(&key).await;
        } else if REFUSED_ROUNDS <= refused
            && !has_filler
            && let Some(fees) = fees
            && let draft = Draft::filler(self.parts.chain_id, newest.signer.address())
            && let Some(filler) = newest.replaced_by(draft.with(newest.cargo.clone()), fees)
        {
            tracing::warn!(transaction = %newest.hash, filler = %filler.hash, "given up");
            self.send_instead(&key, filler).await;
        }
    }

    /// Another version, once it is kept.
    async fn send_instead(&self, key: &B256, version: SignedTransaction) {
        if let Err(error) = self.keep(&version).await {
            tracing::warn!(transaction = %version.hash, %error, "not sent, for it was not kept");
            return;
        }
        self.with(|items| {
            items.change(key, |item| {
                item.passed_over = 0;
                item.versions.push(version.clone());
            })
        });
        self.send_version(&version).await;
    }

    async fn send_version(&self, transaction: &SignedTransaction) -> Sent {
        let sent = self.parts.rpc.send_raw(&transaction.raw).await;
        if let Sent::Refused(error) | Sent::Unknown(error) = &sent {
            tracing::debug!(transaction = %transaction.hash, %error, "not taken again");
        }
        sent
    }

    /// Numbers that were given back while later ones are on their way would block those.
    async fn fill_gaps(&self, fees: Fees) {
        for signer in self.parts.signers.all() {
            while let Some(nonce) = signer.nonces.take_gap() {
                let draft = Draft::filler(self.parts.chain_id, signer.address());
                let filler = draft.sign(signer, nonce, fees);
                tracing::info!(nonce, transaction = %filler.hash, "filling a gap in the nonces");
                let (hash, raw) = (filler.hash, filler.raw.clone());
                if let Err(error) = self.keep(&filler).await {
                    tracing::warn!(%error, nonce, "the gap could not be filled yet");
                    signer.nonces.give_back(nonce);
                    break;
                }
                self.insert(Item::new(filler, None));
                if let Sent::Refused(error) = self.parts.rpc.send_raw(&raw).await {
                    tracing::warn!(%error, nonce, "the gap could not be filled yet");
                    self.forget(&hash).await;
                    signer.nonces.give_back(nonce);
                    break;
                }
                self.launched(&hash);
            }
        }
    }
}
