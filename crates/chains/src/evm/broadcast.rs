//! Getting one transaction on its way: a number, a signature, the nodes.

use std::sync::Arc;

use alloy_primitives::B256;
use tokio::sync::oneshot;

use super::chain::Chain;
use super::fees::{Fees, NoFees};
use super::signers::Signer;
use super::tracker::Fate;
use super::transaction::Draft;
use crate::rpc::{RpcError, Sent};
use crate::transaction_log::LogError;

/// How often another number is tried where somebody else uses the same account.
const NONCE_TRIES: usize = 5;

/// A transaction that is on its way, or may be.
#[derive(Debug)]
pub(crate) struct Departed {
    pub(crate) transaction: B256,
    pub(crate) fate: oneshot::Receiver<Fate>,
}

/// Certainly nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotSent {
    #[error("no signing key is configured, so nothing can be settled")]
    NoSigner,
    #[error(
        "no signer has the gas money for another payment: send some to {low}; each needs at least \
         {reserve_wei} wei, and payments are taken again once it has them"
    )]
    NoFunds { low: String, reserve_wei: u128 },
    #[error("the number of the next transaction could not be learnt: {0}")]
    Nonce(RpcError),
    #[error("the token does not answer as one: {0}")]
    OddToken(String),
    #[error("there is no contract {0}")]
    NoContract(String),
    #[error("the authorisation is not valid yet, or about to expire: {0}")]
    Untimely(String),
    #[error("the payer's approval of Permit2 could not be carried out: {0}")]
    Approval(String),
    #[error("the payer's wallet could not be asked: {0}")]
    Wallet(RpcError),
    #[error("the payer's wallet could not be deployed: {0}")]
    Deployment(&'static str),
    #[error("it was to be settled with others, and that was given up")]
    GivenUp,
    #[error(transparent)]
    Fees(#[from] NoFees),
    #[error("what was sent earlier is not known: {0}")]
    Resume(String),
    #[error("it could not be kept before it was to be sent: {0}")]
    Log(Arc<LogError>),
    #[error("the transaction of signer {signer} was not taken: {error}")]
    Refused { signer: super::address::EvmAddress, error: RpcError },
    #[error(
        "the number of signer {0}'s next transaction is always taken; is its key in use elsewhere?"
    )]
    NonceTaken(super::address::EvmAddress),
}

impl Chain {
    /// Signs a draft with the signer's next number, keeps it, and hands it to the nodes. `announce`
    /// learns the hash before the bytes leave, and `None` if they certainly did not.
    pub(crate) async fn depart(
        &self,
        signer: &Arc<Signer>,
        draft: Draft,
        fees: Fees,
        announce: &(dyn Fn(Option<B256>) + Send + Sync),
    ) -> Result<Departed, NotSent> {
        for _ in 0..NONCE_TRIES {
            let nonce = signer.nonces.take(self.rpc()).await.map_err(NotSent::Nonce)?;
            let signed = draft.clone().sign(signer, nonce, fees);
            let (transaction, raw) = (signed.hash, signed.raw.clone());
            if let Err(error) = self.tracker.keep(&signed).await {
                signer.nonces.give_back(nonce);
                return Err(NotSent::Log(Arc::new(error)));
            }
            announce(Some(transaction));
            let fate = self.tracker.watch(signed);
            let sent = self.rpc().send_raw(&raw).await;
            if let Sent::Unknown(error) = &sent {
                tracing::warn!(%transaction, %error, "it may have been sent; watching for it");
            }
            if matches!(sent, Sent::Accepted | Sent::Unknown(_)) {
                self.tracker.launched(&transaction);
                return Ok(Departed { transaction, fate });
            }
            self.tracker.forget(&transaction).await;
            announce(None);
            match sent {
                Sent::NonceTaken(error) => {
                    tracing::info!(nonce, %error, "another transaction has this number");
                    signer.nonces.taken(nonce);
                }
                Sent::NonceTooHigh(error) => {
                    tracing::info!(nonce, %error, "the node misses earlier numbers");
                    signer.nonces.give_back(nonce);
                    signer.nonces.doubt();
                }
                Sent::Refused(error) => {
                    signer.nonces.give_back(nonce);
                    // It may be out of gas money.
                    self.signers.ring();
                    return Err(NotSent::Refused { signer: signer.key.address(), error });
                }
                Sent::Accepted | Sent::Unknown(_) => {}
            }
        }
        Err(NotSent::NonceTaken(signer.key.address()))
    }
}
