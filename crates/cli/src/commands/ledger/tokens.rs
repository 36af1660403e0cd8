//! How many digits of an amount stand behind the point.

use farebox_chains::find_network;
use farebox_protocol::{Amount, Asset};

/// The tokens that are known: those of the table of networks, and the configuration's own.
#[derive(Debug, Default)]
pub(in crate::commands) struct Tokens(Vec<(Asset, u8)>);

impl Tokens {
    /// The configuration's own beside those of the table.
    pub(super) fn new(own: Vec<(Asset, u8)>) -> Self {
        Self(own)
    }

    /// Of an asset; `None` if it is not known.
    pub(super) fn decimals(&self, asset: &Asset) -> Option<u8> {
        let own = self.0.iter().find(|it| it.0 == *asset).map(|it| it.1);
        own.or_else(|| {
            let known = find_network(asset.network().as_str())?.tokens.iter();
            let mut known = known.filter(|it| it.address.eq_ignore_ascii_case(asset.address()));
            known.next().map(|it| it.decimals)
        })
    }

    /// An amount for a person: in tokens, or in units where the token is not known.
    pub(super) fn text(&self, amount: Amount, asset: &Asset) -> String {
        match self.decimals(asset) {
            Some(decimals) => amount.in_tokens(decimals),
            None => format!("{amount} units"),
        }
    }

    /// A token for a person.
    pub(super) fn name(asset: &Asset) -> String {
        let row = find_network(asset.network().as_str());
        let mut tokens = row.into_iter().flat_map(|it| it.tokens);
        match tokens.find(|it| it.address.eq_ignore_ascii_case(asset.address())) {
            Some(token) => format!("{} {}", token.symbol, asset.network()),
            None => format!("{} {}", asset.address(), asset.network()),
        }
    }
}
