//! As much of a configuration as the commands on a ledger need: where it is, and which tokens its
//! amounts are of. No secret is read, and nothing else has to be right.

use std::path::{Path, PathBuf};

use farebox_protocol::{Asset, Network};
use toml::de::DeTable;

use super::problem::Problems;
use super::section::Section;
use super::{Need, server, table};
use crate::config::problem::Problem;

/// Where a ledger is, and tokens that no table knows.
#[derive(Debug)]
pub(crate) struct LedgerPlan {
    /// The SQLite file.
    pub(crate) file: PathBuf,
    /// Tokens with their decimals, as far as the file spells them out.
    pub(crate) tokens: Vec<(Asset, u8)>,
}

/// Reads `[ledger]` and the tokens of `[network.…]`.
pub(super) fn read(text: &str, directory: &Path, problems: &mut Problems) -> Option<LedgerPlan> {
    let (parsed, errors) = DeTable::parse_recoverable(text);
    for error in errors.into_iter().filter(|it| it.message() != "duplicate key") {
        let span = error.span().unwrap_or(0..0);
        problems.push(Problem::error(span, "this is not TOML").label(error.message()));
    }
    let mut root = Section::new("the file", 0..0, parsed.get_ref());
    let ledger = table(&mut root, "ledger", Need::Required, problems)?;
    let file = server::ledger(ledger, directory, problems)?;
    let networks = root.get("network").and_then(|it| it.as_section("[network]"));
    let tokens = networks.iter().flat_map(Section::entries).filter_map(|it| {
        let network: Network = it.key().parse().ok()?;
        let mut asset = it.as_section("network")?.get("asset")?.as_section("asset")?;
        let address = asset.get("address")?.as_text()?;
        let decimals = asset.get("decimals")?.count("digits").ok()?;
        Some((Asset::new(network, address).ok()?, u8::try_from(decimals).ok()?))
    });
    Some(LedgerPlan { file, tokens: tokens.collect() })
}
