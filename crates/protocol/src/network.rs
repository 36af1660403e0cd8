//! A chain, by its CAIP-2 id.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A CAIP-2 network id, known to be well formed: `eip155:8453`, `solana:5eykt…`.
///
/// Cheap to clone. Source: CAIP-2 (namespace `[-a-z0-9]{3,8}`, reference `[-_a-zA-Z0-9]{1,32}`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(Arc<str>);

/// A text that is not a CAIP-2 id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a CAIP-2 network id such as `eip155:8453`")]
pub struct BadNetwork;

impl Network {
    /// The network of an EVM chain id.
    pub fn eip155(chain_id: u64) -> Self {
        Self(format!("eip155:{chain_id}").into())
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon: `eip155`, `solana`.
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the colon.
    pub fn reference(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, reference)| reference)
    }

    /// The EVM chain id, if this is an `eip155` network with a canonical decimal reference.
    pub fn evm_chain_id(&self) -> Option<u64> {
        let reference = self.reference();
        let canonical =
            !reference.starts_with('0') && reference.bytes().all(|b| b.is_ascii_digit());
        if self.namespace() == "eip155" && canonical { reference.parse().ok() } else { None }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (namespace, reference) = text.split_once(':').ok_or(BadNetwork)?;
        let namespace_ok = (3..=8).contains(&namespace.len())
            && namespace.bytes().all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit());
        let reference_ok = (1..=32).contains(&reference.len())
            && reference.bytes().all(|b| b == b'-' || b == b'_' || b.is_ascii_alphanumeric());
        if namespace_ok && reference_ok { Ok(Self(text.into())) } else { Err(BadNetwork) }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, good: bool, chain_id: Option<u64>) {
        let network = text.parse::<Network>();
        assert_eq!(network.is_ok(), good, "{text}");
        assert_eq!(network.ok().and_then(|it| it.evm_chain_id()), chain_id, "{text}");
    }

    #[test]
    fn networks() {
        check("eip155:8453", true, Some(8453));
        check("eip155:08453", true, None);
        check("eip155:+8453", false, None);
        check("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", true, None);
        check("base", false, None);
        check("eip155:", false, None);
        check("EIP155:1", false, None);
        check("eip155:1:2", false, None);
        check("eip155:1 ", false, None);
    }
}
