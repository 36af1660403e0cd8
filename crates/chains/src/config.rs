//! What a facilitator runs on: plain, validated values that whoever reads a file fills in.

use std::time::Duration;

use farebox_protocol::{Amount, Network};
use url::Url;

use crate::evm::{EvmAddress, Exact};
use crate::networks::{NetworkKind, NetworkRow, TokenRow};
use crate::scheme::Scheme;

/// One network that payments are verified and settled on.
///
/// [`NetworkConfig::from_row`] fills in what the table knows; networks outside of the table are
/// written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Which; an `eip155` one.
    pub network: Network,
    /// JSON-RPC endpoints over http or https, best first; the next one is asked where one fails.
    pub rpc: Vec<Url>,
    /// The tokens that are taken; payments in others are refused.
    pub tokens: Vec<TokenConfig>,
    /// The schemes that must work here: what one of them lacks is a problem at the start. Others are
    /// served all the same where their contracts are.
    pub offers: Vec<&'static dyn Scheme>,
    /// What is paid for payers besides.
    pub sponsoring: GasSponsoring,
    /// Factories that payers' wallets may be deployed by, at our cost, with a payment whose signature
    /// says how (ERC-6492). Their code is called with what the payer says, so each must be one that
    /// makes wallets and does nothing else.
    pub smart_wallet_factories: Vec<EvmAddress>,
    /// How many settlements go together in one transaction.
    pub batching: Batching,
    /// How long each settlement waits for company. None: not at all where nothing is under way, else
    /// for a part of a block. Some: always so long, which saves gas and takes time.
    pub batch_wait: Option<Duration>,
    /// The usual time from block to block; decides how often receipts are looked for.
    pub block_time: Duration,
    /// How many blocks must hold the transfer until it counts as settled; 1 is the block itself.
    pub confirmations: u32,
    /// How many blocks must hold it until it is final: until then it is watched, and a chain that takes
    /// it back reopens the payment.
    pub finality: Finality,
    /// How long a settlement is waited for until its outcome is called unknown; it is looked after
    /// all the same, and asking again waits again.
    pub settle_wait: Duration,
    /// The least tip that is offered, in wei.
    pub tip_floor_wei: u128,
    /// The most that is paid for one unit of gas, in wei; above it settlements are not sent.
    pub gas_price_cap_wei: u128,
    /// What a signer must have to take new payments, in wei: those under way may still need gas.
    pub signer_reserve_wei: u128,
}

/// How deep in the chain a payment must be to be final, by its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finality {
    /// In any order; none of it: every payment is final once it is settled.
    pub steps: Vec<FinalityStep>,
}

/// From which value on how deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinalityStep {
    /// In millionths of a token.
    pub above_millionths: u128,
    /// So many blocks, the payment's own counted.
    pub blocks: u32,
}

impl Finality {
    /// Up to this value payments are final once they are settled, if nobody says otherwise: one dollar.
    pub const USUAL_ABOVE_MILLIONTHS: u128 = 1_000_000;

    /// That depth above a dollar.
    pub fn usual(blocks: u32) -> Self {
        let above_millionths = Self::USUAL_ABOVE_MILLIONTHS;
        Self { steps: vec![FinalityStep { above_millionths, blocks }] }
    }

    /// How many blocks must hold an amount of a token with so many decimals.
    pub fn depth(&self, amount: Amount, decimals: u8) -> u32 {
        let applies = |it: &&FinalityStep| is_above(amount, decimals, it.above_millionths);
        self.steps.iter().filter(applies).map(|it| it.blocks).max().unwrap_or(1)
    }
}

/// Whether an amount is above so many millionths of its token. What is too large to compare is.
fn is_above(amount: Amount, decimals: u8, millionths: u128) -> bool {
    let scaled = |value: u128, digits: u8| {
        10_u128.checked_pow(u32::from(digits)).and_then(|it| it.checked_mul(value))
    };
    let amount = scaled(amount.units(), 6_u8.saturating_sub(decimals));
    match (amount, scaled(millionths, decimals.saturating_sub(6))) {
        (Some(amount), Some(limit)) => limit < amount,
        (None, _) => true,
        (Some(_), None) => false,
    }
}

/// What is done, at our cost, for payers who have not let Permit2 spend their token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GasSponsoring {
    /// Whether permits that come with a payment are submitted (x402, extension
    /// `eip2612GasSponsoring`). One costs some gas more.
    pub permits: PermitSponsoring,
    /// Whether payers' own signed approvals are sent for them (x402, extension
    /// `erc20ApprovalGasSponsoring`), and what they are given for that. `None`: they are not sent.
    pub approvals: Option<ApprovalGrants>,
}

/// Whether settlements that come at the same time are one transaction, each of which may fail alone. It
/// takes Multicall3. What only we may send (`upto`) and what a contract must agree to goes by itself in
/// any case, and so does what comes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// Each settlement is a transaction of its own.
    Off,
    /// So many go together at most, on a network that has Multicall3.
    WherePossible {
        /// At least 2.
        max: u16,
    },
    /// The same; that a network has no Multicall3 is a problem at the start.
    Required {
        /// At least 2.
        max: u16,
    },
}

impl Default for Batching {
    /// A hundred, where possible.
    fn default() -> Self {
        Self::WherePossible { max: 100 }
    }
}

impl Batching {
    /// How many go together at most; `None`: one.
    pub(crate) fn most(self) -> Option<usize> {
        match self {
            Self::Off => None,
            Self::WherePossible { max } | Self::Required { max } => Some(usize::from(max)),
        }
    }
}

/// Whether EIP-2612 permits are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitSponsoring {
    /// With the payment that they come with, where its allowance is missing.
    Submitted,
    /// They are not looked at.
    Ignored,
}

/// What payers are given at most so that their approvals can be mined. A payer can keep the money and not
/// approve, and come back as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApprovalGrants {
    /// In wei: one payer, while this process runs.
    pub payer_max_wei: u128,
    /// In wei: all payers of the network together, in 24 hours.
    pub day_max_wei: u128,
}

impl ApprovalGrants {
    /// How many times what one payer is given all are given a day, if nobody says otherwise.
    const PAYERS_A_DAY: u128 = 50;
    /// Nothing for anybody.
    pub(crate) const NONE: Self = Self { payer_max_wei: 0, day_max_wei: 0 };

    /// So much for one payer, and fifty times as much for all in a day.
    pub fn of_payer(payer_max_wei: u128) -> Self {
        let day_max_wei = payer_max_wei.saturating_mul(Self::PAYERS_A_DAY);
        Self { payer_max_wei, day_max_wei }
    }
}

impl Default for GasSponsoring {
    /// Permits, but no gifts.
    fn default() -> Self {
        Self { permits: PermitSponsoring::Submitted, approvals: None }
    }
}

/// A token. One that is paid with by EIP-3009 must emit `AuthorizationUsed` and then `Transfer` with
/// nothing in between, as all known ones do: payments in another would stay of unknown outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// Its contract.
    pub address: EvmAddress,
    /// Atomic units are 10⁻ⁿ of it.
    pub decimals: u8,
    /// EIP-712 domain name: `extra.name`.
    pub name: String,
    /// EIP-712 domain version: `extra.version`.
    pub version: String,
}

impl NetworkConfig {
    /// How many times the usual price of gas is still paid, if nobody says otherwise.
    const GAS_PRICE_HEADROOM: u128 = 1_000;
    /// The block time of a network that nothing is known of.
    const BLOCK_TIME: Duration = Duration::from_secs(2);
    /// After how many blocks such a network is taken not to change its mind.
    const FINALITY_DEPTH: u32 = 64;
    /// The most that is paid for gas on a network that nothing is known of: 10 000 gwei.
    pub const GAS_PRICE_CAP_WEI: u128 = 10_000_000_000_000;

    /// For how many settlements at the usual price of gas a signer must have enough, if nobody says
    /// otherwise, and what gas one takes.
    const RESERVE_SETTLEMENTS: u128 = 20;
    const SETTLEMENT_GAS: u128 = 100_000;

    /// A network of the table with all its tokens, one confirmation, and room for dear days.
    pub fn from_row(row: &NetworkRow, network: Network, rpc: Vec<Url>) -> Self {
        Self {
            network,
            rpc,
            tokens: row.tokens.iter().map(TokenConfig::from).collect(),
            offers: vec![&Exact],
            sponsoring: GasSponsoring::default(),
            smart_wallet_factories: Vec::new(),
            batching: Batching::default(),
            batch_wait: None,
            block_time: row.block_time,
            confirmations: 1,
            finality: Finality::usual(row.finality_depth),
            settle_wait: settle_wait(row.block_time),
            tip_floor_wei: row.tip_floor_wei,
            // Test money costs nothing, and local nodes that play a test network have gas prices of
            // their own.
            gas_price_cap_wei: match row.kind {
                NetworkKind::Main => row.gas_price_wei.saturating_mul(Self::GAS_PRICE_HEADROOM),
                NetworkKind::Test => Self::GAS_PRICE_CAP_WEI,
            },
            signer_reserve_wei: row
                .gas_price_wei
                .saturating_mul(Self::SETTLEMENT_GAS)
                .saturating_mul(Self::RESERVE_SETTLEMENTS),
        }
    }

    /// A network that is not in the table, with one token and cautious assumptions.
    pub fn outside_of_table(network: Network, rpc: Vec<Url>, token: TokenConfig) -> Self {
        Self {
            network,
            rpc,
            tokens: vec![token],
            offers: vec![&Exact],
            sponsoring: GasSponsoring::default(),
            smart_wallet_factories: Vec::new(),
            batching: Batching::default(),
            batch_wait: None,
            block_time: Self::BLOCK_TIME,
            confirmations: 1,
            finality: Finality::usual(Self::FINALITY_DEPTH),
            settle_wait: settle_wait(Self::BLOCK_TIME),
            tip_floor_wei: 0,
            gas_price_cap_wei: Self::GAS_PRICE_CAP_WEI,
            // There may be no price of gas at all.
            signer_reserve_wei: 0,
        }
    }
}

/// Ten blocks, within what people and their HTTP clients wait for.
fn settle_wait(block_time: Duration) -> Duration {
    block_time.saturating_mul(10).clamp(Duration::from_secs(20), Duration::from_mins(1))
}

impl From<&TokenRow> for TokenConfig {
    fn from(row: &TokenRow) -> Self {
        // Every address of the table is parsed by its test.
        let address = row.address.parse().unwrap_or(EvmAddress::from_bytes([0; 20]));
        Self {
            address,
            decimals: row.decimals,
            name: row.name.to_owned(),
            version: row.version.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(decimals: u8, units: u128, depth: u32) {
        let steps = [(1_000_000, 10), (100_000_000, 64)];
        let step = |(above_millionths, blocks)| FinalityStep { above_millionths, blocks };
        let finality = Finality { steps: steps.map(step).to_vec() };
        assert_eq!(finality.depth(Amount::from_units(units), decimals), depth, "{units}");
    }

    #[test]
    fn what_is_worth_more_has_to_lie_deeper() {
        check(6, 0, 1);
        check(6, 1_000_000, 1);
        check(6, 1_000_001, 10);
        check(6, 100_000_000, 10);
        check(6, 100_000_001, 64);
        check(18, 1_000_000_000_000_000_000, 1);
        check(18, 1_000_000_000_000_000_001, 10);
        check(18, u128::MAX, 64);
        check(2, 100, 1);
        check(2, 101, 10);
        check(2, u128::MAX, 64);
        // More than all its units together.
        check(40, u128::MAX, 1);
        assert_eq!(Finality::default().depth(Amount::from_units(u128::MAX), 6), 1);
    }
}
