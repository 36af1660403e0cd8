//! A token on a network.

use std::fmt;
use std::sync::Arc;

use crate::network::Network;

/// A token on a network: the pair that an [`crate::Amount`] is an amount of.
///
/// EVM addresses are kept lower case, so that two spellings of one token are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asset {
    network: Network,
    address: Arc<str>,
}

/// An address that its network does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAsset {
    /// On `eip155` networks an address is `0x` and 40 hexadecimal digits.
    #[error("expected a token address of `0x` and 40 hexadecimal digits")]
    Evm,
    /// Elsewhere it is 1 to 128 visible ASCII characters.
    #[error("expected a token address of 1 to 128 visible ASCII characters")]
    Other,
}

impl Asset {
    /// The token at `address` on `network`.
    pub fn new(network: Network, address: &str) -> Result<Self, BadAsset> {
        if network.namespace() == "eip155" {
            let digits = address.strip_prefix("0x").ok_or(BadAsset::Evm)?;
            if digits.len() != 40 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(BadAsset::Evm);
            }
            return Ok(Self { network, address: address.to_ascii_lowercase().into() });
        }
        let visible = (1..=128).contains(&address.len())
            && address.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if visible { Ok(Self { network, address: address.into() }) } else { Err(BadAsset::Other) }
    }

    /// Where it lives.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its address there; lower case on EVM networks.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_token_are_equal() {
        let network = Network::eip155(84532);
        let checksummed = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
        let asset = Asset::new(network.clone(), checksummed).unwrap();
        let lower = Asset::new(network.clone(), &checksummed.to_lowercase()).unwrap();
        assert_eq!(asset, lower);
        assert_eq!(asset.to_string(), "eip155:84532/0x036cbd53842c5426634e7929541ec2318f3dcf7e");
        for bad in ["", "0x", "036CbD53842c5426634e7929541eC2318f3dCF7e", "0x036CbD53842c54266é"] {
            assert_eq!(Asset::new(network.clone(), bad), Err(BadAsset::Evm), "{bad}");
        }
    }
}
