//! What keeps transactions moving: sending them again, paying more, filling gaps.

use std::time::Duration;

use alloy_primitives::B256;

use super::{Fate, Item, Tracker};
use crate::evm::fees::Fees;
use crate::evm::transaction::{Draft, SignedTransaction};
use crate::rpc::Sent;

/// The shortest time between two rounds.
const ROUND_MIN: Duration = Duration::from_millis(500);
/// In how many rounds in a row another transaction must hold the number of one that nobody has a
/// receipt of, until that one is given up: nodes may lag behind one another.
const SUPERSEDED_ROUNDS: u32 = 3;
/// The most transactions that are sent again in one round.
const RESENT_MAX: usize = 100;

impl Tracker {
    /// Every two blocks.
    pub(super) fn upkeep_interval(&self) -> Duration {
        self.block_time.saturating_mul(2).max(ROUND_MIN)
    }

    /// One round. Transactions that came since the last one are left alone.
    pub(super) async fn keep_up(&self) {
        let waiting = self.with(|items| {
            let mut waiting = Vec::new();
            for (key, item) in items.iter_mut() {
                item.rounds = item.rounds.saturating_add(1);
                if let Some(newest) = item.versions.last().filter(|_| 1 < item.rounds) {
                    waiting.push((*key, newest.clone()));
                }
            }
            waiting.sort_by_key(|(_, newest)| newest.nonce());
            waiting.truncate(RESENT_MAX);
            waiting
        });
        let gaps = self.signers.all().iter().any(|it| it.nonces.has_gap());
        if waiting.is_empty() && !gaps {
            return;
        }
        let fees = match self.fees.current().await {
            Ok(fees) => Some(fees),
            Err(error) => {
                tracing::warn!(%error, "waiting transactions are sent again at their old price");
                None
            }
        };
        for (key, newest) in waiting {
            self.send_again(key, newest, fees).await;
        }
        if let Some(fees) = fees {
            self.fill_gaps(fees).await;
        }
    }

    /// The same bytes, or a dearer version where the price has risen past what it offers.
    async fn send_again(&self, key: B256, newest: SignedTransaction, fees: Option<Fees>) {
        let dearer = fees.and_then(|it| newest.dearer(it));
        if let Some(dearer) = &dearer {
            tracing::info!(transaction = %dearer.hash, replaces = %newest.hash, "gas price raised");
            self.with_item(&key, |item| item.versions.push(dearer.clone()));
        }
        let raw = &dearer.as_ref().unwrap_or(&newest).raw;
        let taken = matches!(self.rpc.send_raw(raw).await, Sent::NonceTaken(_)) && dearer.is_none();
        let rounds = self.with_item(&key, |item| {
            item.superseded = if taken { item.superseded.saturating_add(1) } else { 0 };
            item.superseded
        });
        if rounds.is_some_and(|it| SUPERSEDED_ROUNDS <= it) {
            tracing::warn!(transaction = %newest.hash, "its nonce was used by another transaction");
            self.resolve(&key, Fate::Superseded);
        }
    }

    fn with_item<T>(&self, key: &B256, act: impl FnOnce(&mut Item) -> T) -> Option<T> {
        self.with(|items| items.get_mut(key).map(act))
    }

    /// Numbers that were given back while later ones are on their way would block those.
    async fn fill_gaps(&self, fees: Fees) {
        for signer in self.signers.all() {
            while let Some(nonce) = signer.nonces.take_gap() {
                let draft = Draft::filler(self.chain_id, signer.address());
                let filler = draft.sign(signer, nonce, fees);
                tracing::info!(nonce, transaction = %filler.hash, "filling a gap in the nonces");
                let (hash, raw) = (filler.hash, filler.raw.clone());
                self.insert(filler, None);
                if let Sent::Refused(error) = self.rpc.send_raw(&raw).await {
                    tracing::warn!(%error, nonce, "the gap could not be filled yet");
                    self.forget(&hash);
                    signer.nonces.give_back(nonce);
                    break;
                }
            }
        }
    }
}
