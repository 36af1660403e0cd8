//! The EVM chains that a test runs on: ours, and a foreign one that keeps ours honest.

use std::time::Duration;

use alloy_primitives::Address;
use farebox_devnet::{DEV_ACCOUNTS, DevAccount, Devnet, DevnetConfig, DevnetError, Mining};
use farebox_protocol::Amount;

use crate::anvil::{Anvil, AnvilError, Blocks};
use crate::rpc::{JsonRpc, RpcError};

/// Which chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvmKind {
    /// `farebox-devnet`, in this process.
    Devnet,
    /// Foundry's anvil, as a program.
    Anvil,
}

impl EvmKind {
    /// Each of them: what is said of chains is to hold on both.
    pub const ALL: [Self; 2] = [Self::Devnet, Self::Anvil];
}

/// A running chain with the token where stock clients look for USDC. The accounts that EVM
/// developers know ([`settler`], [`payer`]) have ether; token units are given by the test.
#[derive(Debug)]
pub struct EvmChain {
    node: Node,
    rpc: JsonRpc,
}

#[derive(Debug)]
enum Node {
    Devnet(Devnet),
    Anvil(Anvil),
}

/// Why there is no chain to test on.
#[derive(Debug, thiserror::Error)]
pub enum EvmError {
    /// The dev chain did not start.
    #[error(transparent)]
    Devnet(#[from] DevnetError),
    /// anvil did not start.
    #[error(transparent)]
    Anvil(#[from] AnvilError),
    /// The chain did not answer.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// The account that pays gas in tests.
pub fn settler() -> &'static DevAccount {
    &DEV_ACCOUNTS[0]
}

/// The account that buys in tests.
pub fn payer() -> &'static DevAccount {
    &DEV_ACCOUNTS[1]
}

impl EvmChain {
    /// Starts a chain on a free port.
    pub async fn start(kind: EvmKind, blocks: Blocks) -> Result<Self, EvmError> {
        match kind {
            EvmKind::Devnet => {
                let mining = match blocks {
                    Blocks::Instant => Mining::Instant,
                    Blocks::EverySeconds(seconds) => Mining::Every(Duration::from_secs(seconds)),
                };
                let devnet = Devnet::start(DevnetConfig { mining, ..Default::default() }).await?;
                for account in &DEV_ACCOUNTS {
                    devnet.set_token_balance(account.address, 0);
                }
                Ok(Self { rpc: JsonRpc::new(devnet.url())?, node: Node::Devnet(devnet) })
            }
            EvmKind::Anvil => {
                let anvil = Anvil::start(blocks).await?;
                Ok(Self { rpc: anvil.rpc().clone(), node: Node::Anvil(anvil) })
            }
        }
    }

    /// Where its JSON-RPC answers, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        self.rpc.url()
    }

    /// How to ask it anything.
    pub fn rpc(&self) -> &JsonRpc {
        &self.rpc
    }

    /// Gives an account token units on top of what it has, without a transaction.
    pub async fn give_tokens(&self, account: Address, amount: Amount) -> Result<(), RpcError> {
        match &self.node {
            Node::Anvil(anvil) => anvil.give_tokens(account, amount).await,
            Node::Devnet(devnet) => {
                let held = self.tokens_of(account).await?;
                let units = held.units().saturating_add(amount.units());
                devnet.set_token_balance(account, units);
                Ok(())
            }
        }
    }

    /// How many token units an account holds, asked of the token itself.
    pub async fn tokens_of(&self, account: Address) -> Result<Amount, RpcError> {
        self.rpc.tokens_of(account).await
    }
}
