//! What the signers have to pay gas with, asked of the chain now and then: who has too little takes no
//! new payments, so that none gets stuck halfway.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy_primitives::U256;
use farebox_protocol::Network;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::EvmAddress;
use super::chain::Chain;
use super::signers::{Signer, Signers};
use crate::rpc::{Call, RpcError, quantity};

/// How often balances are looked at, if nobody asks for it.
const EVERY: Duration = Duration::from_secs(30);
/// The shortest time between two looks, in blocks.
const BLOCKS_MIN: u32 = 2;

/// What a signer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignerFunds {
    /// The chain has not said yet.
    #[default]
    Unknown,
    /// Its reserve and more.
    Enough {
        /// Its balance.
        wei: u128,
    },
    /// Less than its reserve: it takes no new payments.
    Low {
        /// Its balance.
        wei: u128,
    },
}

/// A signer on one network, for whoever watches over the facilitator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerStatus {
    /// Where.
    pub network: Network,
    /// Its account.
    pub address: EvmAddress,
    /// What it has to pay gas with, as of the last look.
    pub funds: SignerFunds,
    /// What it must have to take new payments, in wei.
    pub reserve_wei: u128,
    /// How many of its transactions are on their way.
    pub in_flight: usize,
}

/// The last that was seen of one signer's balance.
#[derive(Debug, Default)]
pub(crate) struct Funds(Mutex<SignerFunds>);

impl Funds {
    pub(crate) fn get(&self) -> SignerFunds {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn are_low(&self) -> bool {
        matches!(self.get(), SignerFunds::Low { .. })
    }

    /// What was before.
    pub(crate) fn set(&self, funds: SignerFunds) -> SignerFunds {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), funds)
    }
}

impl SignerFunds {
    fn of(wei: u128, reserve: u128) -> Self {
        if wei < reserve { Self::Low { wei } } else { Self::Enough { wei } }
    }
}

impl Chain {
    /// Looks at the balances of all signers until told to stop: at once, then every half minute, and
    /// sooner where somebody wants one and found none.
    pub(crate) async fn watch_funds(self: Arc<Self>, stop: CancellationToken) {
        let _stopped = stop.run_until_cancelled_owned(self.watch_funds_for_ever()).await;
    }

    async fn watch_funds_for_ever(&self) {
        if self.signers.all().is_empty() {
            return;
        }
        loop {
            let begun = Instant::now();
            if let Err(error) = self.look_at_funds().await {
                tracing::warn!(network = %self.network(), %error, "signers' balances are unknown");
            }
            tokio::time::sleep(self.config().block_time.saturating_mul(BLOCKS_MIN)).await;
            let rest = EVERY.saturating_sub(begun.elapsed());
            // Asked for or not: it is time to look again.
            let _asked = tokio::time::timeout(rest, self.signers.wanted()).await;
        }
    }

    /// One batch for all of them.
    async fn look_at_funds(&self) -> Result<(), RpcError> {
        let signers = self.signers.all();
        let ask = |it: &Arc<Signer>| Call::new("eth_getBalance", json!([it.address(), "latest"]));
        let answers = self.rpc().batch(&signers.iter().map(ask).collect::<Vec<_>>()).await?;
        for (signer, answer) in signers.iter().zip(answers) {
            let method = "eth_getBalance";
            let answer = answer.map_err(|error| RpcError::Node { method, error })?;
            let wei = quantity::<U256>(&answer)?;
            self.note(signer, u128::try_from(wei).unwrap_or(u128::MAX));
        }
        Ok(())
    }

    /// Says so where it changes, and not again.
    fn note(&self, signer: &Signer, wei: u128) {
        let reserve = self.signers.reserve_wei();
        let now = SignerFunds::of(wei, reserve);
        let before = signer.funds.set(now);
        let (network, address) = (self.network(), signer.key.address());
        match (before, now) {
            (SignerFunds::Low { .. }, SignerFunds::Enough { .. }) => {
                tracing::info!(%network, signer = %address, wei, "the signer has gas money again");
            }
            (SignerFunds::Unknown | SignerFunds::Enough { .. }, SignerFunds::Low { .. }) => {
                tracing::warn!(
                    %network, signer = %address, wei, reserve,
                    "the signer has too little to pay gas with and takes no new payments: send it some"
                );
            }
            _ => {}
        }
    }

    /// Why nobody could take a payment on this network, if nobody could.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let nobody = self.signers.all().iter().all(|it| it.funds.are_low());
        nobody.then(|| self.signers.why_nobody().to_string())
    }

    /// How the signers of this network are.
    pub(crate) fn signer_status(&self) -> Vec<SignerStatus> {
        let status = |it: &Arc<Signer>| SignerStatus {
            network: self.network().clone(),
            address: it.key.address(),
            funds: it.funds.get(),
            reserve_wei: self.signers.reserve_wei(),
            in_flight: it.nonces.in_flight(),
        };
        self.signers.all().iter().map(status).collect()
    }
}

impl Signers {
    /// Who must be sent something, for a message.
    pub(crate) fn low(&self) -> String {
        let shown = |it: &Arc<Signer>| match it.funds.get() {
            SignerFunds::Low { wei } => Some(format!("{} (has {wei} wei)", it.key.address())),
            SignerFunds::Unknown | SignerFunds::Enough { .. } => None,
        };
        self.all().iter().filter_map(shown).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_itself_is_enough() {
        assert_eq!(SignerFunds::of(9, 10), SignerFunds::Low { wei: 9 });
        assert_eq!(SignerFunds::of(10, 10), SignerFunds::Enough { wei: 10 });
        assert_eq!(SignerFunds::of(0, 0), SignerFunds::Enough { wei: 0 });
        let funds = Funds::default();
        assert!(!funds.are_low(), "a signer nothing is known of is tried");
        assert_eq!(funds.set(SignerFunds::Low { wei: 0 }), SignerFunds::Unknown);
        assert!(funds.are_low());
    }
}
