//! What the sums are checked against: what the chain says, not what farebox remembers.

use farebox_chains::EvmAddress;
use farebox_protocol::Amount;
use url::Url;

use crate::failure::Failure;
use crate::node::{Node, NodeError};

/// `balanceOf(address)` of ERC-20.
const BALANCE_OF: &str = "0x70a08231";

/// The dev chain, seen from outside.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    node: Node,
    token: EvmAddress,
}

impl Chain {
    /// The chain behind the node at `url`, for balances in `token`.
    pub(super) fn new(url: &str, token: EvmAddress) -> Result<Self, Failure> {
        let url: Url = url
            .parse()
            .map_err(|error| Failure::new("the dev chain has no address").because(error))?;
        Ok(Self { node: Node::new(vec![url]).map_err(silent)?, token })
    }

    /// What an account has of the token, in atomic units.
    pub(super) async fn token_balance(&self, owner: EvmAddress) -> Result<Amount, Failure> {
        let owner = owner.to_lower_hex();
        let data = format!("{BALANCE_OF}{:0>64}", owner.trim_start_matches("0x"));
        self.node.call(self.token, &data).await.map(Amount::from_units).map_err(silent)
    }

    /// What an account has for gas, in wei.
    pub(super) async fn wei(&self, owner: EvmAddress) -> Result<u128, Failure> {
        self.node.wei(owner).await.map_err(silent)
    }

    /// What a mined transaction cost its sender, in wei.
    pub(super) async fn fee(&self, transaction: &str) -> Result<u128, Failure> {
        let (gas, price) = self.node.gas(transaction).await.map_err(silent)?;
        gas.checked_mul(price).ok_or_else(|| Failure::new("a fee is larger than can be written"))
    }
}

fn silent(error: NodeError) -> Failure {
    Failure::new("the dev chain did not answer").because(error)
}
