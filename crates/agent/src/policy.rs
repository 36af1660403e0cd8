//! What the agent is willing to pay with, how much, and how stubbornly it asks for the answer.

use std::num::NonZeroU32;
use std::time::Duration;

use farebox_chains::{EvmToken, NETWORKS, PayerNode, TokenConfig};
use farebox_protocol::Network;

use crate::budget::Limits;

/// Whether a payment may travel unencrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only to this machine: over the network anyone could swap `payTo` (attack A22).
    LoopbackOnly,
    /// To wherever; for closed networks and tests.
    Allowed,
}

/// What a seller's word counts for that it did not charge a payment it was sent, or by `upto` only
/// a part of what was signed.
///
/// Only the chain knows. A seller that answers `success: false`, or whose receipt says *released*, may
/// have settled at once all the same, and one that says it charged a little may settle the whole
/// ceiling until the signature expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disclaimers {
    /// Nothing: what was signed and sent stays counted until one of the policy's own
    /// [nodes](Policy::nodes) shows that it can be charged no more: a transaction that used the
    /// signature for less, or a block after its end in which it is unused. Without a node that is for
    /// as long as the agent runs. No seller can draw more out of the budget than it has, whatever it
    /// says. Without a node an honest seller whose upstream fails uses up budget as well, and `upto`
    /// costs its ceilings.
    #[default]
    Distrust,
    /// What is not charged is free again once the signature has expired, or at once where the seller
    /// names the transaction that used it. For sellers that are known: one that lies is paid, over
    /// time, without regard to the total.
    Trust,
}

/// Whether Permit2 may spend the wallet's tokens, where no node can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permit2Approval {
    /// Nobody knows. What is paid over Permit2 comes last, and may be refused for want of an allowance.
    #[default]
    Unknown,
    /// It may, all that will be asked for: the wallet's owner has approved it.
    Given,
}

/// How the same payment is sent again while its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often it is sent at most, the first time included.
    pub attempts_max: NonZeroU32,
    /// The first pause; doubles from there.
    pub pause_first: Duration,
    /// The longest pause, also where a seller asks for a longer one by `Retry-After`.
    pub pause_max: Duration,
}

impl Retry {
    /// Five attempts, half a second to ten seconds apart.
    pub const STANDARD: Self = Self {
        attempts_max: NonZeroU32::MIN.saturating_add(4),
        pause_first: Duration::from_millis(500),
        pause_max: Duration::from_secs(10),
    };
}

/// What an agent pays for and with.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Dollar tokens that may be paid with. Their EIP-712 names are these, whatever an offer says.
    pub tokens: Vec<EvmToken>,
    /// Caps in dollars.
    pub limits: Limits,
    /// The longest that an authorisation may be valid.
    pub validity_max: Duration,
    /// Whether it may travel unencrypted.
    pub plain_http: PlainHttp,
    /// Sending again.
    pub retry: Retry,
    /// Whether sellers are believed that they charged nothing, or less than was signed.
    pub disclaimers: Disclaimers,
    /// The wallet's own nodes, at most one of each network. They are asked what Permit2 may spend,
    /// so that a permit can be signed where it may not, and what became of payments.
    pub nodes: Vec<PayerNode>,
    /// What is known of the allowance on other networks.
    pub permit2_approval: Permit2Approval,
}

impl Policy {
    /// The shortest validity that can still be settled: facilitators want six seconds to spare.
    pub const VALIDITY_MIN: Duration = Duration::from_secs(10);
    /// The longest validity unless the policy says otherwise.
    pub const VALIDITY_MAX: Duration = Duration::from_mins(10);

    /// USDC on every network of the built-in table, within `limits`, whatever sellers say, and
    /// without a node.
    pub fn new(limits: Limits) -> Self {
        Self {
            tokens: known_tokens(),
            limits,
            validity_max: Self::VALIDITY_MAX,
            plain_http: PlainHttp::LoopbackOnly,
            retry: Retry::STANDARD,
            disclaimers: Disclaimers::Distrust,
            nodes: Vec::new(),
            permit2_approval: Permit2Approval::Unknown,
        }
    }

    /// The wallet's node on that network.
    pub(crate) fn node(&self, network: &Network) -> Option<&PayerNode> {
        self.nodes.iter().find(|it| it.network() == network)
    }
}

/// Every token of the built-in table.
pub fn known_tokens() -> Vec<EvmToken> {
    let rows = NETWORKS.iter().flat_map(|row| row.tokens.iter().map(move |token| (row, token)));
    rows.filter_map(|(row, token)| {
        let network: Network = row.id.parse().ok()?;
        EvmToken::new(network, TokenConfig::from(token))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_can_be_paid_with() {
        let rows: usize = NETWORKS.iter().map(|it| it.tokens.len()).sum();
        let tokens = known_tokens();
        assert_eq!(tokens.len(), rows);
        assert!(tokens.iter().all(|it| *it.address().as_bytes() != [0; 20]));
    }
}
