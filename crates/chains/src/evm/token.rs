//! A token and its EIP-712 domain, whose separator is computed once.

use std::fmt;
use std::sync::Arc;

use alloy_primitives::{B256, U256, keccak256};
use farebox_protocol::Network;

use super::address::EvmAddress;
use super::eip712;
use crate::config::TokenConfig;

/// `EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)`.
const DOMAIN_TYPE: &[u8] =
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

/// A token that payments are made in, ready to check signatures against. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct EvmToken {
    network: Network,
    chain_id: u64,
    config: Arc<TokenConfig>,
    domain_separator: B256,
}

impl EvmToken {
    /// The token on its network; `None` where the network is not a canonical `eip155` one.
    pub fn new(network: Network, config: TokenConfig) -> Option<Self> {
        let chain_id = network.evm_chain_id()?;
        let domain_separator = domain_separator(chain_id, &config);
        Some(Self { network, chain_id, config: Arc::new(config), domain_separator })
    }

    /// Where it lives.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// EIP-155 id of the network.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Its contract.
    pub fn address(&self) -> EvmAddress {
        self.config.address
    }

    /// Its decimals and EIP-712 names.
    pub fn config(&self) -> &TokenConfig {
        &self.config
    }

    /// The 32 bytes that `DOMAIN_SEPARATOR()` must return.
    pub fn domain_separator(&self) -> [u8; 32] {
        self.domain_separator.0
    }
}

impl fmt::Debug for EvmToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EvmToken({}/{})", self.network, self.config.address)
    }
}

/// EIP-712 `hashStruct(eip712Domain)`.
fn domain_separator(chain_id: u64, token: &TokenConfig) -> B256 {
    eip712::hash_words(&[
        keccak256(DOMAIN_TYPE),
        keccak256(token.name.as_bytes()),
        keccak256(token.version.as_bytes()),
        eip712::number(U256::from(chain_id)),
        eip712::account(token.address.alloy()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::find_token;

    #[test]
    fn domain_of_usdc_on_ethereum() {
        // The value that the deployed contract returns from DOMAIN_SEPARATOR().
        let row = find_token("eip155:1", "usdc").unwrap();
        let token = EvmToken::new(Network::eip155(1), TokenConfig::from(row)).unwrap();
        let expected = "06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335";
        assert_eq!(hex::encode(token.domain_separator()), expected);
    }

    #[test]
    fn a28_every_part_of_the_domain_counts() {
        let row = find_token("eip155:84532", "usdc").unwrap();
        let good = TokenConfig::from(row);
        let of = |chain_id, config: &TokenConfig| {
            EvmToken::new(Network::eip155(chain_id), config.clone()).unwrap().domain_separator()
        };
        let base = of(84532, &good);
        assert_ne!(base, of(8453, &good));
        assert_ne!(base, of(84532, &TokenConfig { name: "USD Coin".into(), ..good.clone() }));
        assert_ne!(base, of(84532, &TokenConfig { version: "1".into(), ..good.clone() }));
        let address = EvmAddress::from_bytes([7; 20]);
        assert_ne!(base, of(84532, &TokenConfig { address, ..good }));
    }
}
